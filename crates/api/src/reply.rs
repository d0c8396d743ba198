//! Answers: the one place where an error becomes Google's JSON shape and an HTTP status
//! (google.aip.dev/193).

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use lauf_model::{Code, Status};
use serde::Serialize;
use serde_json::{Value, json};

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

/// Which names fields have in the request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// `spec.template.spec.containerConcurrency`.
    V1,
    /// `template.max_instance_request_concurrency`.
    V2,
}

/// An error as the client gets it.
pub(crate) fn error(status: &Status, words: Words) -> Reply {
    let code = status.code.http();
    let body = json!({"error": {
        "code": code,
        "message": message(status, words),
        "status": status.code.name(),
        "details": details(status, words),
    }});
    let http = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = raw(http, body.to_string().into_bytes());
    if status.code == Code::Unauthenticated {
        reply.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"lauf\""),
        );
    }
    reply
}

/// The sentence, with the fields in the words of the face.
pub(crate) fn message(status: &Status, words: Words) -> String {
    if words == Words::V1 || status.violations.is_empty() {
        return status.message.clone();
    }
    let lines: Vec<String> = fields(status, words)
        .map(|(field, description)| format!("{field}: {description}"))
        .collect();
    lines.join("\n")
}

/// Each field at fault and what is wrong with it.
pub(crate) fn fields(status: &Status, words: Words) -> impl Iterator<Item = (String, &str)> {
    status.violations.iter().map(move |violation| {
        let field = match words {
            Words::V1 => violation.field.clone(),
            Words::V2 => violation.v2_field(),
        };
        (field, violation.description.as_str())
    })
}

fn details(status: &Status, words: Words) -> Value {
    if !status.violations.is_empty() {
        let violations: Vec<Value> = fields(status, words)
            .map(|(field, description)| json!({"field": field, "description": description}))
            .collect();
        return json!([{
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": violations,
        }]);
    }
    // gcloud takes a 404 on a write for a wrong endpoint, unless a detail names Cloud Run.
    if status.code == Code::NotFound {
        return json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "RESOURCE_NOT_FOUND",
            "domain": "run.googleapis.com",
        }]);
    }
    json!([])
}
