//! The v2 API over REST: `google.cloud.run.v2` services and revisions, their IAM policies, and the
//! operations that writes answer with. It is a second view of what v1 shows.

mod condition;
mod container;
mod operation;
mod revision;
#[cfg(test)]
mod roundtrip;
mod service;
mod types;
mod wire;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lauf_model::{Code, Revision, Service, ServiceKey, Status, Violation};
use lauf_store::{Resource, Stored, Version};
use serde_json::{Value, json};

use crate::api::{Api, Ask};
use crate::iam;
use crate::page::Token;
use crate::reply::{self, Reply};
use crate::services::{Expected, Listing};

/// The size of a page when the client names none, and the largest.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// How long a wait lasts when the client does not say, and at most.
const WAIT: u64 = 60;
const MAX_WAIT: u64 = 300;
/// How often an update without an etag is tried again when others change the service too.
const UPDATE_TRIES: usize = 5;
/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(200);

/// The fields of a service that an update mask may name.
const FIELDS: [&str; 21] = [
    "name",
    "description",
    "labels",
    "annotations",
    "client",
    "clientVersion",
    "ingress",
    "launchStage",
    "binaryAuthorization",
    "template",
    "traffic",
    "scaling",
    "invokerIamDisabled",
    "defaultUriDisabled",
    "iapEnabled",
    "multiRegionSettings",
    "customAudiences",
    "buildConfig",
    "etag",
    "satisfiesPzs",
    "threatDetectionEnabled",
];

/// Answers a request to `run.googleapis.com`, v2. With `$alt=json;enum-encoding=int` enums are
/// written as numbers.
pub(crate) async fn answer(api: &Api, ask: &Ask, path: &[&str]) -> Result<Reply, Status> {
    let numbers = ask.param("$alt").ends_with("enum-encoding=int");
    let answer = dispatch(api, ask, path);
    wire::ENUMS_AS_NUMBERS.scope(numbers, answer).await
}

async fn dispatch(api: &Api, ask: &Ask, path: &[&str]) -> Result<Reply, Status> {
    let ["v2", "projects", project, "locations", region, rest @ ..] = path else {
        return Err(ask.no_such_path());
    };
    let place = api.service_key(project, region, "").await?;
    let key = |name: &str| ServiceKey {
        name: name.to_owned(),
        ..place.clone()
    };
    let result = match (ask.method.as_str(), rest) {
        ("GET", ["services"]) => list_services(api, ask, &place).await,
        ("POST", ["services"]) => create(api, ask, &place).await,
        (method, ["services", name]) => match (method, name.rsplit_once(':')) {
            ("GET", None) => reply::ok(&service::write(&api.service(&key(name)).await?.value)),
            ("PATCH", None) => update(api, ask, &key(name)).await,
            ("DELETE", None) => delete(api, ask, &key(name)).await,
            ("GET", Some((name, "getIamPolicy"))) => {
                reply::ok(&iam::get_policy(api, &key(name)).await?)
            }
            ("POST", Some((name, "setIamPolicy"))) => {
                reply::ok(&iam::set_policy(api, &key(name), &ask.json()?).await?)
            }
            ("POST", Some((_, "testIamPermissions"))) => {
                reply::ok(&iam::test_permissions(&ask.json()?)?)
            }
            _ => Err(ask.no_such_path()),
        },
        ("GET", ["services", name, "revisions"]) => list_revisions(api, ask, &key(name)).await,
        ("GET", ["services", name, "revisions", revision]) => {
            let found = owned(api, &key(name), revision).await?;
            reply::ok(&revision::write(&found.value, found.version))
        }
        ("DELETE", ["services", name, "revisions", revision]) => {
            delete_revision(api, ask, &key(name), revision).await
        }
        ("GET", ["operations"]) => list_operations(api, ask, &place).await,
        ("GET", ["operations", id]) => reply::ok(&operation::get(api, &place, id).await?),
        ("DELETE", ["operations", id]) => {
            // Nothing is kept of an operation, so there is nothing to remove.
            operation::get(api, &place, id).await?;
            reply::ok(&json!({}))
        }
        ("POST", ["operations", id]) => match id.rsplit_once(':') {
            Some((id, "wait")) => wait(api, ask, &place, id).await,
            _ => Err(ask.no_such_path()),
        },
        _ => Err(ask.no_such_path()),
    };
    result.map_err(in_words)
}

/// The etag of a service: of what is wanted, which the controllers' work does not change.
fn etag(service: &Service) -> String {
    STANDARD.encode(format!("{}/{}", service.meta.generation, service.meta.uid))
}

/// What a client expects that sends this etag; nothing if it is empty.
async fn expected(api: &Api, key: &ServiceKey, etag: &str) -> Result<Expected, Status> {
    if etag.is_empty() {
        return Ok(Expected::default());
    }
    let wrong = || {
        Status::invalid(vec![Violation::new(
            "etag",
            format!("'{etag}' is not one that a read gave."),
        )])
    };
    let bytes = crate::etag::bytes(etag).ok_or_else(wrong)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (generation, uid) = text.split_once('/').ok_or_else(wrong)?;
    let generation: i64 = generation.parse().map_err(|_| wrong())?;
    // A service of this name that is another one has none of the generations the client saw.
    let same = api.service(key).await?.value.meta.uid == uid;
    Ok(Expected {
        version: Some(Version::ZERO),
        generation: same.then_some(generation),
    })
}

async fn create(api: &Api, ask: &Ask, place: &ServiceKey) -> Result<Reply, Status> {
    let name = ask.param("serviceId");
    let key = ServiceKey {
        name: name.to_owned(),
        ..place.clone()
    };
    let mut found = Vec::new();
    if name.is_empty() {
        found.push(Violation::new(
            "metadata.name",
            "is empty; the query parameter serviceId says how the service is called.",
        ));
    }
    let sent = parse(wire::normal(ask.json()?))?;
    let only_check = flag(ask, "validateOnly")?;
    let desired = service::read(name, &sent, None, &mut found);
    let made = api
        .create_service(&ask.caller, &key, desired, found, only_check)
        .await
        .map_err(|mut status| {
            for violation in &mut status.violations {
                if violation.field == "metadata.name" {
                    "serviceId".clone_into(&mut violation.field);
                }
            }
            status
        })?;
    written(&made.value, only_check)
}

async fn update(api: &Api, ask: &Ask, key: &ServiceKey) -> Result<Reply, Status> {
    let sent: Value = wire::normal(ask.json()?);
    let only_check = flag(ask, "validateOnly")?;
    let allow_missing = flag(ask, "allowMissing")?;
    let etag = sent["etag"].as_str().unwrap_or_default().to_owned();
    let mask = wire::mask(ask.param("updateMask"));
    let mut tries = 0;
    loop {
        tries += 1;
        let mut found = Vec::new();
        check_name(api, &sent, key, &mut found).await?;
        let old = match api.service(key).await {
            Ok(old) => old.value,
            Err(status) if status.code == Code::NotFound && allow_missing => {
                let desired = service::read(&key.name, &parse(sent)?, None, &mut found);
                let made = api
                    .create_service(&ask.caller, key, desired, found, only_check)
                    .await?;
                return written(&made.value, only_check);
            }
            Err(status) => return Err(status),
        };
        // What neither the mask nor v2 has words for is taken from the service as it was read
        // here, so nobody may change it meanwhile.
        let expected = if etag.is_empty() {
            Expected {
                version: Some(Version::ZERO),
                generation: Some(old.meta.generation),
            }
        } else {
            expected(api, key, &etag).await?
        };
        let whole = parse(masked(&mask, &sent, &old)?)?;
        let desired = service::read(&key.name, &whole, Some(&old), &mut found);
        let made = api
            .replace_service(&ask.caller, key, desired, expected, found, only_check)
            .await;
        match made {
            Err(status)
                if status.code == Code::Aborted && etag.is_empty() && tries < UPDATE_TRIES => {}
            made => return written(&made?.value, only_check),
        }
    }
}

/// What was sent, or the service with only the fields of the mask as sent.
fn masked(mask: &[Vec<String>], sent: &Value, old: &Service) -> Result<Value, Status> {
    if mask.is_empty() {
        return Ok(sent.clone());
    }
    let mut whole = serde_json::to_value(service::write(old)).map_err(|error| {
        Status::new(
            Code::Internal,
            format!("The service cannot be written as JSON: {error}."),
        )
    })?;
    wire::apply(mask, sent, &mut whole, &FIELDS)?;
    Ok(whole)
}

async fn check_name(
    api: &Api,
    sent: &Value,
    key: &ServiceKey,
    found: &mut Vec<Violation>,
) -> Result<(), Status> {
    let name = sent["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Ok(());
    }
    let parts: Vec<&str> = name.split('/').collect();
    let same = match parts.as_slice() {
        [
            "projects",
            project,
            "locations",
            region,
            "services",
            service,
        ] => {
            *region == key.region
                && *service == key.name
                && (*project == key.project
                    || project.parse() == Ok(api.project(&key.project).await?.number))
        }
        _ => false,
    };
    if !same {
        found.push(Violation::new(
            "metadata.name",
            format!(
                "is '{name}', but the request is about '{}'; a service's name cannot be changed.",
                key.name
            ),
        ));
    }
    Ok(())
}

fn parse(message: Value) -> Result<types::Service, Status> {
    serde_path_to_error::deserialize(message).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if path == "." {
            return Status::new(
                Code::InvalidArgument,
                format!("Invalid JSON payload received. {inner}."),
            );
        }
        Status::invalid(vec![Violation::new(path, format!("{inner}."))])
    })
}

fn written(service: &Service, only_check: bool) -> Result<Reply, Status> {
    if only_check {
        reply::ok(&operation::checked(service)?)
    } else {
        reply::ok(&operation::of_service(service)?)
    }
}

async fn delete(api: &Api, ask: &Ask, key: &ServiceKey) -> Result<Reply, Status> {
    let only_check = flag(ask, "validateOnly")?;
    let expected = expected(api, key, ask.param("etag")).await?;
    let gone = api
        .delete_service(&ask.caller, key, expected, only_check)
        .await?;
    written(&gone.value, only_check)
}

async fn delete_revision(
    api: &Api,
    ask: &Ask,
    key: &ServiceKey,
    name: &str,
) -> Result<Reply, Status> {
    let only_check = flag(ask, "validateOnly")?;
    let found = owned(api, key, name).await?;
    let etag = ask.param("etag");
    if !etag.is_empty() && crate::etag::version(etag) != Some(found.version) {
        return Err(Status::new(
            Code::Aborted,
            format!("Revision '{name}' was changed since it was read. Read it again."),
        ));
    }
    let gone = api.delete_revision(&key.revision(name), only_check).await?;
    let operation = operation::of_revision(&gone)?;
    reply::ok(&if only_check {
        operation.succeeded()
    } else {
        operation
    })
}

/// A revision of that service.
async fn owned(api: &Api, key: &ServiceKey, name: &str) -> Result<Stored<Revision>, Status> {
    let found = api.revision(&key.revision(name)).await?;
    if found.value.service == key.name {
        return Ok(found);
    }
    Err(Status::not_found(
        "Revision",
        format!("{}/revisions/{name}", key.name),
    ))
}

async fn list_services(api: &Api, ask: &Ask, place: &ServiceKey) -> Result<Reply, Status> {
    let deleted = flag(ask, "showDeleted")?;
    let page = page::<Service, _>(api, ask, place, |stored| {
        let shown = deleted || stored.value.meta.deleted.is_none();
        shown.then(|| service::write(&stored.value))
    })
    .await?;
    reply::ok(&listing("services", &page))
}

async fn list_revisions(api: &Api, ask: &Ask, key: &ServiceKey) -> Result<Reply, Status> {
    let deleted = flag(ask, "showDeleted")?;
    let page = page::<Revision, _>(api, ask, key, |stored| {
        let ours = key.name == "-" || stored.value.service == key.name;
        let shown = deleted || stored.value.meta.deleted.is_none();
        (ours && shown).then(|| revision::write(&stored.value, stored.version))
    })
    .await?;
    reply::ok(&listing("revisions", &page))
}

async fn list_operations(api: &Api, ask: &Ask, place: &ServiceKey) -> Result<Reply, Status> {
    if !ask.param("filter").is_empty() {
        return Err(Status::invalid(vec![Violation::new(
            "filter",
            "is not supported by this version of Lauf; leave it out.",
        )]));
    }
    let page = page::<Service, _>(api, ask, place, |stored| {
        operation::of_service(&stored.value).ok()
    })
    .await?;
    reply::ok(&listing("operations", &page))
}

async fn page<T: Resource, V>(
    api: &Api,
    ask: &Ask,
    place: &ServiceKey,
    write: impl Fn(Stored<T>) -> Option<V>,
) -> Result<Listing<V>, Status> {
    let limit = match ask.count("pageSize")? {
        0 => PAGE,
        size => size.min(MAX_PAGE),
    };
    let from = Token::decode(ask.param("pageToken"))?;
    let region = Some(place.region.as_str());
    api.page(&place.project, region, limit, from, write).await
}

fn listing<V: serde::Serialize>(field: &str, page: &Listing<V>) -> Value {
    let mut reply = json!({ field: page.items });
    if let Some(next) = &page.next {
        reply["nextPageToken"] = next.encode().into();
    }
    reply
}

async fn wait(api: &Api, ask: &Ask, place: &ServiceKey, id: &str) -> Result<Reply, Status> {
    #[derive(serde::Deserialize, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Wait {
        #[serde(rename = "name")]
        _name: Option<String>,
        timeout: Option<String>,
    }
    let sent: Wait = ask.json()?;
    let seconds = match &sent.timeout {
        None => WAIT,
        Some(text) => text
            .strip_suffix('s')
            .and_then(|number| number.split('.').next()?.parse::<u64>().ok())
            .ok_or_else(|| {
                Status::invalid(vec![Violation::new(
                    "timeout",
                    format!("'{text}' is not a duration, such as 60s."),
                )])
            })?,
    };
    let until = tokio::time::sleep(Duration::from_secs(seconds.min(MAX_WAIT)));
    tokio::pin!(until);
    loop {
        let operation = operation::get(api, place, id).await?;
        if operation.done {
            return reply::ok(&operation);
        }
        tokio::select! {
            () = &mut until => return reply::ok(&operation),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn flag(ask: &Ask, name: &str) -> Result<bool, Status> {
    match ask.param(name) {
        "" | "false" | "False" => Ok(false),
        "true" | "True" => Ok(true),
        other => Err(Status::invalid(vec![Violation::new(
            name,
            format!("'{other}' is not allowed; it must be true or false."),
        )])),
    }
}

/// The fields that v1 has as annotations, in the words of v2.
const ANNOTATIONS: [(&str, &str); 9] = [
    (
        "spec.template.metadata.annotations[autoscaling.knative.dev/minScale]",
        "template.scaling.minInstanceCount",
    ),
    (
        "spec.template.metadata.annotations[autoscaling.knative.dev/maxScale]",
        "template.scaling.maxInstanceCount",
    ),
    (
        "spec.template.metadata.annotations[run.googleapis.com/execution-environment]",
        "template.executionEnvironment",
    ),
    (
        "metadata.annotations[run.googleapis.com/minScale]",
        "scaling.minInstanceCount",
    ),
    (
        "metadata.annotations[run.googleapis.com/maxScale]",
        "scaling.maxInstanceCount",
    ),
    (
        "metadata.annotations[run.googleapis.com/manualInstanceCount]",
        "scaling.manualInstanceCount",
    ),
    (
        "metadata.annotations[run.googleapis.com/ingress]",
        "ingress",
    ),
    (
        "metadata.annotations[run.googleapis.com/launch-stage]",
        "launchStage",
    ),
    (
        "metadata.annotations[run.googleapis.com/description]",
        "description",
    ),
];

/// An error with v1's annotations in the words of v2.
fn in_words(mut status: Status) -> Status {
    for violation in &mut status.violations {
        let known = ANNOTATIONS.iter().find(|(v1, _)| violation.field == *v1);
        if let Some((_, v2)) = known {
            (*v2).clone_into(&mut violation.field);
        }
    }
    status
}
