//! How a service or a worker pool stands: the two conditions that its `Ready` is made of. Both make revisions and divide something
//! among them, requests or instances, and differ in words only.

use jiff::Timestamp;
use lauf_model::{Condition, ConditionStatus, condition};

use crate::plan::{Readiness, Trouble};
use crate::wording;

/// The words for what revisions are there for.
#[derive(Debug)]
pub(crate) struct Purpose {
    /// What a revision that is not ready cannot do.
    pub(crate) does: &'static str,
    /// Where revisions are named.
    pub(crate) named_in: &'static str,
    /// The condition that says whether everything is divided as asked.
    pub(crate) divided: &'static str,
}

/// A service's revisions.
pub(crate) const SERVING: Purpose = Purpose {
    does: "serve traffic",
    named_in: "traffic block",
    divided: "RoutesReady",
};

/// A worker pool's revisions.
pub(crate) const WORKING: Purpose = Purpose {
    does: "run workers",
    named_in: "instance splits",
    divided: "InstanceSplitsReady",
};

/// Whether the newest revision, given by its name and conditions, is ready; `None` when there is none yet.
pub(crate) fn configurations_ready(
    purpose: &Purpose,
    latest: Option<(&str, &[Condition])>,
    now: Timestamp,
) -> Condition {
    const KIND: &str = "ConfigurationsReady";
    let Some((name, conditions)) = latest else {
        return wording::pending(KIND, "Deploying", "Creating Revision.", now);
    };
    let ready = condition::find(conditions, "Ready");
    match Readiness::of(conditions) {
        Readiness::Ready => wording::holds(KIND, now),
        Readiness::Pending => {
            let retried = ready.filter(|c| c.reason == wording::RETRY);
            let text = wording::deploying(retried.map(|c| &*c.message));
            wording::pending(KIND, "Deploying", &text, now)
        }
        Readiness::Failed => {
            let (reason, cause) = ready.map_or(("", ""), |c| (&*c.reason, &*c.message));
            let does = purpose.does;
            let text = format!("Revision '{name}' is not ready and cannot {does}. {cause}");
            wording::failed(KIND, reason, &text, now)
        }
    }
}

/// Whether everything is divided among the revisions as asked.
pub(crate) fn divided(
    purpose: &Purpose,
    trouble: Option<&Trouble>,
    configurations: &Condition,
    now: Timestamp,
) -> Condition {
    let Purpose {
        does,
        named_in,
        divided: kind,
    } = purpose;
    match trouble {
        None => wording::holds(kind, now),
        Some(Trouble::Missing(revision)) => {
            let text = format!(
                "Revision '{revision}' named in the {named_in} was not found. Name a revision that \
                 exists, or deploy it first."
            );
            wording::failed(kind, "RevisionMissing", &text, now)
        }
        Some(Trouble::Failed(revision)) => {
            let text = format!(
                "Revision '{revision}' named in the {named_in} is not ready and cannot {does}."
            );
            wording::failed(kind, "RevisionFailed", &text, now)
        }
        // There is nothing to divide among because the only revision failed: its failure says it all.
        Some(Trouble::Waiting) if configurations.status == ConditionStatus::False => {
            wording::failed(kind, &configurations.reason, &configurations.message, now)
        }
        Some(Trouble::Waiting) => wording::pending(
            kind,
            "Deploying",
            "Waiting for a revision to become ready.",
            now,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_waits_for_the_host_says_for_what() {
        let text = "There is no room for another instance: 3 instances run.";
        let waits = [wording::pending(
            "Ready",
            wording::RETRY,
            text,
            Timestamp::UNIX_EPOCH,
        )];
        for purpose in [&SERVING, &WORKING] {
            let latest = Some(("a-00001-xyz", &waits[..]));
            let said = configurations_ready(purpose, latest, Timestamp::UNIX_EPOCH);
            assert_eq!(said.status, ConditionStatus::Unknown);
            assert!(said.message.ends_with(text), "{}", said.message);
        }
    }
}
