//! Conditions as v2 shows them: with states for `True` and `False`, and enums for reasons.

use lauf_model::{Condition, ConditionStatus, Severity};
use lauf_wire::google::cloud::run::v2::{self, condition as wire};

use super::time;

/// Writes a condition.
pub(crate) fn write(condition: &Condition) -> v2::Condition {
    let failed = condition.status == ConditionStatus::False;
    let state = match condition.status {
        ConditionStatus::True => wire::State::ConditionSucceeded,
        ConditionStatus::False => wire::State::ConditionFailed,
        ConditionStatus::Unknown => wire::State::ConditionReconciling,
    };
    let severity = match condition.severity {
        Severity::Error if failed => wire::Severity::Error,
        Severity::Error => wire::Severity::Unspecified,
        Severity::Warning => wire::Severity::Warning,
        Severity::Info => wire::Severity::Info,
    };
    v2::Condition {
        r#type: condition.kind.clone(),
        state: state.into(),
        message: condition.message.clone(),
        last_transition_time: Some(time(condition.last_transition)),
        severity: severity.into(),
        reasons: reasons(&condition.reason),
    }
}

/// A reason by its word in v1, where v2 has one for it.
fn reasons(reason: &str) -> Option<wire::Reasons> {
    use wire::{CommonReason as Common, ExecutionReason as Execution, RevisionReason as Revision};
    let common = match reason {
        "Unknown" => Common::Unknown,
        "RevisionFailed" | "RevisionMissing" => Common::RevisionFailed,
        "ProgressDeadlineExceeded" => Common::ProgressDeadlineExceeded,
        "ContainerMissing" => Common::ContainerMissing,
        "ContainerPermissionDenied" => Common::ContainerPermissionDenied,
        "ContainerImageUnauthorized" => Common::ContainerImageUnauthorized,
        "Internal" | "InternalError" => Common::Internal,
        "ImmediateRetry" => Common::ImmediateRetry,
        "PostponedRetry" => Common::PostponedRetry,
        _ => Common::Undefined,
    };
    if common != Common::Undefined {
        return Some(wire::Reasons::Reason(common.into()));
    }
    let execution = match reason {
        "NonZeroExitCode" => Execution::NonZeroExitCode,
        "Cancelled" => Execution::Cancelled,
        "Cancelling" => Execution::Cancelling,
        "Deleted" => Execution::Deleted,
        _ => Execution::Undefined,
    };
    if execution != Execution::Undefined {
        return Some(wire::Reasons::ExecutionReason(execution.into()));
    }
    let revision = match reason {
        "Pending" => Revision::Pending,
        "Reserve" => Revision::Reserve,
        "Retired" => Revision::Retired,
        "Retiring" => Revision::Retiring,
        "Recreating" => Revision::Recreating,
        "HealthCheckContainerError" => Revision::HealthCheckContainerError,
        "MinInstancesNotProvisioned" => Revision::MinInstancesNotProvisioned,
        "NoDeployment" => Revision::NoDeployment,
        "MinInstancesWarming" => Revision::MinInstancesWarming,
        _ => return None,
    };
    Some(wire::Reasons::RevisionReason(revision.into()))
}
