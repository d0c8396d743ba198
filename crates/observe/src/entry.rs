//! One entry of the log, as Cloud Logging knows it.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Map, Value};

use crate::{Severity, wire};

/// The largest entry, in bytes of its JSON, roughly: Cloud Logging's limit. What is longer is cut.
pub const MAX_ENTRY: usize = 256 << 10;

/// The longest text or JSON that is stored of one payload; what is left is for the rest of the entry.
const MAX_PAYLOAD: usize = MAX_ENTRY - (64 << 10);

/// The most bytes of all labels, of an address, and of what should be a word.
const MAX_LABELS: usize = 16 << 10;
const MAX_URL: usize = 8 << 10;
const MAX_WORD: usize = 1 << 10;

/// The label that says that a payload was cut.
const TRUNCATED: &str = "lauf.dev/truncated";

/// One entry. Its serde form is that of `entries:list` and of the segment files.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct LogEntry {
    /// Which log it is in: `projects/P/logs/run.googleapis.com%2Fstdout`.
    pub log_name: String,
    /// What it is about.
    pub resource: Resource,
    /// When it happened.
    pub timestamp: Timestamp,
    /// When it came to the log.
    pub receive_timestamp: Timestamp,
    /// How bad it is.
    pub severity: Severity,
    /// Tells entries of the same time apart. The sink gives one where it is empty.
    pub insert_id: String,
    /// What else there is to say, such as `instanceId`.
    pub labels: BTreeMap<String, String>,
    /// What it says.
    pub payload: Payload,
    /// The request it is about.
    pub http_request: Option<HttpRequest>,
    /// The trace it belongs to: `projects/P/traces/ID`.
    pub trace: Option<String>,
    /// The span within the trace, 16 hexadecimal digits.
    pub span_id: Option<String>,
    /// Whether that trace is stored.
    pub trace_sampled: bool,
    /// Where in the source it was written.
    pub source_location: Option<SourceLocation>,
    /// The longer task it is part of.
    pub operation: Option<Operation>,
}

/// What an entry is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Such as `cloud_run_revision`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Which one: `project_id`, `location`, `service_name`, `revision_name`, `configuration_name`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// `textPayload`.
    Text(String),
    /// `jsonPayload`.
    Json(Map<String, Value>),
    /// `protoPayload`: a message of a known type, as JSON with its `@type`.
    Proto(Map<String, Value>),
}

/// A request and its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRequest {
    /// `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_method: Option<String>,
    /// With scheme, host, path and query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_url: Option<String>,
    /// In bytes, with headers.
    #[serde(with = "wire::string_number", skip_serializing_if = "Option::is_none")]
    pub request_size: Option<u64>,
    /// The status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// In bytes, with headers.
    #[serde(with = "wire::string_number", skip_serializing_if = "Option::is_none")]
    pub response_size: Option<u64>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_ip: Option<String>,
    /// Who was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_ip: Option<String>,
    /// Where the link was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referer: Option<String>,
    /// From the request's arrival to the end of the answer.
    #[serde(with = "wire::duration", skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    /// Whether a cache was asked.
    #[serde(skip_serializing_if = "is_false")]
    pub cache_lookup: bool,
    /// Whether it had the answer.
    #[serde(skip_serializing_if = "is_false")]
    pub cache_hit: bool,
    /// Whether the origin had to confirm it.
    #[serde(skip_serializing_if = "is_false")]
    pub cache_validated_with_origin_server: bool,
    /// What was put into the cache, in bytes.
    #[serde(with = "wire::string_number", skip_serializing_if = "Option::is_none")]
    pub cache_fill_bytes: Option<u64>,
    /// `HTTP/1.1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// A place in source code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceLocation {
    /// The file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(with = "wire::string_number", skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The function.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
}

/// A longer task that several entries are about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operation {
    /// Which one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Who made the id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub producer: String,
    /// Whether this is its first entry.
    #[serde(skip_serializing_if = "is_false")]
    pub first: bool,
    /// Whether this is its last entry.
    #[serde(skip_serializing_if = "is_false")]
    pub last: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl LogEntry {
    /// An entry with what every entry has.
    #[must_use]
    pub fn new(log_name: String, resource: Resource, at: Timestamp, payload: Payload) -> Self {
        Self {
            log_name,
            resource,
            timestamp: at,
            receive_timestamp: at,
            severity: Severity::Default,
            insert_id: String::new(),
            labels: BTreeMap::new(),
            payload,
            http_request: None,
            trace: None,
            span_id: None,
            trace_sampled: false,
            source_location: None,
            operation: None,
        }
    }

    /// The entry as `entries:list` returns it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // All keys are text, so this cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The project in the log's name.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.log_name.strip_prefix("projects/")?.split('/').next()
    }

    /// The log's name without its project, as people write it: `run.googleapis.com/stdout`.
    #[must_use]
    pub fn log_id(&self) -> String {
        let id = self.log_name.split_once("/logs/").map_or("", |(_, id)| id);
        id.replace("%2F", "/").replace("%2f", "/")
    }

    /// What it takes in memory, in bytes, roughly.
    pub(crate) fn weight(&self) -> usize {
        let map = |map: &BTreeMap<String, String>| -> usize {
            map.iter()
                .map(|(key, value)| key.len() + value.len() + 64)
                .sum()
        };
        let payload = match &self.payload {
            Payload::Text(text) => text.len(),
            Payload::Json(fields) | Payload::Proto(fields) => {
                fields.iter().map(|(k, v)| k.len() + json_weight(v)).sum()
            }
        };
        let request = self.http_request.as_ref().map_or(0, |request| {
            [&request.request_url, &request.referer, &request.user_agent]
                .into_iter()
                .map(|text| text.as_ref().map_or(0, String::len))
                .sum::<usize>()
                + 256
        });
        512 + request
            + self.log_name.len()
            + map(&self.resource.labels)
            + map(&self.labels)
            + payload
    }

    /// Cuts what is too long, and says so in a label.
    pub(crate) fn bound(&mut self) {
        let mut cut = self.bound_payload();
        let mut labels = 0;
        self.labels.retain(|name, value| {
            labels += name.len() + value.len();
            cut |= labels > MAX_LABELS;
            labels <= MAX_LABELS
        });
        let request = self.http_request.iter_mut().flat_map(|request| {
            [
                (&mut request.request_url, MAX_URL),
                (&mut request.referer, MAX_URL),
                (&mut request.user_agent, MAX_WORD),
                (&mut request.request_method, MAX_WORD),
                (&mut request.remote_ip, MAX_WORD),
                (&mut request.server_ip, MAX_WORD),
                (&mut request.protocol, MAX_WORD),
            ]
        });
        let location = self.source_location.iter_mut().flat_map(|location| {
            [
                (&mut location.file, MAX_WORD),
                (&mut location.function, MAX_WORD),
            ]
        });
        let own = [(&mut self.trace, MAX_WORD), (&mut self.span_id, MAX_WORD)];
        let optional = request.chain(location).chain(own);
        let texts = optional.filter_map(|(text, most)| Some((text.as_mut()?, most)));
        let operation = self.operation.iter_mut().flat_map(|operation| {
            [
                (&mut operation.id, MAX_WORD),
                (&mut operation.producer, MAX_WORD),
            ]
        });
        let id = [(&mut self.insert_id, MAX_WORD)];
        for (text, most) in texts.chain(operation).chain(id) {
            if text.len() > most {
                text.truncate(text.floor_char_boundary(most));
                cut = true;
            }
        }
        if cut {
            self.labels.insert(TRUNCATED.to_owned(), "true".to_owned());
        }
    }

    /// Whether the payload had to be cut.
    fn bound_payload(&mut self) -> bool {
        let text = match &mut self.payload {
            Payload::Text(text) if written_length(text) > MAX_PAYLOAD => std::mem::take(text),
            Payload::Json(fields) | Payload::Proto(fields) => {
                // Each byte is written as six at most, so little needs no second look.
                let weight: usize = fields.iter().map(|(k, v)| k.len() + json_weight(v)).sum();
                if weight <= MAX_PAYLOAD / 6 {
                    return false;
                }
                let text = serde_json::to_string(fields).unwrap_or_default();
                if text.len() <= MAX_PAYLOAD {
                    return false;
                }
                text
            }
            Payload::Text(_) => return false,
        };
        let mut length = 0;
        let fits = |char: &char| {
            length += written(*char);
            length <= MAX_PAYLOAD
        };
        self.payload = Payload::Text(text.chars().take_while(fits).collect());
        true
    }
}

/// How long a text is in JSON, in bytes, without its quotes.
fn written_length(text: &str) -> usize {
    if text.len() <= MAX_PAYLOAD / 6 {
        return text.len();
    }
    text.chars().map(written).sum()
}

fn written(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => char.len_utf8(),
    }
}

fn json_weight(value: &Value) -> usize {
    // JSON that was parsed is at most 128 levels deep.
    32 + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(json_weight).sum(),
        Value::Object(fields) => fields.iter().map(|(k, v)| k.len() + json_weight(v)).sum(),
        _ => 0,
    }
}

impl Serialize for LogEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("insertId", &self.insert_id)?;
        match &self.payload {
            // The log of a request that went well has nothing to add to the request itself.
            Payload::Text(text) if text.is_empty() && self.http_request.is_some() => {}
            Payload::Text(text) => map.serialize_entry("textPayload", text)?,
            Payload::Json(fields) => map.serialize_entry("jsonPayload", fields)?,
            Payload::Proto(fields) => map.serialize_entry("protoPayload", fields)?,
        }
        if let Some(request) = &self.http_request {
            map.serialize_entry("httpRequest", request)?;
        }
        map.serialize_entry("resource", &self.resource)?;
        map.serialize_entry("timestamp", &self.timestamp)?;
        if self.severity != Severity::Default {
            map.serialize_entry("severity", &self.severity)?;
        }
        if !self.labels.is_empty() {
            map.serialize_entry("labels", &self.labels)?;
        }
        map.serialize_entry("logName", &self.log_name)?;
        if let Some(operation) = &self.operation {
            map.serialize_entry("operation", operation)?;
        }
        if let Some(trace) = &self.trace {
            map.serialize_entry("trace", trace)?;
        }
        if let Some(location) = &self.source_location {
            map.serialize_entry("sourceLocation", location)?;
        }
        map.serialize_entry("receiveTimestamp", &self.receive_timestamp)?;
        if let Some(span) = &self.span_id {
            map.serialize_entry("spanId", span)?;
        }
        if self.trace_sampled {
            map.serialize_entry("traceSampled", &true)?;
        }
        map.end()
    }
}

/// The shape to read from: `#[serde(flatten)]` on the payload would read everything twice.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    insert_id: String,
    text_payload: Option<String>,
    json_payload: Option<Map<String, Value>>,
    proto_payload: Option<Map<String, Value>>,
    http_request: Option<HttpRequest>,
    #[serde(default)]
    resource: Resource,
    timestamp: Timestamp,
    receive_timestamp: Timestamp,
    #[serde(default)]
    severity: Severity,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    log_name: String,
    operation: Option<Operation>,
    trace: Option<String>,
    source_location: Option<SourceLocation>,
    span_id: Option<String>,
    #[serde(default)]
    trace_sampled: bool,
}

impl From<Wire> for LogEntry {
    fn from(wire: Wire) -> Self {
        Self {
            log_name: wire.log_name,
            resource: wire.resource,
            timestamp: wire.timestamp,
            receive_timestamp: wire.receive_timestamp,
            severity: wire.severity,
            insert_id: wire.insert_id,
            labels: wire.labels,
            payload: match (wire.json_payload, wire.proto_payload) {
                (Some(fields), _) => Payload::Json(fields),
                (None, Some(fields)) => Payload::Proto(fields),
                (None, None) => Payload::Text(wire.text_payload.unwrap_or_default()),
            },
            http_request: wire.http_request,
            trace: wire.trace,
            span_id: wire.span_id,
            trace_sampled: wire.trace_sampled,
            source_location: wire.source_location,
            operation: wire.operation,
        }
    }
}
