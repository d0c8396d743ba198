//! Entries of the audit log as events: which triggers they are for, and how they travel.
//!
//! The form is that of `google.cloud.audit.log.v1.written`: a CloudEvent whose data is the entry, in the
//! Pub/Sub binding of CloudEvents 1.0.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::Value;

use super::pattern;
use super::trigger::{Filter, MATCH_PATH, Trigger};
use crate::pubsub::Message;

/// The type of these events.
pub const AUDIT_LOG_WRITTEN: &str = "google.cloud.audit.log.v1.written";

const SCHEMA: &str = "https://googleapis.github.io/google-cloudevents/jsonschema/google/events/cloud/audit/v1/LogEntryData.json";

/// An entry of the audit log.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// The project's id.
    pub project: String,
    /// Where it was done; without, it is for the triggers of all regions.
    pub location: Option<String>,
    /// The API, such as `run.googleapis.com`.
    pub service: String,
    /// What was done, such as `google.cloud.run.v2.Services.CreateService`.
    pub method: String,
    /// To what, such as `projects/demo/locations/us-central1/services/hello`.
    pub resource: String,
    /// When.
    pub time: Timestamp,
    /// Tells entries of one time apart.
    pub insert_id: String,
    /// The entry as `entries:list` shows it.
    pub entry: Value,
}

impl AuditEvent {
    /// Whether a trigger wants it.
    pub(super) fn is_for(&self, trigger: &Trigger) -> bool {
        let spec = &trigger.spec;
        let here = self.location.as_deref();
        spec.channel.is_none()
            && spec.kind() == Some(AUDIT_LOG_WRITTEN)
            && spec.name.project == self.project
            && (spec.name.location == "global" || here.is_none_or(|at| at == spec.name.location))
            && spec.filters.iter().all(|filter| self.passes(filter))
    }

    fn passes(&self, filter: &Filter) -> bool {
        let value = match &*filter.attribute {
            "type" => return true,
            "serviceName" => &self.service,
            "methodName" => &self.method,
            "resourceName" => &self.resource,
            _ => return false,
        };
        if filter.operator == MATCH_PATH {
            pattern::matches(&filter.value, value)
        } else {
            filter.value == *value
        }
    }

    /// The message that carries it.
    pub(super) fn message(&self) -> Message {
        let log = format!("projects/{}/logs/", self.project);
        let attributes = [
            ("ce-specversion", "1.0".to_owned()),
            ("ce-type", AUDIT_LOG_WRITTEN.to_owned()),
            (
                "ce-id",
                format!(
                    "{log}cloudaudit.googleapis.com%2Factivity{}{}",
                    self.insert_id,
                    self.time.as_microsecond()
                ),
            ),
            (
                "ce-source",
                format!("//cloudaudit.googleapis.com/{log}activity"),
            ),
            ("ce-subject", format!("{}/{}", self.service, self.resource)),
            ("ce-time", self.time.to_string()),
            ("ce-recordedtime", self.time.to_string()),
            ("ce-servicename", self.service.clone()),
            ("ce-methodname", self.method.clone()),
            ("ce-resourcename", self.resource.clone()),
            ("ce-dataschema", SCHEMA.to_owned()),
            ("content-type", "application/json".to_owned()),
        ];
        Message {
            data: Bytes::from(self.entry.to_string()),
            attributes: BTreeMap::from(attributes.map(|(key, value)| (key.to_owned(), value))),
            ordering_key: String::new(),
        }
    }
}
