//! Reading what a container writes, line by line, as Cloud Run does.
//!
//! A line that is a JSON object becomes `jsonPayload`, and its special fields move to where Cloud
//! Logging keeps them (<https://cloud.google.com/logging/docs/structured-logging>). If nothing but a
//! `message` is left, that becomes `textPayload`. Everything else is text.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{HttpRequest, LogEntry, Operation, Payload, Severity, SourceLocation};

/// How far from now a line's own time may be; Cloud Logging takes nothing older or newer.
const MAX_PAST: SignedDuration = SignedDuration::from_hours(30 * 24);
const MAX_FUTURE: SignedDuration = SignedDuration::from_hours(24);

/// What a line says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedLine {
    /// Its own time, or when it was received.
    pub timestamp: Timestamp,
    /// How bad it is; `DEFAULT` where it does not say.
    pub severity: Severity,
    /// What is left for people to read.
    pub payload: Payload,
    /// The request it is about.
    pub http_request: Option<HttpRequest>,
    /// Its id; empty where it has none.
    pub insert_id: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The longer task it is part of.
    pub operation: Option<Operation>,
    /// Where in the source it was written.
    pub source_location: Option<SourceLocation>,
    /// The trace it belongs to.
    pub trace: Option<String>,
    /// The span within the trace.
    pub span_id: Option<String>,
    /// Whether the trace is stored.
    pub trace_sampled: bool,
}

impl ParsedLine {
    /// Puts what the line said into an entry that says where it came from.
    pub fn fill(self, entry: &mut LogEntry) {
        entry.timestamp = self.timestamp;
        entry.severity = self.severity;
        entry.payload = self.payload;
        entry.http_request = self.http_request;
        entry.insert_id = self.insert_id;
        entry.labels.extend(self.labels);
        entry.operation = self.operation;
        entry.source_location = self.source_location;
        entry.trace = self.trace;
        entry.span_id = self.span_id;
        entry.trace_sampled = self.trace_sampled;
    }
}

/// Reads one line that came at `received`, with or without its line end. Any bytes are a line.
#[must_use]
pub fn parse_container_line(line: &[u8], received: Timestamp) -> ParsedLine {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parsed = ParsedLine {
        timestamp: received,
        severity: Severity::Default,
        payload: Payload::Text(String::new()),
        http_request: None,
        insert_id: String::new(),
        labels: BTreeMap::new(),
        operation: None,
        source_location: None,
        trace: None,
        span_id: None,
        trace_sampled: false,
    };
    let looks_like_object = line.trim_ascii().starts_with(b"{");
    match looks_like_object.then(|| serde_json::from_slice::<Map<String, Value>>(line)) {
        Some(Ok(fields)) => lift(fields, received, &mut parsed),
        _ => parsed.payload = Payload::Text(readable(line)),
    }
    parsed
}

/// Text as it is; each byte that is none as `\xNN`.
fn readable(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Moves the special fields out. One that does not have the form it should have stays.
fn lift(mut fields: Map<String, Value>, received: Timestamp, parsed: &mut ParsedLine) {
    let severity = match fields.get("severity") {
        Some(Value::String(text)) => Severity::parse_level(text),
        Some(Value::Number(number)) => number
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .and_then(Severity::from_number),
        _ => None,
    };
    if let Some(severity) = severity {
        parsed.severity = severity;
        fields.remove("severity");
    }
    if let Some(timestamp) = own_time(&mut fields)
        && timestamp.duration_since(received) <= MAX_FUTURE
        && received.duration_since(timestamp) <= MAX_PAST
    {
        parsed.timestamp = timestamp;
    }
    parsed.http_request = take(&mut fields, "httpRequest");
    parsed.insert_id = take(&mut fields, "logging.googleapis.com/insertId").unwrap_or_default();
    parsed.labels = take(&mut fields, "logging.googleapis.com/labels").unwrap_or_default();
    parsed.operation = take(&mut fields, "logging.googleapis.com/operation");
    parsed.source_location = take(&mut fields, "logging.googleapis.com/sourceLocation");
    parsed.trace = take(&mut fields, "logging.googleapis.com/trace");
    parsed.span_id = take(&mut fields, "logging.googleapis.com/spanId");
    parsed.trace_sampled =
        take(&mut fields, "logging.googleapis.com/trace_sampled").unwrap_or_default();
    let alone = fields.len() == 1;
    parsed.payload = match fields.get_mut("message") {
        Some(Value::String(message)) if alone => Payload::Text(std::mem::take(message)),
        _ => Payload::Json(fields),
    };
}

/// Takes a field out if it reads as a `T`.
fn take<T: DeserializeOwned>(fields: &mut Map<String, Value>, name: &str) -> Option<T> {
    let value = T::deserialize(fields.get(name)?).ok()?;
    fields.remove(name);
    Some(value)
}

/// `time`, `timestamp` with seconds and nanos, or `timestampSeconds` and `timestampNanos`.
fn own_time(fields: &mut Map<String, Value>) -> Option<Timestamp> {
    if let Some(time) = fields
        .get("time")
        .and_then(Value::as_str)
        .and_then(|t| t.parse().ok())
    {
        fields.remove("time");
        return Some(time);
    }
    match fields.get("timestamp") {
        Some(Value::Object(parts)) => {
            let time = seconds_and_nanos(parts.get("seconds"), parts.get("nanos"));
            if time.is_some() {
                fields.remove("timestamp");
                return time;
            }
        }
        Some(Value::String(text)) => {
            if let Ok(time) = text.parse() {
                fields.remove("timestamp");
                return Some(time);
            }
        }
        _ => {}
    }
    let time = seconds_and_nanos(fields.get("timestampSeconds"), fields.get("timestampNanos"))?;
    fields.remove("timestampSeconds");
    fields.remove("timestampNanos");
    Some(time)
}

fn seconds_and_nanos(seconds: Option<&Value>, nanos: Option<&Value>) -> Option<Timestamp> {
    let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let seconds = number(seconds?)?;
    let nanos = match nanos {
        Some(nanos) => i32::try_from(number(nanos)?).ok()?,
        None => 0,
    };
    Timestamp::new(seconds, nanos).ok()
}
