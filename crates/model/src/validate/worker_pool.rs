//! What a worker pool must look like before it is stored.

use super::job::without_port;
use super::{CONTAINER, container, labels, resource_name, revision_name};
use crate::{Violation, WorkerPool};

/// Variables of workers that the platform sets itself.
pub const RESERVED_WORKER_ENV: [&str; 2] =
    ["CLOUD_RUN_WORKER_POOL", "CLOUD_RUN_WORKER_POOL_REVISION"];
/// The most instances of a worker pool.
pub const MAX_INSTANCES: u32 = 1000;

/// All violations of a worker pool, in the order of its fields; empty when it may be stored.
#[must_use]
pub fn worker_pool(pool: &WorkerPool) -> Vec<Violation> {
    let mut found = Vec::new();
    resource_name("worker pool", &pool.meta.name, &mut found);
    labels("metadata.labels", &pool.meta.labels, &mut found);
    let spec = &pool.spec;
    if spec.instances > MAX_INSTANCES {
        found.push(Violation::new(
            "metadata.annotations[run.googleapis.com/manualInstanceCount]",
            format!("is {}; must be from 0 to {MAX_INSTANCES}.", spec.instances),
        ));
    }
    labels(
        "spec.template.metadata.labels",
        &spec.template.labels,
        &mut found,
    );
    if let Some(name) = &spec.template.name {
        revision_name(name, &pool.meta.name, &mut found);
    }
    let worker = &spec.template.spec.container;
    container(CONTAINER, worker, &RESERVED_WORKER_ENV, &mut found);
    without_port(CONTAINER, worker, &mut found);
    if worker.readiness_probe.is_some() {
        found.push(Violation::new(
            format!("{CONTAINER}.readinessProbe"),
            "is not for worker pools, which get no requests; leave it out.",
        ));
    }
    let sum: u64 = spec.splits.iter().map(|s| u64::from(s.percent)).sum();
    if !spec.splits.is_empty() && sum != 100 {
        found.push(Violation::new(
            "spec.instanceSplits",
            format!("Instance splits must sum to 100 percent, but sum to {sum}."),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker_pool::{
        InstanceSplit, WorkerPoolSpec, WorkerPoolStatus, WorkerPoolTemplate, WorkerSpec,
    };
    use crate::{Container, Meta, Probe, WorkerPoolKey};
    use jiff::Timestamp;

    #[test]
    fn everything_wrong_is_found_at_once() {
        let key = WorkerPoolKey {
            project: "demo".into(),
            region: "us-central1".into(),
            name: "puller".into(),
        };
        let mut pool = WorkerPool {
            meta: Meta::new(&key, Timestamp::UNIX_EPOCH),
            spec: WorkerPoolSpec {
                description: String::new(),
                instances: 3,
                template: WorkerPoolTemplate {
                    name: None,
                    labels: Default::default(),
                    annotations: Default::default(),
                    as_sent: Default::default(),
                    spec: WorkerSpec {
                        container: Container::new("puller"),
                        service_account: String::new(),
                    },
                },
                splits: Vec::new(),
            },
            status: WorkerPoolStatus::default(),
        };
        assert_eq!(worker_pool(&pool), []);
        pool.spec.instances = 1001;
        pool.spec.template.name = Some("other-1".into());
        pool.spec.template.spec.container.readiness_probe = Some(Probe::default_startup());
        pool.spec.splits = vec![InstanceSplit {
            revision: None,
            percent: 90,
        }];
        let fields: Vec<String> = worker_pool(&pool).into_iter().map(|v| v.field).collect();
        assert_eq!(
            fields,
            [
                "metadata.annotations[run.googleapis.com/manualInstanceCount]",
                "spec.template.metadata.name",
                "spec.template.spec.containers[0].readinessProbe",
                "spec.instanceSplits",
            ]
        );
    }
}
