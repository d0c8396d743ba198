//! The one error that reaches a client: a gRPC code, a sentence, and the fields that are wrong.

use serde::{Deserialize, Serialize};

/// Canonical error codes (`google.rpc.Code`), those that Lauf answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are Google's and say it all")]
pub enum Code {
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    Unauthenticated,
}

impl Code {
    /// The number on the gRPC wire.
    #[must_use]
    pub fn grpc(self) -> i32 {
        match self {
            Self::Cancelled => 1,
            Self::Unknown => 2,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::OutOfRange => 11,
            Self::Unimplemented => 12,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }

    /// The code of a number on the gRPC wire. Those that Lauf never answers with are `Unknown`, which
    /// is what gRPC makes of a code it does not know.
    #[must_use]
    pub fn from_grpc(number: i32) -> Self {
        match number {
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            7 => Self::PermissionDenied,
            8 => Self::ResourceExhausted,
            9 => Self::FailedPrecondition,
            10 => Self::Aborted,
            11 => Self::OutOfRange,
            12 => Self::Unimplemented,
            13 => Self::Internal,
            14 => Self::Unavailable,
            16 => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }

    /// The HTTP status Google's APIs use for it (`google/rpc/code.proto`, "HTTP Mapping").
    #[must_use]
    pub fn http(self) -> u16 {
        match self {
            Self::Cancelled => 499,
            Self::Unknown | Self::Internal => 500,
            Self::InvalidArgument | Self::FailedPrecondition | Self::OutOfRange => 400,
            Self::DeadlineExceeded => 504,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Aborted => 409,
            Self::PermissionDenied => 403,
            Self::ResourceExhausted => 429,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::Unauthenticated => 401,
        }
    }

    /// The code that an HTTP status stands for, the most usual one where it stands for several.
    #[must_use]
    pub fn from_http(status: u16) -> Self {
        match status {
            400 | 422 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::AlreadyExists,
            412 => Self::FailedPrecondition,
            429 => Self::ResourceExhausted,
            501 => Self::Unimplemented,
            503 => Self::Unavailable,
            504 => Self::DeadlineExceeded,
            _ => Self::Internal,
        }
    }

    /// The name in error bodies, such as `INVALID_ARGUMENT`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Unknown => "UNKNOWN",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::OutOfRange => "OUT_OF_RANGE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unauthenticated => "UNAUTHENTICATED",
        }
    }
}

/// One field that is wrong: where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The path in the v1 (Knative) form, such as
    /// `spec.template.spec.containers[0].resources.limits.cpu`. [`Violation::v2_field`] gives the
    /// v2 form.
    pub field: String,
    /// The value, what is allowed, and the remedy, as one sentence.
    pub description: String,
}

impl Violation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }

    /// The same field in the words of the v2 API, whose messages are flatter.
    #[must_use]
    pub fn v2_field(&self) -> String {
        self.field
            .replace(
                "spec.template.spec.template.spec.timeoutSeconds",
                "template.template.timeout",
            )
            .replace(
                "spec.template.spec.template.spec.maxRetries",
                "template.template.max_retries",
            )
            .replace("spec.template.spec.template.spec.", "template.template.")
            .replace("spec.template.spec.taskCount", "template.task_count")
            .replace("spec.instanceSplits", "instance_splits")
            .replace("spec.startExecutionToken", "start_execution_token")
            .replace("spec.runExecutionToken", "run_execution_token")
            .replace(
                "spec.template.spec.containerConcurrency",
                "template.max_instance_request_concurrency",
            )
            .replace("spec.template.spec.timeoutSeconds", "template.timeout")
            .replace("spec.template.spec.", "template.")
            .replace("spec.template.metadata.name", "template.revision")
            .replace("spec.template.metadata.", "template.")
            .replace("spec.template", "template")
            .replace("spec.traffic", "traffic")
            .replace("metadata.", "")
    }
}

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Status {
    /// The canonical code.
    pub code: Code,
    /// A sentence for the person who reads it.
    pub message: String,
    /// The fields at fault, all of them, for [`Code::InvalidArgument`].
    pub violations: Vec<Violation>,
}

impl Status {
    /// An error with a code and a sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            violations: Vec::new(),
        }
    }

    /// [`Code::InvalidArgument`] from a non-empty list of violations.
    #[must_use]
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let message = violations
            .iter()
            .map(|v| format!("{}: {}", v.field, v.description))
            .collect::<Vec<_>>()
            .join("\n");
        Self {
            code: Code::InvalidArgument,
            message,
            violations,
        }
    }

    /// [`Code::NotFound`] for a resource of `kind`.
    pub fn not_found(kind: &str, name: impl std::fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("{kind} '{name}' was not found."))
    }
}
