//! What the gateway counts, for those who read it: request logs and live instance counts.

use std::borrow::Cow;
use std::sync::OnceLock;

use http::Version;
use lauf_api::{Live, LiveCounts};
use lauf_control::Underway;
use lauf_gateway::{Fleet, Outcome, RequestRecord, RequestSink};
use lauf_model::ServiceKey;
use lauf_observe::{HttpRequest, LogEntry, LogSink, Payload, Resource, Severity};

use super::logs::{log_name, resource};

/// The label that says how long a request waited for an instance, if it did.
const WAITED: &str = "lauf.dev/waited";

/// Writes the request log, `run.googleapis.com/requests`.
pub(crate) struct RequestLog(LogSink);

impl RequestLog {
    pub(crate) fn new(sink: LogSink) -> Self {
        Self(sink)
    }
}

impl RequestSink for RequestLog {
    fn record(&self, batch: Vec<RequestRecord>) {
        for record in batch {
            self.0.push(entry(&record));
        }
    }
}

fn entry(record: &RequestRecord) -> LogEntry {
    let service = record.service();
    let resource = record.revision.as_ref().map_or_else(
        || Resource {
            kind: "cloud_run_revision".into(),
            ..Resource::default()
        },
        |revision| resource(revision),
    );
    let text = match record.outcome {
        Outcome::Complete => String::new(),
        Outcome::Failed(why) => why.to_owned(),
    };
    let project = &service.project;
    let mut entry = LogEntry::new(
        log_name(project, "requests"),
        resource,
        record.received,
        Payload::Text(text),
    );
    entry.severity = match record.status.as_u16() {
        500.. => Severity::Error,
        400.. => Severity::Warning,
        _ => Severity::Info,
    };
    if let Some(instance) = &record.instance {
        entry
            .labels
            .insert("instanceId".into(), instance.id().0.clone());
    }
    if !record.waited.is_zero() {
        let waited = format!("{:.6}s", record.waited.as_secs_f64());
        entry.labels.insert(WAITED.into(), waited);
    }
    if record.trace != 0 {
        entry.trace = Some(format!("projects/{project}/traces/{:032x}", record.trace));
    }
    entry.http_request = Some(HttpRequest {
        request_method: Some(record.method.to_string()),
        request_url: Some(record.url()),
        request_size: Some(record.request_bytes),
        status: Some(record.status.as_u16()),
        response_size: Some(record.response_bytes),
        user_agent: record.user_agent().map(Cow::into_owned),
        remote_ip: Some(record.remote.to_string()),
        referer: record.referer().map(Cow::into_owned),
        latency: Some(record.latency),
        protocol: Some(protocol(record.protocol).to_owned()),
        ..HttpRequest::default()
    });
    entry
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// Counts of what runs. Those of services are empty until the gateway is there.
pub(crate) struct LiveFleet {
    fleet: OnceLock<Fleet>,
    executions: Underway,
}

impl LiveFleet {
    pub(crate) fn new(executions: Underway) -> Self {
        Self {
            fleet: OnceLock::new(),
            executions,
        }
    }

    pub(crate) fn connect(&self, fleet: Fleet) {
        // Connected once, at the start.
        let _ = self.fleet.set(fleet);
    }
}

impl Live for LiveFleet {
    fn instances(&self, service: &ServiceKey) -> LiveCounts {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.fleet.get().map_or_else(LiveCounts::default, |fleet| {
            let counts = fleet.service(service);
            LiveCounts {
                starting: count(counts.starting),
                ready: count(counts.ready),
                in_flight: count(counts.in_flight),
            }
        })
    }

    fn executions(&self) -> usize {
        self.executions.count()
    }
}
