//! `lauf worker-pools`: instances that fetch their work. The same objects that `gcloud run worker-pools` sees.

mod deploy;
mod show;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::http::Api;
use super::objects::{self, Deletion, WORKER_POOL};
use super::output::Out;

/// What can be done with worker pools.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerPoolsCommand {
    /// Create a worker pool, or give it a new revision
    Deploy(Box<deploy::DeployArgs>),
    /// Say how many instances a worker pool has
    Scale(deploy::ScaleArgs),
    /// Divide a worker pool's instances over its revisions
    Split(deploy::SplitArgs),
    /// List worker pools
    #[command(visible_alias = "ls")]
    List(show::ListArgs),
    /// Show one worker pool: what it runs, and how many of it
    Describe(show::DescribeArgs),
    /// Delete a worker pool and all its revisions
    Delete(DeleteArgs),
    /// Read what a worker pool wrote, or follow it
    Logs(show::LogsArgs),
}

/// Arguments of `lauf worker-pools delete`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lauf worker-pools delete puller --yes")]
pub(crate) struct DeleteArgs {
    /// The worker pool's name
    name: String,
    #[command(flatten)]
    how: Deletion,
}

/// Runs `lauf worker-pools`.
pub(crate) async fn run(api: &Api, out: &Out, command: WorkerPoolsCommand) -> Result<()> {
    match command {
        WorkerPoolsCommand::Deploy(args) => deploy::run(api, out, &args).await,
        WorkerPoolsCommand::Scale(args) => deploy::scale(api, out, &args).await,
        WorkerPoolsCommand::Split(args) => deploy::split(api, out, &args).await,
        WorkerPoolsCommand::List(args) => show::list(api, out, &args).await,
        WorkerPoolsCommand::Describe(args) => show::describe(api, out, &args).await,
        WorkerPoolsCommand::Delete(args) => {
            let more = " and all its revisions";
            objects::delete(api, out, &WORKER_POOL, &args.name, more, &args.how).await
        }
        WorkerPoolsCommand::Logs(args) => show::logs(api, out, &args).await,
    }
}
