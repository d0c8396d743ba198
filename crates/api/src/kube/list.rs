//! Reading: one object, or a list of them in pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use lauf_store::{ListQuery, Scope, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::accept::Accept;
use super::failure::{Cause, Failure};
use super::kind::{Kind, Place};
use super::select::Select;
use crate::api::{Api, Ask};
use crate::failed;
use crate::reply::Reply;

/// Where the next page of a list starts.
///
/// It carries the version of the first page, which all pages name: a client that lists in pages and
/// watches from there misses nothing of what was written between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Next {
    #[serde(rename = "v")]
    version: u64,
    #[serde(rename = "s")]
    scope: String,
    #[serde(rename = "n")]
    name: String,
}

/// Objects that were selected, and the version as of which they are.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) items: Vec<Value>,
    pub(crate) version: u64,
    next: Option<Next>,
}

/// Answers with one object.
pub(crate) async fn get(
    api: &Api,
    ask: &Ask,
    kind: &dyn Kind,
    place: &Place,
    name: &str,
    accept: &Accept,
) -> Result<Reply, Failure> {
    fresh_enough(api, ask, kind)?;
    let object = find(api, kind, place, name).await?;
    accept.object(kind, StatusCode::OK, object)
}

/// An object, or that it is not there.
pub(crate) async fn find(
    api: &Api,
    kind: &dyn Kind,
    place: &Place,
    name: &str,
) -> Result<Value, Failure> {
    let missing = || Failure::not_found(kind.names(), name);
    let key = place.key(kind, name).ok_or_else(missing)?;
    let found = api.deps.store.get(&key).await;
    let object = found.map_err(|error| failed::read(&error))?;
    kind.show(&object.ok_or_else(missing)?)
}

/// Answers with a list.
pub(crate) async fn list(
    api: &Api,
    ask: &Ask,
    kind: &dyn Kind,
    place: &Place,
    accept: &Accept,
) -> Result<Reply, Failure> {
    fresh_enough(api, ask, kind)?;
    let select = Select::of(ask, "")?;
    let limit = ask.count("limit")?;
    let listed = collect(api, kind, place, &select, limit, ask.param("continue")).await?;
    let mut metadata = json!({"resourceVersion": listed.version.to_string()});
    if let Some(next) = &listed.next {
        metadata["continue"] = encode(next).into();
    }
    accept.list(kind, listed.items, metadata)
}

/// The objects of a place that are selected. Zero as the limit asks for all.
pub(crate) async fn collect(
    api: &Api,
    kind: &dyn Kind,
    place: &Place,
    select: &Select,
    limit: usize,
    from: &str,
) -> Result<Listed, Failure> {
    let from = decode(from)?;
    let store = &api.deps.store;
    // One name is looked up, whatever else there is.
    if let Some(key) = select.name().and_then(|name| place.key(kind, name)) {
        let version = store.version().get();
        let found = store.get(&key).await.map_err(|e| failed::read(&e))?;
        let shown = found.map(|object| kind.show(&object)).transpose()?;
        return Ok(Listed {
            items: shown.into_iter().filter(|o| select.matches(o)).collect(),
            version,
            next: None,
        });
    }
    let mut walk = store.walk(ListQuery {
        scope: scope(kind, place),
        after: from.as_ref().map(|n| (n.scope.clone(), n.name.clone())),
        ..ListQuery::all(kind.stored())
    });
    let mut items = Vec::new();
    let mut last = None;
    while let Some(object) = walk.next().await.map_err(|error| failed::read(&error))? {
        if !place.holds(kind, &object.key) {
            continue;
        }
        let shown = kind.show(&object)?;
        if !select.matches(&shown) {
            continue;
        }
        items.push(shown);
        if limit > 0 && items.len() == limit && !walk.is_over() {
            last = Some(object.key);
            break;
        }
    }
    let version = from.map_or(walk.version().get(), |next| next.version);
    Ok(Listed {
        items,
        version,
        next: last.map(|key| Next {
            version,
            scope: key.scope,
            name: key.name,
        }),
    })
}

/// Which scopes of the store to read for a place.
pub(crate) fn scope(kind: &dyn Kind, place: &Place) -> Scope {
    match place.scope_prefix(kind) {
        prefix if prefix.is_empty() => Scope::Prefix(prefix),
        scope => Scope::Exact(scope),
    }
}

/// Reads are always of now; a client that asks for a later version, or exactly for another, is told
/// that there is none (API concepts, "Resource versions").
fn fresh_enough(api: &Api, ask: &Ask, kind: &dyn Kind) -> Result<(), Failure> {
    let text = ask.param("resourceVersion");
    let exact = match ask.param("resourceVersionMatch") {
        "" | "NotOlderThan" => false,
        "Exact" => true,
        other => {
            return Err(Failure::bad_request(format!(
                "resourceVersionMatch: '{other}' is not allowed; it must be Exact or NotOlderThan"
            )));
        }
    };
    let wanted = version(text)?;
    let current = api.deps.store.version();
    if exact && wanted != current && !ask.param("continue").is_empty() {
        return Err(Failure::bad_request(
            "resourceVersionMatch is forbidden when continue is given",
        ));
    }
    if wanted > current {
        return Err(too_large(wanted, current));
    }
    if exact && wanted != current {
        return Err(Failure::expired(format!(
            "the resource version {wanted} of {} is no longer kept, only {current} is: list \
             without it",
            kind.names().resource()
        )));
    }
    Ok(())
}

/// The answer to those who know of a version that this store has not reached.
fn too_large(wanted: Version, current: Version) -> Failure {
    let message = format!("Too large resource version: {wanted}, current: {current}");
    Failure::new(504, "Timeout", format!("Timeout: {message}")).because(vec![Cause {
        reason: "ResourceVersionTooLarge",
        message: "Too large resource version".to_owned(),
        field: String::new(),
    }])
}

/// Reads a resource version; zero where there is none.
pub(crate) fn version(text: &str) -> Result<Version, Failure> {
    if text.is_empty() {
        return Ok(Version::ZERO);
    }
    let number: Result<u64, _> = text.parse();
    number
        .ok()
        // SQLite counts to there.
        .filter(|number| i64::try_from(*number).is_ok())
        .map(Version::new)
        .ok_or_else(|| {
            Failure::bad_request(format!(
                "resourceVersion: '{text}' is not one that a read gave"
            ))
        })
}

fn encode(next: &Next) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(next).unwrap_or_default())
}

fn decode(text: &str) -> Result<Option<Next>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let json = URL_SAFE_NO_PAD.decode(text).ok();
    json.and_then(|json| serde_json::from_slice(&json).ok())
        .map(Some)
        .ok_or_else(|| {
            Failure::bad_request("continue key is not valid: it is not one that a list gave")
        })
}
