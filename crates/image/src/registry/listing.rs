//! Lists: tags, repositories, referrers (end-8, end-12, and Docker's catalog).

use std::collections::BTreeMap;

use axum::body::Body;
use http::{StatusCode, header};
use serde_json::json;

use super::{Answer, Call, Refusal, build};
use crate::digest::Digest;
use crate::manifest::{Descriptor, Document, Index, media};

const PAGE: usize = 1000;

pub(super) async fn tags(call: &Call<'_>) -> Answer {
    let tags = call
        .on_store(|store, repo| {
            if store.repo_exists(repo) {
                Ok(store.tags(repo)?)
            } else {
                Err(Refusal::name_unknown(repo))
            }
        })
        .await?;
    let (page, more) = page(call, tags)?;
    let next = more.then(|| format!("/v2/{}/tags/list", call.name));
    answer(
        call,
        &json!({ "name": call.name, "tags": page }),
        next.zip(page.last()),
    )
}

pub(super) async fn catalog(call: &Call<'_>) -> Answer {
    let repos = call.on_store(|store, _| Ok(store.repos()?)).await?;
    let (page, more) = page(call, repos)?;
    let next = more.then(|| "/v2/_catalog".to_owned());
    answer(
        call,
        &json!({ "repositories": page }),
        next.zip(page.last()),
    )
}

/// The part of a sorted list that `n` and `last` ask for, and whether more follows.
fn page(call: &Call<'_>, mut all: Vec<String>) -> Result<(Vec<String>, bool), Refusal> {
    if let Some(last) = call.query.get("last") {
        all.retain(|item| item.as_str() > last);
    }
    let wanted = match call.query.get("n") {
        Some(text) => text.parse::<usize>().map_err(|_| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "PAGINATION_NUMBER_INVALID",
                "n must be a number",
            )
        })?,
        None => PAGE,
    };
    // n=0 asks for an empty list, not for an endless chain of empty pages.
    let more = wanted > 0 && all.len() > wanted.min(PAGE);
    all.truncate(wanted.min(PAGE));
    Ok((all, more))
}

fn answer(call: &Call<'_>, body: &serde_json::Value, next: Option<(String, &String)>) -> Answer {
    let mut response =
        axum::response::Response::builder().header(header::CONTENT_TYPE, "application/json");
    if let Some((path, last)) = next {
        let n = call
            .query
            .get("n")
            .and_then(|n| n.parse().ok())
            .unwrap_or(PAGE)
            .min(PAGE);
        let last = last.replace('/', "%2F");
        response = response.header(
            header::LINK,
            format!("<{path}?n={n}&last={last}>; rel=\"next\""),
        );
    }
    build(response, Body::from(body.to_string()))
}

pub(super) async fn referrers(call: &Call<'_>, subject: Digest) -> Answer {
    let max = call.server.images.0.config.limits.max_manifest;
    let wanted = call.query.get("artifactType").map(str::to_owned);
    let filtered = wanted.is_some();
    let manifests = call
        .on_store(move |store, repo| {
            let mut found = Vec::new();
            for digest in store.referrers(repo, &subject)? {
                // Deleted, or collected: not a referrer any more.
                let Some(media_type) = store.manifest_type(repo, &digest) else {
                    continue;
                };
                let Some(bytes) = store.read_blob(&digest, max)? else {
                    continue;
                };
                let Ok(document) = Document::parse(&digest, &bytes) else {
                    continue;
                };
                let mut entry = Descriptor::new(&media_type, digest, bytes.len() as u64);
                match document {
                    Document::Manifest(m) => {
                        entry.artifact_type = m.artifact_type.or(Some(m.config.media_type));
                        entry.annotations = m.annotations;
                    }
                    Document::Index(i) => {
                        entry.artifact_type = i.artifact_type;
                        entry.annotations = i.annotations;
                    }
                }
                if wanted.is_none() || entry.artifact_type == wanted {
                    found.push(entry);
                }
            }
            Ok(found)
        })
        .await?;
    let index = Index {
        schema_version: 2,
        media_type: media::OCI_INDEX.to_owned(),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&index).map_err(|e| Refusal::manifest_invalid(e.to_string()))?;
    let mut response =
        axum::response::Response::builder().header(header::CONTENT_TYPE, media::OCI_INDEX);
    if filtered {
        response = response.header("oci-filters-applied", "artifactType");
    }
    build(response, Body::from(bytes))
}
