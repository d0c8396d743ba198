//! `logging.googleapis.com`: reading log entries.

use lauf_model::{Status, Violation};
use serde::Deserialize;
use serde_json::json;

use crate::api::{Api, Ask};
use crate::deps::LogQuery;
use crate::lenient;
use crate::reply::{self, Reply};

const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 1000;

/// `google.logging.v2.ListLogEntriesRequest`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ListEntries {
    #[serde(deserialize_with = "lenient::nullable")]
    resource_names: Vec<String>,
    #[serde(deserialize_with = "lenient::nullable")]
    project_ids: Vec<String>,
    #[serde(deserialize_with = "lenient::nullable")]
    filter: String,
    #[serde(deserialize_with = "lenient::nullable")]
    order_by: String,
    #[serde(deserialize_with = "lenient::int")]
    page_size: Option<i64>,
    #[serde(deserialize_with = "lenient::nullable")]
    page_token: String,
}

/// Answers a request to Cloud Logging.
pub(crate) async fn answer(api: &Api, ask: &Ask, path: &[&str]) -> Result<Reply, Status> {
    match (ask.method.as_str(), path) {
        ("POST", ["v2", "entries:list"]) => {
            let query = query(api, ask.json()?).await?;
            let page = api.deps.logs.list(query).await?;
            let mut body = json!({});
            if !page.entries.is_empty() {
                body["entries"] = page.entries.into();
            }
            if !page.next_page_token.is_empty() {
                body["nextPageToken"] = page.next_page_token.into();
            }
            reply::ok(&body)
        }
        _ => Err(ask.no_such_path()),
    }
}

async fn query(api: &Api, asked: ListEntries) -> Result<LogQuery, Status> {
    let mut found = Vec::new();
    let mut projects = Vec::new();
    let named = asked.resource_names.iter().enumerate().map(|(i, name)| {
        let mut parts = name.split('/');
        match (parts.next(), parts.next()) {
            (Some("projects"), Some(project)) if !project.is_empty() => Ok(project),
            _ => Err(Violation::new(
                format!("resourceNames[{i}]"),
                format!("'{name}' is not supported; it must be projects/PROJECT."),
            )),
        }
    });
    for project in named.chain(asked.project_ids.iter().map(|id| Ok(id.as_str()))) {
        match project {
            Ok(project) => projects.push(api.project(project).await?.id),
            Err(violation) => found.push(violation),
        }
    }
    if projects.is_empty() && found.is_empty() {
        found.push(Violation::new(
            "resourceNames",
            "is empty; name at least one project, as projects/PROJECT.",
        ));
    }
    let newest_first = match asked.order_by.trim() {
        "" | "timestamp" | "timestamp asc" => false,
        "timestamp desc" => true,
        other => {
            found.push(Violation::new(
                "orderBy",
                format!("'{other}' is not allowed; it must be timestamp asc or timestamp desc."),
            ));
            false
        }
    };
    let page_size = match asked.page_size.map(usize::try_from) {
        None | Some(Ok(0)) => DEFAULT_PAGE,
        Some(Ok(size)) => size.min(MAX_PAGE),
        Some(Err(_)) => {
            found.push(Violation::new("pageSize", "must be 0 or more."));
            DEFAULT_PAGE
        }
    };
    if !found.is_empty() {
        return Err(Status::invalid(found));
    }
    Ok(LogQuery {
        projects,
        filter: asked.filter,
        newest_first,
        page_size,
        page_token: asked.page_token,
    })
}
