//! `lauf jobs`: work that ends. The same objects that `gcloud run jobs` sees.

mod deploy;
mod executions;
mod remove;
mod run;
mod show;

use ::http::Method;
use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::Value;

use super::http::{Api, Face};
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

/// The path of jobs, executions or tasks of a project, with more behind it.
fn path<'a>(api: &'a Api, kind: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    let mut path = vec![
        "apis",
        "run.googleapis.com",
        "v1",
        "namespaces",
        api.project.as_str(),
        kind,
    ];
    path.extend(rest);
    path
}

/// A name in a path must be one, or another path would be asked.
fn check_name(kind: &str, name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fine {
        bail!(
            "'{name}' is not the name of a {kind}: lower-case letters, digits and hyphens, \
             starting with a letter, at most 49."
        );
    }
    Ok(())
}

/// The job of that name, if there is one.
async fn find(api: &Api, name: &str) -> Result<Option<Value>> {
    check_name("job", name)?;
    api.find(Face::Run, &path(api, "jobs", &[name])).await
}

/// The job of that name.
///
/// # Errors
/// When there is none, with what there is.
async fn read(api: &Api, name: &str) -> Result<Value> {
    match find(api, name).await? {
        Some(job) => Ok(job),
        None => bail!(
            "There is no job '{name}' in project {} and region {}. `lauf jobs list` shows those \
             there are.",
            api.project,
            api.region
        ),
    }
}

/// The execution of that name, if there is one.
async fn find_execution(api: &Api, name: &str) -> Result<Option<Value>> {
    check_name("execution", name)?;
    api.find(Face::Run, &path(api, "executions", &[name])).await
}

/// The execution of that name.
///
/// # Errors
/// When there is none.
async fn read_execution(api: &Api, name: &str) -> Result<Value> {
    match find_execution(api, name).await? {
        Some(execution) => Ok(execution),
        None => bail!(
            "There is no execution '{name}' in project {} and region {}. `lauf jobs executions \
             JOB` shows those of a job.",
            api.project,
            api.region
        ),
    }
}

/// All objects of a list whose labels match, page by page.
async fn all(api: &Api, kind: &str, selector: &str) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let query = [
            ("labelSelector", selector),
            ("limit", "500"),
            ("continue", next.as_str()),
        ];
        let path = path(api, kind, &[]);
        let page = api
            .call(Method::GET, Face::Run, &path, &query, None)
            .await?;
        found.extend(page["items"].as_array().cloned().unwrap_or_default());
        page["metadata"]["continue"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut next);
        if next.is_empty() {
            return Ok(found);
        }
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
