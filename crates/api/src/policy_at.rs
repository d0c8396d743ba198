//! Policies of what is no resource of Cloud Run's, each under a key that its face chooses.

use lauf_model::{Code, Policy, Status};
use lauf_store::{Condition, Key, Resource as _, Stored, Txn, Version};
use lauf_wire::google::iam::v1 as wire;

use crate::api::Api;
use crate::failed;
use crate::v2::policy;

/// The policy at a key; an empty one where none was ever set.
pub(crate) async fn get(api: &Api, key: &Key) -> Result<wire::Policy, Status> {
    let object = api.deps.store.get(key).await;
    let object = object.map_err(|error| failed::read(&error))?;
    let found: Option<Stored<Policy>> = object
        .map(|object| Stored::read(&object))
        .transpose()
        .map_err(|error| Status::new(Code::Internal, error.to_string()))?;
    Ok(match found {
        Some(stored) => policy::write(&stored.value, stored.version),
        None => policy::write(&Policy::default(), Version::ZERO),
    })
}

/// Replaces the policy at a key: that of the etag sent, or whatever is there.
pub(crate) async fn set(
    api: &Api,
    key: Key,
    sent: &wire::SetIamPolicyRequest,
) -> Result<wire::Policy, Status> {
    let (wanted, expected) = policy::read(sent)?;
    let mut txn = Txn::new().put(key.clone(), wanted.body());
    if let Some(expected) = expected {
        txn = txn.require(if expected == Version::ZERO {
            Condition::Absent(key)
        } else {
            Condition::Version(key, expected)
        });
    }
    let version = api.write(txn).await?.ok_or_else(|| {
        Status::new(
            Code::Aborted,
            "There were concurrent policy changes. Read the policy again, make the change to it, \
             and send that.",
        )
    })?;
    Ok(policy::write(&wanted, version))
}
