//! The decisions about a worker pool, as functions of what is stored and what runs. No I/O.

use std::collections::BTreeMap;

use lauf_model::worker_pool::{InstanceSplitStatus, WorkerPoolTemplate, divide, resolve};
use lauf_model::{WorkerPool, WorkerPoolRevision};

use crate::plan::{Readiness, Trouble};

/// Whether the template asks for another revision than `latest`, the newest one made.
pub(crate) fn needs_revision(
    template: &WorkerPoolTemplate,
    latest: Option<&WorkerPoolRevision>,
) -> bool {
    let Some(latest) = latest else { return true };
    let same_name = template
        .name
        .as_ref()
        .is_none_or(|name| *name == latest.meta.name);
    !(same_name
        && latest.spec == template.spec
        && latest.meta.labels == template.labels
        && latest.meta.annotations == template.annotations)
}

/// How a worker pool's revision stands.
pub(crate) fn readiness(revision: &WorkerPoolRevision) -> Readiness {
    Readiness::of(&revision.status.conditions)
}

/// The newest ready revision, by the generation that made it.
pub(crate) fn latest_ready(
    revisions: &BTreeMap<String, WorkerPoolRevision>,
) -> Option<&WorkerPoolRevision> {
    revisions
        .values()
        .filter(|r| readiness(r) == Readiness::Ready && r.meta.deleted.is_none())
        .max_by_key(|r| r.pool_generation)
}

/// How the instances are divided, and what stands in the way of dividing them as asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Division {
    pub(crate) splits: Vec<InstanceSplitStatus>,
    pub(crate) trouble: Option<Trouble>,
}

/// Resolves a pool's splits. When one cannot be had, what ran before goes on.
pub(crate) fn split(
    pool: &WorkerPool,
    revisions: &BTreeMap<String, WorkerPoolRevision>,
) -> Division {
    let ready = latest_ready(revisions);
    let wanted = resolve(&pool.spec.splits, ready.map(|r| r.meta.name.as_str()));
    let trouble = if wanted.len() < pool.spec.splits.len().max(1) {
        Some(Trouble::Waiting)
    } else {
        wanted.iter().find_map(|split| {
            let Some(revision) = revisions.get(&split.revision) else {
                return Some(Trouble::Missing(split.revision.clone()));
            };
            match readiness(revision) {
                Readiness::Ready => None,
                Readiness::Failed => Some(Trouble::Failed(split.revision.clone())),
                Readiness::Pending => Some(Trouble::Waiting),
            }
        })
    };
    let is_ready = |split: &InstanceSplitStatus| {
        let revision = revisions.get(&split.revision);
        revision.is_some_and(|r| readiness(r) == Readiness::Ready)
    };
    let splits = match trouble {
        None => wanted,
        Some(_) => {
            let before = pool.status.splits.iter();
            before.filter(|s| is_ready(s)).cloned().collect()
        }
    };
    Division { splits, trouble }
}

/// How many instances each revision shall have in the end. A revision may have several shares.
pub(crate) fn targets(instances: u32, splits: &[InstanceSplitStatus]) -> BTreeMap<String, u32> {
    let percents: Vec<u32> = splits.iter().map(|s| s.percent).collect();
    let mut targets = BTreeMap::new();
    for (split, count) in splits.iter().zip(divide(instances, &percents)) {
        *targets.entry(split.revision.clone()).or_insert(0) += count;
    }
    targets
}

/// How many instances each revision shall have now: those that are to have more get them at once,
/// those that are to have fewer keep as many as the others still lack.
pub(crate) fn now(
    targets: &BTreeMap<String, u32>,
    running: &BTreeMap<String, u32>,
) -> BTreeMap<String, u32> {
    let target = |name: &String| targets.get(name).copied().unwrap_or(0);
    let runs = |name: &String| running.get(name).copied().unwrap_or(0);
    let mut lacking: u32 = targets
        .iter()
        .map(|(name, count)| count.saturating_sub(runs(name)))
        .sum();
    let mut counts = targets.clone();
    for (name, running) in running {
        let surplus = running.saturating_sub(target(name));
        let kept = surplus.min(lacking);
        lacking -= kept;
        if surplus > 0 {
            counts.insert(name.clone(), target(name) + kept);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[(&str, u32)]) -> BTreeMap<String, u32> {
        list.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect()
    }

    #[test]
    fn a_new_revision_takes_over_instance_by_instance() {
        let targets = counts(&[("new", 3)]);
        for (running, expected) in [
            (&[("old", 3)][..], &[("new", 3), ("old", 3)][..]),
            (&[("old", 3), ("new", 1)], &[("new", 3), ("old", 2)]),
            (&[("old", 2), ("new", 2)], &[("new", 3), ("old", 1)]),
            (&[("old", 1), ("new", 3)], &[("new", 3), ("old", 0)]),
        ] {
            assert_eq!(now(&targets, &counts(running)), counts(expected));
        }
    }

    #[test]
    fn shares_of_one_revision_add_up() {
        let split = |revision: &str, percent| InstanceSplitStatus {
            revision: revision.into(),
            latest: false,
            percent,
        };
        let splits = [split("a", 50), split("b", 25), split("a", 25)];
        assert_eq!(targets(4, &splits), counts(&[("a", 3), ("b", 1)]));
    }
}
