//! Writes by v1's paths, which are also those of the Knative face.

use axum::body::Body;
use http::Method;
use http_body_util::{BodyExt as _, Collected};
use lauf_model::Status;
use serde_json::Value;

use super::{Who, Write};
use crate::api::{Api, Ask};
use crate::refuse::says_something;
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
fn write(ask: &Ask) -> Option<Write> {
    let write = of(&ask.method, &ask.path)?;
    (!is_dry_run(ask)).then_some(write)
}

/// Whether it asks only that: in the query, or for a deletion in the body (`meta/v1`, `DeleteOptions`).
fn is_dry_run(ask: &Ask) -> bool {
    let in_body = || {
        let options: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
        says_something(&options["dryRun"])
    };
    !ask.param("dryRun").is_empty() || (ask.method == Method::DELETE && in_body())
}

fn of(method: &Method, parts: &[String]) -> Option<Write> {
    let place = parts
        .iter()
        .position(|part| matches!(part.as_str(), "namespaces" | "projects"))?;
    let (at, (_, interface, one)) =
        parts
            .iter()
            .enumerate()
            .skip(place + 2)
            .find_map(|(at, part)| {
                let kind = KINDS.iter().find(|(collection, ..)| collection == part)?;
                Some((at, kind))
            })?;
    let named = parts.get(at + 1);
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
    /// Writes an entry for what was answered, if it was a write.
    pub(crate) async fn audited<E: Clone + Into<Status>>(
        &self,
        ask: &Ask,
        answered: Result<Reply, E>,
    ) -> Result<Reply, E> {
        let Some(mut write) = write(ask) else {
            return answered;
        };
        let who = Who::of(&ask.caller, &ask.headers, ask.client);
        match answered {
            Ok(reply) => {
                let reply = if write.method.contains(".Create") {
                    named(&mut write, reply).await
                } else {
                    reply
                };
                self.audit(write, who, Ok(())).await;
                Ok(reply)
            }
            Err(error) => {
                self.audit(write, who, Err(error.clone().into())).await;
                Err(error)
            }
        }
    }
}

/// What was made has its name in the answer: it may be the server that gave it.
async fn named(write: &mut Write, reply: Reply) -> Reply {
    let (parts, body) = reply.into_parts();
    // All of it is in memory: no answer to a write is a stream.
    let body = body.collect().await.map(Collected::to_bytes);
    let body = body.unwrap_or_default();
    let made: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(name) = made["metadata"]["name"].as_str() {
        write.resource = format!("{}/{name}", write.resource);
    }
    Reply::from_parts(parts, Body::from(body))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use lauf_iam::Caller;

    use super::*;
    use crate::host;

    fn ask(method: Method, query: &[(&str, &str)], body: &'static str) -> Ask {
        let path = "apis/serving.knative.dev/v1/namespaces/demo/services/hello";
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Ask {
            caller: Caller {
                principal: "admin".to_owned(),
            },
            client: None,
            method,
            headers: HeaderMap::new(),
            host: host::parse("localhost"),
            path: path.split('/').map(str::to_owned).collect(),
            query: query.iter().map(owned).collect(),
            body: Bytes::from(body),
        }
    }

    #[test]
    fn what_is_only_tried_is_no_write() {
        let delete = |query: &[(&str, &str)], body| write(&ask(Method::DELETE, query, body));
        assert!(delete(&[], "").is_some());
        assert!(delete(&[], r#"{"kind": "DeleteOptions", "dryRun": []}"#).is_some());
        assert_eq!(delete(&[("dryRun", "All")], ""), None);
        assert_eq!(
            delete(&[], r#"{"kind": "DeleteOptions", "dryRun": ["All"]}"#),
            None
        );
        // In a service's own body the word means nothing.
        assert!(write(&ask(Method::PUT, &[], r#"{"dryRun": ["All"]}"#)).is_some());
    }

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
            let parts: Vec<String> = path
                .trim_matches('/')
                .split('/')
                .map(str::to_owned)
                .collect();
            let got = of(&method, &parts);
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
