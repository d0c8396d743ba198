//! Errors: the model's one error as gRPC has it, and as JSON. Both are `google.rpc.Status`
//! (google.aip.dev/193): code, message, details.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use lauf_model::{Code, Status};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::body::Body;

use crate::google::rpc;
use crate::json::Style;
use crate::{dynamic, json, pack, unpack};

/// What an error may add to the headers of a response. gRPC's clients take 8 KiB of headers unless
/// told otherwise, and end a call that has more with an error of their own.
const MAX_MESSAGE: usize = 2 << 10;
const MAX_DETAILS: usize = 3 << 10;

/// An error as gRPC sends it, its details in `grpc-status-details-bin`. `domain` is the API that it is
/// an error of.
pub fn to_grpc(status: &Status, domain: &str) -> tonic::Status {
    let code = status.code.grpc();
    let whole = rpc::Status {
        code,
        message: status.message.clone(),
        details: details(status, domain),
    };
    let details = if whole.details.is_empty() {
        Bytes::new()
    } else {
        whole.encode_to_vec().into()
    };
    tonic::Status::with_details(tonic::Code::from_i32(code), &status.message, details)
}

fn details(status: &Status, domain: &str) -> Vec<prost_types::Any> {
    if !status.violations.is_empty() {
        let violations = status.violations.iter();
        let violations = violations.map(|violation| rpc::bad_request::FieldViolation {
            field: violation.field.clone(),
            description: violation.description.clone(),
            ..Default::default()
        });
        return vec![pack(&rpc::BadRequest {
            field_violations: violations.collect(),
        })];
    }
    // gcloud takes a 404 on a write for a wrong endpoint, unless a detail names the API.
    if status.code == Code::NotFound {
        return vec![pack(&rpc::ErrorInfo {
            reason: "RESOURCE_NOT_FOUND".to_owned(),
            domain: domain.to_owned(),
            ..Default::default()
        })];
    }
    Vec::new()
}

/// The whole of an error that came over gRPC.
pub fn from_grpc(status: &tonic::Status) -> rpc::Status {
    let sent = rpc::Status::decode(status.details()).ok();
    let details = sent.map(|sent| sent.details).unwrap_or_default();
    rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details,
    }
}

/// An error as a gRPC response.
pub fn refuse(status: &Status, domain: &str) -> Response<Body> {
    let mut response = to_grpc(status, domain).into_http();
    fit(response.headers_mut());
    response
}

/// An error as an HTTP response with JSON.
pub fn http(status: &tonic::Status) -> Response<Body> {
    let (code, body) = body(status);
    let mut response = Response::new(Body::new(http_body_util::Full::new(body)));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    if code == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"lauf\""),
        );
    }
    response
}

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=UTF-8");

/// `{"error": {...}}` and the HTTP status that goes with it.
pub(crate) fn body(status: &tonic::Status) -> (StatusCode, Bytes) {
    let code = Code::from_grpc(status.code().into());
    let details = json::write(&dynamic(&from_grpc(status)), Style::default());
    let details = details
        .ok()
        .and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    // A detail whose message is not known cannot be written as JSON: the rest is still worth having.
    let details = details.and_then(|mut whole| Some(whole.get_mut("details")?.take()));
    let body = json!({"error": {
        "code": code.http(),
        "message": status.message(),
        "status": code.name(),
        "details": details.unwrap_or_else(|| json!([])),
    }});
    let http = StatusCode::from_u16(code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (http, body.to_string().into())
}

/// Cuts an error in the headers of a gRPC response to what clients take. REST has no such bound.
pub fn fit(headers: &mut HeaderMap) {
    let long = |name: &str, most: usize| headers.get(name).is_some_and(|value| value.len() > most);
    if !long("grpc-message", MAX_MESSAGE) && !long("grpc-status-details-bin", MAX_DETAILS) {
        return;
    }
    let Some(status) = tonic::Status::from_header_map(headers) else {
        return;
    };
    let mut whole = from_grpc(&status);
    whole.message = cut(&whole.message);
    whole.details = whole.details.iter().map(shorter).collect();
    if whole.encoded_len() > MAX_DETAILS {
        whole.details.clear();
    }
    headers.remove("grpc-message");
    headers.remove("grpc-status-details-bin");
    let details = whole.encode_to_vec().into();
    let short = tonic::Status::with_details(status.code(), whole.message, details);
    // It was one that fitted into headers before it was cut.
    let _ = short.add_header(headers);
}

/// The beginning of a message; each byte may need three on the wire.
fn cut(message: &str) -> String {
    const MORE: &str = " (and more)";
    let most = MAX_MESSAGE / 3 - MORE.len();
    if message.len() <= most {
        return message.to_owned();
    }
    let end = message.floor_char_boundary(most);
    format!("{}{MORE}", &message[..end])
}

/// As many violations as there is room for.
fn shorter(detail: &prost_types::Any) -> prost_types::Any {
    let Some(mut bad) = unpack::<rpc::BadRequest>(detail) else {
        return detail.clone();
    };
    while bad.encoded_len() > MAX_DETAILS / 2 {
        bad.field_violations.pop();
    }
    pack(&bad)
}

#[cfg(test)]
mod tests {
    use lauf_model::Violation;

    use super::*;

    #[test]
    fn an_error_has_its_details_both_ways() {
        let violation = Violation::new("template.timeout", "'x' is no duration.");
        let status = to_grpc(&Status::invalid(vec![violation]), "run.googleapis.com");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        let (code, text) = body(&status);
        assert_eq!(code, StatusCode::BAD_REQUEST);
        let text: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(
            text["error"]["details"],
            json!([{
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [
                    {"field": "template.timeout", "description": "'x' is no duration."},
                ],
            }])
        );
        let missing = Status::not_found("Service", "x");
        let (code, text) = body(&to_grpc(&missing, "run.googleapis.com"));
        assert_eq!(code, StatusCode::NOT_FOUND);
        assert!(String::from_utf8_lossy(&text).contains("RESOURCE_NOT_FOUND"));
        // What a handler of somebody else's said.
        let (code, text) = body(&tonic::Status::data_loss("gone"));
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(String::from_utf8_lossy(&text).contains("gone"));
    }

    #[test]
    fn a_long_error_fits_into_the_headers_of_grpc() {
        let many = (0..200).map(|i| Violation::new(format!("a[{i}]"), "ist völlig falsch."));
        let status = Status::invalid(many.collect());
        let response = refuse(&status, "run.googleapis.com");
        let length: usize = response.headers().values().map(HeaderValue::len).sum();
        assert!(length < 7 << 10, "{length}");
        let found = from_grpc(&tonic::Status::from_header_map(response.headers()).unwrap());
        assert!(found.message.ends_with("(and more)"));
        let bad: rpc::BadRequest = unpack(&found.details[0]).unwrap();
        assert!(bad.field_violations.len() > 10);
        assert_eq!(bad.field_violations[0].field, "a[0]");
    }
}
