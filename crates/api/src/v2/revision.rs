//! Revisions as v2 shows them.

use lauf_model::{ConditionStatus, Revision};

use super::{condition, service, types};
use crate::v1::service as v1_service;
use lauf_store::Version;

/// Writes a revision. Its image is the one it runs, by digest, once that is known.
pub(crate) fn write(revision: &Revision, version: Version) -> types::Revision {
    let (meta, status) = (&revision.meta, &revision.status);
    let mut template = service::write_template(
        &meta.labels,
        &meta.annotations,
        &revision.template_as_sent,
        &revision.spec,
    );
    let labels = std::mem::take(&mut template.labels);
    let annotations = std::mem::take(&mut template.annotations);
    if !status.image_digest.is_empty() {
        for container in &mut template.containers {
            container.image.clone_from(&status.image_digest);
        }
    }
    let ready = lauf_model::condition::find(&status.conditions, "Ready");
    types::Revision {
        name: full_name(revision),
        uid: meta.uid.clone(),
        generation: meta.generation.to_string(),
        labels,
        annotations,
        create_time: v1_service::time(meta.created),
        update_time: v1_service::time(meta.updated),
        delete_time: meta.deleted.map(v1_service::time),
        launch_stage: service::stage(meta.annotations.get(service::LAUNCH_STAGE)),
        service: revision.service.clone(),
        conditions: status.conditions.iter().map(condition::write).collect(),
        observed_generation: meta.generation.to_string(),
        reconciling: meta.deleted.is_some()
            || ready.is_none_or(|c| c.status == ConditionStatus::Unknown),
        creator: meta.creator.clone(),
        etag: crate::etag::of_version(version),
        template,
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
