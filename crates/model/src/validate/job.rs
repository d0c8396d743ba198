//! What a job, and one execution of it, must look like before it is stored.

use std::time::Duration;

use super::{container, labels, resource_name};
use crate::{Container, ExecutionSpec, Job, Probe, ProbeAction, Violation};

/// Variables of tasks that the platform sets itself.
pub const RESERVED_TASK_ENV: [&str; 5] = [
    "CLOUD_RUN_JOB",
    "CLOUD_RUN_EXECUTION",
    "CLOUD_RUN_TASK_INDEX",
    "CLOUD_RUN_TASK_ATTEMPT",
    "CLOUD_RUN_TASK_COUNT",
];
/// The most tasks of an execution (Cloud Run, "Quotas and limits").
pub const MAX_TASKS: u32 = 10_000;
/// The most retries of a task.
pub const MAX_RETRIES: u32 = 10;
/// The longest time an attempt may take: 168 hours.
pub const MAX_TASK_TIMEOUT: Duration = Duration::from_secs(168 * 3600);

const EXECUTION: &str = "spec.template.spec";
const TASK: &str = "spec.template.spec.template.spec";
/// The longest name of an execution whose suffix the client chose.
const MAX_EXECUTION_NAME: usize = 62;

/// All violations of a job, in the order of its fields; empty when it may be stored.
#[must_use]
pub fn job(job: &Job) -> Vec<Violation> {
    let mut found = Vec::new();
    resource_name("job", &job.meta.name, &mut found);
    labels("metadata.labels", &job.meta.labels, &mut found);
    let template = &job.spec.template;
    labels(
        "spec.template.metadata.labels",
        &template.labels,
        &mut found,
    );
    found.extend(execution(&template.spec));
    if let Some(now) = &job.spec.execute {
        token(&job.meta.name, now.token(), &mut found);
    }
    found
}

fn token(job: &str, token: &str, found: &mut Vec<Violation>) {
    let well_formed = !token.ends_with('-')
        && job.len() + 1 + token.len() <= MAX_EXECUTION_NAME
        && token
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !well_formed {
        found.push(Violation::new(
            "spec.startExecutionToken",
            format!(
                "'{token}' is not a suffix of an execution's name: only lowercase letters, digits \
                 and hyphens, not ending with a hyphen, {MAX_EXECUTION_NAME} characters at most \
                 with '{job}-'."
            ),
        ));
    }
}

/// All violations of what an execution runs, by their paths in the job.
#[must_use]
pub fn execution(spec: &ExecutionSpec) -> Vec<Violation> {
    let mut found = Vec::new();
    for (field, count, least) in [
        ("taskCount", spec.task_count, 1),
        ("parallelism", spec.parallelism, 0),
    ] {
        if !(least..=MAX_TASKS).contains(&count) {
            found.push(Violation::new(
                format!("{EXECUTION}.{field}"),
                format!("is {count}; must be from {least} to {MAX_TASKS}."),
            ));
        }
    }
    let at = format!("{TASK}.containers[0]");
    let task = &spec.task;
    container(&at, &task.container, &RESERVED_TASK_ENV, &mut found);
    without_port(&at, &task.container, &mut found);
    for (field, probe) in [
        ("livenessProbe", &task.container.liveness_probe),
        ("readinessProbe", &task.container.readiness_probe),
    ] {
        if probe.is_some() {
            found.push(Violation::new(
                format!("{at}.{field}"),
                "is not for jobs; a task is well as long as it runs. Leave it out.",
            ));
        }
    }
    if task.max_retries > MAX_RETRIES {
        found.push(Violation::new(
            format!("{TASK}.maxRetries"),
            format!("is {}; must be from 0 to {MAX_RETRIES}.", task.max_retries),
        ));
    }
    if !(Duration::from_secs(1)..=MAX_TASK_TIMEOUT).contains(&task.timeout) {
        found.push(Violation::new(
            format!("{TASK}.timeoutSeconds"),
            format!(
                "is {}; must be from 1 to {} (168 hours).",
                task.timeout.as_secs(),
                MAX_TASK_TIMEOUT.as_secs()
            ),
        ));
    }
    found
}

/// A container that serves no requests has no port of its own that a probe could mean.
pub(super) fn without_port(at: &str, container: &Container, found: &mut Vec<Violation>) {
    for (field, probe) in [
        ("startupProbe", &container.startup_probe),
        ("livenessProbe", &container.liveness_probe),
    ] {
        let Some(Probe { action, .. }) = probe else {
            continue;
        };
        let (ProbeAction::Tcp { port }
        | ProbeAction::Http { port, .. }
        | ProbeAction::Grpc { port, .. }) = action;
        if port.is_none_or(|port| port == 0) {
            let kind = match action {
                ProbeAction::Tcp { .. } => "tcpSocket",
                ProbeAction::Http { .. } => "httpGet",
                ProbeAction::Grpc { .. } => "grpc",
            };
            found.push(Violation::new(
                format!("{at}.{field}.{kind}.port"),
                "is required: a container without requests has no port of its own.",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{ExecuteNow, ExecutionTemplate, JobSpec, JobStatus};
    use crate::{JobKey, Meta};
    use jiff::Timestamp;

    fn job_of(spec: ExecutionSpec) -> Job {
        let key = JobKey {
            project: "demo".into(),
            region: "us-central1".into(),
            name: "etl".into(),
        };
        Job {
            meta: Meta::new(&key, Timestamp::UNIX_EPOCH),
            spec: JobSpec {
                template: ExecutionTemplate {
                    labels: Default::default(),
                    annotations: Default::default(),
                    as_sent: Default::default(),
                    spec,
                },
                execute: None,
            },
            status: JobStatus::default(),
        }
    }

    #[test]
    fn a_plain_job_is_fine_and_everything_wrong_is_found_at_once() {
        let mut one = job_of(ExecutionSpec::new(Container::new("etl")));
        assert_eq!(job(&one), []);
        one.meta.name = "Not".into();
        one.spec.execute = Some(ExecuteNow::Started("x".repeat(70)));
        let spec = &mut one.spec.template.spec;
        spec.task_count = 10_001;
        spec.parallelism = 10_001;
        spec.task.max_retries = 11;
        spec.task.timeout = MAX_TASK_TIMEOUT + Duration::from_secs(1);
        spec.task.container.env = vec![crate::EnvVar {
            name: "CLOUD_RUN_JOB".into(),
            value: String::new(),
        }];
        spec.task.container.startup_probe = Some(Probe::default_startup());
        spec.task.container.liveness_probe = Some(Probe {
            action: ProbeAction::Tcp { port: Some(1) },
            ..Probe::default_startup()
        });
        let fields: Vec<String> = job(&one).into_iter().map(|v| v.field).collect();
        let task = "spec.template.spec.template.spec";
        assert_eq!(
            fields,
            [
                "metadata.name".to_owned(),
                "spec.template.spec.taskCount".to_owned(),
                "spec.template.spec.parallelism".to_owned(),
                format!("{task}.containers[0].env[0].name"),
                format!("{task}.containers[0].startupProbe.tcpSocket.port"),
                format!("{task}.containers[0].livenessProbe"),
                format!("{task}.maxRetries"),
                format!("{task}.timeoutSeconds"),
                "spec.startExecutionToken".to_owned(),
            ]
        );
    }

    #[test]
    fn the_same_field_has_another_path_in_v2() {
        for (v1, v2) in [
            (
                "spec.template.spec.template.spec.timeoutSeconds",
                "template.template.timeout",
            ),
            (
                "spec.template.spec.template.spec.maxRetries",
                "template.template.max_retries",
            ),
            ("spec.template.spec.taskCount", "template.task_count"),
            (
                "spec.template.spec.template.spec.containers[0].image",
                "template.template.containers[0].image",
            ),
            ("spec.instanceSplits[0]", "instance_splits[0]"),
        ] {
            assert_eq!(Violation::new(v1, "").v2_field(), v2);
        }
    }
}
