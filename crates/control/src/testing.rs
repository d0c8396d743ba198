//! Objects for this crate's tests.

use jiff::Timestamp;
use lauf_model::{
    Condition, ConditionStatus, Container, Execution, ExecutionSpec, ExecutionStatus, Ingress,
    Meta, Revision, RevisionSpec, RevisionStatus, RevisionTemplate, Scaling, Service, ServiceKey,
    ServiceSpec, ServiceStatus, Severity, Task,
};

pub(crate) fn meta(name: &str) -> Meta {
    let key = ServiceKey {
        project: "demo".into(),
        region: "us-central1".into(),
        name: name.into(),
    };
    Meta {
        uid: format!("uid-{name}"),
        ..Meta::new(&key, Timestamp::UNIX_EPOCH)
    }
}

pub(crate) fn spec() -> RevisionSpec {
    RevisionSpec::new(Container::new("hello"))
}

pub(crate) fn service(name: &str) -> Service {
    Service {
        meta: meta(name),
        spec: ServiceSpec {
            description: String::new(),
            ingress: Ingress::All,
            invoker_iam_disabled: false,
            scaling: Scaling::default(),
            template: RevisionTemplate {
                name: None,
                labels: Default::default(),
                annotations: Default::default(),
                as_sent: Default::default(),
                spec: spec(),
            },
            traffic: Vec::new(),
        },
        status: ServiceStatus::default(),
    }
}

/// An execution that was just made.
pub(crate) fn execution(job: &str, name: &str, tasks: u32) -> Execution {
    let mut spec = ExecutionSpec::new(Container::new("etl"));
    spec.task_count = tasks;
    Execution {
        meta: meta(name),
        job: job.into(),
        job_uid: "uid".into(),
        job_generation: 1,
        template_as_sent: Default::default(),
        spec,
        cancelled: None,
        status: ExecutionStatus::new(Timestamp::UNIX_EPOCH),
    }
}

/// A task that nobody has tried.
pub(crate) fn new_task(of: &Execution, index: u32) -> Task {
    Task::new(of, index, format!("uid-{index}"), Timestamp::UNIX_EPOCH)
}

pub(crate) fn ready_revision(service: &str, name: &str, generation: i64) -> Revision {
    Revision {
        meta: meta(name),
        service: service.into(),
        service_generation: generation,
        template_as_sent: Default::default(),
        spec: spec(),
        status: RevisionStatus {
            image_digest: "hello@sha256:0".into(),
            conditions: vec![Condition {
                kind: "Ready".into(),
                status: ConditionStatus::True,
                reason: String::new(),
                message: String::new(),
                severity: Severity::Error,
                last_transition: Timestamp::UNIX_EPOCH,
            }],
        },
    }
}
