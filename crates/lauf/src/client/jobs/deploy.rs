//! `lauf jobs deploy`: create a job, or change what is asked and nothing else.

use ::http::{Method, StatusCode};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{find, path, read};
use crate::client::deploy::args::seconds;
use crate::client::deploy::{Change, Steps, change};
use crate::client::http::{Api, Face, refused_with};
use crate::client::output::Out;
use crate::client::pairs;
use crate::client::service::{self, Settled};

/// How often a change is tried again when somebody else changed the job meanwhile.
const TRIES: usize = 5;

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

    /// An environment variable; the others stay. May be given more than once
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Container")]
    env: Vec<String>,
    /// All environment variables: those not named are removed
    #[arg(long, value_name = "NAME=VALUE,...", help_heading = "Container")]
    set_env_vars: Vec<String>,
    /// Environment variables to set; the others stay
    #[arg(long, value_name = "NAME=VALUE,...", help_heading = "Container")]
    update_env_vars: Vec<String>,
    /// Environment variables to remove
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Container"
    )]
    remove_env_vars: Vec<String>,
    /// Remove all environment variables
    #[arg(long, help_heading = "Container", conflicts_with = "set_env_vars")]
    clear_env_vars: bool,
    /// The command instead of the image's: words or a JSON array; empty for the image's own
    #[arg(
        long,
        value_name = "WORDS",
        help_heading = "Container",
        allow_hyphen_values = true
    )]
    command: Option<String>,
    /// The arguments instead of the image's: words or a JSON array; empty for the image's own
    #[arg(
        long,
        value_name = "WORDS",
        help_heading = "Container",
        allow_hyphen_values = true
    )]
    args: Option<String>,
    /// The working directory instead of the image's
    #[arg(long, value_name = "PATH", help_heading = "Container")]
    working_dir: Option<String>,
    /// CPUs of a task, such as 1, 2 or 500m
    #[arg(long, value_name = "CPU", help_heading = "Container")]
    cpu: Option<String>,
    /// Memory of a task, such as 512Mi or 2Gi
    #[arg(long, value_name = "SIZE", help_heading = "Container")]
    memory: Option<String>,

    /// The account the tasks run as
    #[arg(long, value_name = "EMAIL", help_heading = "Description")]
    service_account: Option<String>,
    /// A label of the job and its executions. May be given more than once
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Description")]
    label: Vec<String>,

    /// Run it once it is deployed
    #[arg(long)]
    execute_now: bool,
}

impl DeployArgs {
    fn change(&self) -> Result<Change> {
        let mut set_env = pairs::list("--set-env-vars", &self.set_env_vars)?;
        set_env.extend(pairs::list("--update-env-vars", &self.update_env_vars)?);
        set_env.extend(pairs::single("--env", &self.env)?);
        let words = |option: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| pairs::words(option, text))
                .transpose()
        };
        Ok(Change {
            image: self.image.clone(),
            clear_env: self.clear_env_vars || !self.set_env_vars.is_empty(),
            set_env,
            remove_env: self.remove_env_vars.clone(),
            command: words("--command", &self.command)?,
            args: words("--args", &self.args)?,
            working_dir: self.working_dir.clone(),
            cpu: self.cpu.clone(),
            memory: self.memory.clone(),
            set_labels: pairs::single("--label", &self.label)?,
            ..Change::default()
        })
    }
}

/// Runs `lauf jobs deploy`.
pub(crate) async fn run(api: &Api, out: &Out, args: &DeployArgs) -> Result<()> {
    const TITLE: &str = "Deploying the job";
    let change = args.change()?;
    let timeout = args
        .task_timeout
        .as_deref()
        .map(|text| seconds("--task-timeout", text))
        .transpose()?;
    let mut steps = Steps::new(out);
    steps.working("job", TITLE, "");
    let job = write(api, args, &change, timeout).await?;
    let job = ready(api, &args.name, job).await;
    match &job {
        Ok(_) => steps.done("job", TITLE),
        Err(_) => steps.failed("job", TITLE),
    }
    steps.stop();
    let job = job?;
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

async fn write(
    api: &Api,
    args: &DeployArgs,
    change: &Change,
    timeout: Option<u64>,
) -> Result<Value> {
    let name = &args.name;
    for _ in 0..TRIES {
        let Some(mut job) = find(api, name).await? else {
            return create(api, args, change, timeout).await;
        };
        apply(&mut job, args, change, timeout);
        if let Some(object) = job.as_object_mut() {
            object.remove("status");
        }
        let path = path(api, "jobs", &[name]);
        match api
            .call(Method::PUT, Face::Run, &path, &[], Some(&job))
            .await
        {
            Err(error) if refused_with(&error, StatusCode::CONFLICT) => {}
            other => return other,
        }
    }
    bail!("The job '{name}' changes all the time. Try again.");
}

async fn create(
    api: &Api,
    args: &DeployArgs,
    change: &Change,
    timeout: Option<u64>,
) -> Result<Value> {
    let name = &args.name;
    if change.image.is_none() {
        bail!(
            "There is no job '{name}' yet, so it needs an image: lauf jobs deploy {name} --image \
             IMAGE"
        );
    }
    let mut job = json!({
        "apiVersion": "run.googleapis.com/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": api.project},
        "spec": {"template": {"spec": {"template": {"spec": {"containers": [{}]}}}}},
    });
    apply(&mut job, args, change, timeout);
    let path = path(api, "jobs", &[]);
    api.call(Method::POST, Face::Run, &path, &[], Some(&job))
        .await
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
    if let Some(account) = &args.service_account {
        task["serviceAccountName"] = account.clone().into();
    }
    change::container(&mut task["containers"][0], change);
    change::labels(&mut job["metadata"]["labels"], change);
}

/// Waits until the server has judged the latest change.
async fn ready(api: &Api, name: &str, mut job: Value) -> Result<Value> {
    for round in 1_u32.. {
        match service::settled(&job) {
            Settled::Ready => break,
            Settled::Failed(message) => bail!("{message}"),
            Settled::Working => {}
        }
        tokio::time::sleep(service::pause(round)).await;
        job = read(api, name).await?;
    }
    Ok(job)
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
            env: vec!["B=2".into()],
            ..DeployArgs::default()
        };
        apply(&mut job, &args, &args.change().unwrap(), Some(60));
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
