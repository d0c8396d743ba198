//! The `lauf` program: the whole platform (`up`), the keeper of instances, and the command line.
//! Composition only; what things do is in the rooms.
#![forbid(unsafe_code)]

mod client;
mod doctor;
mod down;
mod settings;
mod up;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Serve containers from zero on your own machine, with the tools you know from Cloud Run.
#[derive(Debug, Parser)]
#[command(name = "lauf", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    global: client::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the platform on this machine.
    Up(Box<settings::UpArgs>),
    /// Stop the platform and its instances.
    Down(down::DownArgs),
    /// Check whether this machine can run Lauf, and say how to mend what is missing.
    Doctor(Box<doctor::DoctorArgs>),
    #[command(flatten)]
    Client(client::Command),
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Before anything else, above all before any thread: the keeper forks.
    if arguments.get(1).is_some_and(|word| word == up::KEEPER_WORD) {
        return match lauf_sandbox::KeeperArgs::parse(arguments.into_iter().skip(2)) {
            Ok(arguments) => lauf_sandbox::keeper_main(arguments),
            Err(text) => {
                eprintln!("{text}");
                ExitCode::FAILURE
            }
        };
    }
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lauf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let code = match cli.command {
        Command::Up(arguments) => runtime.block_on(up::run(&cli.global.data, &arguments)),
        Command::Down(arguments) => runtime.block_on(down::run(&cli.global.data, &arguments)),
        Command::Doctor(arguments) => runtime.block_on(doctor::run(&cli.global.data, &arguments)),
        Command::Client(command) => runtime
            .block_on(client::run(&cli.global, command, Cli::command))
            .map(|()| ExitCode::SUCCESS),
    };
    // A request to a server that hangs must not keep the program from ending.
    runtime.shutdown_background();
    code
}
