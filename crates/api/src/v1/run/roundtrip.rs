//! Jobs and worker pools in v1 and in the model are two forms of one thing.

use std::time::Duration;

use jiff::Timestamp;
use lauf_model::job::{ExecuteNow, JobStatus};
use lauf_model::worker_pool::{WorkerPoolStatus, WorkerPoolTemplate};
use lauf_model::{
    Container, ExecutionSpec, ExecutionTemplate, InstanceSplit, Job, JobKey, JobSpec, Meta, Port,
    Probe, ProbeAction, TaskSpec, WorkerPool, WorkerPoolSpec, WorkerSpec,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::{job, types, worker_pool};
use crate::v1::roundtrip::{container, map, word};

/// A container that gets no requests: its probes name their ports.
fn worker() -> impl Strategy<Value = Container> {
    let own_port = |probe: Probe| Probe {
        action: match probe.action {
            ProbeAction::Tcp { port } => ProbeAction::Tcp {
                port: port.or(Some(9000)),
            },
            ProbeAction::Http {
                path,
                port,
                headers,
            } => ProbeAction::Http {
                path,
                port: port.or(Some(9000)),
                headers,
            },
            ProbeAction::Grpc { port, service } => ProbeAction::Grpc {
                port: port.or(Some(9000)),
                service,
            },
        },
        ..probe
    };
    container().prop_map(move |container| Container {
        port: Port::default(),
        startup_probe: container.startup_probe.map(own_port),
        liveness_probe: container.liveness_probe.map(own_port),
        readiness_probe: None,
        ..container
    })
}

fn meta() -> impl Strategy<Value = Meta> {
    (word(), map(), map()).prop_map(|(name, labels, annotations)| {
        let key = JobKey {
            project: "demo".to_owned(),
            region: "us-central1".to_owned(),
            name,
        };
        Meta {
            uid: "u".to_owned(),
            generation: 3,
            creator: "admin".to_owned(),
            last_modifier: "admin".to_owned(),
            client: "gcloud".to_owned(),
            client_version: "1".to_owned(),
            labels,
            annotations,
            ..Meta::new(&key, Timestamp::UNIX_EPOCH)
        }
    })
}

/// Any job that can be stored, with every field.
pub(crate) fn a_job() -> impl Strategy<Value = Job> {
    let execute = of((any::<bool>(), word()).prop_map(|(wait, token)| {
        if wait {
            ExecuteNow::Completed(token)
        } else {
            ExecuteNow::Started(token)
        }
    }));
    let numbers = (0..99_u32, 1..10_000_u32, 0..11_u32, 1..604_800_u64);
    let template =
        (map(), map(), worker(), numbers).prop_map(|(labels, annotations, container, numbers)| {
            ExecutionTemplate {
                labels,
                annotations,
                as_sent: Default::default(),
                spec: ExecutionSpec {
                    parallelism: numbers.0,
                    task_count: numbers.1,
                    task: TaskSpec {
                        service_account: container.name.clone(),
                        container,
                        max_retries: numbers.2,
                        timeout: Duration::from_secs(numbers.3),
                    },
                },
            }
        });
    (meta(), template, execute).prop_map(|(meta, template, execute)| Job {
        meta,
        spec: JobSpec { template, execute },
        status: JobStatus::default(),
    })
}

/// Any worker pool that can be stored, with every field.
pub(crate) fn a_worker_pool() -> impl Strategy<Value = WorkerPool> {
    let split = (of(word()), 0..=100_u32)
        .prop_map(|(revision, percent)| InstanceSplit { revision, percent });
    let template =
        (of(word()), map(), map(), worker()).prop_map(|(name, labels, annotations, container)| {
            WorkerPoolTemplate {
                name,
                labels,
                annotations,
                as_sent: Default::default(),
                spec: WorkerSpec {
                    service_account: container.name.clone(),
                    container,
                },
            }
        });
    let rest = ("[ -~]{0,8}", 0..1000_u32, vec(split, 1..4));
    (meta(), template, rest).prop_map(|(meta, template, rest)| WorkerPool {
        meta,
        spec: WorkerPoolSpec {
            description: rest.0,
            instances: rest.1,
            template,
            splits: rest.2,
        },
        status: WorkerPoolStatus::default(),
    })
}

proptest! {
    #[test]
    fn jobs_to_v1_and_back(before in a_job()) {
        let json = serde_json::to_value(job::write(&before, 1)).unwrap();
        let sent: types::Job = serde_json::from_value(json).unwrap();
        let mut found = Vec::new();
        let read = job::read(&sent, &mut found);
        prop_assert_eq!(found, Vec::new());
        prop_assert_eq!(&read.labels, &before.meta.labels);
        prop_assert_eq!(&read.annotations, &before.meta.annotations);
        prop_assert_eq!(&read.as_sent, &before.meta.as_sent);
        prop_assert_eq!(&read.spec, &before.spec);
        prop_assert_eq!(read.client, before.meta.client);
    }

    #[test]
    fn worker_pools_to_v1_and_back(before in a_worker_pool()) {
        let json = serde_json::to_value(worker_pool::write(&before, 1)).unwrap();
        let sent: types::WorkerPool = serde_json::from_value(json).unwrap();
        let mut found = Vec::new();
        let read = worker_pool::read(&sent, &mut found);
        prop_assert_eq!(found, Vec::new());
        prop_assert_eq!(&read.labels, &before.meta.labels);
        prop_assert_eq!(&read.annotations, &before.meta.annotations);
        prop_assert_eq!(&read.as_sent, &before.meta.as_sent);
        prop_assert_eq!(&read.spec, &before.spec);
    }

    #[test]
    fn spellings_of_a_worker_pool_come_back(mode in of("manual"), count in of("0{0,1}[0-3]")) {
        let mut sent = types::WorkerPool::default();
        let notes = [
            ("run.googleapis.com/scalingMode", &mode),
            ("run.googleapis.com/manualInstanceCount", &count),
        ];
        sent.metadata.annotations = notes
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)))
            .collect();
        sent.spec.template.spec.containers = vec![crate::v1::types::Container::default()];
        let mut found = Vec::new();
        let read = worker_pool::read(&sent, &mut found);
        prop_assert_eq!(found, Vec::new());
        let pool = WorkerPool {
            meta: Meta {
                as_sent: read.as_sent,
                ..Meta::new(&JobKey {
                    project: String::new(),
                    region: String::new(),
                    name: String::new(),
                }, Timestamp::UNIX_EPOCH)
            },
            spec: read.spec,
            status: WorkerPoolStatus::default(),
        };
        let written = worker_pool::write(&pool, 1);
        prop_assert_eq!(&written.metadata.annotations, &sent.metadata.annotations);
    }
}
