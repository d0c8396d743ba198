//! Pub/Sub over REST, as much of it as the demo needs, at the address that asks for no credentials.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use serde_json::{Value, json};

use super::PROJECT;
use crate::client::{Target, rest};
use crate::clock;

/// How long results may stay away before they are given up.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// The most messages a request of `publish` takes here: far below the API's limit in bytes.
const BATCH: usize = 100;

/// A message: an attribute's value that tells it from the others, and the data.
pub(super) type Messages = BTreeMap<String, Vec<u8>>;

/// Lauf's Pub/Sub.
pub(super) struct PubSub {
    target: Target,
}

impl PubSub {
    /// The one at this address.
    pub(super) fn at(addr: SocketAddr) -> Self {
        Self {
            target: Target {
                addr,
                host: addr.to_string(),
            },
        }
    }

    /// Makes a topic, and returns its full name.
    pub(super) async fn topic(&self, name: &str) -> Result<String> {
        let topic = format!("{PROJECT}/topics/{name}");
        self.call(Method::PUT, &topic, &json!({})).await?;
        Ok(topic)
    }

    /// Makes a subscription of a topic with these further fields, and returns its full name.
    pub(super) async fn subscription(
        &self,
        name: &str,
        topic: &str,
        mut fields: Value,
    ) -> Result<String> {
        let subscription = format!("{PROJECT}/subscriptions/{name}");
        fields["topic"] = topic.into();
        self.call(Method::PUT, &subscription, &fields).await?;
        Ok(subscription)
    }

    /// Publishes messages, each with its key as the attribute `attribute`.
    pub(super) async fn publish(
        &self,
        topic: &str,
        attribute: &str,
        messages: &Messages,
    ) -> Result<()> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|(key, data)| json!({"data": STANDARD.encode(data), "attributes": {attribute: key}}))
            .collect();
        for batch in messages.chunks(BATCH) {
            let body = json!({ "messages": batch });
            self.call(Method::POST, &format!("{topic}:publish"), &body)
                .await?;
        }
        Ok(())
    }

    /// Pulls until there are `want` messages with different values of the attribute. One that comes twice counts once, as it may.
    ///
    /// # Errors
    /// When nothing new has come for [`PATIENCE`], or more came than were wanted.
    pub(super) async fn collect(
        &self,
        subscription: &str,
        attribute: &str,
        want: usize,
    ) -> Result<Messages> {
        let mut found = Messages::new();
        let mut last = clock::now();
        while found.len() < want {
            let before = found.len();
            self.pull(subscription, attribute, &mut found).await?;
            if found.len() > before {
                last = clock::now();
            } else {
                ensure!(
                    last.elapsed() < PATIENCE,
                    "{} of {want} results came, and then none for {} s",
                    found.len(),
                    PATIENCE.as_secs()
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
        ensure!(
            found.len() == want,
            "{} results came, not {want}",
            found.len()
        );
        Ok(found)
    }

    async fn pull(&self, subscription: &str, attribute: &str, found: &mut Messages) -> Result<()> {
        let body = json!({"maxMessages": BATCH, "returnImmediately": true});
        let answer = self
            .call(Method::POST, &format!("{subscription}:pull"), &body)
            .await?;
        let received = answer["receivedMessages"].as_array();
        let mut done = Vec::new();
        for received in received.into_iter().flatten() {
            let (key, data) = read(&received["message"], attribute)?;
            found.insert(key, data);
            done.push(received["ackId"].clone());
        }
        if !done.is_empty() {
            let body = json!({ "ackIds": done });
            self.call(Method::POST, &format!("{subscription}:acknowledge"), &body)
                .await?;
        }
        Ok(())
    }

    async fn call(&self, method: Method, name: &str, body: &Value) -> Result<Value> {
        rest::call(&self.target, method, &format!("/v1/{name}"), None, body).await
    }
}

/// Key and data of a message.
fn read(message: &Value, attribute: &str) -> Result<(String, Vec<u8>)> {
    let key = message["attributes"][attribute]
        .as_str()
        .with_context(|| format!("a message without the attribute {attribute}: {message}"))?;
    let data = message["data"].as_str().unwrap_or_default();
    let data = STANDARD
        .decode(data)
        .context("a message whose data is no base64")?;
    Ok((key.to_owned(), data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_by_its_key() {
        let message = json!({"data": "aGk=", "attributes": {"id": "7"}});
        assert_eq!(
            read(&message, "id").unwrap(),
            ("7".to_owned(), b"hi".to_vec())
        );
        let missing = read(&message, "part").unwrap_err().to_string();
        assert!(missing.contains("attribute part"), "{missing}");
    }
}
