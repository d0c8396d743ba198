//! IAM policies of services, jobs and worker pools: stored beside what they are about.

use lauf_model::{Code, Policy, Status, Violation};
use lauf_store::{Condition, PolicyName, PolicyOwner, Resource as _, Txn, Version};

use crate::api::Api;
use crate::services::not_found;

/// The policy of a resource and its version; an empty one of version zero when none was ever set.
pub(crate) async fn get_policy<K: PolicyOwner>(
    api: &Api,
    key: &K,
) -> Result<(Policy, Version), Status> {
    owner(api, key).await?;
    Ok(match api.find::<Policy>(&PolicyName::of(key)).await? {
        Some(stored) => (stored.value, stored.version),
        None => (Policy::default(), Version::ZERO),
    })
}

/// Refuses to speak of the policy of what is not there.
async fn owner<K: PolicyOwner>(api: &Api, key: &K) -> Result<(), Status> {
    match api.find::<K::Owner>(key).await? {
        Some(_) => Ok(()),
        None => Err(not_found(K::Owner::KIND.as_str(), key, key.name())),
    }
}

/// Replaces the policy of a resource: that of the version expected, or whatever is there.
pub(crate) async fn set_policy<K: PolicyOwner>(
    api: &Api,
    key: &K,
    policy: &Policy,
    expected: Option<Version>,
) -> Result<Version, Status> {
    owner(api, key).await?;
    let at = Policy::at(&PolicyName::of(key));
    // A policy cannot be given to what is gone by now.
    let mut txn = Txn::new()
        .require(Condition::Exists(K::Owner::at(key)))
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
