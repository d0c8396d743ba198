//! `lauf jobs run` and `lauf jobs logs`: an execution from its start to its end, with what it writes.

use std::time::Duration;

use ::http::Method;
use anyhow::{Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::count;
use crate::client::deploy::args::seconds;
use crate::client::http::{Api, Face};
use crate::client::logs::{self, Tail, quoted};
use crate::client::objects::{self, EXECUTION, JOB};
use crate::client::output::{Out, Tint};
use crate::client::pairs;
use crate::client::service::{condition, pause, text};

/// How long after the end of an execution its last lines are waited for, each anew.
const LAST_WORDS: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Examples:
  lauf jobs run etl                         until it has ended, with what it writes
  lauf jobs run etl -- --day 2026-11-24     with other arguments
  lauf jobs run etl --tasks 100 --env MODE=full --async";

/// Arguments of `lauf jobs run`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// The job's name
    name: String,
    /// Arguments of the container instead of the job's
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
    /// No arguments, though the job has some
    #[arg(long, conflicts_with = "args")]
    clear_args: bool,
    /// An environment variable for this run. May be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Another number of tasks
    #[arg(long, value_name = "NUMBER")]
    tasks: Option<u32>,
    /// Another timeout of tasks, such as 30s, 10m or 2h
    #[arg(long, value_name = "DURATION")]
    task_timeout: Option<String>,
    /// Only begin it
    #[arg(long = "async")]
    no_wait: bool,
    /// Do not print what the tasks write
    #[arg(long)]
    no_logs: bool,
}

impl RunArgs {
    /// A run as the job says.
    pub(super) fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    fn overrides(&self) -> Result<Value> {
        let mut overrides = json!({});
        let env = pairs::single("--env", &self.env)?;
        if self.clear_args || !self.args.is_empty() || !env.is_empty() {
            let env: Vec<Value> = env
                .into_iter()
                .map(|(name, value)| json!({"name": name, "value": value}))
                .collect();
            overrides["containerOverrides"] = json!([{
                "args": self.args,
                "clearArgs": self.clear_args,
                "env": env,
            }]);
        }
        if let Some(tasks) = self.tasks {
            overrides["taskCount"] = tasks.into();
        }
        if let Some(timeout) = &self.task_timeout {
            overrides["timeoutSeconds"] = seconds("--task-timeout", timeout)?.into();
        }
        Ok(overrides)
    }
}

/// Runs `lauf jobs run`.
pub(crate) async fn run(api: &Api, out: &Out, args: &RunArgs) -> Result<()> {
    objects::read(api, &JOB, &args.name).await?;
    let body = json!({ "overrides": args.overrides()? });
    let verb = format!("{}:run", args.name);
    // Following begins before the execution does, so that no line is missed.
    let tail = if args.no_wait || args.no_logs {
        None
    } else {
        Some(logs::tail(api, &filter(api, &args.name, None, None)).await?)
    };
    let path = objects::path(api, "jobs", &[&verb]);
    let made = api
        .call(Method::POST, Face::Run, &path, &[], Some(&body))
        .await?;
    let name = text(&made, "/metadata/name").to_owned();
    if args.no_wait {
        if !out.structured(&made)? {
            out.line(&name)?;
        }
        return Ok(());
    }
    out.note(&format!(
        "Execution {} of job '{}'",
        out.tint_err(&name, Tint::Bold),
        args.name
    ));
    let ended = follow(api, out, &name, made, tail).await?;
    let structured = out.structured(&ended)?;
    let completed = condition(&ended, "Completed").cloned().unwrap_or_default();
    let said = text(&completed, "/message");
    if completed["status"] != "True" {
        bail!(
            "{said}\nSee `lauf jobs executions --execution {name}` and `lauf jobs logs {} \
             --execution {name}`.",
            args.name
        );
    }
    if !structured {
        out.note(said);
    }
    Ok(())
}

/// Shows an execution until it has ended, and gives it back as it is then.
async fn follow(
    api: &Api,
    out: &Out,
    name: &str,
    mut execution: Value,
    mut tail: Option<Tail>,
) -> Result<Value> {
    let tasks = execution["spec"]["taskCount"].as_u64().unwrap_or(1);
    let bar = Bar::new(out, tasks);
    let mut round = 0_u32;
    let mut next = Box::pin(tokio::time::sleep(pause(1)));
    loop {
        tokio::select! {
            entry = next_of(&mut tail, name) => match entry {
                Some(entry) => bar.print(out, &entry)?,
                None => tail = None,
            },
            () = &mut next => {
                execution = objects::read(api, &EXECUTION, name).await?;
                bar.show(&execution);
                if execution["status"]["completionTime"].is_string() {
                    break;
                }
                // What changes is seen within half a second, however long it takes.
                round = round.saturating_add(1);
                next = Box::pin(tokio::time::sleep(pause(round)));
            }
        }
    }
    while let Ok(Some(entry)) = tokio::time::timeout(LAST_WORDS, next_of(&mut tail, name)).await {
        bar.print(out, &entry)?;
    }
    bar.end();
    Ok(execution)
}

/// The next entry of this execution; never, when logs are not wanted.
async fn next_of(tail: &mut Option<Tail>, execution: &str) -> Option<Value> {
    let Some(tail) = tail else {
        return std::future::pending().await;
    };
    loop {
        // A log that breaks off does not break the job.
        let entry = tail.next().await.ok().flatten()?;
        if entry["labels"]["run.googleapis.com/execution_name"] == execution {
            return Some(entry);
        }
    }
}

/// How far an execution is, on a terminal.
struct Bar(Option<ProgressBar>);

impl Bar {
    fn new(out: &Out, tasks: u64) -> Self {
        Self(out.animated().then(|| {
            let bar = ProgressBar::new(tasks);
            let template = "  {bar:30} {pos}/{len} tasks {msg} {elapsed}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("█▌ "));
            }
            bar
        }))
    }

    fn show(&self, execution: &Value) {
        let Some(bar) = &self.0 else { return };
        let failed = count(execution, "failedCount");
        bar.set_position(count(execution, "succeededCount") + failed);
        let mut words = format!("· {} running", count(execution, "runningCount"));
        for (number, word) in [
            (failed, "failed"),
            (count(execution, "retriedCount"), "retried"),
        ] {
            if number > 0 {
                words.push_str(&format!(" · {number} {word}"));
            }
        }
        bar.set_message(words);
    }

    /// Prints a line of the log above the bar.
    fn print(&self, out: &Out, entry: &Value) -> Result<()> {
        let coloured = out.tint("x", Tint::Dim) != "x";
        let line = logs::line(entry, coloured);
        match &self.0 {
            Some(bar) => bar.suspend(|| out.line(&line)),
            None => out.line(&line),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Arguments of `lauf jobs logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lauf jobs logs etl\n  lauf jobs logs etl --execution \
                        etl-xjq2z --task 3\n  lauf jobs logs etl -f"
)]
pub(crate) struct LogsArgs {
    /// The job's name
    name: String,
    /// Only of this execution
    #[arg(long, value_name = "NAME")]
    execution: Option<String>,
    /// Only of the task with this index
    #[arg(long, value_name = "INDEX")]
    task: Option<u32>,
    #[command(flatten)]
    how: logs::How,
}

/// Runs `lauf jobs logs`.
pub(crate) async fn logs(api: &Api, out: &Out, args: &LogsArgs) -> Result<()> {
    // A name that does not exist has no log either, and an empty screen would not say why.
    objects::read(api, &JOB, &args.name).await?;
    let filter = filter(api, &args.name, args.execution.as_deref(), args.task);
    logs::show(api, out, &filter, &args.how).await
}

/// A filter of Cloud Logging for a job's entries.
fn filter(api: &Api, job: &str, execution: Option<&str>, task: Option<u32>) -> String {
    let mut terms = vec![
        "resource.type = \"cloud_run_job\"".to_owned(),
        format!("resource.labels.job_name = {}", quoted(job)),
        format!("resource.labels.location = {}", quoted(&api.region)),
    ];
    let label = |name: &str, value: &str| {
        format!("labels.\"run.googleapis.com/{name}\" = {}", quoted(value))
    };
    terms.extend(execution.map(|name| label("execution_name", name)));
    terms.extend(task.map(|index| label("task_index", &index.to_string())));
    terms.join(" AND ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_overridden() {
        assert_eq!(RunArgs::of("etl").overrides().unwrap(), json!({}));
        let args = RunArgs {
            args: vec!["--day".into(), "1".into()],
            env: vec!["A=b=c".into()],
            tasks: Some(7),
            task_timeout: Some("2m".into()),
            ..RunArgs::of("etl")
        };
        let expected = json!({
            "containerOverrides": [{"args": ["--day", "1"], "clearArgs": false,
                "env": [{"name": "A", "value": "b=c"}]}],
            "taskCount": 7,
            "timeoutSeconds": 120,
        });
        assert_eq!(args.overrides().unwrap(), expected);
    }
}
