//! Finding a field in an entry.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::Value as Json;

use crate::{HttpRequest, LogEntry, Operation, Payload, Resource, Severity, SourceLocation};

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(f64),
    Flag(bool),
    Severity(Severity),
    Time(Timestamp),
    Duration(Duration),
    Json(&'a Json),
    /// Something with fields of its own: asked about as such it only exists.
    Object,
}

/// The fields of an entry, and which of them have fields of their own.
const TOP: [&str; 15] = [
    "insertId",
    "textPayload",
    "jsonPayload",
    "protoPayload",
    "httpRequest",
    "resource",
    "timestamp",
    "severity",
    "labels",
    "logName",
    "operation",
    "trace",
    "sourceLocation",
    "receiveTimestamp",
    "spanId",
];

/// The name as on the wire of a top field, also written as protobuf does (`log_name`).
pub(super) fn canonical(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.replace('_', "").to_ascii_lowercase();
    let wanted = plain(name);
    TOP.into_iter()
        .chain(["traceSampled"])
        .find(|known| plain(known) == wanted)
}

/// Calls `test` with every value that `path` (its first part canonical) leads to, until it says
/// yes: arrays have many.
pub(super) fn any<'a>(
    entry: &'a LogEntry,
    path: &[String],
    test: &mut dyn FnMut(Value<'a>) -> bool,
) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    let text =
        |value: &'a str| (rest.is_empty() && !value.is_empty()).then_some(Value::Text(value));
    let found = match first.as_str() {
        "insertId" => text(&entry.insert_id),
        "logName" => text(&entry.log_name),
        "trace" => entry.trace.as_deref().and_then(text),
        "spanId" => entry.span_id.as_deref().and_then(text),
        "traceSampled" => rest.is_empty().then_some(Value::Flag(entry.trace_sampled)),
        "severity" => rest.is_empty().then_some(Value::Severity(entry.severity)),
        "timestamp" => rest.is_empty().then_some(Value::Time(entry.timestamp)),
        "receiveTimestamp" => rest
            .is_empty()
            .then_some(Value::Time(entry.receive_timestamp)),
        "textPayload" => match &entry.payload {
            Payload::Text(payload) if rest.is_empty() => Some(Value::Text(payload)),
            _ => None,
        },
        "jsonPayload" => {
            let Payload::Json(fields) = &entry.payload else {
                return false;
            };
            return object(fields, rest, test);
        }
        "protoPayload" => {
            let Payload::Proto(fields) = &entry.payload else {
                return false;
            };
            return object(fields, rest, test);
        }
        "labels" => return labels(&entry.labels, rest, test),
        "resource" => return resource(&entry.resource, rest, test),
        "httpRequest" => {
            return entry.http_request.as_ref().is_some_and(|request| {
                parts(
                    rest,
                    test,
                    |name| http_request(request, name),
                    &HTTP_REQUEST,
                )
            });
        }
        "operation" => {
            return entry.operation.as_ref().is_some_and(|operation| {
                parts(
                    rest,
                    test,
                    |name| self::operation(operation, name),
                    &OPERATION,
                )
            });
        }
        "sourceLocation" => {
            return entry.source_location.as_ref().is_some_and(|location| {
                parts(
                    rest,
                    test,
                    |name| source_location(location, name),
                    &SOURCE_LOCATION,
                )
            });
        }
        _ => None,
    };
    found.is_some_and(test)
}

/// Calls `test` with what is at a path within a payload.
fn object<'a>(
    fields: &'a serde_json::Map<String, Json>,
    path: &[String],
    test: &mut dyn FnMut(Value<'a>) -> bool,
) -> bool {
    match path.split_first() {
        None => test(Value::Object) || fields.values().any(|field| leaves(field, test)),
        Some((name, rest)) => fields
            .get(name)
            .is_some_and(|field| json(field, rest, test)),
    }
}

/// Calls `test` with every value of the entry.
pub(super) fn everywhere<'a>(entry: &'a LogEntry, test: &mut dyn FnMut(Value<'a>) -> bool) -> bool {
    // The payload first: that is where it mostly is.
    const ORDER: [&str; 15] = [
        "textPayload",
        "jsonPayload",
        "protoPayload",
        "httpRequest",
        "resource",
        "labels",
        "logName",
        "severity",
        "insertId",
        "trace",
        "spanId",
        "sourceLocation",
        "operation",
        "timestamp",
        "receiveTimestamp",
    ];
    ORDER
        .iter()
        .any(|name| any(entry, &[(*name).to_owned()], test))
}

fn resource<'a>(
    resource: &'a Resource,
    path: &[String],
    test: &mut dyn FnMut(Value<'a>) -> bool,
) -> bool {
    match path.split_first() {
        None => {
            test(Value::Object)
                || test(Value::Text(&resource.kind))
                || labels(&resource.labels, &[], test)
        }
        Some((name, rest)) => match name.as_str() {
            "type" => rest.is_empty() && test(Value::Text(&resource.kind)),
            "labels" => labels(&resource.labels, rest, test),
            _ => false,
        },
    }
}

fn labels<'a>(
    labels: &'a BTreeMap<String, String>,
    path: &[String],
    test: &mut dyn FnMut(Value<'a>) -> bool,
) -> bool {
    match path {
        [] => {
            !labels.is_empty()
                && (test(Value::Object) || labels.values().any(|value| test(Value::Text(value))))
        }
        [name] => labels
            .get(name)
            .is_some_and(|value| test(Value::Text(value))),
        // Names of labels have dots in them: `labels.run.googleapis.com/x` is what people write.
        many => labels
            .get(&many.join("."))
            .is_some_and(|value| test(Value::Text(value))),
    }
}

/// A fixed set of fields without fields of their own.
fn parts<'a>(
    path: &[String],
    test: &mut dyn FnMut(Value<'a>) -> bool,
    get: impl Fn(&str) -> Option<Value<'a>>,
    all: &[&str],
) -> bool {
    match path {
        [] => test(Value::Object) || all.iter().filter_map(|name| get(name)).any(test),
        [name] => get(name).is_some_and(test),
        _ => false,
    }
}

const HTTP_REQUEST: [&str; 15] = [
    "requestMethod",
    "requestUrl",
    "requestSize",
    "status",
    "responseSize",
    "userAgent",
    "remoteIp",
    "serverIp",
    "referer",
    "latency",
    "cacheLookup",
    "cacheHit",
    "cacheValidatedWithOriginServer",
    "cacheFillBytes",
    "protocol",
];

fn http_request<'a>(request: &'a HttpRequest, name: &str) -> Option<Value<'a>> {
    let text = |value: &'a Option<String>| value.as_deref().map(Value::Text);
    match name {
        "requestMethod" => text(&request.request_method),
        "requestUrl" => text(&request.request_url),
        "requestSize" => request.request_size.map(number),
        "status" => request
            .status
            .map(|status| Value::Number(f64::from(status))),
        "responseSize" => request.response_size.map(number),
        "userAgent" => text(&request.user_agent),
        "remoteIp" => text(&request.remote_ip),
        "serverIp" => text(&request.server_ip),
        "referer" => text(&request.referer),
        "latency" => request.latency.map(Value::Duration),
        "cacheLookup" => Some(Value::Flag(request.cache_lookup)),
        "cacheHit" => Some(Value::Flag(request.cache_hit)),
        "cacheValidatedWithOriginServer" => {
            Some(Value::Flag(request.cache_validated_with_origin_server))
        }
        "cacheFillBytes" => request.cache_fill_bytes.map(number),
        "protocol" => text(&request.protocol),
        _ => None,
    }
}

const OPERATION: [&str; 4] = ["id", "producer", "first", "last"];

fn operation<'a>(operation: &'a Operation, name: &str) -> Option<Value<'a>> {
    match name {
        "id" => Some(Value::Text(&operation.id)),
        "producer" => Some(Value::Text(&operation.producer)),
        "first" => Some(Value::Flag(operation.first)),
        "last" => Some(Value::Flag(operation.last)),
        _ => None,
    }
}

const SOURCE_LOCATION: [&str; 3] = ["file", "line", "function"];

fn source_location<'a>(location: &'a SourceLocation, name: &str) -> Option<Value<'a>> {
    match name {
        "file" => location.file.as_deref().map(Value::Text),
        "line" => location.line.map(number),
        "function" => location.function.as_deref().map(Value::Text),
        _ => None,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "comparisons of sizes beyond 2^53 may be inexact"
)]
fn number<'a>(value: u64) -> Value<'a> {
    Value::Number(value as f64)
}

/// Follows names through objects, and through all elements of arrays.
fn json<'a>(value: &'a Json, path: &[String], test: &mut dyn FnMut(Value<'a>) -> bool) -> bool {
    match value {
        Json::Array(values) => values.iter().any(|value| json(value, path, test)),
        Json::Object(fields) => match path.split_first() {
            None => leaves(value, test),
            Some((name, rest)) => fields
                .get(name)
                .is_some_and(|field| json(field, rest, test)),
        },
        _ => path.is_empty() && test(scalar(value)),
    }
}

/// A value and all that is in it.
fn leaves<'a>(value: &'a Json, test: &mut dyn FnMut(Value<'a>) -> bool) -> bool {
    match value {
        Json::Array(values) => {
            test(Value::Object) || values.iter().any(|value| leaves(value, test))
        }
        Json::Object(fields) => {
            test(Value::Object) || fields.values().any(|value| leaves(value, test))
        }
        _ => test(scalar(value)),
    }
}

fn scalar(value: &Json) -> Value<'_> {
    match value {
        Json::String(text) => Value::Text(text),
        Json::Bool(flag) => Value::Flag(*flag),
        Json::Number(number) => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
        _ => Value::Json(value),
    }
}
