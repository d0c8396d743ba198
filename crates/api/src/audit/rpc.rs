//! Writes by RPC, gRPC or transcoded.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use lauf_iam::Caller;
use lauf_model::{Code, Status};
use percent_encoding::percent_decode_str;
use prost_reflect::{DynamicMessage, Value};
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Service, ServiceExt as _};

use super::{Client, Who, Write};
use crate::api::Api;

/// What the names of methods that write begin with.
const WRITES: [&str; 18] = [
    "Cancel",
    "Commit",
    "Create",
    "Delete",
    "Detach",
    "ModifyPush",
    "Patch",
    "Pause",
    "Purge",
    "Replace",
    "Resume",
    "Rollback",
    "Run",
    "Seek",
    "Set",
    "Start",
    "Stop",
    "Update",
];
/// Tasks are data, not resources.
const DATA: &str = "/google.cloud.tasks.v2.CloudTasks/";
/// A gRPC message begins with a flag and its length.
const FRAME: usize = 5;

/// The RPCs, with an entry in the audit log for each write.
#[derive(Clone)]
pub(crate) struct Audited {
    pub(crate) rpcs: Routes,
    pub(crate) api: Api,
}

impl Service<Request<Body>> for Audited {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let rpcs = self.rpcs.clone();
        let Some(service) = writes(request.uri().path()) else {
            return Box::pin(rpcs.oneshot(request));
        };
        let api = self.api.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            // All of it is in memory: no method that writes takes a stream.
            let body = body
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes);
            let body: Bytes = body.unwrap_or_default();
            let write = read(service, parts.uri.path(), &body);
            let client = parts.extensions.get::<Client>().copied();
            let caller = parts.extensions.get::<Caller>();
            let who = caller.map(|caller| Who::of(caller, &parts.headers, client));
            let request = Request::from_parts(parts, Body::new(Full::new(body)));
            let reply = rpcs.oneshot(request).await?;
            if let (Some(write), Some(who)) = (write, who) {
                api.audit(write, who, ended(&reply)).await;
            }
            Ok(reply)
        })
    }
}

/// The API of an RPC's path, if the RPC writes.
fn writes(path: &str) -> Option<&'static str> {
    let (package, method) = path.rsplit_once('/')?;
    let data = path
        .strip_prefix(DATA)
        .is_some_and(|method| method.ends_with("Task"));
    if data || !WRITES.iter().any(|verb| method.starts_with(verb)) {
        return None;
    }
    [
        ("/google.cloud.run.", "run.googleapis.com"),
        ("/google.pubsub.", "pubsub.googleapis.com"),
        ("/google.iam.v1.", "pubsub.googleapis.com"),
        ("/google.cloud.scheduler.", "cloudscheduler.googleapis.com"),
        ("/google.cloud.tasks.", "cloudtasks.googleapis.com"),
        ("/google.cloud.eventarc.", "eventarc.googleapis.com"),
    ]
    .into_iter()
    .find_map(|(prefix, service)| package.starts_with(prefix).then_some(service))
}

/// What a request asks for; nothing when it asks only whether it would work.
fn read(service: &'static str, path: &str, frame: &[u8]) -> Option<Write> {
    let (interface, method) = path.strip_prefix('/')?.split_once('/')?;
    let described = lauf_wire::pool().get_service_by_name(interface)?;
    let described = described.methods().find(|known| known.name() == method)?;
    let body = frame.get(FRAME..).unwrap_or_default();
    let message = DynamicMessage::decode(described.input(), body).ok();
    let tries = message.as_ref().and_then(|message| {
        let tries = message.get_field_by_name("validate_only")?;
        tries.as_bool()
    });
    if tries == Some(true) {
        return None;
    }
    let resource = message.and_then(|message| resource(&message, method));
    Some(Write {
        service,
        method: format!("{interface}.{method}"),
        resource: resource.unwrap_or_default(),
    })
}

/// The name of what a request is about.
fn resource(message: &DynamicMessage, method: &str) -> Option<String> {
    let text = |field: &str| {
        let value = message.get_field_by_name(field)?;
        let text = value.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let direct = ["name", "resource", "subscription", "topic", "snapshot"];
    if let Some(name) = direct.into_iter().find_map(text) {
        return Some(name);
    }
    let inner = message.fields().find_map(|(_, value)| match value {
        Value::Message(inner) => {
            let name = inner.get_field_by_name("name")?;
            name.as_str()
                .filter(|name| name.contains('/'))
                .map(str::to_owned)
        }
        _ => None,
    });
    if inner.is_some() {
        return inner;
    }
    let parent = text("parent")?;
    let id = message.fields().find_map(|(field, value)| {
        let id = value.as_str().filter(|id| !id.is_empty())?;
        field.name().ends_with("_id").then(|| id.to_owned())
    });
    let noun = method.strip_prefix("Create").unwrap_or(method);
    let mut letters = noun.chars();
    let first = letters.next()?.to_ascii_lowercase();
    Some(match id {
        Some(id) => format!("{parent}/{first}{}s/{id}", letters.as_str()),
        None => parent,
    })
}

/// How an RPC ended. Only what failed at once says so in its headers, and of what writes that is all.
fn ended(reply: &Response<Body>) -> Result<(), Status> {
    let header = |name: &str| {
        let value = reply.headers().get(name)?.to_str().ok()?;
        Some(percent_decode_str(value).decode_utf8_lossy())
    };
    let code = header("grpc-status").and_then(|code| code.parse().ok());
    match code {
        None | Some(0) => Ok(()),
        Some(code) => {
            let message = header("grpc-message").unwrap_or_default();
            Err(Status::new(Code::from_grpc(code), message))
        }
    }
}

#[cfg(test)]
mod tests {
    use lauf_wire::google::cloud::run::v2 as run;

    use super::*;

    fn framed(message: &impl prost::Message) -> Vec<u8> {
        [&[0; FRAME][..], &message.encode_to_vec()].concat()
    }

    #[test]
    fn what_writes_is_known_by_its_name() {
        for path in [
            "/google.cloud.run.v2.Services/CreateService",
            "/google.cloud.run.v2.Services/SetIamPolicy",
            "/google.pubsub.v1.Subscriber/ModifyPushConfig",
            "/google.cloud.tasks.v2.CloudTasks/PurgeQueue",
        ] {
            assert!(writes(path).is_some(), "{path}");
        }
        for path in [
            "/google.cloud.run.v2.Services/GetService",
            "/google.pubsub.v1.Publisher/Publish",
            "/google.pubsub.v1.Subscriber/ModifyAckDeadline",
            "/google.cloud.tasks.v2.CloudTasks/CreateTask",
        ] {
            assert_eq!(writes(path), None, "{path}");
        }
    }

    #[test]
    fn a_request_says_which_resource() {
        let made = run::CreateServiceRequest {
            parent: "projects/demo/locations/r".to_owned(),
            service_id: "hello".to_owned(),
            service: Some(run::Service::default()),
            ..run::CreateServiceRequest::default()
        };
        let path = "/google.cloud.run.v2.Services/CreateService";
        let write = read("run.googleapis.com", path, &framed(&made)).unwrap();
        assert_eq!(write.method, "google.cloud.run.v2.Services.CreateService");
        assert_eq!(write.resource, "projects/demo/locations/r/services/hello");
        let tried = run::CreateServiceRequest {
            validate_only: true,
            ..made
        };
        assert_eq!(read("run.googleapis.com", path, &framed(&tried)), None);
        let changed = run::UpdateServiceRequest {
            service: Some(run::Service {
                name: "projects/demo/locations/r/services/hello".to_owned(),
                ..run::Service::default()
            }),
            ..run::UpdateServiceRequest::default()
        };
        let path = "/google.cloud.run.v2.Services/UpdateService";
        let write = read("run.googleapis.com", path, &framed(&changed)).unwrap();
        assert_eq!(write.resource, "projects/demo/locations/r/services/hello");
    }
}
