//! IAM policies of services (`google.iam.v1`): the same in v1, v2 and gRPC.

use lauf_model::{Binding, Code, Policy, Service, ServiceKey, Status, Violation};
use lauf_store::{Condition, Resource as _, Txn, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::Api;
use crate::etag;
use crate::lenient;
use crate::refuse::says_something;

/// A policy on the wire.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WirePolicy {
    #[serde(deserialize_with = "lenient::int")]
    pub(crate) version: Option<i64>,
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "lenient::nullable"
    )]
    pub(crate) bindings: Vec<WireBinding>,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) etag: String,
    #[serde(skip_serializing)]
    pub(crate) audit_configs: Value,
}

/// One role and who has it, on the wire.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WireBinding {
    pub(crate) role: String,
    #[serde(deserialize_with = "lenient::nullable")]
    pub(crate) members: Vec<String>,
    #[serde(skip_serializing)]
    pub(crate) condition: Value,
}

/// `google.iam.v1.SetIamPolicyRequest`.
#[derive(Debug, Deserialize)]
pub(crate) struct SetPolicy {
    /// What shall be.
    pub(crate) policy: WirePolicy,
}

/// `google.iam.v1.TestIamPermissionsRequest` and its answer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Permissions {
    /// Which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) permissions: Vec<String>,
}

/// The policy of a service; an empty one when none was ever set.
pub(crate) async fn get_policy(api: &Api, key: &ServiceKey) -> Result<WirePolicy, Status> {
    api.service(key).await?;
    Ok(match api.find::<Policy>(key).await? {
        Some(stored) => wire(&stored.value, stored.version),
        None => wire(&Policy::default(), Version::ZERO),
    })
}

/// Replaces the policy of a service. Without an etag it replaces whatever is there.
pub(crate) async fn set_policy(
    api: &Api,
    key: &ServiceKey,
    request: &SetPolicy,
) -> Result<WirePolicy, Status> {
    let sent = &request.policy;
    let policy = read(sent)?;
    api.service(key).await?;
    let at = Policy::at(key);
    // A policy cannot be given to a service that is gone by now.
    let mut txn = Txn::new()
        .require(Condition::Exists(Service::at(key)))
        .put(at.clone(), policy.body());
    if !sent.etag.is_empty() {
        let expected = etag::version(&sent.etag).ok_or_else(|| {
            Status::invalid(vec![Violation::new(
                "policy.etag",
                format!("'{}' is not one that getIamPolicy gave.", sent.etag),
            )])
        })?;
        txn = txn.require(if expected == Version::ZERO {
            Condition::Absent(at)
        } else {
            Condition::Version(at, expected)
        });
    }
    match api.write(txn).await? {
        Some(version) => Ok(wire(&policy, version)),
        None => Err(Status::new(
            Code::Aborted,
            "There were concurrent policy changes. Read the policy again, make the change to it, \
             and send that.",
        )),
    }
}

/// Which of the permissions the caller has. Whoever is let in at all is the administrator today,
/// who has all there are, on services that are still to be made too: gcloud asks before it deploys a
/// new one whether it may open it to all.
pub(crate) fn test_permissions(asked: &Permissions) -> Result<Permissions, Status> {
    let wrong: Vec<Violation> = asked
        .permissions
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
    let permissions = asked.permissions.iter();
    Ok(Permissions {
        permissions: permissions
            .filter(|p| p.starts_with("run."))
            .cloned()
            .collect(),
    })
}

fn wire(policy: &Policy, version: Version) -> WirePolicy {
    WirePolicy {
        version: Some(i64::from(policy.version.max(1))),
        bindings: policy
            .bindings
            .iter()
            .map(|b| WireBinding {
                role: b.role.clone(),
                members: b.members.clone(),
                condition: Value::Null,
            })
            .collect(),
        etag: etag::of_version(version),
        audit_configs: Value::Null,
    }
}

fn read(sent: &WirePolicy) -> Result<Policy, Status> {
    let mut found = Vec::new();
    let version = sent.version.unwrap_or(0);
    if !matches!(version, 0 | 1 | 3) {
        found.push(Violation::new(
            "policy.version",
            format!("is {version}; must be 0, 1 or 3."),
        ));
    }
    if says_something(&sent.audit_configs) {
        found.push(Violation::new(
            "policy.auditConfigs",
            "is not supported by this version of Lauf; leave this field out.",
        ));
    }
    for (i, binding) in sent.bindings.iter().enumerate() {
        let at = format!("policy.bindings[{i}]");
        let role = &binding.role;
        let known = ["roles/", "projects/", "organizations/"];
        if !known
            .iter()
            .any(|p| role.strip_prefix(p).is_some_and(|r| !r.is_empty()))
        {
            found.push(Violation::new(
                format!("{at}.role"),
                format!("'{role}' is not a role, such as roles/run.invoker."),
            ));
        }
        if says_something(&binding.condition) {
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
    if !found.is_empty() {
        return Err(Status::invalid(found));
    }
    Ok(Policy {
        version: if version == 3 { 3 } else { 1 },
        bindings: sent
            .bindings
            .iter()
            .filter(|b| !b.members.is_empty())
            .map(|b| Binding {
                role: b.role.clone(),
                members: b.members.clone(),
            })
            .collect(),
    })
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
