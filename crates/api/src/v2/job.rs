//! Jobs, v2 and model. As with services, a request is turned into v1's form and read there.

use lauf_model::job::{CompletionStatus, ExecuteNow, LatestExecution};
use lauf_model::{ExecutionSpec, Job, Overrides, TaskSpec, Violation};
use lauf_wire::Duration;
use lauf_wire::google::cloud::run::v2::execution_reference::CompletionStatus as Completion;
use lauf_wire::google::cloud::run::v2::job::CreateExecution;
use lauf_wire::google::cloud::run::v2::run_job_request;
use lauf_wire::google::cloud::run::v2::task_template::Retries;
use lauf_wire::google::cloud::run::v2::{self, ExecutionEnvironment};

use super::container::{self, shown};
use super::shared::{self, EXECUTION, LAUNCH_STAGE, keep_system, known, user_only, users};
use super::{condition, says, time};
use crate::jobs::DesiredJob;
use crate::refuse;
use crate::v1::annotations as key;
use crate::v1::container::Role;
use crate::v1::run::{job as v1_job, types as v1};
use crate::v1::types::{Map, ObjectMeta};

/// Reads what a client wants of the job `name`; `old` is the one that it takes the place of.
/// Every violation is added to `found`.
pub(crate) fn read(
    name: &str,
    sent: &v2::Job,
    old: Option<&Job>,
    found: &mut Vec<Violation>,
) -> DesiredJob {
    if says(&sent.binary_authorization) {
        let what = "Binary Authorization is";
        found.push(refuse::violation("binary_authorization", what));
    }
    user_only("labels", &sent.labels, found);
    user_only("annotations", &sent.annotations, found);
    let mut annotations = sent.annotations.clone();
    let stage = known("launch_stage", sent.launch_stage, found);
    annotations.extend(shared::stage_note(stage, old.map(|o| &o.meta.annotations)));
    for (key, value) in [
        (key::CLIENT_NAME, &sent.client),
        (key::CLIENT_VERSION, &sent.client_version),
    ] {
        if !value.is_empty() {
            annotations.insert(key.to_owned(), value.clone());
        }
    }
    let (start, run) = match &sent.create_execution {
        Some(CreateExecution::StartExecutionToken(token)) => (Some(token.clone()), None),
        Some(CreateExecution::RunExecutionToken(token)) => (None, Some(token.clone())),
        None => (None, None),
    };
    let old_template = old.map(|old| &old.spec.template.annotations);
    let form = v1::Job {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: sent.labels.clone(),
            annotations,
            ..ObjectMeta::default()
        },
        spec: v1::JobSpec {
            template: template(
                &sent.template.clone().unwrap_or_default(),
                old_template,
                found,
            ),
            start_execution_token: start,
            run_execution_token: run,
        },
        ..v1::Job::default()
    };
    let mut desired = v1_job::read(&form, found);
    if let Some(old) = old {
        keep(old, &mut desired);
    }
    desired
}

fn template(
    sent: &v2::ExecutionTemplate,
    old: Option<&Map>,
    found: &mut Vec<Violation>,
) -> v1::ExecutionTemplate {
    user_only("template.labels", &sent.labels, found);
    user_only("template.annotations", &sent.annotations, found);
    let task = sent.template.clone().unwrap_or_default();
    const AT: &str = "template.template";
    const KEY: &str = "A customer's encryption key is";
    for (field, said, what) in [
        ("volumes", says(&task.volumes), "Volumes are"),
        ("encryption_key", says(&task.encryption_key), KEY),
        ("vpc_access", says(&task.vpc_access), "VPC access is"),
        ("node_selector", says(&task.node_selector), "A GPU is"),
        (
            "gpu_zonal_redundancy_disabled",
            task.gpu_zonal_redundancy_disabled == Some(true),
            "A GPU is",
        ),
    ] {
        if said {
            found.push(refuse::violation(format!("{AT}.{field}"), what));
        }
    }
    let environment: ExecutionEnvironment = known(
        "template.template.execution_environment",
        task.execution_environment,
        found,
    );
    let mut annotations = sent.annotations.clone();
    annotations.extend(shared::environment_note(environment, old));
    let timeout = task
        .timeout
        .and_then(|timeout| shared::seconds("template.template.timeout", timeout, found));
    let containers = task.containers.iter().enumerate().map(|(i, container)| {
        container::read(
            &format!("{AT}.containers[{i}]"),
            Role::Worker,
            container,
            found,
        )
    });
    v1::ExecutionTemplate {
        metadata: ObjectMeta {
            labels: sent.labels.clone(),
            annotations,
            ..ObjectMeta::default()
        },
        spec: v1::ExecutionSpec {
            parallelism: Some(sent.parallelism.into()),
            task_count: Some(sent.task_count.into()),
            template: v1::TaskTemplate {
                spec: v1::TaskSpec {
                    containers: containers.collect(),
                    max_retries: task.retries.map(|Retries::MaxRetries(most)| most.into()),
                    timeout_seconds: timeout,
                    service_account_name: task.service_account,
                    ..v1::TaskSpec::default()
                },
            },
        },
    }
}

/// What v2 has no words for stays as v1 has it.
fn keep(old: &Job, desired: &mut DesiredJob) {
    keep_system(&old.meta.labels, &mut desired.labels, &[]);
    keep_system(
        &old.meta.annotations,
        &mut desired.annotations,
        &[LAUNCH_STAGE],
    );
    desired.as_sent.clone_from(&old.meta.as_sent);
    let (was, now) = (&old.spec.template, &mut desired.spec.template);
    keep_system(&was.labels, &mut now.labels, &[]);
    keep_system(&was.annotations, &mut now.annotations, &[EXECUTION]);
    container::keep_spellings(&was.as_sent, &mut now.as_sent);
    shared::keep_container(&was.spec.task.container, &mut now.spec.task.container);
}

/// Writes a job as clients read it.
pub(crate) fn write(job: &Job) -> v2::Job {
    let (meta, status) = (&job.meta, &job.status);
    let template = &job.spec.template;
    let (ready, others): (Vec<_>, Vec<_>) =
        status.conditions.iter().partition(|c| c.kind == "Ready");
    v2::Job {
        name: full_name(job),
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
        template: Some(v2::ExecutionTemplate {
            labels: users(&template.labels),
            annotations: users(&template.annotations),
            parallelism: whole(template.spec.parallelism),
            task_count: whole(template.spec.task_count),
            template: Some(write_task_template(
                &template.annotations,
                &template.as_sent,
                &template.spec.task,
            )),
        }),
        observed_generation: status.observed_generation,
        terminal_condition: ready.first().map(|c| condition::write(c)),
        conditions: others.into_iter().map(condition::write).collect(),
        execution_count: whole(status.execution_count),
        latest_created_execution: status.latest_execution.as_ref().map(reference),
        reconciling: !super::settled(meta, status.observed_generation, &status.conditions),
        etag: super::etag(meta),
        create_execution: job.spec.execute.as_ref().map(|execute| match execute {
            ExecuteNow::Started(token) => CreateExecution::StartExecutionToken(token.clone()),
            ExecuteNow::Completed(token) => CreateExecution::RunExecutionToken(token.clone()),
        }),
        ..v2::Job::default()
    }
}

fn reference(latest: &LatestExecution) -> v2::ExecutionReference {
    let status = match latest.status {
        CompletionStatus::Pending => Completion::ExecutionPending,
        CompletionStatus::Running => Completion::ExecutionRunning,
        CompletionStatus::Succeeded => Completion::ExecutionSucceeded,
        CompletionStatus::Failed => Completion::ExecutionFailed,
        CompletionStatus::Cancelled => Completion::ExecutionCancelled,
    };
    v2::ExecutionReference {
        name: latest.name.clone(),
        create_time: Some(time(latest.created)),
        completion_time: latest.completed.map(time),
        delete_time: latest.deleted.map(time),
        completion_status: status.into(),
    }
}

/// A count as messages have it; none that is let in is larger.
pub(crate) fn whole(count: u32) -> i32 {
    shown(Some(count.into()))
}

/// Writes what a task runs. `annotations` are those of its template.
pub(crate) fn write_task_template(
    annotations: &Map,
    as_sent: &Map,
    spec: &TaskSpec,
) -> v2::TaskTemplate {
    let form = v1_job::write_task_spec(spec, as_sent);
    v2::TaskTemplate {
        containers: form.containers.into_iter().map(container::write).collect(),
        timeout: form
            .timeout_seconds
            .map(|seconds| Duration { seconds, nanos: 0 }),
        service_account: form.service_account_name,
        execution_environment: shared::environment(annotations.get(EXECUTION)).into(),
        retries: Some(Retries::MaxRetries(whole(spec.max_retries))),
        ..v2::TaskTemplate::default()
    }
}

/// Reads what one run shall have otherwise.
pub(crate) fn overrides(
    sent: &run_job_request::Overrides,
    found: &mut Vec<Violation>,
) -> Overrides {
    let timeout = sent
        .timeout
        .and_then(|timeout| shared::seconds("overrides.timeout", timeout, found));
    let containers = sent.container_overrides.iter().enumerate();
    let containers = containers.map(|(i, change)| v1::ContainerOverride {
        name: change.name.clone(),
        args: change.args.clone(),
        clear_args: change.clear_args,
        env: container::read_env(
            &format!("overrides.container_overrides[{i}]"),
            &change.env,
            found,
        ),
    });
    let form = v1::Overrides {
        container_overrides: containers.collect(),
        task_count: Some(sent.task_count.into()),
        timeout_seconds: timeout,
    };
    v1_job::read_overrides(&form, found)
}

/// How many tasks an execution has, and how many at once.
pub(crate) fn counts(spec: &ExecutionSpec) -> (i32, i32) {
    (whole(spec.parallelism), whole(spec.task_count))
}

/// `projects/P/locations/L/jobs/J`.
pub(crate) fn full_name(job: &Job) -> String {
    let meta = &job.meta;
    format!(
        "projects/{}/locations/{}/jobs/{}",
        meta.project, meta.region, meta.name
    )
}
