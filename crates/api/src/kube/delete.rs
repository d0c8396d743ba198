//! Deleting: one object, or all that are selected.
//!
//! What is deleted goes when its instances have stopped; until then it is there with a
//! `deletionTimestamp`, which is Kubernetes' foreground deletion.

use http::StatusCode;
use lauf_store::Version;
use serde_json::Value;

use super::accept::Accept;
use super::body;
use super::failure::Failure;
use super::kind::{Kind, Place, Verb};
use super::list;
use super::select::Select;
use super::write::{dry_run, option};
use crate::api::{Api, Ask};
use crate::reply::Reply;

/// How often a deletion is tried again when others write too.
const TRIES: usize = 5;

/// How to delete (`meta/v1`, `DeleteOptions`), from the body and the query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Options {
    uid: Option<String>,
    version: Option<String>,
    dry_run: bool,
}

/// Answers a request that deletes.
pub(crate) async fn answer(
    api: &Api,
    ask: &Ask,
    kind: &'static dyn Kind,
    place: &Place,
    name: &str,
    accept: &Accept,
) -> Result<Reply, Failure> {
    let verb = if name.is_empty() {
        Verb::DeleteCollection
    } else {
        Verb::Delete
    };
    if !kind.verbs().contains(&verb) {
        let plural = kind.names().plural;
        return Err(Failure::not_allowed(
            ask,
            &format!("is not supported: {plural} go with their service"),
        ));
    }
    let options = Options::read(ask)?;
    if !name.is_empty() {
        let object = one(api, ask, kind, place, name, &options).await?;
        return accept.object(kind, StatusCode::OK, object);
    }
    if place.project.is_none() {
        return Err(Failure::not_allowed(
            ask,
            "is not supported across namespaces",
        ));
    }
    let select = Select::of(ask, "")?;
    let all = list::collect(api, kind, place, &select, 0, "").await?;
    let mut gone = Vec::new();
    for object in all.items {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match one(api, ask, kind, place, name, &options).await {
            Ok(object) => gone.push(object),
            // Another was quicker.
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure.about(kind.names(), name)),
        }
    }
    let version = serde_json::json!({"resourceVersion": all.version.to_string()});
    accept.list(kind, gone, version)
}

async fn one(
    api: &Api,
    ask: &Ask,
    kind: &'static dyn Kind,
    place: &Place,
    name: &str,
    options: &Options,
) -> Result<Value, Failure> {
    let mut outcome = None;
    for _ in 0..TRIES {
        let object = list::find(api, kind, place, name).await?;
        options.check(kind, name, &object)?;
        let version = object["metadata"]["resourceVersion"].as_str();
        let version = Version::new(version.and_then(|v| v.parse().ok()).unwrap_or_default());
        let deleted = kind
            .delete(api, ask, place, name, version, options.dry_run)
            .await;
        match deleted {
            // It was changed between the two: look again, unless one version alone is meant.
            Err(failure) if failure.code == 409 && options.version.is_none() => {
                let unchanged = list::find(api, kind, place, name)
                    .await
                    .is_ok_and(|now| now == object);
                if unchanged {
                    return Err(failure);
                }
                outcome = Some(failure);
            }
            deleted => return deleted,
        }
    }
    Err(outcome.unwrap_or_else(|| Failure::not_found(kind.names(), name)))
}

impl Options {
    fn read(ask: &Ask) -> Result<Self, Failure> {
        let sent = body::object(ask)?.value;
        if !sent.is_null() && !sent.is_object() {
            return Err(Failure::bad_request("the body must be DeleteOptions"));
        }
        let policy = match sent["propagationPolicy"].as_str() {
            Some(policy) => policy,
            None => ask.param("propagationPolicy"),
        };
        let orphan = sent["orphanDependents"] == Value::Bool(true)
            || ask.param("orphanDependents") == "true";
        match policy {
            "" | "Background" | "Foreground" if !orphan => {}
            "" | "Background" | "Foreground" | "Orphan" => {
                return Err(option(
                    "propagationPolicy",
                    "Orphan is not supported: revisions do not outlive their service. Leave it \
                     out, or say Foreground or Background",
                ));
            }
            other => {
                return Err(option(
                    "propagationPolicy",
                    &format!(
                        "Unsupported value: \"{other}\": supported values: \"Background\", \
                         \"Foreground\""
                    ),
                ));
            }
        }
        let dry = match sent["dryRun"].as_array().map(Vec::as_slice) {
            None | Some([]) => dry_run(ask)?,
            Some(words) if words.iter().all(|word| word == "All") => true,
            Some(words) => {
                return Err(option(
                    "dryRun",
                    &format!("Unsupported value: {words:?}: supported values: \"All\""),
                ));
            }
        };
        let text = |field: &str| {
            let text = sent["preconditions"][field].as_str();
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Ok(Self {
            uid: text("uid"),
            version: text("resourceVersion"),
            dry_run: dry,
        })
    }

    fn check(&self, kind: &dyn Kind, name: &str, object: &Value) -> Result<(), Failure> {
        for (wanted, field, word) in [
            (&self.uid, "uid", "UID"),
            (&self.version, "resourceVersion", "ResourceVersion"),
        ] {
            let is = object["metadata"][field].as_str().unwrap_or_default();
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != is) {
                return Err(Failure::conflict(
                    kind.names(),
                    name,
                    &format!(
                        "Precondition failed: {word} in precondition: {wanted}, {word} in object \
                         meta: {is}"
                    ),
                ));
            }
        }
        Ok(())
    }
}
