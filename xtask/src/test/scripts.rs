//! Black-box groups: `tests/NAME/run.sh`, each a story told with somebody else's client.
//!
//! A script finds `LAUF_BIN`, `SAMPLES` (where the images' root directories are) and `REPO` in its environment, runs as root, prints
//! `SKIP what: why` for what it cannot do here and `FAIL what` for what went wrong, and ends with `N passed, N failed, N skipped`.
//! Exit status 77 says that nothing could be run.

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;
use std::thread;

use anyhow::{Result, anyhow};

use super::Args;
use super::outcome::Outcome;
use super::process::Program;
use super::rust::lauf_binary;
use crate::{gvisor, nats, tools, ui};

/// Whether there is such a group.
pub(crate) fn exists(group: &str) -> bool {
    tools::root()
        .join("tests")
        .join(group)
        .join("run.sh")
        .exists()
}

/// Those that take longest, first, so that no lane is left alone with one of them.
const LONGEST: [&str; 3] = ["sdk", "events", "scaling"];
/// Groups at a time: they wait more than they work, and each has a platform of its own.
const LANES: usize = 2;
/// Boots another kernel in an emulator, which needs the processors for itself.
const ALONE: &str = "qemu";

/// Runs the groups, some at a time; the one that boots another kernel last and alone.
pub(crate) fn tests(args: &Args, outcomes: &mut Vec<Outcome>) -> Result<()> {
    let mut groups: Vec<String> = fs::read_dir(tools::root().join("tests"))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| exists(name) && args.wants(name))
        .collect();
    let place = |name: &String| {
        let place = LONGEST.iter().position(|long| long == name);
        place.unwrap_or(LONGEST.len())
    };
    groups.sort_by_key(|name| (place(name), name.clone()));
    if !groups.is_empty() {
        ui::heading("black-box tests");
    }
    let alone = groups.iter().position(|name| name == ALONE);
    let alone = alone.map(|at| groups.remove(at));
    let left = Mutex::new(VecDeque::from(groups));
    let next = || left.lock().ok()?.pop_front();
    let done: Vec<Result<Vec<Outcome>>> = thread::scope(|scope| {
        let lane = || std::iter::from_fn(next).map(|group| run(&group)).collect();
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        let ended = |lane: thread::ScopedJoinHandle<'_, _>| {
            lane.join()
                .unwrap_or_else(|_| Err(anyhow!("a lane of tests panicked")))
        };
        lanes.into_iter().map(ended).collect()
    });
    for lane in done {
        outcomes.extend(lane?);
    }
    if let Some(group) = alone {
        outcomes.push(run(&group)?);
    }
    Ok(())
}

fn run(group: &str) -> Result<Outcome> {
    let folder = tools::root().join("tests").join(group);
    Program::new(group, "bash", &["run.sh"], &folder)
        .env("LAUF_BIN", lauf_binary())
        .env("REPO", tools::root())
        .env("SAMPLES", tools::root().join("target/lauf-samples"))
        .env("CARGO_TARGET_DIR", tools::target_dir())
        .env(gvisor::VARIABLE, gvisor::unpacked().unwrap_or_default())
        .env(nats::VARIABLE, nats::unpacked().unwrap_or_default())
        .root(true)
        .outcome()
}
