//! The sandbox on a real host: every story is told over every back end there is. Needs root; says so loudly when it is not.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

mod backends;
mod harness;
mod host;
mod stories;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "keeper") {
        return match lauf_sandbox::KeeperArgs::parse(args) {
            Ok(args) => lauf_sandbox::keeper_main(args),
            Err(text) => {
                eprintln!("{text}");
                ExitCode::FAILURE
            }
        };
    }
    harness::run_all()
}
