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

use axum::body::Body;
use http::{HeaderMap, Request, header};
use lauf_events::eventarc::AuditEvent;
use lauf_iam::Caller;
use serde_json::{Map, json};

use crate::api::Api;

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

    pub(crate) fn sends(caller: &Caller, request: &Request<Body>) -> Self {
        let client = request.extensions().get::<Client>().copied();
        Self::of(caller, request.headers(), client)
    }
}

/// How it ended: `google.rpc.Status`, of which 0 is success.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl Api {
    /// Writes an entry, and sends it to whoever has a trigger for it.
    pub(crate) async fn audit(&self, write: Write, who: Who, outcome: Outcome) {
        let said =
            after(&write.resource, "projects").or_else(|| after(&write.resource, "namespaces"));
        let project = match said {
            Some(said) => self.project(said).await.map(|project| project.id),
            None => Ok(self.config.default_project.clone()),
        };
        // Of a project that there is not nothing was done.
        let Ok(project) = project else { return };
        let mut random = [0_u8; 8];
        if let Err(error) = getrandom::fill(&mut random) {
            tracing::warn!(%error, "an entry of the audit log has no id of its own");
        }
        let insert_id = format!("{:016x}", u64::from_be_bytes(random));
        let time = self.deps.clock.now();
        let location = after(&write.resource, "locations").map(str::to_owned);
        let entry = crate::deps::AuditEntry {
            project: project.clone(),
            time,
            insert_id: insert_id.clone(),
            failed: outcome.code != 0,
            labels: BTreeMap::from([
                ("project_id".to_owned(), project.clone()),
                ("service".to_owned(), write.service.to_owned()),
                ("method".to_owned(), write.method.clone()),
            ]),
            proto: proto(&write, &who, &outcome),
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

fn proto(write: &Write, who: &Who, outcome: &Outcome) -> Map<String, serde_json::Value> {
    let mut proto = Map::new();
    let status = if outcome.code == 0 {
        json!({})
    } else {
        json!({"code": outcome.code, "message": outcome.message})
    };
    let mut request = json!({});
    if let Some(client) = who.client {
        request["callerIp"] = client.to_string().into();
    }
    if !who.agent.is_empty() {
        request["callerSuppliedUserAgent"] = who.agent.clone().into();
    }
    for (key, value) in [
        (
            "@type",
            json!("type.googleapis.com/google.cloud.audit.AuditLog"),
        ),
        (
            "authenticationInfo",
            json!({"principalEmail": who.principal}),
        ),
        ("methodName", json!(write.method)),
        ("requestMetadata", request),
        ("resourceName", json!(write.resource)),
        ("serviceName", json!(write.service)),
        ("status", status),
    ] {
        proto.insert(key.to_owned(), value);
    }
    proto
}

/// The segment of a name after another: of `projects/P/x`, after `projects`, P.
fn after<'a>(name: &'a str, segment: &str) -> Option<&'a str> {
    let mut parts = name.split('/');
    parts.find(|part| *part == segment)?;
    parts.next().filter(|part| !part.is_empty())
}
