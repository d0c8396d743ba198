//! Calling out: pushes, scheduled requests, tasks and events all leave through here.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use lauf_model::Code;
use serde::{Deserialize, Serialize};

/// Who a request says it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// An identity token of a service account, for an audience.
    Oidc {
        /// The account.
        email: String,
        /// Whom the token is for.
        audience: String,
    },
    /// An access token of a service account, for Google's APIs.
    OAuth {
        /// The account.
        email: String,
        /// What it may be used for.
        scope: String,
    },
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody could be reached, or the connection broke.
    #[error("{0}")]
    Unreachable(String),
    /// The answer took too long.
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The token could not be made.
    #[error("no token can be made: {0}")]
    Identity(String),
}

/// Sends requests to endpoints. Those of this Lauf, its services and its APIs under their names at
/// Google, are reached without leaving the machine.
#[async_trait]
pub trait Caller: Send + Sync + 'static {
    /// Sends a request and waits for all of the answer. Redirects are not followed; an answer that is
    /// larger than a caller has use for is cut.
    ///
    /// # Errors
    /// When there is no answer.
    async fn call(
        &self,
        request: Request<Bytes>,
        identity: Option<Identity>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, CallError>;
}

/// What an HTTP status is as a code (`google/rpc/code.proto`, "HTTP Mapping").
pub(crate) fn code_of(status: u16) -> Code {
    match status {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        429 => Code::ResourceExhausted,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        500..=599 => Code::Internal,
        _ => Code::Unknown,
    }
}
