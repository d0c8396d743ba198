//! Revisions, routes and configurations: what v1 shows of them. Clients write none of these.

use lauf_model::{Condition, Revision, Service};
use serde_json::{Value, json};

use super::annotations::CREATOR;
use super::service;
use super::types;

/// The label that says which service a revision belongs to.
pub(super) const SERVICE: &str = "serving.knative.dev/service";

/// Writes a revision.
pub(crate) fn write(revision: &Revision, version: u64) -> types::Revision {
    let meta = &revision.meta;
    let mut metadata = service::metadata(meta, version, "revisions");
    let labels = &mut metadata.labels;
    for (key, value) in [
        (SERVICE, revision.service.clone()),
        (
            "serving.knative.dev/configuration",
            revision.service.clone(),
        ),
        (
            "serving.knative.dev/configurationGeneration",
            revision.service_generation.to_string(),
        ),
    ] {
        labels.insert(key.to_owned(), value);
    }
    metadata.annotations = service::write_revision_notes(
        &meta.annotations,
        &revision.template_as_sent,
        &revision.spec,
    );
    if !meta.creator.is_empty() {
        let annotations = &mut metadata.annotations;
        annotations.insert(CREATOR.to_owned(), meta.creator.clone());
    }
    metadata.owner_references = vec![types::OwnerReference {
        api_version: types::API_VERSION,
        kind: "Configuration",
        name: revision.service.clone(),
        uid: meta
            .labels
            .get("serving.knative.dev/serviceUid")
            .cloned()
            .unwrap_or_default(),
        controller: true,
        block_owner_deletion: true,
    }];
    let status = &revision.status;
    let digest = status.image_digest.clone();
    types::Revision {
        api_version: types::API_VERSION,
        kind: "Revision",
        metadata,
        spec: service::write_revision_spec(&revision.spec, &revision.template_as_sent),
        status: types::RevisionStatus {
            observed_generation: meta.generation,
            conditions: service::conditions_of(meta, &status.conditions),
            container_statuses: (!digest.is_empty())
                .then(|| types::ContainerStatus {
                    name: revision.spec.container.name.clone(),
                    image_digest: digest.clone(),
                })
                .into_iter()
                .collect(),
            image_digest: digest,
            log_url: String::new(),
        },
    }
}

/// A service seen as its configuration: the template and what came of it.
pub(crate) fn configuration(of: &Service, version: u64) -> Value {
    let mut metadata = service::metadata(&of.meta, version, "configurations");
    owned_by_service(of, &mut metadata);
    json!({
        "apiVersion": types::API_VERSION,
        "kind": "Configuration",
        "metadata": metadata,
        "spec": {"template": service::write_template(&of.spec.template)},
        "status": {
            "observedGeneration": of.status.observed_generation,
            "conditions": ready_from(of, "ConfigurationsReady"),
            "latestCreatedRevisionName": of.status.latest_created_revision,
            "latestReadyRevisionName": of.status.latest_ready_revision,
        },
    })
}

/// A service seen as its route: where requests go.
pub(crate) fn route(of: &Service, version: u64) -> Value {
    let mut metadata = service::metadata(&of.meta, version, "routes");
    owned_by_service(of, &mut metadata);
    let url = &of.status.url;
    json!({
        "apiVersion": types::API_VERSION,
        "kind": "Route",
        "metadata": metadata,
        "spec": {"traffic": service::write(of, version).spec.traffic},
        "status": {
            "observedGeneration": of.status.observed_generation,
            "conditions": ready_from(of, "RoutesReady"),
            "traffic": service::write_traffic_status(&of.status.traffic),
            "url": url,
            "address": {"url": url},
        },
    })
}

fn owned_by_service(of: &Service, metadata: &mut types::ObjectMeta) {
    metadata
        .labels
        .insert(SERVICE.to_owned(), of.meta.name.clone());
    metadata.owner_references = vec![types::OwnerReference {
        api_version: types::API_VERSION,
        kind: "Service",
        name: of.meta.name.clone(),
        uid: of.meta.uid.clone(),
        controller: true,
        block_owner_deletion: true,
    }];
}

/// The service's condition about this part, as the part's own `Ready`.
fn ready_from(of: &Service, kind: &str) -> Vec<types::Condition> {
    let own: Vec<Condition> = of
        .status
        .conditions
        .iter()
        .filter(|c| c.kind == kind)
        .map(|c| Condition {
            kind: "Ready".to_owned(),
            ..c.clone()
        })
        .collect();
    service::conditions(&own)
}
