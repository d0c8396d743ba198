//! Revisions as v2 shows them. Clients write none of it.

use lauf_model::{ConditionStatus, Revision};
use lauf_store::Version;
use lauf_wire::google::cloud::run::v2;

use super::shared::{self, LAUNCH_STAGE};
use super::{condition, service, time};

/// Writes a revision. Its image is the one it runs, by digest, once that is known.
pub(crate) fn write(revision: &Revision, version: Version) -> v2::Revision {
    let (meta, status) = (&revision.meta, &revision.status);
    let template = service::write_template(
        &meta.labels,
        &meta.annotations,
        &revision.template_as_sent,
        &revision.spec,
    );
    let mut containers = template.containers;
    if !status.image_digest.is_empty() {
        for container in &mut containers {
            container.image.clone_from(&status.image_digest);
        }
    }
    let ready = lauf_model::condition::find(&status.conditions, "Ready");
    v2::Revision {
        name: full_name(revision),
        uid: meta.uid.clone(),
        generation: meta.generation,
        labels: template.labels,
        annotations: template.annotations,
        create_time: Some(time(meta.created)),
        update_time: Some(time(meta.updated)),
        delete_time: meta.deleted.map(time),
        launch_stage: shared::stage(meta.annotations.get(LAUNCH_STAGE)).into(),
        service: revision.service.clone(),
        conditions: status.conditions.iter().map(condition::write).collect(),
        observed_generation: meta.generation,
        reconciling: meta.deleted.is_some()
            || ready.is_none_or(|c| c.status == ConditionStatus::Unknown),
        creator: meta.creator.clone(),
        etag: crate::etag::of_version(version),
        scaling: template.scaling,
        timeout: template.timeout,
        service_account: template.service_account,
        containers,
        execution_environment: template.execution_environment,
        max_instance_request_concurrency: template.max_instance_request_concurrency,
        session_affinity: template.session_affinity,
        ..v2::Revision::default()
    }
}

/// `projects/P/locations/L/services/S/revisions/R`.
pub(crate) fn full_name(revision: &Revision) -> String {
    let meta = &revision.meta;
    format!(
        "projects/{}/locations/{}/services/{}/revisions/{}",
        meta.project, meta.region, revision.service, meta.name
    )
}
