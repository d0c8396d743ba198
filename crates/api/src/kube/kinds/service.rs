//! Services of Knative Serving.

use std::sync::LazyLock;

use async_trait::async_trait;
use lauf_model::{Service, ServiceKey, ServiceStatus, Violation};
use lauf_store::{Object, Resource as _, Stored, Version};
use serde_json::{Value, json};

use crate::api::{Api, Ask};
use crate::failed;
use crate::kube::failure::Failure;
use crate::kube::fields::Who;
use crate::kube::intent;
use crate::kube::kind::{Column, Edit, Kind, Names, Place, Verb, ready, text};
use crate::kube::knative;
use crate::kube::schema::{Schema, serving};
use crate::kube::view::{self, Next};
use crate::services::{Desired, Expected};
use crate::v1;
use crate::v1::annotations::OUTPUT_ONLY;

pub(super) struct Services;

const NAMES: Names = Names {
    group: "serving.knative.dev",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short: &["kservice", "ksvc"],
    categories: &["all", "knative", "serving"],
    namespaced: true,
    status: true,
};

/// Knative's own columns.
const COLUMNS: &[Column] = &[
    Column {
        name: "URL",
        kind: "string",
        description: "Where the service is reached.",
        priority: 0,
        cell: |o| text(o, "/status/url"),
    },
    Column {
        name: "LatestCreated",
        kind: "string",
        description: "The newest revision.",
        priority: 0,
        cell: |o| text(o, "/status/latestCreatedRevisionName"),
    },
    Column {
        name: "LatestReady",
        kind: "string",
        description: "The newest revision that became ready.",
        priority: 0,
        cell: |o| text(o, "/status/latestReadyRevisionName"),
    },
    READY,
    REASON,
];

/// Whether the object is ready.
pub(super) const READY: Column = Column {
    name: "Ready",
    kind: "string",
    description: "True, False, or Unknown while work is under way.",
    priority: 0,
    cell: |o| ready(o, "status"),
};

/// Why it is not.
pub(super) const REASON: Column = Column {
    name: "Reason",
    kind: "string",
    description: "Why it is not ready.",
    priority: 0,
    cell: |o| ready(o, "reason"),
};

static SCHEMA: LazyLock<Schema> = LazyLock::new(serving::service);

const VERBS: &[Verb] = &[
    Verb::Get,
    Verb::List,
    Verb::Watch,
    Verb::Create,
    Verb::Update,
    Verb::Patch,
    Verb::Delete,
    Verb::DeleteCollection,
];

#[async_trait]
impl Kind for Services {
    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn verbs(&self) -> &'static [Verb] {
        VERBS
    }

    fn schema(&self) -> &'static Schema {
        &SCHEMA
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn stored(&self) -> lauf_store::Kind {
        Service::KIND
    }

    fn show(&self, object: &Object) -> Result<Value, Failure> {
        let stored = Stored::<Service>::read(object).map_err(|error| failed::body(&error))?;
        show(&stored)
    }

    fn wanted(&self, object: &Value) -> Value {
        wanted(object)
    }

    async fn create(
        &self,
        api: &Api,
        ask: &Ask,
        place: &Place,
        name: &str,
        next: Next,
        dry_run: bool,
    ) -> Result<Value, Failure> {
        let key = key(place, name)?;
        let mut found = Vec::new();
        let desired = read(&key, &next.intent, &mut found)?;
        let meta = api.new_meta(&ask.caller, &key)?;
        let mut service = desired.into_service(meta, ServiceStatus::default());
        service.meta.kubernetes = next.keep(service.meta.generation);
        show(&api.insert_service(service, found, dry_run).await?)
    }

    async fn change(
        &self,
        api: &Api,
        ask: &Ask,
        place: &Place,
        name: &str,
        dry_run: bool,
        edit: Edit<'_>,
    ) -> Result<Value, Failure> {
        let key = key(place, name)?;
        if api.find::<Service>(&key).await?.is_none() {
            return Err(Failure::not_found(&NAMES, name));
        }
        let changed = api.change_service(&key, dry_run, |old| -> Result<_, Failure> {
            let current = view::current(plain(old)?, &old.value.meta, derive);
            let next = edit(&current)?;
            let mut found = Vec::new();
            let desired = read(&key, &next.intent, &mut found)?;
            let mut service = api.changed(&ask.caller, &old.value, desired);
            // A write that changes nothing leaves no trace.
            if service != old.value
                || next.intent != current.intent
                || next.managers != current.managers
            {
                service.meta.kubernetes = next.keep(service.meta.generation);
            }
            Ok((service, found))
        });
        show(&changed.await?)
    }

    async fn delete(
        &self,
        api: &Api,
        ask: &Ask,
        place: &Place,
        name: &str,
        version: Version,
        dry_run: bool,
    ) -> Result<Value, Failure> {
        let expected = Expected {
            version: Some(version),
            generation: None,
        };
        let key = key(place, name)?;
        show(
            &api.delete_service(&ask.caller, &key, expected, dry_run)
                .await?,
        )
    }
}

fn key(place: &Place, name: &str) -> Result<ServiceKey, Failure> {
    let project = place.project.clone();
    Ok(ServiceKey {
        project: project.ok_or_else(|| Failure::bad_request("a namespace is required"))?,
        region: place.region.clone(),
        name: name.to_owned(),
    })
}

fn plain(stored: &Stored<Service>) -> Result<Value, Failure> {
    view::json(&v1::service::write(&stored.value, stored.version.get()))
}

fn show(stored: &Stored<Service>) -> Result<Value, Failure> {
    Ok(view::show(plain(stored)?, &stored.value.meta))
}

/// Reads what is wanted of a service.
fn read(key: &ServiceKey, wanted: &Value, found: &mut Vec<Violation>) -> Result<Desired, Failure> {
    knative::check(wanted, found);
    let mut object = wanted.clone();
    object["metadata"]["name"] = key.name.clone().into();
    let sent: v1::types::Service = serde_path_to_error::deserialize(object).map_err(|error| {
        let at = error.path().to_string();
        let why = Violation::new(at, format!("{}.", error.into_inner()));
        Failure::from(lauf_model::Status::invalid(vec![why]))
    })?;
    Ok(v1::service::read(&sent, found))
}

/// What a client wants that sends a service, without what only Lauf writes.
fn wanted(object: &Value) -> Value {
    let mut intent = intent::of(object);
    if let Some(labels) = intent.pointer_mut("/metadata/labels") {
        remove(labels, &[v1::service::LOCATION]);
    }
    if let Some(notes) = intent.pointer_mut("/metadata/annotations") {
        remove(notes, &OUTPUT_ONLY);
    }
    intent::of(&intent)
}

/// What is wanted of a service that no client of this face has written: all that is shown, but for
/// a port that nobody asked for.
fn derive(shown: &Value) -> Value {
    let mut intent = wanted(shown);
    let containers = intent.pointer_mut("/spec/template/spec/containers");
    let containers = containers.and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        if container["ports"] == json!([{"name": "http1", "containerPort": 8080}]) {
            remove(container, &["ports"]);
        }
    }
    intent
}

fn remove(from: &mut Value, names: &[&str]) {
    if let Some(fields) = from.as_object_mut() {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
}

/// Keeps what clients of this face have said of a service that another face has changed: what it
/// did not change is as it was said, and what it did is managed by it.
pub(crate) fn carry(old: &Service, new: &mut Service) {
    if new.meta.kubernetes.is_none() || old == new {
        return;
    }
    let shown = |service: &Service| {
        serde_json::to_value(v1::service::write(service, 0)).unwrap_or_default()
    };
    let (before, after) = (shown(old), shown(new));
    let current = view::current(before.clone(), &old.meta, derive);
    let intent = intent::changed(&wanted(&after), &wanted(&before), &current.intent);
    let name = match new.meta.client.as_str() {
        "" => "lauf",
        client => client,
    };
    let api_version = NAMES.api_version();
    let who = Who {
        name,
        api_version: &api_version,
        now: new.meta.updated,
    };
    let managers = current
        .managers
        .updated(&SCHEMA, &current.intent, &intent, who);
    new.meta.kubernetes = Next { intent, managers }.keep(new.meta.generation);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::body::Body;
    use crate::kube::check::{self, Strictness};
    use crate::kube::fields::Managers;
    use crate::v1::roundtrip::a_service;
    use proptest::prelude::*;

    fn stored(value: &Service) -> Stored<Service> {
        Stored {
            value: value.clone(),
            version: Version::new(1),
        }
    }

    fn means(service: &Service, intent: &Value) -> Desired {
        // Violations are of no interest here: any service will do.
        read(&service.key(), intent, &mut Vec::new()).unwrap()
    }

    proptest! {
        /// Everything that is shown is in the schema, and what is made of it means the same.
        #[test]
        fn what_is_shown_is_known_and_reads_back(service in a_service()) {
            let shown = show(&stored(&service)).unwrap();
            let body = Body { value: shown.clone(), twice: Vec::new() };
            let (kept, _) = check::object(&SCHEMA, body, Strictness::Strict).unwrap();
            prop_assert_eq!(&kept, &shown);
            let intent = derive(&shown);
            let desired = means(&service, &intent);
            prop_assert_eq!(&desired.spec, &service.spec);
            prop_assert_eq!(&desired.labels, &service.meta.labels);
            prop_assert_eq!(&desired.annotations, &service.meta.annotations);
            // Sent back as it was shown, it is what it was.
            let again = intent::changed(&wanted(&shown), &wanted(&shown), &intent);
            prop_assert_eq!(again, intent);
        }

        /// What another face makes of a service is what this face then says is wanted.
        #[test]
        fn changes_of_other_faces_are_carried(before in a_service(), after in a_service()) {
            let mut before = before;
            let intent = derive(&show(&stored(&before)).unwrap());
            let managers = Managers::default();
            before.meta.kubernetes = Next { intent, managers }.keep(before.meta.generation);
            let mut after = Service { meta: before.meta.clone(), ..after };
            after.meta.generation += 1;
            carry(&before, &mut after);
            let current = view::current(plain(&stored(&after)).unwrap(), &after.meta, derive);
            prop_assert_eq!(&means(&after, &current.intent).spec, &after.spec);
            prop_assert_eq!(&means(&after, &intent::of(&current.shown)).spec, &after.spec);
        }
    }
}
