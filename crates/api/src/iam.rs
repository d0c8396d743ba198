//! IAM policies of services: stored beside what they are about.

use lauf_model::{Code, Policy, Service, ServiceKey, Status, Violation};
use lauf_store::{Condition, Resource as _, Txn, Version};

use crate::api::Api;

/// The policy of a service and its version; an empty one of version zero when none was ever set.
pub(crate) async fn get_policy(api: &Api, key: &ServiceKey) -> Result<(Policy, Version), Status> {
    api.service(key).await?;
    Ok(match api.find::<Policy>(key).await? {
        Some(stored) => (stored.value, stored.version),
        None => (Policy::default(), Version::ZERO),
    })
}

/// Replaces the policy of a service: that of the version expected, or whatever is there.
pub(crate) async fn set_policy(
    api: &Api,
    key: &ServiceKey,
    policy: &Policy,
    expected: Option<Version>,
) -> Result<Version, Status> {
    api.service(key).await?;
    let at = Policy::at(key);
    // A policy cannot be given to a service that is gone by now.
    let mut txn = Txn::new()
        .require(Condition::Exists(Service::at(key)))
        .put(at.clone(), policy.body());
    if let Some(expected) = expected {
        txn = txn.require(if expected == Version::ZERO {
            Condition::Absent(at)
        } else {
            Condition::Version(at, expected)
        });
    }
    api.write(txn).await?.ok_or_else(|| {
        Status::new(
            Code::Aborted,
            "There were concurrent policy changes. Read the policy again, make the change to it, \
             and send that.",
        )
    })
}

/// Which of the permissions the caller has. Whoever is let in at all is the administrator today,
/// who has all there are.
pub(crate) fn test_permissions(asked: &[String]) -> Result<Vec<String>, Status> {
    let wrong: Vec<Violation> = asked
        .iter()
        .enumerate()
        .filter(|(_, p)| p.split('.').count() < 3 || p.contains('*'))
        .map(|(i, p)| {
            Violation::new(
                format!("permissions[{i}]"),
                format!("'{p}' is not a permission, such as run.services.get."),
            )
        })
        .collect();
    if !wrong.is_empty() {
        return Err(Status::invalid(wrong));
    }
    let ours = asked.iter().filter(|p| p.starts_with("run."));
    Ok(ours.cloned().collect())
}
