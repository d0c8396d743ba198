//! `lauf jobs cancel` and `lauf jobs delete`.

use ::http::Method;
use anyhow::Result;
use clap::Args;

use crate::client::deploy::Steps;
use crate::client::http::{Api, Face};
use crate::client::objects::{self, Deletion, EXECUTION, JOB, check_name, path};
use crate::client::output::Out;
use crate::client::service::pause;

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
    check_name(&EXECUTION, name)?;
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
            execution = objects::read(api, &EXECUTION, name).await?;
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
    #[command(flatten)]
    how: Deletion,
}

/// Runs `lauf jobs delete`.
pub(crate) async fn delete(api: &Api, out: &Out, args: &DeleteArgs) -> Result<()> {
    let (kind, name, more) = match (&args.execution, &args.name) {
        (Some(execution), _) => (&EXECUTION, execution.as_str(), ""),
        (None, name) => {
            let name = name.as_deref().unwrap_or_default();
            (&JOB, name, " and all its executions")
        }
    };
    objects::delete(api, out, kind, name, more, &args.how).await
}
