//! `lauf jobs list` and `lauf jobs describe`.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use crate::client::http::Api;
use crate::client::list::{mark, time};
use crate::client::objects::{self, JOB};
use crate::client::output::{Cell, Out, Tint};
use crate::client::service::{condition, text};

/// Arguments of `lauf jobs list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {}

/// Runs `lauf jobs list`.
pub(crate) async fn list(api: &Api, out: &Out, _args: &ListArgs) -> Result<()> {
    let jobs = objects::all(api, "jobs", "").await?;
    if out.structured(&Value::from(jobs.clone()))? {
        return Ok(());
    }
    if jobs.is_empty() {
        out.note(&format!(
            "There are no jobs in project {}. Make one: lauf jobs deploy NAME --image IMAGE",
            api.project
        ));
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = jobs.iter().map(row).collect();
    out.table(&["", "JOB", "EXECUTIONS", "LAST", "STARTED"], &rows)
}

fn row(job: &Value) -> Vec<Cell> {
    let ready = condition(job, "Ready").map_or("", |c| text(c, "/status"));
    let last = &job["status"]["latestCreatedExecution"];
    vec![
        mark(ready, job["metadata"]["deletionTimestamp"].is_string()),
        text(job, "/metadata/name").into(),
        job["status"]["executionCount"]
            .as_u64()
            .unwrap_or(0)
            .to_string()
            .into(),
        outcome(text(last, "/completionStatus")),
        time(text(last, "/creationTimestamp")).into(),
    ]
}

/// How an execution stands, in a word.
fn outcome(status: &str) -> Cell {
    match status.trim_start_matches("EXECUTION_") {
        "SUCCEEDED" => Cell::tinted("succeeded", Tint::Good),
        "FAILED" => Cell::tinted("failed", Tint::Bad),
        "RUNNING" => Cell::tinted("running", Tint::Warn),
        "" => Cell::tinted("never run", Tint::Dim),
        other => other.to_ascii_lowercase().into(),
    }
}

/// Arguments of `lauf jobs describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The job's name
    name: String,
}

/// Runs `lauf jobs describe`.
pub(crate) async fn describe(api: &Api, out: &Out, args: &DescribeArgs) -> Result<()> {
    let job = objects::read(api, &JOB, &args.name).await?;
    if out.structured(&job)? {
        return Ok(());
    }
    let spec = &job["spec"]["template"]["spec"];
    let task = &spec["template"]["spec"];
    let container = &task["containers"][0];
    let words = |list: &Value| {
        let words = list.as_array().cloned().unwrap_or_default();
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        words.join(" ")
    };
    let number = |value: &Value, none: &str| {
        value
            .as_u64()
            .filter(|n| *n > 0)
            .map_or_else(|| none.to_owned(), |n| n.to_string())
    };
    let last = &job["status"]["latestCreatedExecution"];
    let ready = condition(&job, "Ready").cloned().unwrap_or_default();
    let mut facts: Vec<(&str, Cell)> = vec![
        ("Job", text(&job, "/metadata/name").into()),
        ("Image", text(container, "/image").into()),
    ];
    for (name, list) in [("Command", "command"), ("Arguments", "args")] {
        let words = words(&container[list]);
        if !words.is_empty() {
            facts.push((name, words.into()));
        }
    }
    let limits = &container["resources"]["limits"];
    facts.extend([
        ("Tasks", number(&spec["taskCount"], "1").into()),
        (
            "Parallelism",
            number(&spec["parallelism"], "as many as fit").into(),
        ),
        (
            "Retries",
            task["maxRetries"].as_u64().unwrap_or(0).to_string().into(),
        ),
        (
            "Task timeout",
            Cell::from(format!("{} s", text(task, "/timeoutSeconds"))),
        ),
        (
            "Limits",
            format!("{} CPU, {}", text(limits, "/cpu"), text(limits, "/memory")).into(),
        ),
        (
            "Executions",
            number(&job["status"]["executionCount"], "none").into(),
        ),
    ]);
    if last.is_object() {
        facts.push(("Last execution", text(last, "/name").into()));
        facts.push(("Last outcome", outcome(text(last, "/completionStatus"))));
    }
    if ready["status"] != "True" {
        facts.push((
            "Not ready",
            Cell::tinted(text(&ready, "/message"), Tint::Bad),
        ));
    }
    out.facts(&facts)
}
