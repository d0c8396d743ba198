//! `cargo xtask test`: everything that says whether the tree is good, in groups, with one table and one closing line.
//!
//! A group is formatting, clippy, the tests of one crate's binaries, the documentation's examples, the samples, or a script
//! `tests/NAME/run.sh` that drives Lauf with somebody else's client. Programs are built as the person who asks; only the groups that need
//! namespaces, mounts and cgroups run as root. What could not be tested is said loudly, with the reason.

mod outcome;
mod process;
mod rust;
mod samples;
mod scripts;

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::{clock, ui};
use outcome::Outcome;

/// Arguments of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this group, e.g. `fmt`, `clippy`, `lauf-model`, `samples`, `gcloud` (can be given more than once)
    #[arg(long, value_name = "GROUP")]
    only: Vec<String>,
    /// Leave the machine as it is; groups that lack a tool are skipped
    #[arg(long)]
    no_install: bool,
    /// Install what is missing without asking
    #[arg(long, short)]
    yes: bool,
}

impl Args {
    /// Whether a group was asked for.
    fn wants(&self, group: &str) -> bool {
        self.only.is_empty()
            || self
                .only
                .iter()
                .any(|name| name == group || group.starts_with(&format!("{name}/")))
    }
}

/// Runs the groups; true when nothing failed.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let start = clock::now();
    let mut outcomes = Vec::new();
    if !args.no_install {
        ui::heading("setup");
        let lacking = setup::ensure(Purpose::Test, args.yes)?;
        // A tool that cannot be had is no failure of ours, but it must not go unseen either.
        if !lacking.is_empty() {
            let mut outcome = Outcome::new("setup");
            for reason in lacking {
                outcome.skip(reason);
            }
            outcomes.push(outcome);
        }
    }
    rust::lints(args, &mut outcomes)?;
    rust::tests(args, &mut outcomes)?;
    samples::tests(args, &mut outcomes)?;
    scripts::tests(args, &mut outcomes)?;
    if outcomes.is_empty() {
        anyhow::bail!("no group is called {}", args.only.join(" or "));
    }
    Ok(outcome::report(&outcomes, start.elapsed()))
}
