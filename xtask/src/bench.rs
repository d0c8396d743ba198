//! `cargo xtask bench`: the benchmarks of what is handed on, the profile `dist`.

use std::process::Command;

use anyhow::Result;

use crate::{nats, tools};

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
    let built = tools::loud(
        tools::cargo()
            .args(["build", "--quiet", "--profile", "dist"])
            .args(["-p", "lauf", "-p", "lauf-bench"]),
    )?;
    let mut bench = Command::new(tools::target_dir().join("dist/bench"));
    bench.args(&args.args);
    if let Some(nats) = nats::unpacked() {
        bench.env(nats::VARIABLE, nats);
    }
    Ok(built && tools::loud(&mut bench)?)
}
