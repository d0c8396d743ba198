//! Answers of the faces that are no RPCs.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use lauf_model::{Code, Status};
use serde::Serialize;

use crate::v2::DOMAIN;

/// An HTTP answer of the API.
pub(crate) type Reply = Response<Body>;

/// A JSON answer with 200.
pub(crate) fn ok(value: &impl Serialize) -> Result<Reply, Status> {
    with_status(StatusCode::OK, value)
}

/// A JSON answer with another success code.
pub(crate) fn with_status(status: StatusCode, value: &impl Serialize) -> Result<Reply, Status> {
    let body = serde_json::to_vec(value).map_err(|error| {
        Status::new(
            Code::Internal,
            format!("The answer cannot be written as JSON: {error}."),
        )
    })?;
    Ok(raw(status, body))
}

/// A JSON answer whose text is at hand.
pub(crate) fn raw(status: StatusCode, body: Vec<u8>) -> Reply {
    let mut reply = Response::new(Body::from(body));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=UTF-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    reply
}

/// An error as the client gets it.
pub(crate) fn error(status: &Status) -> Reply {
    lauf_wire::status::http(&lauf_wire::status::to_grpc(status, DOMAIN)).map(Body::new)
}
