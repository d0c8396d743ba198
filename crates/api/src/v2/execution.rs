//! Executions and tasks as v2 shows them. Clients write neither.

use lauf_model::{AttemptResult, Execution, Task};
use lauf_store::Version;
use lauf_wire::google::cloud::run::v2;
use lauf_wire::google::cloud::run::v2::task_template::Retries;
use lauf_wire::google::rpc;

use super::shared::{self, LAUNCH_STAGE, users};
use super::{condition, job, time};

/// Writes an execution.
pub(crate) fn write(execution: &Execution, version: Version) -> v2::Execution {
    let (meta, status) = (&execution.meta, &execution.status);
    let (parallelism, task_count) = job::counts(&execution.spec);
    v2::Execution {
        name: full_name(execution),
        uid: meta.uid.clone(),
        creator: meta.creator.clone(),
        generation: meta.generation,
        labels: users(&meta.labels),
        annotations: users(&meta.annotations),
        create_time: Some(time(meta.created)),
        start_time: status.started.map(time),
        completion_time: status.completed.map(time),
        update_time: Some(time(meta.updated)),
        delete_time: meta.deleted.map(time),
        launch_stage: shared::stage(meta.annotations.get(LAUNCH_STAGE)).into(),
        job: execution.job.clone(),
        parallelism,
        task_count,
        template: Some(job::write_task_template(
            &meta.annotations,
            &execution.template_as_sent,
            &execution.spec.task,
        )),
        reconciling: !execution.is_over(),
        conditions: status.conditions.iter().map(condition::write).collect(),
        observed_generation: status.observed_generation,
        running_count: job::whole(status.running),
        succeeded_count: job::whole(status.succeeded),
        failed_count: job::whole(status.failed),
        cancelled_count: job::whole(status.cancelled),
        retried_count: job::whole(status.retried),
        etag: crate::etag::of_version(version),
        ..v2::Execution::default()
    }
}

/// Writes a task of an execution.
pub(crate) fn write_task(task: &Task, of: &Execution, version: Version) -> v2::Task {
    let template =
        job::write_task_template(&of.meta.annotations, &of.template_as_sent, &of.spec.task);
    let Some(Retries::MaxRetries(max_retries)) = template.retries else {
        unreachable!("a task's template always says how often it is tried again")
    };
    v2::Task {
        name: format!("{}/tasks/{}", full_name(of), task.key().name),
        uid: task.uid.clone(),
        generation: 1,
        labels: users(&of.meta.labels),
        annotations: users(&of.meta.annotations),
        create_time: Some(time(task.created)),
        scheduled_time: Some(time(task.created)),
        start_time: task.started.map(time),
        completion_time: task.completed().map(time),
        update_time: Some(time(task.updated)),
        job: task.job.clone(),
        execution: task.execution.clone(),
        containers: template.containers,
        max_retries,
        timeout: template.timeout,
        service_account: template.service_account,
        execution_environment: template.execution_environment,
        reconciling: task.completed().is_none(),
        conditions: task.conditions().iter().map(condition::write).collect(),
        observed_generation: 1,
        index: job::whole(task.index),
        retried: job::whole(task.retried()),
        last_attempt_result: task.last_attempt.as_ref().map(attempt),
        etag: crate::etag::of_version(version),
        ..v2::Task::default()
    }
}

fn attempt(result: &AttemptResult) -> v2::TaskAttemptResult {
    v2::TaskAttemptResult {
        status: Some(rpc::Status {
            code: result.code.map_or(0, lauf_model::Code::grpc),
            message: result.message.clone(),
            ..rpc::Status::default()
        }),
        exit_code: result.exit_code.unwrap_or_default(),
        term_signal: result.signal.unwrap_or_default(),
    }
}

/// `projects/P/locations/L/jobs/J/executions/E`.
pub(crate) fn full_name(execution: &Execution) -> String {
    let meta = &execution.meta;
    format!(
        "projects/{}/locations/{}/jobs/{}/executions/{}",
        meta.project, meta.region, execution.job, meta.name
    )
}
