//! What Lauf cannot do yet is refused by field, never taken and forgotten.

use lauf_model::Violation;
use serde_json::Value;

use crate::v1::annotations::Refuse;

/// A violation that says what is not supported.
pub(crate) fn violation(field: impl Into<String>, what: &str) -> Violation {
    Violation::new(
        field,
        format!("{what} not supported by this version of Lauf; leave this field out."),
    )
}

/// Whether a field of any type says something: not absent, `null`, `""`, `[]`, `{}` or `false`.
pub(crate) fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// Refuses a field that says something.
pub(crate) fn field(at: String, value: &Value, what: &str, found: &mut Vec<Violation>) {
    if says_something(value) {
        found.push(violation(at, what));
    }
}

/// Service annotations that are refused.
pub(crate) const SERVICE: [(&str, Refuse, &str); 11] = [
    (
        "run.googleapis.com/binary-authorization",
        Refuse::Set,
        "Binary Authorization is",
    ),
    (
        "run.googleapis.com/binary-authorization-breakglass",
        Refuse::Set,
        "Binary Authorization is",
    ),
    (
        "run.googleapis.com/iap-enabled",
        Refuse::True,
        "Identity-Aware Proxy is",
    ),
    (
        "run.googleapis.com/default-url-disabled",
        Refuse::True,
        "Switching off the default URL is",
    ),
    (
        "run.googleapis.com/custom-audiences",
        Refuse::Set,
        "Custom audiences are",
    ),
    (
        "run.googleapis.com/threat-detection",
        Refuse::True,
        "Threat detection is",
    ),
    (
        "run.googleapis.com/overflow-scaling",
        Refuse::True,
        "Overflow scaling is",
    ),
    (
        "run.googleapis.com/max-surge",
        Refuse::Set,
        "A surge limit is",
    ),
    (
        "run.googleapis.com/max-unavailable",
        Refuse::Set,
        "An unavailability limit is",
    ),
    (
        "run.googleapis.com/regions",
        Refuse::Set,
        "A multi-region service is",
    ),
    (
        "run.googleapis.com/enable-automatic-updates",
        Refuse::True,
        "Automatic base image updates are",
    ),
];

/// Revision annotations that are refused.
pub(crate) const REVISION: [(&str, Refuse, &str); 14] = [
    (
        "run.googleapis.com/cloudsql-instances",
        Refuse::Set,
        "Cloud SQL is",
    ),
    (
        "run.googleapis.com/vpc-access-connector",
        Refuse::Set,
        "VPC access is",
    ),
    (
        "run.googleapis.com/vpc-access-egress",
        Refuse::Set,
        "VPC access is",
    ),
    (
        "run.googleapis.com/network-interfaces",
        Refuse::Set,
        "Direct VPC egress is",
    ),
    (
        "run.googleapis.com/container-dependencies",
        Refuse::Set,
        "A second container is",
    ),
    (
        "run.googleapis.com/gpu-zonal-redundancy-disabled",
        Refuse::True,
        "A GPU is",
    ),
    (
        "run.googleapis.com/base-images",
        Refuse::Set,
        "Automatic base image updates are",
    ),
    ("run.googleapis.com/secrets", Refuse::Set, "Secrets are"),
    (
        "run.googleapis.com/encryption-key",
        Refuse::Set,
        "A customer's encryption key is",
    ),
    (
        "run.googleapis.com/post-key-revocation-action-type",
        Refuse::Set,
        "A customer's encryption key is",
    ),
    (
        "run.googleapis.com/encryption-key-shutdown-hours",
        Refuse::Set,
        "A customer's encryption key is",
    ),
    (
        "run.googleapis.com/health-check-disabled",
        Refuse::True,
        "Switching off the health check is",
    ),
    ("run.googleapis.com/mesh", Refuse::Set, "A service mesh is"),
    (
        "run.googleapis.com/mesh-dataplane-mode",
        Refuse::Set,
        "A service mesh is",
    ),
];

/// Worker pool annotations that are refused, beside those of services.
pub(crate) const WORKER_POOL: [(&str, Refuse, &str); 2] = [
    (
        "run.googleapis.com/minScale",
        Refuse::Set,
        "Automatic scaling of worker pools is",
    ),
    (
        "run.googleapis.com/maxScale",
        Refuse::Set,
        "Automatic scaling of worker pools is",
    ),
];
