//! `lauf doctor`: the sandbox room's checks, as a table.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use lauf_sandbox::doctor::{DoctorConfig, State, can_run, check, trial};

use crate::settings::{Settings, UpArgs};
use crate::up::KEEPER_WORD;

/// Options of `doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    up: UpArgs,
}

pub(crate) async fn run(data: &Path, arguments: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::new(data, &arguments.up)?;
    let mut findings = check(&DoctorConfig {
        data_dir: settings.data,
        listen: settings.listen,
        domain: settings.domain,
        egress: settings.egress.unwrap_or(true),
    });
    if rustix::process::geteuid().is_root() {
        let exe = std::env::current_exe().context("cannot find the lauf program itself")?;
        findings.push(trial(exe, vec![KEEPER_WORD.to_owned()], &settings.runtime).await);
    }
    for finding in &findings {
        let mark = match finding.state {
            State::Ok => "ok     ",
            State::Warning => "warning",
            State::Missing => "MISSING",
        };
        println!("{mark}  {:<24} {}", finding.name, finding.found);
        if !finding.remedy.is_empty() {
            println!("{:9}{:<24} -> {}", "", "", finding.remedy);
        }
    }
    if can_run(&findings) {
        println!("\nLauf can run here.");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("\nLauf cannot run here until what is MISSING is mended.");
        Ok(ExitCode::FAILURE)
    }
}
