//! `cloudresourcemanager.googleapis.com`: which projects there are. gcloud asks for a project's
//! number.

use lauf_model::{Project, Status};
use serde_json::{Value, json};

use crate::api::{Api, Ask};
use crate::reply::{self, Reply};

/// Answers a request to Resource Manager.
pub(crate) async fn answer(api: &Api, ask: &Ask, path: &[&str]) -> Result<Reply, Status> {
    match (ask.method.as_str(), path) {
        ("GET", ["v1", "projects"]) => {
            let projects: Vec<Value> = api.projects().await?.iter().map(v1).collect();
            reply::ok(&json!({ "projects": projects }))
        }
        ("GET", ["v1", "projects", project]) => reply::ok(&v1(&api.project(project).await?)),
        ("GET", ["v3", "projects", project]) => {
            let project = api.project(project).await?;
            reply::ok(&json!({
                "name": format!("projects/{}", project.number),
                "projectId": project.id,
                "displayName": project.id,
                "state": "ACTIVE",
            }))
        }
        _ => Err(ask.no_such_path()),
    }
}

fn v1(project: &Project) -> Value {
    json!({
        "projectNumber": project.number.to_string(),
        "projectId": project.id,
        "name": project.id,
        "lifecycleState": "ACTIVE",
    })
}
