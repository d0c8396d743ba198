//! A sort of object, as the rest of this face needs to know it.

use async_trait::async_trait;
use lauf_store::{Key, Object, Version};
use serde_json::Value;

use super::failure::Failure;
use super::intent;
use super::schema::Schema;
use super::view::{Current, Next};
use crate::api::{Api, Ask};

/// What a kind is called.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The API group; empty for the core.
    pub(crate) group: &'static str,
    /// The version of the group.
    pub(crate) version: &'static str,
    /// In objects: `Service`.
    pub(crate) kind: &'static str,
    /// In paths: `services`.
    pub(crate) plural: &'static str,
    /// For people: `service`.
    pub(crate) singular: &'static str,
    /// For people in a hurry: `ksvc`.
    pub(crate) short: &'static [&'static str],
    /// Groups in which people ask for it: `all`.
    pub(crate) categories: &'static [&'static str],
    /// Whether it is in a namespace.
    pub(crate) namespaced: bool,
    /// Whether its status has a path of its own.
    pub(crate) status: bool,
}

impl Names {
    /// `serving.knative.dev/v1`, or `v1` for the core.
    pub(crate) fn api_version(&self) -> String {
        group_version(self.group, self.version)
    }

    /// `services.serving.knative.dev`, as errors call it.
    pub(crate) fn resource(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

/// A group and a version in one word.
pub(crate) fn group_version(group: &str, version: &str) -> String {
    match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    }
}

/// What may be done with objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the verbs of Kubernetes' API")]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// The word in discovery.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// What can only be read.
pub(crate) const READ: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];

/// A column of the table that `kubectl get` prints, after the name.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) name: &'static str,
    /// `string`, `integer` or `date` (OpenAPI).
    pub(crate) kind: &'static str,
    /// What it shows.
    pub(crate) description: &'static str,
    /// Zero for always, more for `-o wide`.
    pub(crate) priority: u8,
    /// Its cell for an object; null where there is nothing to show.
    pub(crate) cell: fn(&Value) -> Value,
}

/// Where objects are: a namespace, or all; and always one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The project's id, unless it is about all.
    pub(crate) project: Option<String>,
    /// The region.
    pub(crate) region: String,
}

impl Place {
    /// Where the store keeps what is of a kind here, if the place is one of the store's.
    pub(crate) fn key(&self, kind: &dyn Kind, name: &str) -> Option<Key> {
        let scope = if kind.names().namespaced {
            format!("{}/{}", self.project.as_deref()?, self.region)
        } else {
            String::new()
        };
        Some(Key::new(kind.stored(), scope, name))
    }

    /// Whether an object of the store is here.
    pub(crate) fn holds(&self, kind: &dyn Kind, key: &Key) -> bool {
        if !kind.names().namespaced {
            return true;
        }
        key.scope.split_once('/').is_some_and(|(project, region)| {
            region == self.region && self.project.as_deref().is_none_or(|p| p == project)
        })
    }

    /// The beginning of the scopes of what is here.
    pub(crate) fn scope_prefix(&self, kind: &dyn Kind) -> String {
        match &self.project {
            Some(project) if kind.names().namespaced => format!("{project}/{}", self.region),
            _ => String::new(),
        }
    }
}

/// A sort of object: what it is called, how it looks, and how it is written.
#[async_trait]
pub(crate) trait Kind: Send + Sync + 'static {
    /// What it is called.
    fn names(&self) -> &'static Names;

    /// What may be done with it.
    fn verbs(&self) -> &'static [Verb] {
        READ
    }

    /// What its fields are.
    fn schema(&self) -> &'static Schema;

    /// What a table shows of it, after the name.
    fn columns(&self) -> &'static [Column];

    /// Of which sort the objects of the store are that it shows.
    fn stored(&self) -> lauf_store::Kind;

    /// An object of the store as clients see it.
    fn show(&self, object: &Object) -> Result<Value, Failure>;

    /// What a client wants that sends an object, without what only the server writes.
    fn wanted(&self, object: &Value) -> Value {
        intent::of(object)
    }

    /// Makes an object, and shows it. Called for kinds that say they can.
    async fn create(
        &self,
        _api: &Api,
        ask: &Ask,
        _place: &Place,
        _name: &str,
        _next: Next,
        _dry_run: bool,
    ) -> Result<Value, Failure> {
        Err(Failure::not_allowed(ask, "is not supported"))
    }

    /// Changes an object, and shows it. `edit` is asked again when somebody else was quicker.
    /// Called for kinds that say they can.
    async fn change(
        &self,
        _api: &Api,
        ask: &Ask,
        _place: &Place,
        _name: &str,
        _dry_run: bool,
        _edit: Edit<'_>,
    ) -> Result<Value, Failure> {
        Err(Failure::not_allowed(ask, "is not supported"))
    }

    /// Deletes the object of that version, and shows what is left of it. Called for kinds that say
    /// they can.
    async fn delete(
        &self,
        _api: &Api,
        ask: &Ask,
        _place: &Place,
        _name: &str,
        _version: Version,
        _dry_run: bool,
    ) -> Result<Value, Failure> {
        Err(Failure::not_allowed(ask, "is not supported"))
    }
}

/// What an object shall be, by what it is.
pub(crate) type Edit<'a> = &'a (dyn Fn(&Current) -> Result<Next, Failure> + Send + Sync);

/// The cell of a text at a path of the object.
pub(crate) fn text(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).cloned().unwrap_or_default()
}

/// A field of the condition `Ready`.
pub(crate) fn ready(object: &Value, field: &str) -> Value {
    let conditions = object.pointer("/status/conditions");
    conditions
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|c| c["type"] == "Ready")
        .map(|c| c[field].clone())
        .unwrap_or_default()
}
