//! Conditions as v2 shows them: with states for `True` and `False`, and enums for reasons.

use lauf_model::{Condition, ConditionStatus, Severity};

use super::types::{self, CommonReason, RevisionReason};
use crate::v1::service as v1_service;

/// Writes a condition.
pub(crate) fn write(condition: &Condition) -> types::Condition {
    let failed = condition.status == ConditionStatus::False;
    types::Condition {
        kind: condition.kind.clone(),
        state: match condition.status {
            ConditionStatus::True => types::State::Succeeded,
            ConditionStatus::False => types::State::Failed,
            ConditionStatus::Unknown => types::State::Reconciling,
        },
        message: condition.message.clone(),
        last_transition_time: v1_service::time(condition.last_transition),
        severity: match condition.severity {
            Severity::Error if failed => types::Severity::Error,
            Severity::Error => types::Severity::Unspecified,
            Severity::Warning => types::Severity::Warning,
            Severity::Info => types::Severity::Info,
        },
        reason: common_reason(&condition.reason),
        revision_reason: revision_reason(&condition.reason),
    }
}

/// A reason that v2 has as `CommonReason`, by its word in v1.
fn common_reason(reason: &str) -> CommonReason {
    match reason {
        "Unknown" => CommonReason::Unknown,
        "RevisionFailed" | "RevisionMissing" => CommonReason::RevisionFailed,
        "ProgressDeadlineExceeded" => CommonReason::ProgressDeadlineExceeded,
        "ContainerMissing" => CommonReason::ContainerMissing,
        "ContainerPermissionDenied" => CommonReason::ContainerPermissionDenied,
        "ContainerImageUnauthorized" => CommonReason::ContainerImageUnauthorized,
        "Internal" | "InternalError" => CommonReason::Internal,
        _ => CommonReason::Undefined,
    }
}

/// A reason that v2 has as `RevisionReason`, by its word in v1.
fn revision_reason(reason: &str) -> RevisionReason {
    match reason {
        "Pending" => RevisionReason::Pending,
        "Reserve" => RevisionReason::Reserve,
        "Retired" => RevisionReason::Retired,
        "Retiring" => RevisionReason::Retiring,
        "Recreating" => RevisionReason::Recreating,
        "HealthCheckContainerError" => RevisionReason::HealthCheckContainerError,
        "MinInstancesNotProvisioned" => RevisionReason::MinInstancesNotProvisioned,
        "NoDeployment" => RevisionReason::NoDeployment,
        "MinInstancesWarming" => RevisionReason::MinInstancesWarming,
        _ => RevisionReason::Undefined,
    }
}
