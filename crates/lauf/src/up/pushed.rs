//! Tells of images that were pushed and deleted: messages of the topic `gcr`, where there is one, as Artifact Registry
//! publishes them ("Configuring Pub/Sub notifications").

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{Method, header};
use lauf_events::pubsub::{Message, PubSub, TopicName};
use serde_json::{Value, json};

/// The topic's id.
const TOPIC: &str = "gcr";

/// Who publishes.
pub(crate) struct Pushed {
    pub(crate) pubsub: PubSub,
    /// Whose topic it is, where the image's name says no project.
    pub(crate) default_project: String,
}

/// What a request wants to change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change {
    deletes: bool,
    /// The repository with its registry: `HOST/NAME`.
    repository: String,
    /// A tag or a digest.
    reference: String,
}

impl Change {
    /// What this request changes, if it is one that does.
    pub(crate) fn of(request: &Request<Body>) -> Option<Self> {
        let deletes = match *request.method() {
            Method::PUT => false,
            Method::DELETE => true,
            _ => return None,
        };
        let path = request.uri().path().strip_prefix("/v2/")?;
        let (name, reference) = path.rsplit_once("/manifests/")?;
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let host = host.or_else(|| request.uri().authority().map(|a| a.as_str()))?;
        Some(Self {
            deletes,
            repository: format!("{host}/{name}"),
            reference: reference.to_owned(),
        })
    }

    /// What is to be told of it, now that it is done or refused.
    pub(crate) fn messages(&self, response: &Response) -> Vec<Value> {
        if !response.status().is_success() {
            return Vec::new();
        }
        let of =
            |separator: char, reference: &str| format!("{}{separator}{reference}", self.repository);
        let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
        let is_digest = self.reference.contains(':');
        if self.deletes {
            return vec![match is_digest {
                true => json!({"action": "DELETE", "digest": of('@', &self.reference)}),
                false => json!({"action": "DELETE", "tag": of(':', &self.reference)}),
            }];
        }
        let digest = response.headers().get("docker-content-digest");
        let Some(digest) = digest.and_then(text).map(|digest| of('@', &digest)) else {
            return Vec::new();
        };
        let named = response.headers().get_all("oci-tag").iter();
        let mut tags: Vec<String> = named.filter_map(text).collect();
        if !is_digest {
            tags.push(self.reference.clone());
        }
        if tags.is_empty() {
            return vec![json!({"action": "INSERT", "digest": digest})];
        }
        let tags = tags.iter();
        tags.map(|tag| json!({"action": "INSERT", "digest": digest, "tag": of(':', tag)}))
            .collect()
    }
}

impl Pushed {
    /// Tells of a change that was made. It is durable before the client is answered.
    pub(crate) async fn tell(&self, change: &Change, messages: Vec<Value>) {
        let Some(topic) = self.topic(change).filter(|_| !messages.is_empty()) else {
            return;
        };
        let messages = messages.iter().map(|said| Message {
            data: Bytes::from(said.to_string()),
            ..Message::default()
        });
        if let Err(status) = self.pubsub.publish(&topic, messages.collect()).await {
            tracing::error!(%topic, %status, "a pushed image could not be told of");
        }
    }

    /// The topic of the image's project, `HOST/PROJECT/...`; of the default project where that is none.
    fn topic(&self, change: &Change) -> Option<TopicName> {
        let said = change.repository.split('/').nth(1).unwrap_or_default();
        [said, &self.default_project]
            .map(|project| TopicName {
                project: project.to_owned(),
                id: TOPIC.to_owned(),
            })
            .into_iter()
            .find(|topic| self.pubsub.has_topic(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(method: Method, path: &str) -> Option<Change> {
        let request = Request::builder().method(method).uri(path);
        Change::of(
            &request
                .header("host", "us-docker.pkg.dev")
                .body(Body::empty())
                .unwrap(),
        )
    }

    fn told(method: Method, path: &str, tags: &[&str]) -> Vec<String> {
        let mut response = Response::builder().header("docker-content-digest", "sha256:1234");
        for tag in tags {
            response = response.header("oci-tag", *tag);
        }
        let response = response.body(Body::empty()).unwrap();
        let messages = change(method, path).unwrap().messages(&response);
        messages.iter().map(Value::to_string).collect()
    }

    #[test]
    fn what_is_told_is_what_artifact_registry_tells() {
        let image = "us-docker.pkg.dev/demo/apps/hello";
        let digest = format!("{image}@sha256:1234");
        assert_eq!(
            told(Method::PUT, "/v2/demo/apps/hello/manifests/v1", &[]),
            [format!(
                r#"{{"action":"INSERT","digest":"{digest}","tag":"{image}:v1"}}"#
            )]
        );
        let by_digest = "/v2/demo/apps/hello/manifests/sha256:1234";
        assert_eq!(
            told(Method::PUT, by_digest, &[]),
            [format!(r#"{{"action":"INSERT","digest":"{digest}"}}"#)]
        );
        assert_eq!(told(Method::PUT, by_digest, &["a", "b"]).len(), 2);
        assert_eq!(
            told(Method::DELETE, by_digest, &[]),
            [format!(r#"{{"action":"DELETE","digest":"{digest}"}}"#)]
        );
        assert_eq!(
            told(Method::DELETE, "/v2/demo/apps/hello/manifests/v1", &[]),
            [format!(r#"{{"action":"DELETE","tag":"{image}:v1"}}"#)]
        );
    }

    #[test]
    fn nothing_else_is_a_change() {
        assert_eq!(
            change(Method::GET, "/v2/demo/apps/hello/manifests/v1"),
            None
        );
        assert_eq!(
            change(Method::PUT, "/v2/demo/apps/hello/blobs/uploads/7"),
            None
        );
    }
}
