//! The developer's commands: `cargo xtask demo | test | bench | images | setup | lint`.
//!
//! Each command is a module; [`ui`] is how they speak, [`tools`] how they run other programs, [`clock`] where they take the time from.
//! Nothing here is part of the product: it builds Lauf, feeds it with the [`samples`] and watches it through its public faces only.
#![forbid(unsafe_code)]

mod bench;
mod client;
mod clock;
mod demo;
mod gvisor;
mod images;
mod lint;
mod nats;
mod samples;
mod setup;
mod test;
mod tools;
mod ui;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Lauf's developer commands.
#[derive(Parser)]
#[command(name = "cargo xtask", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole of Lauf on this machine: install what is needed, build, deploy the samples, scale, split, measure
    Demo(demo::Args),
    /// Run every check and every test; ends with one table
    Test(test::Args),
    /// Run a benchmark (see `cargo xtask bench --help`)
    Bench(bench::Args),
    /// Build the root directories of the sample images
    Images(images::Args),
    /// Install what the demo and the tests need from Debian
    Setup(setup::Args),
    /// Formatting, clippy, dependencies
    Lint,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Images(args) => images::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::Lint => lint::run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            ui::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
