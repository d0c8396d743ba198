//! What starts the containers of the stories: the own runtime, and every OCI runtime there is on this machine.

use std::path::PathBuf;
use std::process::Command;

use lauf_sandbox::Runtime;

/// Which runtime, as far as a story has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Own,
    Runc,
    Crun,
    Runsc,
}

pub struct Backend {
    pub label: String,
    pub kind: Kind,
    pub runtime: Runtime,
}

/// Paths of further runtimes, with `:` between them: other versions than those on `PATH`.
const MORE: &str = "LAUF_TEST_RUNTIMES";

/// All there are, and how many are missing, which it says.
pub fn all() -> (Vec<Backend>, usize) {
    let mut all = vec![Backend {
        label: "own".to_owned(),
        kind: Kind::Own,
        runtime: Runtime::Own,
    }];
    let mut missing = 0;
    for (name, kind) in [
        ("runc", Kind::Runc),
        ("crun", Kind::Crun),
        ("runsc", Kind::Runsc),
    ] {
        let given: Vec<PathBuf> = std::env::var_os(MORE)
            .map(|paths| std::env::split_paths(&paths).collect())
            .unwrap_or_default();
        let given = given.into_iter().filter(|path| path.ends_with(name));
        let found: Vec<(PathBuf, String)> = std::iter::once(PathBuf::from(name))
            .chain(given)
            .filter_map(|path| Some((version(&path)?, path)).map(|(version, path)| (path, version)))
            .collect();
        let mut reasons = Vec::new();
        let before = all.len();
        for (number, (path, version)) in found.into_iter().enumerate() {
            if let Some(reason) = too_old(kind, &version) {
                reasons.push(format!("{} {version} {reason}", path.display()));
                continue;
            }
            let label = match number {
                0 => name.to_owned(),
                n => format!("{name}-{n}"),
            };
            println!("{label}: {} {version}", path.display());
            let runtime = Runtime::Oci {
                path,
                args: Vec::new(),
            };
            all.push(Backend {
                label,
                kind,
                runtime,
            });
        }
        if all.len() == before {
            reasons.push(format!("apt install {name}"));
            let reasons = reasons.join("; ");
            println!("\n******** SKIP: {name} was not tested ({reasons}) ********\n");
            missing += 1;
        }
    }
    (all, missing)
}

/// The last word of the first line.
fn version(program: &PathBuf) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().next()?.split_whitespace().last()?;
    Some(last.to_owned())
}

/// gVisor of Debian 12 loses its rights when it enters a user namespace.
fn too_old(kind: Kind, version: &str) -> Option<&'static str> {
    let day = version
        .strip_prefix("0.0~")
        .or(version.strip_prefix("release-"))?;
    (kind == Kind::Runsc && day < "2023")
        .then_some("is older than 2023, and cannot start a container in a user namespace")
}
