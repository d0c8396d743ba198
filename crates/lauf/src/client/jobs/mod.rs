//! `lauf jobs`: work that ends. The same objects that `gcloud run jobs` sees.

mod deploy;
mod executions;
mod remove;
mod run;
mod show;

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use super::http::Api;
use super::output::{Cell, Out, Tint};

/// What can be done with jobs.
#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Create a job, or change what is asked and nothing else
    Deploy(Box<deploy::DeployArgs>),
    /// Run a job, with its progress and what it writes
    #[command(visible_alias = "execute")]
    Run(run::RunArgs),
    /// List jobs
    #[command(visible_alias = "ls")]
    List(show::ListArgs),
    /// Show one job: what it runs and how its last execution ended
    Describe(show::DescribeArgs),
    /// List the executions of a job, or the tasks of one execution
    Executions(executions::ExecutionsArgs),
    /// End an execution
    Cancel(remove::CancelArgs),
    /// Delete a job and all its executions, or one execution
    Delete(remove::DeleteArgs),
    /// Read what a job wrote, or follow it
    Logs(run::LogsArgs),
}

/// Runs `lauf jobs`.
pub(crate) async fn run(api: &Api, out: &Out, command: JobsCommand) -> Result<()> {
    match command {
        JobsCommand::Deploy(args) => deploy::run(api, out, &args).await,
        JobsCommand::Run(args) => run::run(api, out, &args).await,
        JobsCommand::List(args) => show::list(api, out, &args).await,
        JobsCommand::Describe(args) => show::describe(api, out, &args).await,
        JobsCommand::Executions(args) => executions::run(api, out, &args).await,
        JobsCommand::Cancel(args) => remove::cancel(api, out, &args).await,
        JobsCommand::Delete(args) => remove::delete(api, out, &args).await,
        JobsCommand::Logs(args) => run::logs(api, out, &args).await,
    }
}

/// A count of an execution's status; zero where it says nothing.
fn count(object: &Value, field: &str) -> u64 {
    object["status"][field].as_u64().unwrap_or(0)
}

/// The sign for a `Completed` condition.
fn mark(status: &str, running: bool) -> Cell {
    match status {
        "True" => Cell::tinted("✔", Tint::Good),
        "False" => Cell::tinted("✘", Tint::Bad),
        _ if running => Cell::tinted("…", Tint::Warn),
        _ => Cell::tinted("…", Tint::Dim),
    }
}
