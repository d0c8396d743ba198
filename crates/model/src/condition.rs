//! Conditions: what a controller knows about an object, in Knative's form.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The three values a condition can have. On the wire: `True`, `False`, `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// The condition holds.
    True,
    /// It does not, and will not without a change by the user.
    False,
    /// Work on it is under way.
    #[default]
    Unknown,
}

impl ConditionStatus {
    /// The word Knative uses for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// How much a `False` condition matters (Knative conditions, "severity").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Severity {
    /// Terminal for `Ready`; the wire form leaves it out.
    #[default]
    Error,
    /// Shown as a warning.
    Warning,
    /// Shown as information.
    Info,
}

/// One condition of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `Ready`, `ConfigurationsReady`, `RoutesReady`, `ContainerReady`, ...
    pub kind: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// A CamelCase word for programs; empty when there is nothing to say.
    #[serde(default)]
    pub reason: String,
    /// A sentence for people; empty when there is nothing to say.
    #[serde(default)]
    pub message: String,
    /// How much it matters.
    #[serde(default)]
    pub severity: Severity,
    /// When `status` last changed.
    pub last_transition: Timestamp,
}

/// Sets a condition by kind, keeping its transition time when the status did not change.
/// Returns whether anything changed.
pub fn set(conditions: &mut Vec<Condition>, new: Condition) -> bool {
    match conditions.iter_mut().find(|c| c.kind == new.kind) {
        Some(old) => {
            let transition = if old.status == new.status {
                old.last_transition
            } else {
                new.last_transition
            };
            let new = Condition {
                last_transition: transition,
                ..new
            };
            if *old == new {
                return false;
            }
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

/// The condition of this kind, if it was ever set.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.kind == kind)
}
