//! Says beforehand what the demo will do, and asks for root once.

use anyhow::{Context, Result};
use std::process::Command;

use crate::samples::Sample;
use crate::{tools, ui};

/// What is about to happen, for somebody who has not decided yet.
pub(crate) fn say(samples: &[&Sample], keep: bool) {
    ui::heading("what this does");
    let what: Vec<String> = samples
        .iter()
        .map(|sample| format!("{} ({})", sample.name, sample.what))
        .collect();
    let end = if keep {
        "leave everything running, and say how to stop it"
    } else {
        "take everything down and leave nothing behind"
    };
    for line in [
        "1. install the Debian packages that are missing (you will see which, and be asked)",
        "2. build lauf and the samples' images, in target/",
        "3. start lauf in a temporary folder, on a free port of this machine only",
        &format!("4. deploy {}", what.join(", ")),
        "5. call each service from zero, put load on one, split its traffic between two revisions",
        "6. set the jobs, the worker pool and the push service to work, with a PostgreSQL of their own, and check every result",
        &format!("7. show what was measured, and {end}"),
    ] {
        ui::step(line);
    }
    if !tools::is_root() {
        ui::step("");
        ui::step(
            "sudo is used for: apt-get install; lauf itself (namespaces, mounts, cgroups, nftables) and its administrator's token.",
        );
    }
}

/// Has sudo ask for the password now, so that nothing in the background waits for it.
pub(crate) fn ask_for_root() -> Result<()> {
    if tools::is_root() {
        return Ok(());
    }
    let sudo = tools::which("sudo").context("lauf needs root for namespaces, mounts and cgroups, and there is no sudo; run this as root")?;
    ui::step("sudo for starting lauf:");
    anyhow::ensure!(
        tools::loud(Command::new(sudo).arg("-v"))?,
        "without root lauf cannot make containers"
    );
    Ok(())
}
