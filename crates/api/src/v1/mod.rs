//! The v1 API: Knative's objects under `/apis/serving.knative.dev/v1`, Cloud Run's own under
//! `/apis/run.googleapis.com/v1`, and its own lists under `/v1`. What else gcloud asks under `/v1` is in
//! the table of RPCs.

pub(crate) mod annotations;
mod autoscaling;
pub(crate) mod container;
pub(crate) mod revision;
mod revisions;
#[cfg(test)]
pub(crate) mod roundtrip;
pub(crate) mod run;
pub(crate) mod service;
pub(crate) mod types;

use lauf_model::{Service, ServiceKey, Status, Violation, WorkerPoolKey, WorkerPoolRevision};
use lauf_store::{Resource, Stored, Version};
use serde::Serialize;
use serde_json::json;

use crate::api::{Api, Ask};
use crate::page::Token;
use crate::reply::{self, Reply};
use crate::selector::Selector;
use crate::services::{Desired, Expected, Listing};

/// The API group of services and what belongs to them.
const GROUP: &str = "serving.knative.dev";

/// Answers a request to `run.googleapis.com`, v1.
pub(crate) async fn answer(api: &Api, ask: &Ask, path: &[&str]) -> Result<Reply, Status> {
    match path {
        [
            "apis",
            "serving.knative.dev",
            "v1",
            "namespaces",
            namespace,
            rest @ ..,
        ] => {
            let project = api.project(namespace).await?.id;
            namespaced(api, ask, &project, rest).await
        }
        [
            "apis",
            "run.googleapis.com",
            "v1",
            "namespaces",
            namespace,
            rest @ ..,
        ] => {
            let project = api.project(namespace).await?.id;
            run::namespaced(api, ask, &project, rest).await
        }
        ["v1", "projects", project, "locations", region, rest @ ..] => {
            located(api, ask, project, region, rest).await
        }
        _ => Err(ask.no_such_path()),
    }
}

async fn namespaced(api: &Api, ask: &Ask, project: &str, path: &[&str]) -> Result<Reply, Status> {
    let key = |name: &str| -> Result<ServiceKey, Status> {
        Ok(ServiceKey {
            project: project.to_owned(),
            region: api.region(ask)?,
            name: name.to_owned(),
        })
    };
    match (ask.method.as_str(), path) {
        ("GET", ["services"]) => list(api, ask, project, "ServiceList", service_item).await,
        ("POST", ["services"]) => create(api, ask, key("")?).await,
        ("GET", ["services", name]) => service_reply(&api.service(&key(name)?).await?),
        ("PUT", ["services", name]) => replace(api, ask, key(name)?).await,
        ("DELETE", ["services", name]) => {
            let key = key(name)?;
            let expected = Expected::default();
            let dry_run = dry_run(ask)?;
            let gone = api.delete_service(&ask.caller, &key, expected, dry_run);
            deleted(GROUP, "services", name, &gone.await?.value.meta.uid)
        }
        ("GET", ["revisions"]) => revisions::list(api, ask, project).await,
        ("GET", ["revisions", name]) => {
            let key = key("")?;
            let of_pool = WorkerPoolKey::beside(&key, "").revision(name);
            if let Some(found) = api.find::<WorkerPoolRevision>(&of_pool).await? {
                let version = found.version.get();
                return reply::ok(&run::worker_pool::write_revision(&found.value, version));
            }
            let found = api.revision(&key.revision(name)).await?;
            reply::ok(&revision::write(&found.value, found.version.get()))
        }
        ("DELETE", ["revisions", name]) => {
            let (key, dry_run) = (key("")?, dry_run(ask)?);
            let of_pool = WorkerPoolKey::beside(&key, "").revision(name);
            let uid = if api.find::<WorkerPoolRevision>(&of_pool).await?.is_some() {
                let gone = api.delete_worker_pool_revision(&of_pool, dry_run).await?;
                gone.value.meta.uid
            } else {
                let gone = api.delete_revision(&key.revision(name), dry_run).await?;
                gone.value.meta.uid
            };
            deleted(GROUP, "revisions", name, &uid)
        }
        ("GET", ["configurations"]) => {
            list::<Service, _>(api, ask, project, "ConfigurationList", |s| {
                let labels = &s.value.meta.labels;
                let version = s.version.get();
                (labels.clone(), revision::configuration(&s.value, version))
            })
            .await
        }
        ("GET", ["configurations", name]) => {
            let found = api.service(&key(name)?).await?;
            reply::ok(&revision::configuration(&found.value, found.version.get()))
        }
        ("GET", ["routes"]) => {
            list::<Service, _>(api, ask, project, "RouteList", |s| {
                let labels = &s.value.meta.labels;
                let version = s.version.get();
                (labels.clone(), revision::route(&s.value, version))
            })
            .await
        }
        ("GET", ["routes", name]) => {
            let found = api.service(&key(name)?).await?;
            reply::ok(&revision::route(&found.value, found.version.get()))
        }
        _ => Err(ask.no_such_path()),
    }
}

async fn located(
    api: &Api,
    ask: &Ask,
    project: &str,
    region: &str,
    path: &[&str],
) -> Result<Reply, Status> {
    match (ask.method.as_str(), path) {
        ("GET", ["services"]) => {
            let project = api.project(project).await?.id;
            let region = match region {
                "-" => None,
                region => Some(api.known_region(region)?),
            };
            list_in(api, ask, &project, region, "ServiceList", service_item).await
        }
        _ => Err(ask.no_such_path()),
    }
}

async fn create(api: &Api, ask: &Ask, place: ServiceKey) -> Result<Reply, Status> {
    let sent: types::Service = ask.json()?;
    let mut found = Vec::new();
    check_namespace(api, &sent.metadata, &place.project, &mut found).await?;
    if sent.metadata.generate_name.is_some() {
        found.push(Violation::new(
            "metadata.generateName",
            "is not supported; set metadata.name.",
        ));
    }
    let desired = service::read(&sent, &mut found);
    let key = ServiceKey {
        name: desired.name.clone(),
        ..place
    };
    let made = api
        .create_service(&ask.caller, &key, desired, found, dry_run(ask)?)
        .await?;
    service_reply(&made)
}

async fn replace(api: &Api, ask: &Ask, key: ServiceKey) -> Result<Reply, Status> {
    let mut sent: types::Service = ask.json()?;
    let mut found = Vec::new();
    check_namespace(api, &sent.metadata, &key.project, &mut found).await?;
    if let Some(name) = sent.metadata.name.as_deref().filter(|n| *n != key.name) {
        found.push(Violation::new(
            "metadata.name",
            format!(
                "is '{name}', but the request is about '{}'; a service's name cannot be changed.",
                key.name
            ),
        ));
    }
    sent.metadata.name = Some(key.name.clone());
    let expected = Expected {
        version: version(&sent.metadata, &mut found),
        generation: sent.metadata.generation,
    };
    let desired: Desired = service::read(&sent, &mut found);
    let made = api
        .replace_service(&ask.caller, &key, desired, expected, found, dry_run(ask)?)
        .await?;
    service_reply(&made)
}

async fn check_namespace(
    api: &Api,
    sent: &types::ObjectMeta,
    project: &str,
    found: &mut Vec<Violation>,
) -> Result<(), Status> {
    let Some(namespace) = sent.namespace.as_deref().filter(|n| !n.is_empty()) else {
        return Ok(());
    };
    let same = namespace == project || namespace.parse() == Ok(api.project(project).await?.number);
    if !same {
        found.push(Violation::new(
            "metadata.namespace",
            format!("is '{namespace}', but the request is about project '{project}'."),
        ));
    }
    Ok(())
}

fn version(metadata: &types::ObjectMeta, found: &mut Vec<Violation>) -> Option<Version> {
    let text = metadata.resource_version.as_deref()?;
    if text.is_empty() {
        return None;
    }
    match text.parse() {
        Ok(number) => Some(Version::new(number)),
        Err(_) => {
            found.push(Violation::new(
                "metadata.resourceVersion",
                format!("'{text}' is not one that a read gave."),
            ));
            None
        }
    }
}

fn dry_run(ask: &Ask) -> Result<bool, Status> {
    match ask.param("dryRun") {
        "" => Ok(false),
        "all" | "All" => Ok(true),
        other => Err(Status::invalid(vec![Violation::new(
            "dryRun",
            format!("'{other}' is not allowed; it must be all."),
        )])),
    }
}

fn service_reply(stored: &Stored<Service>) -> Result<Reply, Status> {
    reply::ok(&service::write(&stored.value, stored.version.get()))
}

fn deleted(group: &str, kind: &str, name: &str, uid: &str) -> Result<Reply, Status> {
    reply::ok(&json!({
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": name,
            "group": group,
            "kind": kind,
            "uid": uid,
        },
    }))
}

fn service_item(stored: &Stored<Service>) -> (Labels, types::Service) {
    let written = service::write(&stored.value, stored.version.get());
    (written.metadata.labels.clone(), written)
}

type Labels = std::collections::BTreeMap<String, String>;

async fn list<T: Resource, V: Serialize>(
    api: &Api,
    ask: &Ask,
    project: &str,
    kind: &'static str,
    write: impl Fn(&Stored<T>) -> (Labels, V),
) -> Result<Reply, Status> {
    let region = listed_region(api, ask)?;
    list_in(api, ask, project, region.as_deref(), kind, write).await
}

/// The region a list is of; all of them on the global host.
fn listed_region(api: &Api, ask: &Ask) -> Result<Option<String>, Status> {
    if ask.host.global {
        Ok(None)
    } else {
        api.region(ask).map(Some)
    }
}

async fn list_in<T: Resource, V: Serialize>(
    api: &Api,
    ask: &Ask,
    project: &str,
    region: Option<&str>,
    kind: &'static str,
    write: impl Fn(&Stored<T>) -> (Labels, V),
) -> Result<Reply, Status> {
    let selector = selector(ask)?;
    let from = Token::decode(ask.param("continue"))?;
    let limit = ask.count("limit")?;
    let page: Listing<V> = api
        .page(project, region, limit, from, |stored: Stored<T>| {
            // Labels are those that clients see, which include some that are not stored.
            let (labels, item) = write(&stored);
            selector.matches(&labels).then_some(item)
        })
        .await?;
    reply::ok(&as_list(kind, page))
}

/// Which of a list's items are asked for.
fn selector(ask: &Ask) -> Result<Selector, Status> {
    if !ask.param("fieldSelector").is_empty() {
        return Err(Status::invalid(vec![Violation::new(
            "fieldSelector",
            "is not supported by this version of Lauf; select by labels.",
        )]));
    }
    Selector::parse(ask.param("labelSelector"))
}

fn as_list<V>(kind: &'static str, page: Listing<V>) -> types::List<V> {
    types::List {
        api_version: types::API_VERSION,
        kind,
        metadata: types::ListMeta {
            resource_version: page.version.to_string(),
            next: page.next.map(|t| t.encode()).unwrap_or_default(),
            self_link: String::new(),
        },
        items: page.items,
        unreachable: Vec::new(),
    }
}
