//! Worker pools and their revisions, v2 and model. As with services, a request is turned into v1's form
//! and read there.

use lauf_model::worker_pool::{InstanceSplitStatus, WorkerPoolTemplate};
use lauf_model::{
    ConditionStatus, InstanceSplit, Violation, WorkerPool, WorkerPoolRevision, WorkerSpec,
};
use lauf_store::Version;
use lauf_wire::google::cloud::run::v2::{self, InstanceSplitAllocationType as Allocation};

use super::container::{self, shown};
use super::shared::{self, LAUNCH_STAGE, keep_system, known, user_only, users};
use super::{condition, job, says, time};
use crate::refuse;
use crate::v1::annotations as key;
use crate::v1::container::{self as v1_container, Role};
use crate::v1::run::{types as v1, worker_pool as v1_pool};
use crate::v1::types::{Map, ObjectMeta, RevisionSpec, RevisionTemplate};
use crate::worker_pools::DesiredPool;

/// Marks a template that a client wanted a new revision of, though nothing in it is new.
const FORCED: &str = "run.googleapis.com/force-new-revision";

/// Reads what a client wants of the worker pool `name`; `old` is the one that it takes the place of.
/// Every violation is added to `found`.
pub(crate) fn read(
    name: &str,
    sent: &v2::WorkerPool,
    old: Option<&WorkerPool>,
    found: &mut Vec<Violation>,
) -> DesiredPool {
    for (field, said, what) in [
        (
            "binary_authorization",
            says(&sent.binary_authorization),
            "Binary Authorization is",
        ),
        (
            "custom_audiences",
            #[allow(deprecated)]
            says(&sent.custom_audiences),
            "Custom audiences are",
        ),
    ] {
        if said {
            found.push(refuse::violation(field, what));
        }
    }
    user_only("labels", &sent.labels, found);
    user_only("annotations", &sent.annotations, found);
    let mut annotations = sent.annotations.clone();
    let stage = known("launch_stage", sent.launch_stage, found);
    annotations.extend(shared::stage_note(stage, old.map(|o| &o.meta.annotations)));
    for (key, value) in [
        (key::DESCRIPTION, &sent.description),
        (key::CLIENT_NAME, &sent.client),
        (key::CLIENT_VERSION, &sent.client_version),
    ] {
        if !value.is_empty() {
            annotations.insert(key.to_owned(), value.clone());
        }
    }
    let count = sent
        .scaling
        .and_then(|scaling| scaling.manual_instance_count);
    let count = count.and_then(|count| {
        shared::counted("scaling.manual_instance_count".to_owned(), count, found)
    });
    annotations.extend(count.map(|count| (key::MANUAL_COUNT.to_owned(), count)));
    let splits = sent.instance_splits.iter().enumerate();
    let form = v1::WorkerPool {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: sent.labels.clone(),
            annotations,
            ..ObjectMeta::default()
        },
        spec: v1::WorkerPoolSpec {
            instance_splits: splits
                .map(|(i, split)| read_split(i, split, found))
                .collect(),
            template: template(&sent.template.clone().unwrap_or_default(), found),
        },
        ..v1::WorkerPool::default()
    };
    let mut desired = v1_pool::read(&form, found);
    if let Some(old) = old {
        keep(old, &mut desired);
    }
    desired
}

/// Makes a template unlike any before it, so that it gets a revision of its own.
pub(crate) fn force_new_revision(desired: &mut DesiredPool, nonce: &str) {
    let annotations = &mut desired.spec.template.annotations;
    annotations.insert(FORCED.to_owned(), nonce.to_owned());
}

fn template(sent: &v2::WorkerPoolRevisionTemplate, found: &mut Vec<Violation>) -> RevisionTemplate {
    const KEY: &str = "A customer's encryption key is";
    for (field, said, what) in [
        ("vpc_access", says(&sent.vpc_access), "VPC access is"),
        ("volumes", says(&sent.volumes), "Volumes are"),
        ("encryption_key", says(&sent.encryption_key), KEY),
        (
            "encryption_key_shutdown_duration",
            says(&sent.encryption_key_shutdown_duration),
            KEY,
        ),
        (
            "encryption_key_revocation_action",
            sent.encryption_key_revocation_action != 0,
            KEY,
        ),
        (
            "service_mesh",
            says(&sent.service_mesh),
            "A service mesh is",
        ),
        ("node_selector", says(&sent.node_selector), "A GPU is"),
        (
            "gpu_zonal_redundancy_disabled",
            sent.gpu_zonal_redundancy_disabled == Some(true),
            "A GPU is",
        ),
    ] {
        if said {
            found.push(refuse::violation(format!("template.{field}"), what));
        }
    }
    user_only("template.labels", &sent.labels, found);
    user_only("template.annotations", &sent.annotations, found);
    let containers = sent.containers.iter().enumerate().map(|(i, container)| {
        let at = format!("template.containers[{i}]");
        container::read(&at, Role::Worker, container, found)
    });
    RevisionTemplate {
        spec: RevisionSpec {
            containers: containers.collect(),
            service_account_name: sent.service_account.clone(),
            ..RevisionSpec::default()
        },
        metadata: ObjectMeta {
            name: Some(sent.revision.clone()).filter(|name| !name.is_empty()),
            labels: sent.labels.clone(),
            annotations: sent.annotations.clone(),
            ..ObjectMeta::default()
        },
    }
}

fn read_split(i: usize, sent: &v2::InstanceSplit, found: &mut Vec<Violation>) -> v1::InstanceSplit {
    let kind = known::<Allocation>(&format!("instance_splits[{i}].type"), sent.r#type, found);
    let named = !sent.revision.is_empty();
    let latest = match kind {
        Allocation::Latest => true,
        Allocation::Revision => false,
        Allocation::Unspecified => !named,
    };
    v1::InstanceSplit {
        latest_revision: latest.then_some(true),
        percent: Some(sent.percent.into()),
        revision_name: named.then(|| sent.revision.clone()),
    }
}

/// What v2 has no words for stays as v1 has it.
fn keep(old: &WorkerPool, desired: &mut DesiredPool) {
    keep_system(&old.meta.labels, &mut desired.labels, &[]);
    keep_system(
        &old.meta.annotations,
        &mut desired.annotations,
        &[LAUNCH_STAGE],
    );
    desired.as_sent.clone_from(&old.meta.as_sent);
    let (was, now) = (&old.spec.template, &mut desired.spec.template);
    keep_system(&was.labels, &mut now.labels, &[]);
    keep_system(&was.annotations, &mut now.annotations, &[]);
    container::keep_spellings(&was.as_sent, &mut now.as_sent);
    shared::keep_container(&was.spec.container, &mut now.spec.container);
}

/// Writes a worker pool as clients read it.
pub(crate) fn write(pool: &WorkerPool) -> v2::WorkerPool {
    let (meta, spec, status) = (&pool.meta, &pool.spec, &pool.status);
    let name = full_name(pool);
    let revision = |revision: &str| match revision {
        "" => String::new(),
        revision => format!("{name}/revisions/{revision}"),
    };
    let (ready, others): (Vec<_>, Vec<_>) =
        status.conditions.iter().partition(|c| c.kind == "Ready");
    v2::WorkerPool {
        description: spec.description.clone(),
        uid: meta.uid.clone(),
        generation: meta.generation,
        labels: users(&meta.labels),
        annotations: users(&meta.annotations),
        create_time: Some(time(meta.created)),
        update_time: Some(time(meta.updated)),
        delete_time: meta.deleted.map(time),
        creator: meta.creator.clone(),
        last_modifier: meta.last_modifier.clone(),
        client: meta.client.clone(),
        client_version: meta.client_version.clone(),
        launch_stage: shared::stage(meta.annotations.get(LAUNCH_STAGE)).into(),
        template: Some(write_template(&spec.template)),
        instance_splits: spec.splits.iter().map(write_split).collect(),
        scaling: Some(v2::WorkerPoolScaling {
            manual_instance_count: Some(job::whole(spec.instances)),
        }),
        observed_generation: status.observed_generation,
        terminal_condition: ready.first().map(|c| condition::write(c)),
        conditions: others.into_iter().map(condition::write).collect(),
        latest_ready_revision: revision(&status.latest_ready_revision),
        latest_created_revision: revision(&status.latest_created_revision),
        instance_split_statuses: status.splits.iter().map(write_split_status).collect(),
        reconciling: !super::settled(meta, status.observed_generation, &status.conditions),
        etag: super::etag(meta),
        name,
        ..v2::WorkerPool::default()
    }
}

fn write_template(template: &WorkerPoolTemplate) -> v2::WorkerPoolRevisionTemplate {
    v2::WorkerPoolRevisionTemplate {
        revision: template.name.clone().unwrap_or_default(),
        labels: users(&template.labels),
        annotations: users(&template.annotations),
        service_account: template.spec.service_account.clone(),
        containers: vec![write_container(&template.spec, &template.as_sent)],
        ..v2::WorkerPoolRevisionTemplate::default()
    }
}

fn write_container(spec: &WorkerSpec, as_sent: &Map) -> v2::Container {
    container::write(v1_container::write(Role::Worker, &spec.container, as_sent))
}

fn allocation(latest: bool) -> i32 {
    if latest {
        Allocation::Latest.into()
    } else {
        Allocation::Revision.into()
    }
}

fn write_split(split: &InstanceSplit) -> v2::InstanceSplit {
    v2::InstanceSplit {
        r#type: allocation(split.revision.is_none()),
        revision: split.revision.clone().unwrap_or_default(),
        percent: shown(Some(split.percent.into())),
    }
}

fn write_split_status(split: &InstanceSplitStatus) -> v2::InstanceSplitStatus {
    v2::InstanceSplitStatus {
        r#type: allocation(split.latest),
        revision: split.revision.clone(),
        percent: shown(Some(split.percent.into())),
    }
}

/// Writes a revision of a worker pool.
pub(crate) fn write_revision(revision: &WorkerPoolRevision, version: Version) -> v2::Revision {
    let (meta, status) = (&revision.meta, &revision.status);
    let mut container = write_container(&revision.spec, &revision.template_as_sent);
    if !status.image_digest.is_empty() {
        container.image.clone_from(&status.image_digest);
    }
    let ready = lauf_model::condition::find(&status.conditions, "Ready");
    v2::Revision {
        name: full_revision_name(revision),
        uid: meta.uid.clone(),
        generation: meta.generation,
        labels: users(&meta.labels),
        annotations: users(&meta.annotations),
        create_time: Some(time(meta.created)),
        update_time: Some(time(meta.updated)),
        delete_time: meta.deleted.map(time),
        launch_stage: shared::stage(meta.annotations.get(LAUNCH_STAGE)).into(),
        service_account: revision.spec.service_account.clone(),
        containers: vec![container],
        conditions: status.conditions.iter().map(condition::write).collect(),
        observed_generation: meta.generation,
        reconciling: meta.deleted.is_some()
            || ready.is_none_or(|c| c.status == ConditionStatus::Unknown),
        creator: meta.creator.clone(),
        etag: crate::etag::of_version(version),
        ..v2::Revision::default()
    }
}

/// `projects/P/locations/L/workerPools/W`.
pub(crate) fn full_name(pool: &WorkerPool) -> String {
    let meta = &pool.meta;
    format!(
        "projects/{}/locations/{}/workerPools/{}",
        meta.project, meta.region, meta.name
    )
}

/// `projects/P/locations/L/workerPools/W/revisions/R`.
pub(crate) fn full_revision_name(revision: &WorkerPoolRevision) -> String {
    let meta = &revision.meta;
    format!(
        "projects/{}/locations/{}/workerPools/{}/revisions/{}",
        meta.project, meta.region, revision.pool, meta.name
    )
}
