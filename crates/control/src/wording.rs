//! What users read in conditions, as Cloud Run words it (Cloud Run, "Troubleshoot Cloud Run").

use jiff::Timestamp;
use lauf_engine::StartError;
use lauf_model::{Condition, ConditionStatus, Severity};

/// A condition that is true.
pub(crate) fn holds(kind: &str, now: Timestamp) -> Condition {
    condition(kind, ConditionStatus::True, "", "", now)
}

/// A condition that is true, with a sentence about how it came to be.
pub(crate) fn holds_with(kind: &str, message: &str, now: Timestamp) -> Condition {
    condition(kind, ConditionStatus::True, "", message, now)
}

/// A condition on which work is under way.
pub(crate) fn pending(kind: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    condition(kind, ConditionStatus::Unknown, reason, message, now)
}

/// A condition that will not come true without the user.
pub(crate) fn failed(kind: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    condition(kind, ConditionStatus::False, reason, message, now)
}

fn condition(
    kind: &str,
    status: ConditionStatus,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
        severity: Severity::Error,
        last_transition: now,
    }
}

/// `Ready` is the first part that is not true.
pub(crate) fn overall(parts: &[&Condition], now: Timestamp) -> Condition {
    let worst = parts
        .iter()
        .find(|c| c.status == ConditionStatus::False)
        .or_else(|| parts.iter().find(|c| c.status == ConditionStatus::Unknown));
    match worst {
        Some(c) => Condition {
            kind: "Ready".into(),
            last_transition: now,
            ..(*c).clone()
        },
        None => holds("Ready", now),
    }
}

/// Reason and sentence for a revision whose first instance did not start.
pub(crate) fn start_failure(error: &StartError, port: u16) -> (&'static str, String) {
    match error {
        StartError::Image(text) => ("ContainerMissing", text.clone()),
        StartError::Host(_) | StartError::NoRoom(_) => ("ResourcesUnavailable", error.to_string()),
        _ => (
            "HealthCheckContainerError",
            format!(
                "The user-provided container failed to start and listen on the port defined \
                 provided by the PORT={port} environment variable within the allocated timeout. \
                 This can happen when the container port is misconfigured or if the timeout is \
                 too short. The health check timeout can be extended. Logs for this revision might \
                 contain more information. Cause: {error}"
            ),
        ),
    }
}

/// The reason of a condition that waits for the host, not for the user.
pub(crate) const RETRY: &str = "Retry";

/// The service's sentence about a revision that is on its way, and what it waits for if that is the host.
pub(crate) fn deploying(trouble: Option<&str>) -> String {
    trouble.map_or_else(
        || "Deploying Revision.".to_owned(),
        |trouble| format!("Deploying Revision. It is tried again and again: {trouble}"),
    )
}
