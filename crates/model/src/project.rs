//! Projects: the namespaces of resources.

use serde::{Deserialize, Serialize};

/// A project. Clients may name it by either id or number everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// What people call it: 6 to 30 lowercase letters, digits, hyphens (shorter ones are allowed
    /// here, since `demo` is a good name for a project of one's own).
    pub id: String,
    /// A number that never changes; part of service URLs.
    pub number: u64,
}
