//! Which OCI runtime a program is, and what each wants that the others do not.
//!
//! They all take the same words (`create`, `start`, `delete`) and the same bundle, and differ in what they make of a host.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::protocol::ExitStatus;

/// The runtimes whose ways are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// runc, and whatever is called by another name and behaves like it: youki, kata.
    Runc,
    /// crun, which refuses hosts that have a controller on cgroup v2 and the others on v1.
    Crun,
    /// gVisor: a kernel of its own, in a process of the host.
    Runsc,
}

impl Kind {
    /// Asks the program.
    ///
    /// # Errors
    /// A line for the user, when it is no program or does not know `--version`.
    pub(crate) fn of(program: &Path) -> Result<Self, String> {
        let asked = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        let name = program.display();
        let answer =
            asked.map_err(|e: io::Error| format!("the runtime {name} cannot be run: {e}"))?;
        if !answer.status.success() {
            return Err(format!(
                "{name} does not answer to --version ({}); is it an OCI runtime?",
                answer.status
            ));
        }
        Ok(Self::named(&String::from_utf8_lossy(&answer.stdout)))
    }

    fn named(version: &str) -> Self {
        match version.split_whitespace().next() {
            Some("crun") => Self::Crun,
            Some("runsc") => Self::Runsc,
            _ => Self::Runc,
        }
    }

    /// The arguments before the subcommand: what this kind needs here, then what the user wants, who may say otherwise.
    pub(crate) fn arguments(self, typed: &[String]) -> Vec<String> {
        let needed: &[&str] = match self {
            Self::Runc | Self::Crun => &[],
            // The instance's network namespace is the one the platform made and comes in through: gVisor uses its sockets instead of
            // a network stack of its own. Files that are written stay in memory, where they count against the limit; the overlay of
            // ours is below.
            Self::Runsc => &["--network=host", "--overlay2=root:memory"],
        };
        let named = |needed: &&&str| {
            let name = needed.trim_start_matches('-');
            let name = name.split('=').next().unwrap_or(name);
            let same = |word: &String| {
                let word = word.trim_start_matches('-');
                word == name || word.starts_with(&format!("{name}="))
            };
            !typed.iter().any(same)
        };
        let needed = needed.iter().filter(named).map(|word| (*word).to_owned());
        needed.chain(typed.iter().cloned()).collect()
    }

    /// Whether it has to be in the instance's cgroup v2 beforehand, since it knows only one kind of cgroup at a time. Freezing goes by
    /// way of v2 where there is one.
    pub(crate) fn knows_one_hierarchy(self) -> bool {
        self == Self::Runsc
    }

    /// Whether its `/proc`, `/sys` and cgroups are made up by itself, so that there is nothing of the host's to be shown or hidden.
    pub(crate) fn has_a_kernel(self) -> bool {
        self == Self::Runsc
    }

    /// Whether it works only where no controller is on a cgroup v2 beside others on v1.
    pub(crate) fn refuses_hybrid(self) -> bool {
        self == Self::Crun
    }

    /// What the end of the runtime's process says about the end of the command. gVisor tells of a signal as shells do, by 128 and its
    /// number.
    pub(crate) fn status(self, status: ExitStatus) -> ExitStatus {
        match status {
            ExitStatus::Code(code)
                if self == Self::Runsc && (129..128 + libc::SIGRTMIN()).contains(&code) =>
            {
                ExitStatus::Signal {
                    signal: code - 128,
                    core: false,
                }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_known_by_what_they_say() {
        for (text, kind) in [
            ("runc version 1.1.5+ds1\ncommit: x\n", Kind::Runc),
            ("crun version 1.8.1\n", Kind::Crun),
            (
                "runsc version 0.0~20240729.0\nspec: 1.0.2-dev\n",
                Kind::Runsc,
            ),
            ("kata-runtime  : 3.2.0\n", Kind::Runc),
            ("", Kind::Runc),
        ] {
            assert_eq!(Kind::named(text), kind, "{text}");
        }
        let error = Kind::of(Path::new("/no/such/runtime")).unwrap_err();
        assert!(error.contains("/no/such/runtime"), "{error}");
        let error = Kind::of(Path::new("/bin/false")).unwrap_err();
        assert!(error.contains("--version"), "{error}");
    }

    #[test]
    fn the_user_has_the_last_word() {
        let words = |typed: &[&str]| {
            let typed: Vec<String> = typed.iter().map(|w| (*w).to_owned()).collect();
            Kind::Runsc.arguments(&typed).join(" ")
        };
        assert_eq!(words(&[]), "--network=host --overlay2=root:memory");
        assert_eq!(
            words(&["--platform=ptrace"]),
            "--network=host --overlay2=root:memory --platform=ptrace"
        );
        assert_eq!(
            words(&["-network", "none"]),
            "--overlay2=root:memory -network none"
        );
        assert_eq!(Kind::Runc.arguments(&[]), [""; 0]);
    }

    #[test]
    fn gvisors_exit_codes_are_signals_again() {
        let signal = |signal| ExitStatus::Signal {
            signal,
            core: false,
        };
        for (code, wanted) in [
            (0, ExitStatus::Code(0)),
            (128, ExitStatus::Code(128)),
            (139, signal(libc::SIGSEGV)),
            (143, signal(libc::SIGTERM)),
            (255, ExitStatus::Code(255)),
        ] {
            assert_eq!(Kind::Runsc.status(ExitStatus::Code(code)), wanted);
            assert_eq!(
                Kind::Runc.status(ExitStatus::Code(code)),
                ExitStatus::Code(code)
            );
        }
        assert_eq!(Kind::Runsc.status(signal(9)), signal(9));
    }
}
