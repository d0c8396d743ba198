//! Writes by v1's paths, which are also those of the Knative face.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::{Outcome, Who, Write};
use crate::api::Api;
use crate::reply::Reply;

/// Collections: in paths, as an interface, and one of them.
const KINDS: [(&str, &str, &str); 6] = [
    ("services", "Services", "Service"),
    ("revisions", "Revisions", "Revision"),
    ("jobs", "Jobs", "Job"),
    ("executions", "Executions", "Execution"),
    ("workerpools", "WorkerPools", "WorkerPool"),
    ("domainmappings", "DomainMappings", "DomainMapping"),
];

/// What a request writes; nothing when it reads, or asks only whether it would work.
pub(crate) fn write(request: &Request<Body>) -> Option<Write> {
    let uri = request.uri();
    if uri
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair.starts_with("dryRun=")))
    {
        return None;
    }
    of(request.method(), uri.path())
}

fn of(method: &Method, path: &str) -> Option<Write> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let place = parts
        .iter()
        .position(|part| matches!(*part, "namespaces" | "projects"))?;
    let (at, (_, interface, one)) =
        parts
            .iter()
            .enumerate()
            .skip(place + 2)
            .find_map(|(at, part)| {
                let kind = KINDS.iter().find(|(collection, ..)| collection == part)?;
                Some((at, kind))
            })?;
    let named = parts.get(at + 1).copied();
    let (name, verb) = match named {
        Some(named) => named.split_once(':').unwrap_or((named, "")),
        None => ("", ""),
    };
    let done = match (method, name, verb) {
        (&Method::POST, "", _) => format!("Create{one}"),
        (&Method::POST, _, "setIamPolicy") => "SetIamPolicy".to_owned(),
        (&Method::POST, _, "run") => format!("Run{one}"),
        (&Method::POST, _, "cancel") => format!("Cancel{one}"),
        (&Method::PUT | &Method::PATCH, _, "") => format!("Replace{one}"),
        (&Method::DELETE, _, "") => format!("Delete{one}"),
        _ => return None,
    };
    let mut resource = parts[place..=at].join("/");
    if !name.is_empty() {
        resource = format!("{resource}/{name}");
    }
    Some(Write {
        service: "run.googleapis.com",
        method: format!("google.cloud.run.v1.{interface}.{done}"),
        resource,
    })
}

impl Api {
    /// Writes an entry for what was answered.
    pub(crate) async fn audit_reply(&self, mut write: Write, who: Who, reply: Reply) -> Reply {
        let (parts, body) = reply.into_parts();
        // All of it is in memory: no answer to a write is a stream.
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let body = body.unwrap_or_default();
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let outcome = if parts.status.is_success() {
            let made = said["metadata"]["name"].as_str();
            if let (true, Some(name)) = (write.method.contains(".Create"), made) {
                write.resource = format!("{}/{name}", write.resource);
            }
            Outcome::default()
        } else {
            let message = said["error"]["message"]
                .as_str()
                .or(said["message"].as_str());
            Outcome {
                code: code(parts.status),
                message: message.unwrap_or_default().to_owned(),
            }
        };
        self.audit(write, who, outcome).await;
        Reply::from_parts(parts, Body::from(body))
    }
}

/// `google.rpc.Code` of an HTTP status, as `google/rpc/code.proto` maps them.
fn code(status: StatusCode) -> i32 {
    match status.as_u16() {
        400 | 422 => 3,
        401 => 16,
        403 => 7,
        404 => 5,
        409 => 6,
        412 => 9,
        429 => 8,
        501 => 12,
        503 => 14,
        504 => 4,
        _ => 13,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_written() {
        let knative = "/apis/serving.knative.dev/v1/namespaces/demo/services";
        for (method, path, wanted) in [
            (
                Method::POST,
                knative.to_owned(),
                Some(("Services.CreateService", "namespaces/demo/services")),
            ),
            (
                Method::PUT,
                format!("{knative}/hello"),
                Some(("Services.ReplaceService", "namespaces/demo/services/hello")),
            ),
            (
                Method::PATCH,
                format!("{knative}/hello"),
                Some(("Services.ReplaceService", "namespaces/demo/services/hello")),
            ),
            (
                Method::DELETE,
                format!("{knative}/hello"),
                Some(("Services.DeleteService", "namespaces/demo/services/hello")),
            ),
            (
                Method::POST,
                "/apis/run.googleapis.com/v1/namespaces/demo/jobs/etl:run".to_owned(),
                Some(("Jobs.RunJob", "namespaces/demo/jobs/etl")),
            ),
            (
                Method::POST,
                "/v1/projects/demo/locations/r/services/hello:setIamPolicy".to_owned(),
                Some((
                    "Services.SetIamPolicy",
                    "projects/demo/locations/r/services/hello",
                )),
            ),
            (Method::GET, knative.to_owned(), None),
            (
                Method::POST,
                "/v1/projects/demo/locations/r/services/hello:testIamPermissions".to_owned(),
                None,
            ),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
                None,
            ),
        ] {
            let got = of(&method, &path);
            let got = got.as_ref().map(|w| {
                (
                    w.method.trim_start_matches("google.cloud.run.v1."),
                    &*w.resource,
                )
            });
            assert_eq!(got, wanted, "{method} {path}");
        }
    }
}
