//! The decisions of the service controller, as functions of what is stored. No I/O.

use std::collections::BTreeMap;

use lauf_model::revision::DEFAULT_MAX_INSTANCES;
use lauf_model::{
    Condition, ConditionStatus, Revision, RevisionTemplate, Scaling, Service, TrafficStatus,
    condition,
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

impl Readiness {
    /// Reads a revision's `Ready` condition.
    pub(crate) fn of(conditions: &[Condition]) -> Self {
        match condition::find(conditions, "Ready").map(|c| c.status) {
            Some(ConditionStatus::True) => Self::Ready,
            Some(ConditionStatus::False) => Self::Failed,
            _ => Self::Pending,
        }
    }
}

/// How a service's revision stands.
pub(crate) fn readiness(revision: &Revision) -> Readiness {
    Readiness::of(&revision.status.conditions)
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

/// What stands in the way of dividing requests or instances as asked.
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

/// The counts of each revision that is served: its own, and its share of the service's, which are
/// divided by traffic. `shares` are the revisions and the percent each gets.
pub(crate) fn counts(scaling: &Scaling, shares: &[(&Revision, u32)]) -> Vec<Counts> {
    let percents: Vec<_> = shares.iter().map(|(_, percent)| *percent).collect();
    let divided =
        |total: Option<u32>, least| total.map(|total| lauf_scale::split(total, &percents, least));
    let min = lauf_scale::split(scaling.min_instances, &percents, 0);
    let max = divided(scaling.max_instances, 1);
    let manual = divided(scaling.manual_instances, 1);
    let own = shares.iter().enumerate().map(|(i, (revision, percent))| {
        let spec = &revision.spec;
        let own_max = spec.max_instances.unwrap_or(DEFAULT_MAX_INSTANCES);
        // Who is reached by tag only has no share of the service's maximum, and his own holds.
        let max = max
            .as_ref()
            .filter(|_| *percent > 0)
            .map_or(own_max, |max| own_max.min(max[i]));
        Counts {
            min: spec.min_instances.max(min[i]).min(max),
            max,
            // Nor of the manual count, unless that stops the service.
            manual: manual
                .as_ref()
                .map(|manual| manual[i])
                .filter(|_| *percent > 0 || scaling.manual_instances == Some(0)),
        }
    });
    own.collect()
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
        let mut first = ready_revision("hello", "hello-00001-aaa", 1);
        let second = ready_revision("hello", "hello-00002-bbb", 2);
        let tagged = ready_revision("hello", "hello-00003-ccc", 3);
        let scaling = Scaling {
            min_instances: 4,
            max_instances: Some(10),
            manual_instances: None,
        };
        let of = |scaling: &Scaling, shares: &[(&Revision, u32)]| -> Vec<_> {
            let counts = counts(scaling, shares);
            counts.iter().map(|c| (c.min, c.max, c.manual)).collect()
        };
        let shares = [(&first, 75), (&second, 25), (&tagged, 0)];
        assert_eq!(
            of(&scaling, &shares),
            [(3, 8, None), (1, 2, None), (0, 100, None)]
        );
        let manual = Scaling {
            manual_instances: Some(2),
            ..scaling
        };
        let each: Vec<_> = of(&manual, &shares).iter().map(|c| c.2).collect();
        assert_eq!(each, [Some(1), Some(1), None]);
        let stopped = Scaling {
            manual_instances: Some(0),
            ..scaling
        };
        assert!(of(&stopped, &shares).iter().all(|c| c.2 == Some(0)));
        first.spec.min_instances = 3;
        first.spec.max_instances = Some(4);
        assert_eq!(of(&scaling, &[(&first, 100)]), [(4, 4, None)]);
        assert_eq!(of(&Scaling::default(), &[(&first, 0)]), [(3, 4, None)]);
    }
}
