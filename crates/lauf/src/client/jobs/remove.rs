//! `lauf jobs cancel` and `lauf jobs delete`.

use ::http::Method;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::Value;

use super::{check_name, find, find_execution, path, read, read_execution};
use crate::client::deploy::Steps;
use crate::client::http::{Api, Face};
use crate::client::output::Out;
use crate::client::service::{pause, text};

/// Arguments of `lauf jobs cancel`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lauf jobs cancel etl-xjq2z")]
pub(crate) struct CancelArgs {
    /// The execution's name
    execution: String,
    /// Do not wait until its tasks have ended
    #[arg(long = "async")]
    no_wait: bool,
}

/// Runs `lauf jobs cancel`.
pub(crate) async fn cancel(api: &Api, out: &Out, args: &CancelArgs) -> Result<()> {
    const TITLE: &str = "Ending the tasks";
    let name = &args.execution;
    check_name("execution", name)?;
    let verb = format!("{name}:cancel");
    let path = path(api, "executions", &[&verb]);
    let mut execution = api.call(Method::POST, Face::Run, &path, &[], None).await?;
    if !args.no_wait {
        let mut steps = Steps::new(out);
        for round in 1_u32.. {
            if execution["status"]["completionTime"].is_string() {
                break;
            }
            steps.working("cancel", TITLE, "");
            tokio::time::sleep(pause(round)).await;
            execution = read_execution(api, name).await?;
        }
        steps.done("cancel", TITLE);
        steps.stop();
    }
    if !out.structured(&execution)? {
        out.note(&format!("Execution '{name}' is cancelled."));
    }
    Ok(())
}

/// Arguments of `lauf jobs delete`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lauf jobs delete etl --yes\n  lauf jobs delete --execution \
                        etl-xjq2z"
)]
pub(crate) struct DeleteArgs {
    /// The job's name
    #[arg(required_unless_present = "execution")]
    name: Option<String>,
    /// Delete this execution alone
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    execution: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Do not wait until it is gone
    #[arg(long = "async")]
    no_wait: bool,
}

/// Runs `lauf jobs delete`.
pub(crate) async fn delete(api: &Api, out: &Out, args: &DeleteArgs) -> Result<()> {
    const TITLE: &str = "Deleting";
    let (kind, what, name) = match (&args.execution, &args.name) {
        (Some(execution), _) => ("executions", "execution", execution.as_str()),
        (None, name) => ("jobs", "job", name.as_deref().unwrap_or_default()),
    };
    let is_job = kind == "jobs";
    let there = if is_job {
        read(api, name).await?
    } else {
        read_execution(api, name).await?
    };
    if !(args.yes || out.quiet) {
        if !out.can_ask() {
            bail!("Deleting '{name}' needs a yes, and nobody is there to ask: add --yes.");
        }
        let more = if is_job {
            " and all its executions"
        } else {
            ""
        };
        if !out.ask(&format!("Delete {what} '{name}'{more}?"))? {
            bail!("Nothing was deleted.");
        }
    }
    let path = path(api, kind, &[name]);
    let gone: Value = api
        .call(Method::DELETE, Face::Run, &path, &[], None)
        .await?;
    if !args.no_wait {
        let mut steps = Steps::new(out);
        let uid = text(&there, "/metadata/uid");
        for round in 1_u32.. {
            let found = if is_job {
                find(api, name).await?
            } else {
                find_execution(api, name).await?
            };
            match found {
                // One of the same name made meanwhile is another one.
                Some(there) if text(&there, "/metadata/uid") == uid => {
                    steps.working("delete", TITLE, "");
                }
                _ => break,
            }
            tokio::time::sleep(pause(round)).await;
        }
        steps.done("delete", TITLE);
        steps.stop();
    }
    if !out.structured(&gone)? {
        out.note(&format!("The {what} '{name}' is deleted."));
    }
    Ok(())
}
