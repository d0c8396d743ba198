//! The audit log: who did what to which resource, from where, and how it ended, for every write of every
//! face; `google.cloud.audit.AuditLog` in Cloud Logging's log `cloudaudit.googleapis.com/activity`. What
//! reads, and what sends messages or tasks, is not in it, as with Google's admin activity logs.
//!
//! Eventarc's triggers see each entry before the request is answered. A server that is killed between a
//! write and its entry leaves the write without one.

pub(crate) mod rest;
pub(crate) mod rpc;

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::{HeaderMap, header};
use lauf_events::eventarc::AuditEvent;
use lauf_iam::Caller;
use lauf_model::Status;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::deps::AuditEntry;
use crate::services::random;

/// Where a request came from: an extension of requests that whoever serves the router sets.
#[derive(Clone, Copy, Debug)]
pub struct Client(pub IpAddr);

/// The longest name of a client's program that is kept, in bytes.
const MAX_AGENT: usize = 512;

/// What is being done to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    /// The API: `run.googleapis.com`.
    pub(crate) service: &'static str,
    /// `google.cloud.run.v2.Services.CreateService`.
    pub(crate) method: String,
    /// The resource's name; empty when it is not said.
    pub(crate) resource: String,
}

/// Who does it, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    principal: String,
    client: Option<IpAddr>,
    agent: String,
}

impl Who {
    pub(crate) fn of(caller: &Caller, headers: &HeaderMap, client: Option<Client>) -> Self {
        let agent = headers.get(header::USER_AGENT);
        let agent = agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()));
        let agent = agent.unwrap_or_default();
        Self {
            principal: caller.principal.clone(),
            client: client.map(|Client(ip)| ip),
            agent: agent.chars().take(MAX_AGENT).collect(),
        }
    }
}

impl Api {
    /// Writes an entry for how a write ended, and sends it to whoever has a trigger for it.
    pub(crate) async fn audit(&self, write: Write, who: Who, ended: Result<(), Status>) {
        let said =
            after(&write.resource, "projects").or_else(|| after(&write.resource, "namespaces"));
        let project = match said {
            Some(said) => self.project(said).await.map(|project| project.id),
            None => Ok(self.config.default_project.clone()),
        };
        // Of a project that there is not nothing was done.
        let Ok(project) = project else { return };
        let random = random().unwrap_or_else(|status| {
            tracing::warn!(%status, "an entry of the audit log has no id of its own");
            [0; 8]
        });
        let insert_id = format!("{:016x}", u64::from_be_bytes(random));
        let time = self.deps.clock.now();
        let location = after(&write.resource, "locations").map(str::to_owned);
        let entry = AuditEntry {
            project: project.clone(),
            time,
            insert_id: insert_id.clone(),
            failed: ended.is_err(),
            labels: BTreeMap::from([
                ("project_id".to_owned(), project.clone()),
                ("service".to_owned(), write.service.to_owned()),
                ("method".to_owned(), write.method.clone()),
            ]),
            proto: proto(&write, &who, &ended),
        };
        let entry = self.deps.logs.audit(entry);
        let event = AuditEvent {
            project,
            location,
            service: write.service.to_owned(),
            method: write.method,
            resource: write.resource,
            time,
            insert_id,
            entry,
        };
        self.deps.eventarc.audited(&event).await;
    }
}

fn proto(write: &Write, who: &Who, ended: &Result<(), Status>) -> Map<String, Value> {
    let status = match ended {
        Ok(()) => json!({}),
        Err(status) => json!({"code": status.code.grpc(), "message": status.message}),
    };
    let mut request = json!({});
    if let Some(client) = who.client {
        request["callerIp"] = client.to_string().into();
    }
    if !who.agent.is_empty() {
        request["callerSuppliedUserAgent"] = who.agent.clone().into();
    }
    let fields = [
        (
            "@type",
            "type.googleapis.com/google.cloud.audit.AuditLog".into(),
        ),
        (
            "authenticationInfo",
            json!({"principalEmail": who.principal}),
        ),
        ("methodName", write.method.clone().into()),
        ("requestMetadata", request),
        ("resourceName", write.resource.clone().into()),
        ("serviceName", write.service.into()),
        ("status", status),
    ];
    fields
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

/// The segment of a name after another: of `projects/P/x`, after `projects`, P.
fn after<'a>(name: &'a str, segment: &str) -> Option<&'a str> {
    let mut parts = name.split('/');
    parts.find(|part| *part == segment)?;
    parts.next().filter(|part| !part.is_empty())
}
