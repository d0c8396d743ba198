//! `lauf jobs deploy`: create a job, or change what is asked and nothing else.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::client::container::WorkerArgs;
use crate::client::deploy::args::seconds;
use crate::client::deploy::{Change, change};
use crate::client::http::Api;
use crate::client::objects::{self, JOB};
use crate::client::output::Out;

const EXAMPLES: &str = "\
Examples:
  lauf jobs deploy etl --image etl --tasks 10 --max-retries 2
  lauf jobs deploy etl --memory 1Gi --task-timeout 30m
  lauf jobs deploy etl --image etl:v2 --execute-now";

/// Arguments of `lauf jobs deploy`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeployArgs {
    /// The job's name
    name: String,
    /// The container image; may be left out when the job exists
    #[arg(long, short)]
    image: Option<String>,

    /// Tasks of each execution
    #[arg(long, value_name = "NUMBER", help_heading = "Tasks")]
    tasks: Option<u32>,
    /// Tasks that run at the same time; 0 for as many as the machine takes
    #[arg(long, value_name = "NUMBER", help_heading = "Tasks")]
    parallelism: Option<u32>,
    /// How often a task that failed is run again
    #[arg(long, value_name = "NUMBER", help_heading = "Tasks")]
    max_retries: Option<u32>,
    /// How long one attempt of a task may take, such as 30s, 10m or 2h
    #[arg(long, value_name = "DURATION", help_heading = "Tasks")]
    task_timeout: Option<String>,

    #[command(flatten)]
    container: WorkerArgs,

    /// Run it once it is deployed
    #[arg(long)]
    execute_now: bool,
}

/// Runs `lauf jobs deploy`.
pub(crate) async fn run(api: &Api, out: &Out, args: &DeployArgs) -> Result<()> {
    let change = args.container.change(args.image.as_ref())?;
    let timeout = args
        .task_timeout
        .as_deref()
        .map(|text| seconds("--task-timeout", text))
        .transpose()?;
    let empty = json!({"template": {"spec": {"template": {"spec": {"containers": [{}]}}}}});
    let job = objects::deploy(
        api,
        out,
        (&JOB, &args.name),
        (empty, args.image.is_some()),
        "lauf jobs deploy",
        |job| apply(job, args, &change, timeout),
    )
    .await?;
    if args.execute_now {
        return super::run::run(api, out, &super::run::RunArgs::of(&args.name)).await;
    }
    if !out.structured(&job)? {
        out.note(&format!(
            "Job '{0}' is deployed. Run it: lauf jobs run {0}",
            args.name
        ));
    }
    Ok(())
}

/// Changes a job as asked.
fn apply(job: &mut Value, args: &DeployArgs, change: &Change, timeout: Option<u64>) {
    let template = &mut job["spec"]["template"];
    change::labels(&mut template["metadata"]["labels"], change);
    for (key, value) in [("taskCount", args.tasks), ("parallelism", args.parallelism)] {
        if let Some(value) = value {
            template["spec"][key] = value.into();
        }
    }
    let task = &mut template["spec"]["template"]["spec"];
    if let Some(retries) = args.max_retries {
        task["maxRetries"] = retries.into();
    }
    if let Some(seconds) = timeout {
        task["timeoutSeconds"] = seconds.to_string().into();
    }
    if let Some(account) = &change.service_account {
        task["serviceAccountName"] = account.clone().into();
    }
    change::container(&mut task["containers"][0], change);
    change::labels(&mut job["metadata"]["labels"], change);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let mut job = json!({"metadata": {}, "spec": {"template": {"spec": {"taskCount": 3,
            "template": {"spec": {"maxRetries": 1, "containers": [{"image": "a",
                "env": [{"name": "A", "value": "1"}]}]}}}}}});
        let args = DeployArgs {
            parallelism: Some(2),
            ..DeployArgs::default()
        };
        let change = Change {
            set_env: vec![("B".to_owned(), "2".to_owned())],
            ..Change::default()
        };
        apply(&mut job, &args, &change, Some(60));
        let execution = &job["spec"]["template"]["spec"];
        assert_eq!(execution["taskCount"], 3);
        assert_eq!(execution["parallelism"], 2);
        let task = &execution["template"]["spec"];
        assert_eq!(task["maxRetries"], 1);
        assert_eq!(task["timeoutSeconds"], "60");
        assert_eq!(task["containers"][0]["image"], "a");
        assert_eq!(task["containers"][0]["env"].as_array().unwrap().len(), 2);
    }
}
