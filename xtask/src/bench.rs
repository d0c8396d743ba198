//! `cargo xtask bench`: the benchmarks, built for release.

use anyhow::Result;

use crate::tools;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// Handed to the benchmark program; `--help` lists the benchmarks
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Runs the benchmark program.
pub(crate) fn run(args: &Args) -> Result<bool> {
    tools::loud(
        tools::cargo()
            .args(["run", "--quiet", "--release", "-p", "lauf-bench", "--"])
            .args(&args.args),
    )
}
