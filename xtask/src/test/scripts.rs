//! Black-box groups: `tests/NAME/run.sh`, each a story told with somebody else's client.
//!
//! A script finds `LAUF_BIN`, `SAMPLES` (where the images' root directories are) and `REPO` in its environment, runs as root, prints
//! `SKIP what: why` for what it cannot do here and `FAIL what` for what went wrong, and ends with `N passed, N failed, N skipped`.
//! Exit status 77 says that nothing could be run.

use std::fs;

use anyhow::Result;

use super::Args;
use super::outcome::Outcome;
use super::process::Program;
use super::rust::lauf_binary;
use crate::{gvisor, tools, ui};

/// Whether there is such a group.
pub(crate) fn exists(group: &str) -> bool {
    tools::root()
        .join("tests")
        .join(group)
        .join("run.sh")
        .exists()
}

/// Runs the groups in the order of their names; the one that boots another kernel last, as it takes longest.
pub(crate) fn tests(args: &Args, outcomes: &mut Vec<Outcome>) -> Result<()> {
    let mut groups: Vec<String> = fs::read_dir(tools::root().join("tests"))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| exists(name) && args.wants(name))
        .collect();
    groups.sort_by_key(|name| (name == "qemu", name.clone()));
    if !groups.is_empty() {
        ui::heading("black-box tests");
    }
    for group in groups {
        let folder = tools::root().join("tests").join(&group);
        let outcome = Program::new(&group, "bash", &["run.sh"], &folder)
            .env("LAUF_BIN", lauf_binary())
            .env("REPO", tools::root())
            .env("SAMPLES", tools::root().join("target/lauf-samples"))
            .env("CARGO_TARGET_DIR", tools::target_dir())
            .env(gvisor::VARIABLE, gvisor::unpacked().unwrap_or_default())
            .root(true)
            .outcome()?;
        outcomes.push(outcome);
    }
    Ok(())
}
