//! `lauf revisions`: what was deployed, newest first.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::http::{Api, Face};
use super::list::{mark, time};
use super::output::{Cell, Out};
use super::service::{self, condition, text};

/// Arguments of `lauf revisions`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  lauf revisions hello")]
pub(crate) struct RevisionsArgs {
    /// The service's name
    name: String,
}

/// Runs `lauf revisions`.
pub(crate) async fn run(api: &Api, out: &Out, args: &RevisionsArgs) -> Result<()> {
    let service = service::read(api, &args.name).await?;
    let selector = format!("serving.knative.dev/service = {}", args.name);
    let path = service::path(api, "revisions", &[]);
    let mut revisions = Vec::new();
    let mut next = String::new();
    loop {
        let mut query = vec![("labelSelector", selector.as_str()), ("limit", "500")];
        if !next.is_empty() {
            query.push(("continue", next.as_str()));
        }
        let page = api.get(Face::Run, &path, &query).await?;
        revisions.extend(page["items"].as_array().cloned().unwrap_or_default());
        next = text(&page, "/metadata/continue").to_owned();
        if next.is_empty() {
            break;
        }
    }
    revisions.sort_by_key(|r| std::cmp::Reverse(age(r)));
    if out.structured(&Value::from(revisions.clone()))? {
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = revisions.iter().map(|r| row(r, &service)).collect();
    let heading = ["", "REVISION", "TRAFFIC", "TAGS", "IMAGE", "DEPLOYED"];
    out.table(&heading, &rows)
}

/// When a revision was made: by its generation, since two may be made in the same instant.
fn age(revision: &Value) -> (u64, String) {
    let labels = &revision["metadata"]["labels"];
    let generation = labels["serving.knative.dev/configurationGeneration"].as_str();
    (
        generation.and_then(|g| g.parse().ok()).unwrap_or(0),
        text(revision, "/metadata/creationTimestamp").to_owned(),
    )
}

fn row(revision: &Value, service: &Value) -> Vec<Cell> {
    let name = text(revision, "/metadata/name");
    let targets = service["status"]["traffic"].as_array();
    let mine = || {
        let targets = targets.into_iter().flatten();
        targets.filter(|t| t["revisionName"] == name)
    };
    let percent: u64 = mine().filter_map(|t| t["percent"].as_u64()).sum();
    let tags: Vec<&str> = mine().filter_map(|t| t["tag"].as_str()).collect();
    let ready = condition(revision, "Ready").map_or("", |c| text(c, "/status"));
    vec![
        mark(ready, false),
        name.into(),
        if percent > 0 {
            format!("{percent}%")
        } else {
            String::new()
        }
        .into(),
        tags.join(",").into(),
        text(revision, "/spec/containers/0/image").into(),
        time(text(revision, "/metadata/creationTimestamp")).into(),
    ]
}
