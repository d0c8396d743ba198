//! Objects for this crate's tests.

use std::time::Duration;

use jiff::Timestamp;
use lauf_model::{
    Condition, ConditionStatus, Container, Ingress, Meta, Port, Revision, RevisionSpec,
    RevisionStatus, RevisionTemplate, Scaling, Service, ServiceSpec, ServiceStatus, Severity,
};

pub(crate) fn meta(name: &str) -> Meta {
    Meta {
        project: "demo".into(),
        region: "us-central1".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        generation: 1,
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH,
        deleted: None,
        creator: String::new(),
        last_modifier: String::new(),
        client: String::new(),
        client_version: String::new(),
        labels: Default::default(),
        annotations: Default::default(),
        as_sent: Default::default(),
    }
}

pub(crate) fn spec() -> RevisionSpec {
    RevisionSpec {
        container: Container {
            name: String::new(),
            image: "hello".into(),
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: String::new(),
            port: Port::default(),
            cpu_millis: 1000,
            memory_bytes: 512 << 20,
            startup_probe: None,
            liveness_probe: None,
            readiness_probe: None,
        },
        concurrency: 80,
        timeout: Duration::from_secs(300),
        min_instances: 0,
        max_instances: None,
        service_account: String::new(),
        startup_cpu_boost: false,
        cpu_throttling: true,
    }
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
