//! The decisions of the service controller, as functions of what is stored. No I/O.

use std::collections::BTreeMap;

use lauf_model::revision::DEFAULT_MAX_INSTANCES;
use lauf_model::{
    ConditionStatus, Revision, RevisionTemplate, Scaling, Service, TrafficStatus, condition,
};

/// Whether the template asks for another revision than `latest`, the newest one made.
pub(crate) fn needs_revision(template: &RevisionTemplate, latest: Option<&Revision>) -> bool {
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

/// The state of a revision as far as routing cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    Pending,
    Failed,
}

/// Reads a revision's `Ready` condition.
pub(crate) fn readiness(revision: &Revision) -> Readiness {
    match condition::find(&revision.status.conditions, "Ready").map(|c| c.status) {
        Some(ConditionStatus::True) => Readiness::Ready,
        Some(ConditionStatus::False) => Readiness::Failed,
        _ => Readiness::Pending,
    }
}

/// The newest ready revision, by the generation that made it.
pub(crate) fn latest_ready(revisions: &BTreeMap<String, Revision>) -> Option<&Revision> {
    revisions
        .values()
        .filter(|r| readiness(r) == Readiness::Ready && r.meta.deleted.is_none())
        .max_by_key(|r| r.service_generation)
}

/// What traffic is to be served, and the first target that cannot be, with the reason.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Routing {
    pub(crate) served: Vec<TrafficStatus>,
    pub(crate) trouble: Option<Trouble>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Named, but there is no such revision.
    Missing(String),
    /// Named, but it failed.
    Failed(String),
    /// Not ready yet, or there is no ready revision yet.
    Waiting,
}

/// Resolves a service's targets. When all can be served, they are; when one cannot, what was
/// served before goes on, so that a bad target never takes the good ones down.
pub(crate) fn route(service: &Service, revisions: &BTreeMap<String, Revision>) -> Routing {
    let ready = latest_ready(revisions);
    let wanted =
        lauf_model::traffic::resolve(&service.spec.traffic, ready.map(|r| r.meta.name.as_str()));
    let targets = service.spec.traffic.len().max(1);
    let trouble = if wanted.len() < targets {
        Some(Trouble::Waiting)
    } else {
        wanted.iter().find_map(|target| {
            let Some(revision) = revisions.get(&target.revision) else {
                return Some(Trouble::Missing(target.revision.clone()));
            };
            match readiness(revision) {
                Readiness::Ready => None,
                Readiness::Failed => Some(Trouble::Failed(target.revision.clone())),
                Readiness::Pending => Some(Trouble::Waiting),
            }
        })
    };
    let served = match trouble {
        None => wanted,
        Some(_) => service
            .status
            .traffic
            .iter()
            .filter(|t| {
                revisions
                    .get(&t.revision)
                    .is_some_and(|r| readiness(r) == Readiness::Ready)
            })
            .cloned()
            .collect(),
    };
    Routing { served, trouble }
}

/// Instance counts of one revision, from its own settings and its share of the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) min: u32,
    pub(crate) max: u32,
    pub(crate) manual: Option<u32>,
}

/// Divides a service's instance counts over its revisions by their traffic
/// (Cloud Run, `ServiceScaling`: "divided over all revisions with specified traffic").
pub(crate) fn counts(scaling: &Scaling, revision: &Revision, percent: u32) -> Counts {
    let share = |n: u32| n.saturating_mul(percent).div_ceil(100);
    let own_max = revision.spec.max_instances.unwrap_or(DEFAULT_MAX_INSTANCES);
    let max = match scaling.max_instances {
        Some(service_max) if percent > 0 => own_max.min(share(service_max).max(1)),
        _ => own_max,
    };
    Counts {
        min: revision
            .spec
            .min_instances
            .max(share(scaling.min_instances))
            .min(max),
        max,
        manual: scaling.manual_instances.map(share),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ready_revision, service};
    use lauf_model::TrafficTarget;

    fn by_name(revisions: impl IntoIterator<Item = Revision>) -> BTreeMap<String, Revision> {
        revisions
            .into_iter()
            .map(|r| (r.meta.name.clone(), r))
            .collect()
    }

    #[test]
    fn only_a_change_of_the_template_makes_a_revision() {
        let service = service("hello");
        let template = &service.spec.template;
        assert!(needs_revision(template, None));
        let latest = ready_revision("hello", "hello-00001-abc", 1);
        assert!(!needs_revision(template, Some(&latest)));
        let mut changed = template.clone();
        changed
            .labels
            .insert("client.knative.dev/nonce".into(), "x".into());
        assert!(needs_revision(&changed, Some(&latest)));
        let mut named = template.clone();
        named.name = Some("hello-two".into());
        assert!(needs_revision(&named, Some(&latest)));
    }

    #[test]
    fn the_latest_ready_revision_gets_everything_by_default() {
        let service = service("hello");
        let mut failed = ready_revision("hello", "hello-00003-ccc", 3);
        failed.status.conditions[0].status = ConditionStatus::False;
        let revisions = by_name([
            ready_revision("hello", "hello-00001-aaa", 1),
            ready_revision("hello", "hello-00002-bbb", 2),
            failed,
        ]);
        let routing = route(&service, &revisions);
        assert_eq!(routing.trouble, None);
        assert_eq!(routing.served.len(), 1);
        assert_eq!(routing.served[0].revision, "hello-00002-bbb");
        assert_eq!(routing.served[0].percent, 100);
    }

    #[test]
    fn a_target_that_cannot_be_served_leaves_the_old_traffic_alone() {
        let mut service = service("hello");
        let revisions = by_name([ready_revision("hello", "hello-00001-aaa", 1)]);
        service.status.traffic = route(&service, &revisions).served;
        service.spec.traffic = vec![TrafficTarget {
            revision: Some("hello-00009-zzz".into()),
            percent: 100,
            tag: None,
        }];
        let routing = route(&service, &revisions);
        assert_eq!(
            routing.trouble,
            Some(Trouble::Missing("hello-00009-zzz".into()))
        );
        assert_eq!(routing.served[0].revision, "hello-00001-aaa");
    }

    #[test]
    fn nothing_is_served_before_a_revision_is_ready() {
        let service = service("hello");
        let routing = route(&service, &BTreeMap::new());
        assert_eq!(
            routing,
            Routing {
                served: Vec::new(),
                trouble: Some(Trouble::Waiting)
            }
        );
    }

    #[test]
    fn service_counts_are_divided_by_traffic() {
        let mut revision = ready_revision("hello", "hello-00001-aaa", 1);
        let scaling = Scaling {
            min_instances: 4,
            max_instances: Some(10),
            manual_instances: None,
        };
        assert_eq!(
            counts(&scaling, &revision, 50),
            Counts {
                min: 2,
                max: 5,
                manual: None
            }
        );
        assert_eq!(
            counts(&scaling, &revision, 0),
            Counts {
                min: 0,
                max: 100,
                manual: None
            }
        );
        revision.spec.min_instances = 3;
        revision.spec.max_instances = Some(4);
        assert_eq!(
            counts(&scaling, &revision, 100),
            Counts {
                min: 4,
                max: 4,
                manual: None
            }
        );
    }
}
