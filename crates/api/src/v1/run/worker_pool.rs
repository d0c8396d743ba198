//! Worker pools and their revisions: v1 and model, side by side.

use lauf_model::worker_pool::{
    DEFAULT_INSTANCES, InstanceSplitStatus, WorkerPoolTemplate, everything_to_latest,
};
use lauf_model::{
    InstanceSplit, Violation, WorkerPool, WorkerPoolRevision, WorkerPoolSpec, WorkerSpec,
};

use super::job::{check_kind, read_labels};
use super::types;
use crate::refuse;
use crate::v1::annotations::{self as key, Reader, Writer};
use crate::v1::container::{self, Role};
use crate::v1::service;
use crate::v1::types as knative;
use crate::worker_pools::DesiredPool;

/// The label that tells a pool's revision from a service's.
pub(crate) const WORKER_POOL: &str = "run.googleapis.com/workerPool";

/// Reads what a client wants of a worker pool. Every violation is added to `found`.
pub(crate) fn read(sent: &types::WorkerPool, found: &mut Vec<Violation>) -> DesiredPool {
    let version = sent.api_version.as_deref();
    check_kind("WorkerPool", sent.kind.as_deref(), version, found);
    let mut notes = Reader::new("metadata.annotations", &sent.metadata.annotations, found);
    notes.refuse(&refuse::SERVICE);
    notes.refuse(&refuse::WORKER_POOL);
    let description = notes.text(key::DESCRIPTION);
    let client = notes.text(key::CLIENT_NAME);
    let client_version = notes.text(key::CLIENT_VERSION);
    let mode = notes.word(key::SCALING_MODE, &["manual", "automatic"]);
    match mode {
        Some("automatic") => notes.wrong(
            key::SCALING_MODE,
            "automatic",
            "manual: a worker pool has as many instances as run.googleapis.com/manualInstanceCount \
             says",
        ),
        Some(_) => {
            let manual = "manual".to_owned();
            notes.keep(key::SCALING_MODE, manual, None);
        }
        None => {}
    }
    let instances = notes.count_or(key::MANUAL_COUNT, DEFAULT_INSTANCES);
    let (annotations, as_sent) = notes.finish();
    let template = template(&sent.spec.template, found);
    let splits: Vec<InstanceSplit> = sent
        .spec
        .instance_splits
        .iter()
        .enumerate()
        .map(|(i, split)| read_split(i, split, found))
        .collect();
    DesiredPool {
        name: sent.metadata.name.clone().unwrap_or_default(),
        labels: read_labels(&sent.metadata),
        annotations,
        as_sent,
        client,
        client_version,
        spec: WorkerPoolSpec {
            description,
            instances,
            template,
            splits: if splits.is_empty() {
                everything_to_latest()
            } else {
                splits
            },
        },
    }
}

fn template(sent: &knative::RevisionTemplate, found: &mut Vec<Violation>) -> WorkerPoolTemplate {
    let at = "spec.template.spec";
    service::check_pod(at, &sent.spec, found);
    for (field, value) in [
        ("containerConcurrency", sent.spec.container_concurrency),
        ("timeoutSeconds", sent.spec.timeout_seconds),
    ] {
        if value.is_some_and(|value| value != 0) {
            found.push(Violation::new(
                format!("{at}.{field}"),
                "is only for services: a worker pool gets no requests. Leave it out.",
            ));
        }
    }
    let annotated = &sent.metadata.annotations;
    let mut notes = Reader::new("spec.template.metadata.annotations", annotated, found);
    notes.refuse(&refuse::REVISION);
    let (annotations, mut as_sent) = notes.finish();
    let none = knative::Container::default();
    let first = sent.spec.containers.first().unwrap_or(&none);
    let at_first = format!("{at}.containers[0]");
    WorkerPoolTemplate {
        name: sent.metadata.name.clone().filter(|n| !n.is_empty()),
        labels: sent.metadata.labels.clone(),
        annotations,
        spec: WorkerSpec {
            container: container::read(Role::Worker, &at_first, first, &mut as_sent, found),
            service_account: sent.spec.service_account_name.clone(),
        },
        as_sent,
    }
}

fn read_split(i: usize, sent: &types::InstanceSplit, found: &mut Vec<Violation>) -> InstanceSplit {
    let at = format!("spec.instanceSplits[{i}]");
    let revision = sent.revision_name.clone().filter(|name| !name.is_empty());
    let latest = sent.latest_revision.unwrap_or(false);
    if latest == revision.is_some() {
        found.push(Violation::new(
            &at,
            "must have either revisionName or latestRevision: true.",
        ));
    }
    let percent = sent.percent.unwrap_or(0);
    let percent = u32::try_from(percent).ok().filter(|p| *p <= 100);
    if percent.is_none() {
        found.push(Violation::new(
            format!("{at}.percent"),
            format!(
                "is {}; must be from 0 to 100.",
                sent.percent.unwrap_or_default()
            ),
        ));
    }
    InstanceSplit {
        revision: if latest { None } else { revision },
        percent: percent.unwrap_or_default(),
    }
}

/// Writes a worker pool as clients read it.
pub(crate) fn write(pool: &WorkerPool, version: u64) -> types::WorkerPool {
    let meta = &pool.meta;
    let spec = &pool.spec;
    let mut notes = Writer::new(&meta.annotations, &meta.as_sent);
    notes.text(key::DESCRIPTION, &spec.description);
    notes.text(key::CLIENT_NAME, &meta.client);
    notes.text(key::CLIENT_VERSION, &meta.client_version);
    notes.text(key::CREATOR, &meta.creator);
    notes.text(key::LAST_MODIFIER, &meta.last_modifier);
    notes.value(key::SCALING_MODE, None, |text| text == "manual");
    notes.count_or(key::MANUAL_COUNT, spec.instances, DEFAULT_INSTANCES);
    let status = &pool.status;
    types::WorkerPool {
        api_version: Some(types::API_VERSION.to_owned()),
        kind: Some("WorkerPool".to_owned()),
        metadata: knative::ObjectMeta {
            annotations: notes.finish(),
            ..service::metadata_in(types::API_VERSION, meta, version, "workerpools")
        },
        spec: types::WorkerPoolSpec {
            template: write_template(&spec.template),
            instance_splits: spec.splits.iter().map(write_split).collect(),
        },
        status: types::WorkerPoolStatus {
            observed_generation: (status.observed_generation > 0)
                .then_some(status.observed_generation),
            conditions: service::conditions_of(&pool.meta, &status.conditions),
            latest_created_revision_name: status.latest_created_revision.clone(),
            latest_ready_revision_name: status.latest_ready_revision.clone(),
            instance_splits: status.splits.iter().map(write_split_status).collect(),
        },
    }
}

fn write_template(template: &WorkerPoolTemplate) -> knative::RevisionTemplate {
    knative::RevisionTemplate {
        metadata: knative::ObjectMeta {
            name: template.name.clone(),
            labels: template.labels.clone(),
            annotations: Writer::new(&template.annotations, &template.as_sent).finish(),
            ..knative::ObjectMeta::default()
        },
        spec: write_spec(&template.spec, &template.as_sent),
    }
}

fn write_spec(spec: &WorkerSpec, as_sent: &knative::Map) -> knative::RevisionSpec {
    knative::RevisionSpec {
        service_account_name: spec.service_account.clone(),
        containers: vec![container::write(Role::Worker, &spec.container, as_sent)],
        ..knative::RevisionSpec::default()
    }
}

fn write_split(split: &InstanceSplit) -> types::InstanceSplit {
    types::InstanceSplit {
        latest_revision: split.revision.is_none().then_some(true),
        percent: Some(i64::from(split.percent)),
        revision_name: split.revision.clone(),
    }
}

fn write_split_status(split: &InstanceSplitStatus) -> types::InstanceSplit {
    types::InstanceSplit {
        latest_revision: split.latest.then_some(true),
        percent: Some(i64::from(split.percent)),
        revision_name: Some(split.revision.clone()),
    }
}

/// Writes a revision of a worker pool. It is among the revisions of services, told apart by a label.
pub(crate) fn write_revision(revision: &WorkerPoolRevision, version: u64) -> knative::Revision {
    let meta = &revision.meta;
    let mut metadata = service::metadata(meta, version, "revisions");
    let labels = &mut metadata.labels;
    labels.insert(WORKER_POOL.to_owned(), revision.pool.clone());
    labels.insert(
        "serving.knative.dev/configurationGeneration".to_owned(),
        revision.pool_generation.to_string(),
    );
    let mut notes = Writer::new(&meta.annotations, &revision.template_as_sent);
    notes.text(key::CREATOR, &meta.creator);
    metadata.annotations = notes.finish();
    let digest = revision.status.image_digest.clone();
    knative::Revision {
        api_version: knative::API_VERSION,
        kind: "Revision",
        metadata,
        spec: write_spec(&revision.spec, &revision.template_as_sent),
        status: knative::RevisionStatus {
            observed_generation: meta.generation,
            conditions: service::conditions_of(&revision.meta, &revision.status.conditions),
            container_statuses: (!digest.is_empty())
                .then(|| knative::ContainerStatus {
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
