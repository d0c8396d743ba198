//! Lauf's own small API under `/lauf/v1`, for its command line: what Cloud Run's APIs do not tell.

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Response, header};
use lauf_model::{Service, Status, condition};
use lauf_store::Stored;
use serde_json::{Value, json};

use crate::api::{Api, Ask};
use crate::reply::{self, Reply};
use crate::services::Listing;

/// Answers a request to `/lauf/v1`.
pub(crate) async fn answer(api: &Api, ask: &Ask, path: &[&str]) -> Result<Reply, Status> {
    match (ask.method.as_str(), path) {
        ("GET", ["lauf", "v1", "info"]) => reply::ok(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "domain": api.config.site.domain,
            "site": api.config.site,
            "regions": api.config.regions,
            "defaultRegion": api.config.default_region,
            "defaultProject": api.config.default_project,
            "caFile": api.config.ca_file,
            "principal": ask.caller.principal,
        })),
        ("GET", ["lauf", "v1", "projects"]) => {
            reply::ok(&json!({ "projects": api.projects().await? }))
        }
        ("GET", ["lauf", "v1", "projects", project, "services"]) => {
            let project = api.project(project).await?.id;
            let region = Some(ask.param("region")).filter(|r| !r.is_empty());
            let page: Listing<Value> = api
                .page(&project, region, 0, None, |s| Some(summary(api, &s)))
                .await?;
            reply::ok(&json!({ "services": page.items }))
        }
        ("GET", ["lauf", "v1", "logs:tail"]) => {
            let entries = api.deps.logs.tail(ask.param("filter")).await?;
            let lines = entries.map(|entry| {
                let mut line = entry.to_string();
                line.push('\n');
                Ok::<_, std::convert::Infallible>(Bytes::from(line))
            });
            let mut reply = Response::new(Body::from_stream(lines));
            reply.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/jsonl; charset=UTF-8"),
            );
            Ok(reply)
        }
        _ => Err(ask.no_such_path()),
    }
}

fn summary(api: &Api, stored: &Stored<Service>) -> Value {
    let service = &stored.value;
    let ready = condition::find(&service.status.conditions, "Ready");
    json!({
        "name": service.meta.name,
        "project": service.meta.project,
        "region": service.meta.region,
        "url": service.status.url,
        "ready": ready.map_or("Unknown", |c| c.status.as_str()),
        "message": ready.map(|c| c.message.as_str()).unwrap_or_default(),
        "generation": service.meta.generation,
        "observedGeneration": service.status.observed_generation,
        "latestReadyRevision": service.status.latest_ready_revision,
        "updated": service.meta.updated.to_string(),
        "lastModifier": service.meta.last_modifier,
        "deleting": service.meta.deleted.is_some(),
        "instances": api.deps.live.instances(&service.key()),
    })
}
