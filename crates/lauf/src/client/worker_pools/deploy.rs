//! `lauf worker-pools deploy`, `scale` and `split`: all that changes a worker pool.

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::client::container::WorkerArgs;
use crate::client::deploy::{Change, change};
use crate::client::http::Api;
use crate::client::objects::{self, WORKER_POOL};
use crate::client::output::Out;
use crate::client::pairs;

/// The annotation that says how many (Cloud Run, "WorkerPool" of the v1 API).
pub(super) const INSTANCES: &str = "run.googleapis.com/manualInstanceCount";

const EXAMPLES: &str = "\
Examples:
  lauf worker-pools deploy puller --image puller --instances 3
  lauf worker-pools deploy puller --image puller:v2
  lauf worker-pools deploy puller --memory 1Gi --env QUEUE=images";

/// Arguments of `lauf worker-pools deploy`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeployArgs {
    /// The worker pool's name
    name: String,
    /// The container image; may be left out when the worker pool exists
    #[arg(long, short)]
    image: Option<String>,
    /// Instances that run at any time; 1 where nothing was ever said
    #[arg(long, value_name = "NUMBER")]
    instances: Option<u32>,
    #[command(flatten)]
    container: WorkerArgs,
}

/// Runs `lauf worker-pools deploy`.
pub(crate) async fn run(api: &Api, out: &Out, args: &DeployArgs) -> Result<()> {
    let change = args.container.change(args.image.as_ref())?;
    let pool = objects::deploy(
        api,
        out,
        (&WORKER_POOL, &args.name),
        (
            json!({"template": {"spec": {"containers": [{}]}}}),
            args.image.is_some(),
        ),
        "lauf worker-pools deploy",
        |pool| apply(pool, &change, args.instances),
    )
    .await?;
    told(out, &pool, &format!("Worker pool '{}' runs.", args.name))
}

/// Changes a worker pool as asked.
fn apply(pool: &mut Value, wanted: &Change, instances: Option<u32>) {
    let template = &mut pool["spec"]["template"];
    change::labels(&mut template["metadata"]["labels"], wanted);
    let spec = &mut template["spec"];
    if let Some(account) = &wanted.service_account {
        spec["serviceAccountName"] = account.clone().into();
    }
    change::container(&mut spec["containers"][0], wanted);
    change::labels(&mut pool["metadata"]["labels"], wanted);
    if let Some(instances) = instances {
        pool["metadata"]["annotations"][INSTANCES] = instances.to_string().into();
    }
}

/// Arguments of `lauf worker-pools scale`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lauf worker-pools scale puller 5")]
pub(crate) struct ScaleArgs {
    /// The worker pool's name
    name: String,
    /// Instances that run at any time; 0 for none
    instances: u32,
}

/// Runs `lauf worker-pools scale`.
pub(crate) async fn scale(api: &Api, out: &Out, args: &ScaleArgs) -> Result<()> {
    let count = args.instances;
    let pool = update(api, out, &args.name, |pool| {
        pool["metadata"]["annotations"][INSTANCES] = count.to_string().into();
    })
    .await?;
    let noun = if count == 1 { "instance" } else { "instances" };
    told(
        out,
        &pool,
        &format!("Worker pool '{}' has {count} {noun}.", args.name),
    )
}

/// Arguments of `lauf worker-pools split`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lauf worker-pools split puller puller-00001-abc=50,LATEST=50\n  \
                        lauf worker-pools split puller LATEST=100"
)]
pub(crate) struct SplitArgs {
    /// The worker pool's name
    name: String,
    /// How many percent of the instances each revision has; LATEST is whichever is the latest
    #[arg(value_name = "REVISION=PERCENT,...", required = true)]
    shares: Vec<String>,
}

/// Runs `lauf worker-pools split`.
pub(crate) async fn split(api: &Api, out: &Out, args: &SplitArgs) -> Result<()> {
    let splits = splits(&args.shares)?;
    let pool = update(api, out, &args.name, |pool| {
        pool["spec"]["instanceSplits"] = splits.clone();
    })
    .await?;
    let text = format!("The instances of '{}' are divided as asked.", args.name);
    told(out, &pool, &text)
}

fn splits(shares: &[String]) -> Result<Value> {
    let mut splits = Vec::new();
    for (revision, percent) in pairs::list("REVISION=PERCENT", shares)? {
        let Ok(number) = percent.parse::<u32>() else {
            bail!("The share of '{revision}' is a number of percent, not '{percent}'.");
        };
        splits.push(if revision == "LATEST" {
            json!({"latestRevision": true, "percent": number})
        } else {
            json!({"revisionName": revision, "percent": number})
        });
    }
    Ok(splits.into())
}

/// Changes a worker pool that is there.
async fn update(api: &Api, out: &Out, name: &str, change: impl Fn(&mut Value)) -> Result<Value> {
    // Told of before it is shown that something is done.
    objects::read(api, &WORKER_POOL, name).await?;
    let none = (Value::Null, false);
    let usage = "lauf worker-pools deploy";
    objects::deploy(api, out, (&WORKER_POOL, name), none, usage, change).await
}

fn told(out: &Out, pool: &Value, text: &str) -> Result<()> {
    if !out.structured(pool)? {
        out.note(text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let mut pool = json!({"metadata": {"annotations": {INSTANCES: "3"}}, "spec": {
            "template": {"spec": {"containers": [{"image": "a", "args": ["x"]}]}}}});
        let change = Change {
            memory: Some("1Gi".to_owned()),
            ..Change::default()
        };
        apply(&mut pool, &change, None);
        assert_eq!(pool["metadata"]["annotations"][INSTANCES], "3");
        let container = &pool["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "a");
        assert_eq!(container["args"], json!(["x"]));
        assert_eq!(container["resources"]["limits"]["memory"], "1Gi");
        apply(&mut pool, &Change::default(), Some(0));
        assert_eq!(pool["metadata"]["annotations"][INSTANCES], "0");
    }

    #[test]
    fn shares_are_of_revisions_or_of_the_latest() {
        let shares = ["a-00001-abc=40,LATEST=60".to_owned()];
        let expected = json!([{"revisionName": "a-00001-abc", "percent": 40},
            {"latestRevision": true, "percent": 60}]);
        assert_eq!(splits(&shares).unwrap(), expected);
        assert!(splits(&["a=many".to_owned()]).is_err());
        assert!(splits(&["a".to_owned()]).is_err());
    }
}
