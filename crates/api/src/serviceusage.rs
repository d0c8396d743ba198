//! `serviceusage.googleapis.com`: which APIs a project may use. gcloud asks before every deploy.
//! Everything that Lauf serves is always enabled, and nothing else can be.

use lauf_model::{Code, Project, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Ask};
use crate::reply::{self, Reply};

/// The APIs that are served, with their titles.
const SERVED: [(&str, &str); 4] = [
    ("run.googleapis.com", "Cloud Run Admin API"),
    ("logging.googleapis.com", "Cloud Logging API"),
    (
        "cloudresourcemanager.googleapis.com",
        "Cloud Resource Manager API",
    ),
    ("serviceusage.googleapis.com", "Service Usage API"),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchEnable {
    #[serde(default)]
    service_ids: Vec<String>,
}

/// Answers a request to Service Usage.
pub(crate) async fn answer(api: &Api, ask: &Ask, path: &[&str]) -> Result<Reply, Status> {
    let &["v1", "projects", project, ref rest @ ..] = path else {
        return Err(ask.no_such_path());
    };
    let project = api.project(project).await?;
    match (ask.method.as_str(), rest) {
        ("GET", ["services"]) => {
            // Disabled ones are none.
            let all = ask.param("filter") != "state:DISABLED";
            let services: Vec<Value> = SERVED
                .iter()
                .filter(|_| all)
                .map(|(name, title)| service(&project, name, title, true))
                .collect();
            reply::ok(&json!({ "services": services }))
        }
        ("GET", ["services:batchGet"]) => {
            let names = ask.query.iter().filter(|(key, _)| key == "names");
            let services: Vec<Value> = names
                .map(|(_, name)| state(&project, name.rsplit('/').next().unwrap_or_default()))
                .collect();
            reply::ok(&json!({ "services": services }))
        }
        ("GET", ["services", name]) => reply::ok(&state(&project, name)),
        ("POST", ["services:batchEnable"]) => {
            let asked: BatchEnable = ask.json()?;
            let services: Result<Vec<Value>, Status> = asked
                .service_ids
                .iter()
                .map(|name| enabled(&project, name))
                .collect();
            done(
                "BatchEnableServicesResponse",
                json!({"services": services?}),
            )
        }
        ("POST", ["services", name_and_verb]) => match name_and_verb.rsplit_once(':') {
            Some((name, "enable")) => {
                let service = enabled(&project, name)?;
                done("EnableServiceResponse", json!({ "service": service }))
            }
            Some((name, "disable")) => Err(Status::new(
                Code::FailedPrecondition,
                format!("{name} cannot be disabled: what Lauf serves is always enabled."),
            )),
            _ => Err(ask.no_such_path()),
        },
        _ => Err(ask.no_such_path()),
    }
}

fn state(project: &Project, name: &str) -> Value {
    let served = SERVED.iter().find(|(served, _)| *served == name);
    service(
        project,
        name,
        served.map_or(name, |(_, title)| title),
        served.is_some(),
    )
}

fn enabled(project: &Project, name: &str) -> Result<Value, Status> {
    if SERVED.iter().any(|(served, _)| *served == name) {
        return Ok(state(project, name));
    }
    Err(Status::new(
        Code::FailedPrecondition,
        format!("{name} cannot be enabled: it is not served by this version of Lauf."),
    ))
}

fn service(project: &Project, name: &str, title: &str, enabled: bool) -> Value {
    json!({
        "name": format!("projects/{}/services/{name}", project.number),
        "parent": format!("projects/{}", project.number),
        "config": {"name": name, "title": title},
        "state": if enabled { "ENABLED" } else { "DISABLED" },
    })
}

fn done(kind: &str, mut response: Value) -> Result<Reply, Status> {
    response["@type"] = format!("type.googleapis.com/google.api.serviceusage.v1.{kind}").into();
    reply::ok(&json!({
        "name": "operations/noop.DONE_OPERATION",
        "done": true,
        "response": response,
    }))
}
