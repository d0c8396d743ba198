//! Push: a subscriber within the house that sends each message to an endpoint and takes the answer for
//! an acknowledgement.
//!
//! How much is under way at a time follows the endpoint: it grows with each success and shrinks by
//! half with a failure, 429 among them, so that a service that is full is not flooded. Messages that
//! fail wait by the subscription's retry policy. With ordering, one message of a key is under way at
//! a time.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::ack_id::AckId;
use super::backlog::Appetite;
use super::message::Published;
use super::names::SubscriptionName;
use super::resource::{Oidc, Push};
use super::subscription::{Ask, Delivered};
use crate::call::{Caller, Identity};

/// How many messages are sent at a time at first, and at most.
const FIRST_WINDOW: usize = 16;
const MAX_WINDOW: usize = 1_000;
const MAX_BYTES: usize = 100 << 20;
/// The longest an endpoint may take, whatever the deadline.
const LONGEST: Duration = Duration::from_secs(600);

/// The type of the event that a message is.
pub const MESSAGE_PUBLISHED: &str = "google.cloud.pubsub.topic.v1.messagePublished";

/// What is needed to push.
#[derive(Clone)]
pub(super) struct Pusher {
    pub(super) name: SubscriptionName,
    pub(super) push: Push,
    pub(super) ack_deadline: Duration,
    pub(super) tag: u32,
    pub(super) mailbox: mpsc::WeakSender<Ask>,
    pub(super) caller: Arc<dyn Caller>,
}

/// What an attempt led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    Done,
    Failed,
}

impl Pusher {
    /// Pushes until the subscription ends, is detached or is changed.
    pub(super) async fn run(self) {
        let Some(mailbox) = self.mailbox.upgrade() else {
            return;
        };
        let mut window = Window(FIRST_WINDOW);
        let (reply, joined) = oneshot::channel();
        if mailbox
            .send(Ask::Join(self.appetite(&window), reply))
            .await
            .is_err()
        {
            return;
        }
        drop(mailbox);
        let Ok(Ok(mut subscriber)) = joined.await else {
            return;
        };
        let (report, mut reports) = mpsc::channel(MAX_WINDOW);
        loop {
            tokio::select! {
                hand = subscriber.next() => {
                    let Some(Ok(messages)) = hand else { return };
                    self.send_all(messages, &report);
                }
                Some(attempt) = reports.recv() => {
                    let before = window.0;
                    window.note(attempt);
                    if window.0 != before {
                        subscriber.set_limits(window.0, MAX_BYTES).await;
                    }
                }
            }
        }
    }

    fn appetite(&self, window: &Window) -> Appetite {
        Appetite {
            messages: window.0,
            bytes: MAX_BYTES,
            of_one_key: 1,
            ack_deadline: Some(self.ack_deadline),
        }
    }

    fn send_all(&self, messages: Vec<Delivered>, report: &mpsc::Sender<Attempt>) {
        for one in messages {
            let (pusher, report) = (self.clone(), report.clone());
            tokio::spawn(async move {
                let attempt = pusher.send(&one).await;
                pusher.tell(&one.ack_id, attempt).await;
                let _ = report.send(attempt).await;
            });
        }
    }

    async fn send(&self, one: &Delivered) -> Attempt {
        let Some(request) = request(&self.name, &self.push, one) else {
            return Attempt::Failed;
        };
        let identity = self
            .push
            .oidc
            .as_ref()
            .map(|oidc| identity(oidc, &self.push));
        let timeout = self.ack_deadline.min(LONGEST);
        match self.caller.call(request, identity, timeout).await {
            Ok(response) if is_ack(response.status()) => Attempt::Done,
            Ok(response) => {
                tracing::debug!(name = %self.name, status = %response.status(), "a push was refused");
                Attempt::Failed
            }
            Err(error) => {
                tracing::debug!(name = %self.name, %error, "a push failed");
                Attempt::Failed
            }
        }
    }

    async fn tell(&self, ack_id: &str, attempt: Attempt) {
        let (Some(id), Some(mailbox)) =
            (AckId::from_text(ack_id, self.tag), self.mailbox.upgrade())
        else {
            return;
        };
        // Nobody waits for the answer: a push is at least once.
        let (reply, _) = oneshot::channel();
        let ask = match attempt {
            Attempt::Done => Ask::Ack(vec![id], reply),
            Attempt::Failed => Ask::Modify(vec![(id, Duration::ZERO)], reply),
        };
        let _ = mailbox.send(ask).await;
    }
}

fn identity(oidc: &Oidc, push: &Push) -> Identity {
    Identity::Oidc {
        email: oidc.service_account.clone(),
        audience: if oidc.audience.is_empty() {
            push.endpoint.clone()
        } else {
            oidc.audience.clone()
        },
    }
}

/// The answers that say that a message is done.
fn is_ack(status: StatusCode) -> bool {
    matches!(status.as_u16(), 102 | 200 | 201 | 202 | 204)
}

/// How many messages are under way.
struct Window(usize);

impl Window {
    fn note(&mut self, attempt: Attempt) {
        self.0 = match attempt {
            Attempt::Done => (self.0 + 1).min(MAX_WINDOW),
            Attempt::Failed => (self.0 / 2).max(1),
        };
    }
}

/// The request that carries a message.
fn request(name: &SubscriptionName, push: &Push, one: &Delivered) -> Option<Request<Bytes>> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(&push.endpoint)
        .header(header::USER_AGENT, "CloudPubSub-Google")
        .header(header::ACCEPT, "application/json");
    if let Some(source) = &push.event_source {
        for (key, value) in [
            ("ce-specversion", "1.0"),
            ("ce-type", MESSAGE_PUBLISHED),
            ("ce-source", source),
            ("ce-id", &one.message.position.to_string()),
            ("ce-time", &one.message.time.to_string()),
        ] {
            request = request.header(key, value);
        }
    }
    let body = match push.unwrapped {
        _ if push.events => {
            for (key, value) in &one.message.message.attributes {
                if let (Ok(key), Ok(value)) =
                    (HeaderName::try_from(key), HeaderValue::try_from(value))
                {
                    request = request.header(key, value);
                }
            }
            one.message.message.data.clone()
        }
        None => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Bytes::from(wrapped(name, one).to_string())
        }
        Some(unwrapped) => {
            if unwrapped.write_metadata {
                for (key, value) in metadata(name, one) {
                    if let (Ok(key), Ok(value)) =
                        (HeaderName::try_from(key), HeaderValue::try_from(value))
                    {
                        request = request.header(key, value);
                    }
                }
            }
            one.message.message.data.clone()
        }
    };
    request.body(body).ok()
}

/// The message within what is said around it.
fn wrapped(name: &SubscriptionName, one: &Delivered) -> Value {
    let Published {
        position,
        time,
        message,
    } = &one.message;
    let mut inner = Map::new();
    let id = position.to_string();
    let time = time.to_string();
    if !message.attributes.is_empty() {
        inner.insert(
            "attributes".into(),
            message.attributes.clone().into_iter().collect(),
        );
    }
    if !message.data.is_empty() {
        inner.insert("data".into(), STANDARD.encode(&message.data).into());
    }
    // Both spellings: clients of either have come to rely on theirs.
    inner.insert("messageId".into(), id.clone().into());
    inner.insert("message_id".into(), id.into());
    if !message.ordering_key.is_empty() {
        inner.insert("orderingKey".into(), message.ordering_key.clone().into());
    }
    inner.insert("publishTime".into(), time.clone().into());
    inner.insert("publish_time".into(), time.into());
    let mut outer = Map::new();
    outer.insert("message".into(), inner.into());
    outer.insert("subscription".into(), name.to_string().into());
    if let Some(attempt) = one.attempt {
        outer.insert("deliveryAttempt".into(), attempt.into());
    }
    outer.into()
}

/// What is said around an unwrapped message, as headers.
fn metadata(name: &SubscriptionName, one: &Delivered) -> Vec<(String, String)> {
    let message = &one.message.message;
    let mut headers: Vec<(String, String)> = message
        .attributes
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut add = |key: &str, value: String| {
        headers.push((format!("x-goog-pubsub-{key}"), value));
    };
    add("subscription-name", name.to_string());
    add("message-id", one.message.position.to_string());
    add("publish-time", one.message.time.to_string());
    if !message.ordering_key.is_empty() {
        add("ordering-key", message.ordering_key.clone());
    }
    if let Some(attempt) = one.attempt {
        add("delivery-attempt", attempt.to_string());
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::super::message::Message;
    use super::super::resource::Unwrapped;
    use super::*;
    use crate::log::Position;

    fn some() -> (SubscriptionName, Push, Delivered) {
        let name = SubscriptionName::parse("", "projects/demo/subscriptions/work").unwrap();
        let push = Push::new("http://worker.example/path?x=1".to_owned());
        let one = Delivered {
            ack_id: "a".to_owned(),
            message: Published {
                position: Position(7),
                time: Timestamp::UNIX_EPOCH,
                message: Message {
                    data: Bytes::from_static(b"hi"),
                    attributes: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
                    ordering_key: "o".to_owned(),
                },
            },
            attempt: Some(2),
        };
        (name, push, one)
    }

    #[test]
    fn an_event_has_its_attributes_as_headers() {
        let (name, mut push, one) = some();
        push.event_source = Some("//pubsub.googleapis.com/projects/demo/topics/t".to_owned());
        let request = request(&name, &push, &one).unwrap();
        let header = |key: &str| request.headers()[key].to_str().unwrap();
        assert_eq!(header("ce-type"), MESSAGE_PUBLISHED);
        assert_eq!(
            header("ce-source"),
            "//pubsub.googleapis.com/projects/demo/topics/t"
        );
        assert_eq!((header("ce-id"), header("ce-specversion")), ("7", "1.0"));
        assert_eq!(header("ce-time"), "1970-01-01T00:00:00Z");
        assert_eq!(header("content-type"), "application/json");
    }

    #[test]
    fn a_message_that_is_an_event_is_sent_as_one() {
        let (name, mut push, mut one) = some();
        push.events = true;
        one.message.message.attributes = BTreeMap::from([
            ("ce-type".to_owned(), "shop.order".to_owned()),
            ("content-type".to_owned(), "application/json".to_owned()),
            ("not a header".to_owned(), "x".to_owned()),
        ]);
        let request = request(&name, &push, &one).unwrap();
        assert_eq!(request.headers()["ce-type"], "shop.order");
        assert_eq!(request.headers()["content-type"], "application/json");
        assert_eq!(&request.body()[..], b"hi");
    }

    #[test]
    fn a_wrapped_message_says_all_there_is() {
        let (name, push, one) = some();
        let request = request(&name, &push, &one).unwrap();
        assert_eq!(request.uri(), "http://worker.example/path?x=1");
        let body: Value = serde_json::from_slice(request.body()).unwrap();
        let wanted = serde_json::json!({
            "deliveryAttempt": 2,
            "message": {
                "attributes": {"k": "v"},
                "data": "aGk=",
                "messageId": "7",
                "message_id": "7",
                "orderingKey": "o",
                "publishTime": "1970-01-01T00:00:00Z",
                "publish_time": "1970-01-01T00:00:00Z",
            },
            "subscription": "projects/demo/subscriptions/work",
        });
        assert_eq!(body, wanted);
    }

    #[test]
    fn an_unwrapped_message_is_its_data() {
        let (name, mut push, one) = some();
        push.unwrapped = Some(Unwrapped {
            write_metadata: true,
        });
        let request = request(&name, &push, &one).unwrap();
        assert_eq!(&request.body()[..], b"hi");
        let header = |name: &str| {
            request
                .headers()
                .get(name)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(header("k"), "v");
        assert_eq!(header("x-goog-pubsub-message-id"), "7");
        assert_eq!(header("x-goog-pubsub-ordering-key"), "o");
    }

    #[test]
    fn the_window_follows_the_endpoint() {
        let mut window = Window(FIRST_WINDOW);
        for _ in 0..10 {
            window.note(Attempt::Failed);
        }
        assert_eq!(window.0, 1);
        for _ in 0..5_000 {
            window.note(Attempt::Done);
        }
        assert_eq!(window.0, MAX_WINDOW);
    }
}
