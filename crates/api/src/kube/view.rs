//! Objects as this face shows them, and as it finds them when it changes them.

use lauf_model::Meta;
use lauf_model::meta::Kubernetes;
use serde::Serialize;
use serde_json::Value;

use super::failure::Failure;
use super::fields::Managers;
use super::intent;

/// An object as it is, for one who changes it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Current {
    /// As clients see it.
    pub(crate) shown: Value,
    /// What is wanted of it.
    pub(crate) intent: Value,
    /// Who said so.
    pub(crate) managers: Managers,
}

/// What an object shall be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Next {
    /// What is wanted of it.
    pub(crate) intent: Value,
    /// Who said so.
    pub(crate) managers: Managers,
}

impl Next {
    /// As it is kept with the object, whose generation is the one given.
    pub(crate) fn keep(&self, generation: i64) -> Option<Box<Kubernetes>> {
        Some(Box::new(Kubernetes {
            generation,
            intent: self.intent.to_string(),
            managers: self.managers.write().to_string(),
        }))
    }
}

/// A wire form as JSON.
pub(crate) fn json(written: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(written).map_err(|error| {
        Failure::new(
            500,
            "InternalError",
            format!("the object cannot be written as JSON: {error}"),
        )
    })
}

/// What a client of this face has said of an object, if it is about the object as it is now.
fn kept_intent(meta: &Meta) -> Option<Value> {
    let kept = meta.kubernetes.as_deref()?;
    let current = kept.generation == meta.generation && !kept.intent.is_empty();
    current.then(|| serde_json::from_str(&kept.intent).ok())?
}

fn kept_managers(meta: &Meta) -> Managers {
    let kept = meta.kubernetes.as_deref();
    kept.and_then(|kept| serde_json::from_str(&kept.managers).ok())
        .and_then(|managers| Managers::read(&managers))
        .unwrap_or_default()
}

/// An object as clients see it, of the form that all faces share.
pub(crate) fn show(mut plain: Value, meta: &Meta) -> Value {
    if let Some(intent) = kept_intent(meta) {
        intent::lay_over(&mut plain, &intent);
    }
    let managers = kept_managers(meta);
    if !managers.is_empty() {
        plain["metadata"]["managedFields"] = managers.write();
    }
    if meta.deleted.is_some() {
        plain["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    }
    plain
}

/// An object for one who changes it. `derive` makes an intent of one that no client of this face has
/// written.
pub(crate) fn current(plain: Value, meta: &Meta, derive: impl FnOnce(&Value) -> Value) -> Current {
    let intent = kept_intent(meta).unwrap_or_else(|| derive(&plain));
    Current {
        shown: show(plain, meta),
        intent,
        managers: kept_managers(meta),
    }
}
