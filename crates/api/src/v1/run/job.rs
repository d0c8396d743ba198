//! Jobs: v1 and model, both directions, side by side.

use std::time::Duration;

use lauf_model::job::{
    DEFAULT_MAX_RETRIES, DEFAULT_TASK_COUNT, DEFAULT_TASK_TIMEOUT_SECONDS, ExecuteNow,
    LatestExecution,
};
use lauf_model::{
    ContainerOverride, EnvVar, ExecutionSpec, ExecutionTemplate, Job, JobSpec, Overrides, TaskSpec,
    Violation,
};

use super::types;
use crate::jobs::DesiredJob;
use crate::refuse;
use crate::v1::annotations::{self as key, Reader, Writer};
use crate::v1::container::{self, Role};
use crate::v1::service::{self, LOCATION};
use crate::v1::types::{Container, Map, ObjectMeta};

/// The label that says when a job was last changed.
const LAST_UPDATED: &str = "run.googleapis.com/lastUpdatedTime";

/// Reads what a client wants of a job. Every violation is added to `found`.
pub(crate) fn read(sent: &types::Job, found: &mut Vec<Violation>) -> DesiredJob {
    check_kind(
        "Job",
        sent.kind.as_deref(),
        sent.api_version.as_deref(),
        found,
    );
    let mut notes = Reader::new("metadata.annotations", &sent.metadata.annotations, found);
    notes.refuse(&refuse::SERVICE);
    let client = notes.text(key::CLIENT_NAME);
    let client_version = notes.text(key::CLIENT_VERSION);
    let (annotations, as_sent) = notes.finish();
    let template = template(&sent.spec.template, found);
    DesiredJob {
        name: sent.metadata.name.clone().unwrap_or_default(),
        labels: read_labels(&sent.metadata),
        annotations,
        as_sent,
        client,
        client_version,
        spec: JobSpec {
            template,
            execute: execute_now(&sent.spec, found),
        },
    }
}

/// The labels of a client's own.
pub(super) fn read_labels(sent: &ObjectMeta) -> Map {
    let mut labels = sent.labels.clone();
    labels.retain(|key, _| key != LOCATION && key != LAST_UPDATED);
    labels
}

/// Refuses what is of another kind or version.
pub(super) fn check_kind(
    wanted: &str,
    kind: Option<&str>,
    api_version: Option<&str>,
    found: &mut Vec<Violation>,
) {
    if let Some(kind) = kind.filter(|k| *k != wanted) {
        found.push(Violation::new(
            "kind",
            format!("'{kind}' does not belong here; it must be {wanted}."),
        ));
    }
    if let Some(version) = api_version.filter(|v| *v != types::API_VERSION) {
        found.push(Violation::new(
            "apiVersion",
            format!(
                "'{version}' is not served here; it must be {}.",
                types::API_VERSION
            ),
        ));
    }
}

fn execute_now(sent: &types::JobSpec, found: &mut Vec<Violation>) -> Option<ExecuteNow> {
    let token = |sent: &Option<String>| sent.clone().filter(|token| !token.is_empty());
    match (
        token(&sent.start_execution_token),
        token(&sent.run_execution_token),
    ) {
        (None, None) => None,
        (Some(token), None) => Some(ExecuteNow::Started(token)),
        (None, Some(token)) => Some(ExecuteNow::Completed(token)),
        (Some(token), Some(_)) => {
            found.push(Violation::new(
                "spec.runExecutionToken",
                "cannot be set together with startExecutionToken; keep one.",
            ));
            Some(ExecuteNow::Started(token))
        }
    }
}

fn template(sent: &types::ExecutionTemplate, found: &mut Vec<Violation>) -> ExecutionTemplate {
    let at = "spec.template.spec.template.spec";
    let task = &sent.spec.template.spec;
    refuse::field(format!("{at}.volumes"), &task.volumes, "Volumes are", found);
    refuse::field(
        format!("{at}.nodeSelector"),
        &task.node_selector,
        "A GPU is",
        found,
    );
    service::check_containers(at, task.containers.len(), found);
    let annotated = &sent.metadata.annotations;
    let mut notes = Reader::new("spec.template.metadata.annotations", annotated, found);
    notes.refuse(&refuse::REVISION);
    let (annotations, mut as_sent) = notes.finish();
    let none = Container::default();
    let first = task.containers.first().unwrap_or(&none);
    let at_first = format!("{at}.containers[0]");
    let container = container::read(Role::Worker, &at_first, first, &mut as_sent, found);
    let mut number = |field: String, sent: Option<i64>, default: u32| {
        let value = sent.unwrap_or(i64::from(default));
        u32::try_from(value).unwrap_or_else(|_| {
            found.push(Violation::new(
                field,
                format!("is {value}; must be 0 or more, and not that large."),
            ));
            default
        })
    };
    let unset = |value: Option<i64>| value.filter(|v| *v != 0);
    let spec = &sent.spec;
    let timeout = number(
        format!("{at}.timeoutSeconds"),
        unset(task.timeout_seconds),
        DEFAULT_TASK_TIMEOUT_SECONDS,
    );
    ExecutionTemplate {
        labels: read_labels(&sent.metadata),
        annotations,
        as_sent,
        spec: ExecutionSpec {
            parallelism: number("spec.template.spec.parallelism".into(), spec.parallelism, 0),
            task_count: number(
                "spec.template.spec.taskCount".into(),
                unset(spec.task_count),
                DEFAULT_TASK_COUNT,
            ),
            task: TaskSpec {
                container,
                max_retries: number(
                    format!("{at}.maxRetries"),
                    task.max_retries,
                    DEFAULT_MAX_RETRIES,
                ),
                timeout: Duration::from_secs(u64::from(timeout)),
                service_account: task.service_account_name.clone(),
            },
        },
    }
}

/// Writes a job as clients read it.
pub(crate) fn write(job: &Job, version: u64) -> types::Job {
    let meta = &job.meta;
    let mut notes = Writer::new(&meta.annotations, &meta.as_sent);
    notes.text(key::CLIENT_NAME, &meta.client);
    notes.text(key::CLIENT_VERSION, &meta.client_version);
    notes.text(key::RUN_CREATOR, &meta.creator);
    notes.text(key::RUN_LAST_MODIFIER, &meta.last_modifier);
    let mut metadata = ObjectMeta {
        annotations: notes.finish(),
        ..service::metadata_in(types::API_VERSION, meta, version, "jobs")
    };
    let updated = service::time(meta.updated);
    metadata.labels.insert(LAST_UPDATED.to_owned(), updated);
    let template = &job.spec.template;
    let status = &job.status;
    let (start, run) = match &job.spec.execute {
        Some(ExecuteNow::Started(token)) => (Some(token.clone()), None),
        Some(ExecuteNow::Completed(token)) => (None, Some(token.clone())),
        None => (None, None),
    };
    types::Job {
        api_version: Some(types::API_VERSION.to_owned()),
        kind: Some("Job".to_owned()),
        metadata,
        spec: types::JobSpec {
            template: types::ExecutionTemplate {
                metadata: ObjectMeta {
                    labels: template.labels.clone(),
                    annotations: template.annotations.clone(),
                    ..ObjectMeta::default()
                },
                spec: write_execution_spec(&template.spec, &template.as_sent),
            },
            start_execution_token: start,
            run_execution_token: run,
        },
        status: types::JobStatus {
            observed_generation: (status.observed_generation > 0)
                .then_some(status.observed_generation),
            conditions: service::conditions_of(&job.meta, &status.conditions),
            execution_count: status.execution_count,
            latest_created_execution: status.latest_execution.as_ref().map(reference),
        },
    }
}

fn reference(latest: &LatestExecution) -> types::ExecutionReference {
    types::ExecutionReference {
        name: latest.name.clone(),
        creation_timestamp: service::time(latest.created),
        completion_timestamp: latest.completed.map(service::time),
        deletion_timestamp: latest.deleted.map(service::time),
        completion_status: latest.status.as_str(),
    }
}

/// Writes what an execution runs.
pub(super) fn write_execution_spec(spec: &ExecutionSpec, as_sent: &Map) -> types::ExecutionSpec {
    types::ExecutionSpec {
        parallelism: (spec.parallelism > 0).then_some(i64::from(spec.parallelism)),
        task_count: Some(i64::from(spec.task_count)),
        template: types::TaskTemplate {
            spec: write_task_spec(&spec.task, as_sent),
        },
    }
}

/// Writes what a task runs.
pub(crate) fn write_task_spec(spec: &TaskSpec, as_sent: &Map) -> types::TaskSpec {
    types::TaskSpec {
        containers: vec![container::write(Role::Worker, &spec.container, as_sent)],
        max_retries: Some(i64::from(spec.max_retries)),
        timeout_seconds: i64::try_from(spec.timeout.as_secs()).ok(),
        service_account_name: spec.service_account.clone(),
        ..types::TaskSpec::default()
    }
}

/// Reads what one run shall have otherwise.
pub(crate) fn read_overrides(sent: &types::Overrides, found: &mut Vec<Violation>) -> Overrides {
    let containers = sent
        .container_overrides
        .iter()
        .enumerate()
        .map(|(i, change)| ContainerOverride {
            name: change.name.clone(),
            args: change.args.clone(),
            clear_args: change.clear_args,
            env: change
                .env
                .iter()
                .enumerate()
                .map(|(j, var)| {
                    refuse::field(
                        format!("overrides.containerOverrides[{i}].env[{j}].valueFrom"),
                        &var.value_from,
                        "Secrets are",
                        found,
                    );
                    EnvVar {
                        name: var.name.clone(),
                        value: var.value.clone().unwrap_or_default(),
                    }
                })
                .collect(),
        })
        .collect();
    let mut number = |field: &str, sent: Option<i64>| {
        let value = sent.filter(|value| *value != 0)?;
        let number = u32::try_from(value).ok();
        if number.is_none() {
            found.push(Violation::new(
                format!("overrides.{field}"),
                format!("is {value}; must be 1 or more, and not that large."),
            ));
        }
        number
    };
    Overrides {
        containers,
        task_count: number("taskCount", sent.task_count),
        timeout: number("timeoutSeconds", sent.timeout_seconds)
            .map(|seconds| Duration::from_secs(u64::from(seconds))),
    }
}
