//! Worker pools: instances without requests, as many as were asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Condition, Container, Meta, RevisionStatus, WorkerPoolKey, WorkerPoolRevisionKey};

/// A stored worker pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPool {
    /// Identity and bookkeeping.
    pub meta: Meta,
    /// What the user wants.
    pub spec: WorkerPoolSpec,
    /// What the controllers made of it.
    #[serde(default)]
    pub status: WorkerPoolStatus,
}

impl WorkerPool {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> WorkerPoolKey {
        WorkerPoolKey::beside(&self.meta, &self.meta.name)
    }
}

/// What the user wants of a worker pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPoolSpec {
    /// A free text.
    #[serde(default)]
    pub description: String,
    /// How many instances run, over all revisions.
    pub instances: u32,
    /// The next revision.
    pub template: WorkerPoolTemplate,
    /// How the instances are divided; empty means all of the latest ready revision.
    #[serde(default)]
    pub splits: Vec<InstanceSplit>,
}

/// Instances of a pool that says nothing.
pub const DEFAULT_INSTANCES: u32 = 1;

/// What the next revision shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPoolTemplate {
    /// The name the user asked for; made from the pool's name when `None`.
    #[serde(default)]
    pub name: Option<String>,
    /// Labels as sent.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations as sent.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// As in [`Meta::as_sent`], for the template's annotations and limits.
    #[serde(default)]
    pub as_sent: BTreeMap<String, String>,
    /// What to run.
    pub spec: WorkerSpec,
}

/// What the instances of a worker pool's revision run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSpec {
    /// The container. It has no port. (Further ones come with sidecars.)
    pub container: Container,
    /// Email of the identity it runs as; the default one when empty.
    #[serde(default)]
    pub service_account: String,
}

/// Which share of the instances a revision has, as the user asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceSplit {
    /// The revision; `None` follows the latest ready one.
    #[serde(default)]
    pub revision: Option<String>,
    /// Share in percent; all splits together have 100.
    #[serde(default)]
    pub percent: u32,
}

/// Which share of the instances a revision has now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InstanceSplitStatus {
    /// The revision.
    pub revision: String,
    /// Whether it follows the latest ready revision.
    #[serde(default)]
    pub latest: bool,
    /// Share in percent.
    #[serde(default)]
    pub percent: u32,
}

/// What the controllers know of a worker pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkerPoolStatus {
    /// The generation the rest of the status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Ready`, `ConfigurationsReady`, `InstanceSplitsReady`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The newest revision made.
    #[serde(default)]
    pub latest_created_revision: String,
    /// The newest revision that became ready.
    #[serde(default)]
    pub latest_ready_revision: String,
    /// How the instances are divided now.
    #[serde(default)]
    pub splits: Vec<InstanceSplitStatus>,
}

/// A stored revision of a worker pool. `spec` never changes; only the status does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPoolRevision {
    /// Identity; `meta.name` is the revision's name.
    pub meta: Meta,
    /// The pool it belongs to.
    pub pool: String,
    /// The pool's generation that made it.
    pub pool_generation: i64,
    /// As [`WorkerPoolTemplate::as_sent`] at the time.
    #[serde(default)]
    pub template_as_sent: BTreeMap<String, String>,
    /// What its instances run.
    pub spec: WorkerSpec,
    /// What the controllers found out.
    #[serde(default)]
    pub status: RevisionStatus,
}

impl WorkerPoolRevision {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> WorkerPoolRevisionKey {
        WorkerPoolKey::beside(&self.meta, &self.pool).revision(&self.meta.name)
    }
}

/// All instances to the latest ready revision: what a pool without splits means.
#[must_use]
pub fn everything_to_latest() -> Vec<InstanceSplit> {
    vec![InstanceSplit {
        revision: None,
        percent: 100,
    }]
}

/// Resolves splits against the latest ready revision. One that follows the latest while there is
/// none is left out.
#[must_use]
pub fn resolve(splits: &[InstanceSplit], latest_ready: Option<&str>) -> Vec<InstanceSplitStatus> {
    let everything = everything_to_latest();
    let splits = if splits.is_empty() {
        &everything[..]
    } else {
        splits
    };
    splits
        .iter()
        .filter_map(|split| {
            Some(InstanceSplitStatus {
                revision: split.revision.as_deref().or(latest_ready)?.to_owned(),
                latest: split.revision.is_none(),
                percent: split.percent,
            })
        })
        .collect()
}

/// How many of `instances` each share has: whole numbers, in the order of the shares, that add up to
/// `instances`. What is left over after rounding down goes to the largest remainders.
#[must_use]
pub fn divide(instances: u32, percents: &[u32]) -> Vec<u32> {
    let exact = |percent: u32| u64::from(instances) * u64::from(percent);
    let whole = |percent: u32| u32::try_from(exact(percent) / 100).unwrap_or(u32::MAX);
    let mut counts: Vec<u32> = percents.iter().map(|p| whole(*p)).collect();
    let given: u32 = counts.iter().sum();
    let mut order: Vec<usize> = (0..percents.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(exact(percents[*i]) % 100));
    let left = usize::try_from(instances.saturating_sub(given)).unwrap_or(usize::MAX);
    for i in order.into_iter().take(left) {
        if percents[i] > 0 {
            counts[i] += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instance_belongs_to_a_share() {
        for (instances, percents, counts) in [
            (3, &[100][..], &[3][..]),
            (3, &[50, 50], &[2, 1]),
            (10, &[33, 33, 34], &[3, 3, 4]),
            (1, &[90, 10], &[1, 0]),
            (0, &[100], &[0]),
            (7, &[0, 100], &[0, 7]),
        ] {
            assert_eq!(divide(instances, percents), counts, "{percents:?}");
        }
    }
}
