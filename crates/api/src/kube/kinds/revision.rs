//! Revisions of Knative Serving. Services make them; they can be read and deleted.

use std::sync::LazyLock;

use async_trait::async_trait;
use lauf_model::{Revision, ServiceKey};
use lauf_store::{Object, Resource as _, Stored, Version};
use serde_json::Value;

use super::service::{READY, REASON};
use crate::api::{Api, Ask};
use crate::failed;
use crate::kube::failure::Failure;
use crate::kube::kind::{Column, Kind, Names, Place, Verb};
use crate::kube::schema::{Schema, serving};
use crate::kube::view;
use crate::v1;

pub(super) struct Revisions;

const NAMES: Names = Names {
    group: "serving.knative.dev",
    version: "v1",
    kind: "Revision",
    plural: "revisions",
    singular: "revision",
    short: &["rev"],
    categories: &["all", "knative", "serving"],
    namespaced: true,
    status: true,
};

const COLUMNS: &[Column] = &[
    Column {
        name: "Config Name",
        kind: "string",
        description: "The configuration, and service, that made it.",
        priority: 0,
        cell: |o| label(o, "serving.knative.dev/configuration"),
    },
    Column {
        name: "Generation",
        kind: "string",
        description: "The configuration's generation that made it.",
        priority: 0,
        cell: |o| label(o, "serving.knative.dev/configurationGeneration"),
    },
    READY,
    REASON,
];

fn label(object: &Value, name: &str) -> Value {
    object["metadata"]["labels"][name].clone()
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(serving::revision);

#[async_trait]
impl Kind for Revisions {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn verbs(&self) -> &'static [Verb] {
        &[
            Verb::Get,
            Verb::List,
            Verb::Watch,
            Verb::Delete,
            Verb::DeleteCollection,
        ]
    }

    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn stored(&self) -> lauf_store::Kind {
        Revision::KIND
    }

    fn show(&self, object: &Object) -> Result<Value, Failure> {
        let stored = Stored::<Revision>::read(object).map_err(|error| failed::body(&error))?;
        view::json(&v1::revision::write(&stored.value, stored.version.get()))
    }

    async fn delete(
        &self,
        api: &Api,
        _ask: &Ask,
        place: &Place,
        name: &str,
        _version: Version,
        dry_run: bool,
    ) -> Result<Value, Failure> {
        let service = ServiceKey {
            project: place.project.clone().unwrap_or_default(),
            region: place.region.clone(),
            name: String::new(),
        };
        let gone = api
            .delete_revision(&service.revision(name), dry_run)
            .await?;
        view::json(&v1::revision::write(&gone.value, gone.version.get()))
    }
}
