//! `lauf list`: all services at a glance.

use anyhow::Result;
use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::http::{Api, Face};
use super::output::{Cell, Out, Tint};
use super::service::text;

/// Arguments of `lauf list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  lauf list\n  lauf list --format json | jq -r '.[].url'")]
pub(crate) struct ListArgs {}

/// Runs `lauf list`.
pub(crate) async fn run(api: &Api, out: &Out, _args: &ListArgs) -> Result<()> {
    let services = read(api).await?;
    if out.structured(&Value::from(services.clone()))? {
        return Ok(());
    }
    if services.is_empty() {
        out.note(&format!(
            "There are no services in project {}. Deploy one: lauf deploy NAME --image IMAGE",
            api.project
        ));
        return Ok(());
    }
    let rows: Vec<Vec<Cell>> = services.iter().map(row).collect();
    let heading = ["", "SERVICE", "REGION", "URL", "INSTANCES", "LAST DEPLOYED"];
    out.table(&heading, &rows)
}

/// All services of the project, each with the count of its instances.
async fn read(api: &Api) -> Result<Vec<Value>> {
    let region = api.target().region.clone().unwrap_or_default();
    let path = ["lauf", "v1", "projects", api.project.as_str(), "services"];
    let query = [("region", region.as_str())];
    let query = if region.is_empty() {
        &[][..]
    } else {
        &query[..]
    };
    let answer = api.get(Face::Native, &path, query).await?;
    let services = answer["services"].as_array().cloned().unwrap_or_default();
    Ok(services.into_iter().map(flat).collect())
}

/// The counts as plain numbers beside the rest.
fn flat(mut service: Value) -> Value {
    let live = service["instances"].take();
    let count = |key: &str| live[key].as_u64().unwrap_or(0);
    let in_flight = live["inFlight"].as_u64().unwrap_or(count("in_flight"));
    service["instances"] = json!(count("starting") + count("ready"));
    service["startingInstances"] = json!(count("starting"));
    service["requestsInFlight"] = json!(in_flight);
    service
}

fn row(service: &Value) -> Vec<Cell> {
    let starting = service["startingInstances"].as_u64().unwrap_or(0);
    let instances = service["instances"].as_u64().unwrap_or(0);
    let counts = match (instances, starting) {
        (0, _) => Cell::tinted("0", Tint::Dim),
        (n, 0) => n.to_string().into(),
        (n, s) => format!("{n} ({s} starting)").into(),
    };
    vec![
        mark(
            text(service, "/ready"),
            service["deleting"].as_bool().unwrap_or(false),
        ),
        text(service, "/name").into(),
        text(service, "/region").into(),
        text(service, "/url").into(),
        counts,
        time(text(service, "/updated")).into(),
    ]
}

/// The sign for a `Ready` condition.
pub(crate) fn mark(status: &str, deleting: bool) -> Cell {
    match (status, deleting) {
        (_, true) => Cell::tinted("…", Tint::Dim),
        ("True", _) => Cell::tinted("✔", Tint::Good),
        ("False", _) => Cell::tinted("✘", Tint::Bad),
        _ => Cell::tinted("…", Tint::Warn),
    }
}

/// A time of the API in the reader's time zone, without fractions.
pub(crate) fn time(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(time) => time
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string(),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_a_number() {
        let service =
            flat(json!({"name": "a", "instances": {"starting": 1, "ready": 2, "in_flight": 7}}));
        assert_eq!(service["instances"], 3);
        assert_eq!(service["startingInstances"], 1);
        assert_eq!(service["requestsInFlight"], 7);
        assert_eq!(flat(json!({}))["instances"], 0);
    }
}
