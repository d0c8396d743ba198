//! Executions and tasks: what v1 shows of them. Clients write neither.

use lauf_model::{AttemptResult, Execution, Task};

use super::job;
use super::types;
use crate::v1::annotations::{CLIENT_NAME, CLIENT_VERSION, RUN_CREATOR, RUN_LAST_MODIFIER};
use crate::v1::service::{self, LOCATION};
use crate::v1::types::{Map, ObjectMeta, OwnerReference};

/// The label that says which job is run.
pub(super) const JOB: &str = "run.googleapis.com/job";
/// The label that says of which execution a task is a part.
pub(super) const EXECUTION: &str = "run.googleapis.com/execution";
/// The label that says where a task stands.
const RUNNING_STATE: &str = "run.googleapis.com/runningState";

/// Writes an execution.
pub(crate) fn write(execution: &Execution, version: u64) -> types::Execution {
    let meta = &execution.meta;
    let mut metadata = service::metadata_in(types::API_VERSION, meta, version, "executions");
    for (label, value) in [
        (JOB, execution.job.clone()),
        ("run.googleapis.com/jobUid", execution.job_uid.clone()),
        (
            "run.googleapis.com/jobGeneration",
            execution.job_generation.to_string(),
        ),
    ] {
        metadata.labels.insert(label.to_owned(), value);
    }
    metadata.annotations = meta.annotations.clone();
    for (annotation, value) in [
        (CLIENT_NAME, &meta.client),
        (CLIENT_VERSION, &meta.client_version),
        (RUN_CREATOR, &meta.creator),
        (RUN_LAST_MODIFIER, &meta.last_modifier),
    ] {
        if !value.is_empty() {
            let annotations = &mut metadata.annotations;
            annotations.insert(annotation.to_owned(), value.clone());
        }
    }
    metadata.owner_references = vec![OwnerReference {
        api_version: types::API_VERSION,
        kind: "Job",
        name: execution.job.clone(),
        uid: execution.job_uid.clone(),
        controller: true,
        block_owner_deletion: true,
    }];
    let status = &execution.status;
    types::Execution {
        api_version: types::API_VERSION,
        kind: "Execution",
        metadata,
        spec: job::write_execution_spec(&execution.spec, &execution.template_as_sent),
        status: types::ExecutionStatus {
            observed_generation: (status.observed_generation > 0)
                .then_some(status.observed_generation),
            conditions: service::conditions_of(&execution.meta, &status.conditions),
            start_time: status.started.map(service::time),
            completion_time: status.completed.map(service::time),
            running_count: status.running,
            succeeded_count: status.succeeded,
            failed_count: status.failed,
            cancelled_count: status.cancelled,
            retried_count: status.retried,
        },
    }
}

/// The labels that clients see of a task.
pub(super) fn task_labels(task: &Task) -> Map {
    [
        (LOCATION, task.region.clone()),
        (JOB, task.job.clone()),
        (EXECUTION, task.execution.clone()),
        (RUNNING_STATE, task.running_state().to_owned()),
    ]
    .map(|(label, value)| (label.to_owned(), value))
    .into()
}

/// Writes a task of an execution.
pub(crate) fn write_task(task: &Task, of: &Execution, version: u64) -> types::Task {
    let name = task.key().name;
    let path = format!(
        "/apis/{}/namespaces/{}/tasks/{name}",
        types::API_VERSION,
        task.project
    );
    types::Task {
        api_version: types::API_VERSION,
        kind: "Task",
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(task.project.clone()),
            self_link: Some(path),
            uid: Some(task.uid.clone()),
            resource_version: Some(version.to_string()),
            generation: Some(1),
            creation_timestamp: Some(service::time(task.created)),
            labels: task_labels(task),
            annotations: of.meta.annotations.clone(),
            owner_references: vec![OwnerReference {
                api_version: types::API_VERSION,
                kind: "Execution",
                name: task.execution.clone(),
                uid: of.meta.uid.clone(),
                controller: true,
                block_owner_deletion: true,
            }],
            ..ObjectMeta::default()
        },
        spec: job::write_task_spec(&of.spec.task, &of.template_as_sent),
        status: types::TaskStatus {
            observed_generation: 1,
            conditions: service::conditions(&task.conditions()),
            index: task.index,
            start_time: task.started.map(service::time),
            completion_time: task.completed().map(service::time),
            retried: task.retried(),
            last_attempt_result: task.last_attempt.as_ref().map(attempt),
        },
    }
}

fn attempt(result: &AttemptResult) -> types::AttemptResult {
    types::AttemptResult {
        exit_code: result.exit_code,
        term_signal: result.signal,
        status: types::RpcStatus {
            code: result.code.map(lauf_model::Code::grpc),
            message: result.message.clone(),
        },
    }
}
