//! `lauf worker-pools list`, `describe` and `logs`.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::deploy::INSTANCES;
use crate::client::http::Api;
use crate::client::list::{mark, time};
use crate::client::logs::{self, quoted};
use crate::client::objects::{self, WORKER_POOL};
use crate::client::output::{Cell, Out, Tint};
use crate::client::service::{condition, text};

/// Arguments of `lauf worker-pools list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {}

/// Runs `lauf worker-pools list`.
pub(crate) async fn list(api: &Api, out: &Out, _args: &ListArgs) -> Result<()> {
    let pools = objects::all(api, WORKER_POOL.plural, "").await?;
    if out.structured(&Value::from(pools.clone()))? {
        return Ok(());
    }
    if pools.is_empty() {
        out.note(&format!(
            "There are no worker pools in project {}. Make one: lauf worker-pools deploy NAME \
             --image IMAGE",
            api.project
        ));
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = pools.iter().map(row).collect();
    out.table(&["", "WORKER POOL", "INSTANCES", "REVISION", "MADE"], &rows)
}

fn row(pool: &Value) -> Vec<Cell> {
    let ready = condition(pool, "Ready").map_or("", |c| text(c, "/status"));
    vec![
        mark(ready, pool["metadata"]["deletionTimestamp"].is_string()),
        text(pool, "/metadata/name").into(),
        instances(pool).into(),
        text(pool, "/status/latestReadyRevisionName").into(),
        time(text(pool, "/metadata/creationTimestamp")).into(),
    ]
}

/// How many instances are asked for.
fn instances(pool: &Value) -> &str {
    pool["metadata"]["annotations"][INSTANCES]
        .as_str()
        .unwrap_or("1")
}

/// Arguments of `lauf worker-pools describe`.
#[derive(Debug, Args)]
pub(crate) struct DescribeArgs {
    /// The worker pool's name
    name: String,
}

/// Runs `lauf worker-pools describe`.
pub(crate) async fn describe(api: &Api, out: &Out, args: &DescribeArgs) -> Result<()> {
    let pool = objects::read(api, &WORKER_POOL, &args.name).await?;
    if out.structured(&pool)? {
        return Ok(());
    }
    let container = &pool["spec"]["template"]["spec"]["containers"][0];
    let limits = &container["resources"]["limits"];
    let mut facts: Vec<(&str, Cell)> = vec![
        ("Worker pool", text(&pool, "/metadata/name").into()),
        ("Image", text(container, "/image").into()),
        ("Instances", instances(&pool).into()),
        (
            "Limits",
            format!("{} CPU, {}", text(limits, "/cpu"), text(limits, "/memory")).into(),
        ),
    ];
    let splits = pool["status"]["instanceSplits"].as_array();
    for split in splits.into_iter().flatten() {
        let percent = split["percent"].as_u64().unwrap_or(0);
        let share = format!("{percent} % {}", text(split, "/revisionName"));
        facts.push(("Revision", share.into()));
    }
    let ready = condition(&pool, "Ready").cloned().unwrap_or_default();
    if ready["status"] != "True" {
        facts.push((
            "Not ready",
            Cell::tinted(text(&ready, "/message"), Tint::Bad),
        ));
    }
    out.facts(&facts)
}

/// Arguments of `lauf worker-pools logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  lauf worker-pools logs puller\n  lauf worker-pools logs puller -f"
)]
pub(crate) struct LogsArgs {
    /// The worker pool's name
    name: String,
    /// Only of this revision
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    #[command(flatten)]
    how: logs::How,
}

/// Runs `lauf worker-pools logs`.
pub(crate) async fn logs(api: &Api, out: &Out, args: &LogsArgs) -> Result<()> {
    // A name that does not exist has no log either, and an empty screen would not say why.
    objects::read(api, &WORKER_POOL, &args.name).await?;
    let label = |name: &str, value: &str| format!("resource.labels.{name} = {}", quoted(value));
    let mut terms = vec![
        "resource.type = \"cloud_run_worker_pool\"".to_owned(),
        label("worker_pool_name", &args.name),
        label("location", &api.region),
    ];
    let revision = args.revision.as_ref();
    terms.extend(revision.map(|name| label("revision_name", name)));
    logs::show(api, out, &terms.join(" AND "), &args.how).await
}
