//! `lauf jobs executions`: the runs of a job, and the tasks of one run.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::{count, mark};
use crate::client::http::Api;
use crate::client::list::time;
use crate::client::objects::{self, EXECUTION, JOB};
use crate::client::output::{Cell, Out, Tint};
use crate::client::service::{condition, text};

/// Arguments of `lauf jobs executions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lauf jobs executions etl\n  lauf jobs executions --execution \
                        etl-xjq2z"
)]
pub(crate) struct ExecutionsArgs {
    /// The job's name
    #[arg(required_unless_present = "execution")]
    name: Option<String>,
    /// The tasks of this execution instead
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    execution: Option<String>,
}

/// Runs `lauf jobs executions`.
pub(crate) async fn run(api: &Api, out: &Out, args: &ExecutionsArgs) -> Result<()> {
    if let Some(execution) = &args.execution {
        return tasks(api, out, execution).await;
    }
    let name = args.name.as_deref().unwrap_or_default();
    objects::read(api, &JOB, name).await?;
    let mut executions =
        objects::all(api, "executions", &format!("run.googleapis.com/job={name}")).await?;
    // Newest first; the API's times sort as texts.
    executions.sort_by(|a, b| created(b).cmp(created(a)));
    if out.structured(&Value::from(executions.clone()))? {
        return Ok(());
    }
    if executions.is_empty() {
        out.note(&format!(
            "Job '{name}' was never run. Run it: lauf jobs run {name}"
        ));
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = executions.iter().map(row).collect();
    let heading = ["", "EXECUTION", "RUNNING", "COMPLETE", "FAILED", "CREATED"];
    out.table(&heading, &rows)
}

fn created(execution: &Value) -> &str {
    text(execution, "/metadata/creationTimestamp")
}

fn row(execution: &Value) -> Vec<Cell> {
    let completed = condition(execution, "Completed").map_or("", |c| text(c, "/status"));
    let running = count(execution, "runningCount");
    let failed = count(execution, "failedCount");
    vec![
        mark(completed, running > 0),
        text(execution, "/metadata/name").into(),
        running.to_string().into(),
        format!(
            "{} / {}",
            count(execution, "succeededCount"),
            execution["spec"]["taskCount"].as_u64().unwrap_or(1)
        )
        .into(),
        if failed > 0 {
            Cell::tinted(failed.to_string(), Tint::Bad)
        } else {
            Cell::tinted("0", Tint::Dim)
        },
        time(created(execution)).into(),
    ]
}

async fn tasks(api: &Api, out: &Out, execution: &str) -> Result<()> {
    let read = objects::read(api, &EXECUTION, execution).await?;
    let selector = format!("run.googleapis.com/execution={execution}");
    let mut tasks = objects::all(api, "tasks", &selector).await?;
    tasks.sort_by_key(|task| task["status"]["index"].as_u64());
    if out.structured(&Value::from(tasks.clone()))? {
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = tasks.iter().map(task_row).collect();
    let heading = ["TASK", "STATE", "RETRIES", "EXIT", "STARTED", "MESSAGE"];
    out.table(&heading, &rows)?;
    if let Some(completed) = condition(&read, "Completed") {
        out.note(text(completed, "/message"));
    }
    Ok(())
}

fn task_row(task: &Value) -> Vec<Cell> {
    let state = task["metadata"]["labels"]["run.googleapis.com/runningState"]
        .as_str()
        .unwrap_or_default();
    let tint = match state {
        "Succeeded" => Tint::Good,
        "Failed" => Tint::Bad,
        "Running" => Tint::Warn,
        _ => Tint::Dim,
    };
    let last = &task["status"]["lastAttemptResult"];
    let exit = match (last["exitCode"].as_i64(), last["termSignal"].as_i64()) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => String::new(),
    };
    vec![
        count(task, "index").to_string().into(),
        Cell::tinted(state, tint),
        count(task, "retried").to_string().into(),
        exit.into(),
        time(text(task, "/status/startTime")).into(),
        text(last, "/status/message").into(),
    ]
}
