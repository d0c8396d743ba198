//! IAM policies (`google.iam.v1`), wire and model, both directions.

use lauf_model::{Binding, Policy, Status, Violation};
use lauf_store::{PolicyOwner, Version};
use lauf_wire::google::iam::v1 as wire;

use super::says;
use crate::api::Api;
use crate::iam;

/// The policy of what is at `key`, if its name could be read.
pub(crate) async fn get<K: PolicyOwner>(
    api: &Api,
    key: Result<K, Status>,
) -> Result<wire::Policy, Status> {
    let (policy, version) = iam::get_policy(api, &key?).await?;
    Ok(write(&policy, version))
}

/// Replaces the policy of what is at `key`.
pub(crate) async fn set<K: PolicyOwner>(
    api: &Api,
    key: Result<K, Status>,
    sent: &wire::SetIamPolicyRequest,
) -> Result<wire::Policy, Status> {
    let key = key?;
    let (wanted, expected) = read(sent)?;
    let version = iam::set_policy(api, &key, &wanted, expected).await?;
    Ok(write(&wanted, version))
}

/// Which of the permissions asked for the caller has.
pub(crate) fn test<K: PolicyOwner>(
    key: Result<K, Status>,
    sent: &wire::TestIamPermissionsRequest,
) -> Result<wire::TestIamPermissionsResponse, Status> {
    key?;
    Ok(wire::TestIamPermissionsResponse {
        permissions: iam::test_permissions(&sent.permissions)?,
    })
}

/// Reads a policy that is to be set, and the version that it is to replace, if the client says so.
pub(crate) fn read(sent: &wire::SetIamPolicyRequest) -> Result<(Policy, Option<Version>), Status> {
    let mut found = Vec::new();
    if let Some(mask) = &sent.update_mask {
        const WHOLE: [&str; 4] = ["bindings", "etag", "version", "*"];
        for path in mask.paths.iter().filter(|p| !WHOLE.contains(&p.as_str())) {
            found.push(Violation::new(
                "update_mask",
                format!(
                    "'{path}' is not supported by this version of Lauf; a policy is set whole."
                ),
            ));
        }
    }
    let nothing = wire::Policy::default();
    let policy = sent.policy.as_ref().unwrap_or_else(|| {
        found.push(Violation::new("policy", "is missing."));
        &nothing
    });
    if !matches!(policy.version, 0 | 1 | 3) {
        found.push(Violation::new(
            "policy.version",
            format!("is {}; must be 0, 1 or 3.", policy.version),
        ));
    }
    if says(&policy.audit_configs) {
        found.push(Violation::new(
            "policy.audit_configs",
            "is not supported by this version of Lauf; leave this field out.",
        ));
    }
    let expected = match policy.etag.as_ref() {
        [] => None,
        bytes => match bytes.try_into() {
            Ok(bytes) => Some(Version::new(u64::from_be_bytes(bytes))),
            Err(_) => {
                found.push(Violation::new(
                    "policy.etag",
                    "is not one that getIamPolicy gave.",
                ));
                None
            }
        },
    };
    for (i, binding) in policy.bindings.iter().enumerate() {
        check(&format!("policy.bindings[{i}]"), binding, &mut found);
    }
    if !found.is_empty() {
        return Err(Status::invalid(found));
    }
    let bindings = policy.bindings.iter().filter(|b| !b.members.is_empty());
    let policy = Policy {
        version: if policy.version == 3 { 3 } else { 1 },
        bindings: bindings
            .map(|b| Binding {
                role: b.role.clone(),
                members: b.members.clone(),
            })
            .collect(),
    };
    Ok((policy, expected))
}

fn check(at: &str, binding: &wire::Binding, found: &mut Vec<Violation>) {
    let role = &binding.role;
    let known = ["roles/", "projects/", "organizations/"];
    let is_role = |prefix| role.strip_prefix(prefix).is_some_and(|r| !r.is_empty());
    if !known.into_iter().any(is_role) {
        found.push(Violation::new(
            format!("{at}.role"),
            format!("'{role}' is not a role, such as roles/run.invoker."),
        ));
    }
    if says(&binding.condition) {
        found.push(Violation::new(
            format!("{at}.condition"),
            "Conditions are not supported by this version of Lauf; leave this field out.",
        ));
    }
    for (j, member) in binding.members.iter().enumerate() {
        if !is_member(member) {
            found.push(Violation::new(
                format!("{at}.members[{j}]"),
                format!(
                    "'{member}' is not a member, such as allUsers, user:EMAIL, \
                     serviceAccount:EMAIL, group:EMAIL or domain:NAME."
                ),
            ));
        }
    }
}

fn is_member(member: &str) -> bool {
    use lauf_model::policy::{ALL_AUTHENTICATED_USERS, ALL_USERS};
    const KINDS: [&str; 4] = ["user", "serviceAccount", "group", "domain"];
    if [ALL_USERS, ALL_AUTHENTICATED_USERS].contains(&member) {
        return true;
    }
    let member = member.strip_prefix("deleted:").unwrap_or(member);
    match member.split_once(':') {
        Some(("principal" | "principalSet", rest)) => rest.starts_with("//"),
        Some((kind, rest)) if KINDS.contains(&kind) => {
            !rest.is_empty() && (kind == "domain" || rest.contains('@'))
        }
        _ => false,
    }
}

/// Writes a policy. One that was never set has version zero of the store.
pub(crate) fn write(policy: &Policy, version: Version) -> wire::Policy {
    let bindings = policy.bindings.iter().map(|b| wire::Binding {
        role: b.role.clone(),
        members: b.members.clone(),
        ..wire::Binding::default()
    });
    wire::Policy {
        version: policy.version.max(1),
        bindings: bindings.collect(),
        etag: version.get().to_be_bytes().to_vec().into(),
        ..wire::Policy::default()
    }
}
