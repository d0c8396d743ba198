//! Checks whether this host can run Lauf, and says how to mend what is missing.
//!
//! Nothing is concluded from version numbers: each probe does the thing, in namespaces of a thread of its own (which vanish with it) or
//! in a cgroup that it removes. The findings come in the order in which a person would mend them. A remedy is something to type.

mod host;
mod kernel;
mod trial;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use trial::{remedy, spec as trial_spec, trial};

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Lauf runs, with less.
    Warning,
    /// Lauf can't run, or can't run what was asked for.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// The verdict.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to type to mend it; empty when there is nothing to mend.
    pub remedy: String,
}

/// What Lauf is about to use.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// Where Lauf keeps images, state and logs. It need not exist yet.
    pub data_dir: PathBuf,
    /// Where Lauf is going to listen.
    pub listen: SocketAddr,
    /// The domain of services, such as `run.localhost`.
    pub domain: String,
    /// Whether instances are to reach the outside world, which needs nft.
    pub egress: bool,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Ok,
            found: found.into(),
            remedy: String::new(),
        }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Warning,
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    fn missing(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            state: State::Missing,
            found: found.into(),
            remedy: remedy.into(),
        }
    }
}

/// Looks at everything. Takes some tens of milliseconds and leaves nothing behind.
#[must_use]
pub fn check(config: &DoctorConfig) -> Vec<Finding> {
    let mut findings = vec![kernel::version(), kernel::privileges()];
    findings.extend(kernel::namespaces());
    findings.extend(kernel::mounts(&config.data_dir));
    findings.push(kernel::seccomp());
    findings.push(kernel::pidfd());
    findings.extend(kernel::cgroups());
    findings.extend(kernel::network(config.egress));
    findings.extend(host::limits());
    findings.extend(host::disk(&config.data_dir));
    findings.push(host::names(&config.domain));
    findings.push(host::port(config.listen));
    findings
}

/// The machine's memory in bytes.
#[must_use]
pub fn memory_total() -> Option<u64> {
    crate::keeper::meminfo("MemTotal:")
}

/// Whether Lauf can start: nothing is missing.
#[must_use]
pub fn can_run(findings: &[Finding]) -> bool {
    findings.iter().all(|f| f.state != State::Missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gap_comes_with_a_remedy_and_nothing_is_left_behind() {
        let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
        let before = mounts();
        let dir = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let findings = check(&DoctorConfig {
            data_dir: dir.path().join("not/yet"),
            listen: taken.local_addr().unwrap(),
            domain: "run.localhost".to_owned(),
            egress: true,
        });
        for finding in &findings {
            assert!(!finding.found.is_empty(), "{finding:?}");
            assert_eq!(
                finding.remedy.is_empty(),
                finding.state == State::Ok,
                "{finding:?}"
            );
        }
        let port = findings.iter().find(|f| f.name == "port").unwrap();
        assert_eq!(port.state, State::Missing, "{port:?}");
        assert!(!can_run(&findings));
        assert_eq!(before, mounts());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
