//! IAM policies: who may do what on a resource (`google.iam.v1.Policy`).

use serde::{Deserialize, Serialize};

/// The role that lets a principal call a service.
pub const INVOKER: &str = "roles/run.invoker";
/// Everybody, signed in or not.
pub const ALL_USERS: &str = "allUsers";
/// Everybody with a valid identity.
pub const ALL_AUTHENTICATED_USERS: &str = "allAuthenticatedUsers";

/// A policy as clients set it. The etag is the store's version of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Policy {
    /// Policy format version: 0, 1 or 3.
    #[serde(default)]
    pub version: i32,
    /// Roles and their members.
    #[serde(default)]
    pub bindings: Vec<Binding>,
}

/// One role and who has it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Binding {
    /// Such as `roles/run.invoker`.
    pub role: String,
    /// Such as `allUsers`, `user:a@example.com`, `serviceAccount:...`.
    #[serde(default)]
    pub members: Vec<String>,
}

impl Policy {
    /// Whether `member` has `role` by this policy.
    #[must_use]
    pub fn grants(&self, role: &str, member: &str) -> bool {
        self.bindings
            .iter()
            .any(|b| b.role == role && b.members.iter().any(|m| m == member))
    }

    /// Whether anybody may call the service.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.grants(INVOKER, ALL_USERS)
    }
}
