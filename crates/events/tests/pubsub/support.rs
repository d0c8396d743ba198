//! A Pub/Sub in a folder, and short ways to say what happens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use lauf_events::log::{EmbeddedConfig, EmbeddedLog, MessageLog as _, OpenError};
use lauf_events::pubsub::{
    Delivered, Deps, Message, PubSub, Subscription, SubscriptionName, Topic, TopicName,
};
use lauf_events::{CallError, Caller, Identity};
use lauf_model::{Clock, VirtualClock};
use lauf_store::Store;
use tokio::sync::mpsc;

/// A call that was made, and the way to answer it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) request: Request<Bytes>,
    pub(crate) identity: Option<Identity>,
    pub(crate) answer: tokio::sync::oneshot::Sender<Result<u16, CallError>>,
}

/// Hands every call to the test.
pub(crate) struct Calls(mpsc::UnboundedSender<Call>);

#[async_trait]
impl Caller for Calls {
    async fn call(
        &self,
        request: Request<Bytes>,
        identity: Option<Identity>,
        _timeout: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let call = Call {
            request,
            identity,
            answer,
        };
        let lost = || CallError::Unreachable("the test is over".to_owned());
        self.0.send(call).map_err(|_| lost())?;
        let status = answered.await.map_err(|_| lost())??;
        Ok(Response::builder()
            .status(status)
            .body(Bytes::new())
            .unwrap())
    }
}

/// A Pub/Sub that runs.
pub(crate) struct House {
    dir: tempfile::TempDir,
    log: EmbeddedLog,
    store: Store,
    pub(crate) clock: Arc<VirtualClock>,
    pub(crate) pubsub: PubSub,
    pub(crate) calls: mpsc::UnboundedReceiver<Call>,
}

pub(crate) fn open_log(dir: &Path, clock: Arc<dyn Clock>) -> EmbeddedLog {
    let config = EmbeddedConfig {
        segment_bytes: 64 << 10,
        ..EmbeddedConfig::default()
    };
    let mut tries = 1_000;
    loop {
        match EmbeddedLog::open(dir.join("events"), &config, Arc::clone(&clock)) {
            // A child that another test starts has the lock too, between its fork and its exec.
            Err(OpenError::InUse(_)) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other.unwrap(),
        }
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap(), Arc::new(VirtualClock::new())).await
    }

    async fn open(dir: tempfile::TempDir, clock: Arc<VirtualClock>) -> Self {
        let log = open_log(dir.path(), Arc::clone(&clock) as _);
        let store = Store::open(dir.path().join("state.db")).unwrap();
        let (calls, received) = mpsc::unbounded_channel();
        let deps = Deps {
            log: Arc::new(log.clone()),
            store: store.clone(),
            clock: Arc::clone(&clock) as _,
            caller: Arc::new(Calls(calls)),
        };
        Self {
            pubsub: PubSub::start(deps).await.unwrap(),
            dir,
            log,
            store,
            clock,
            calls: received,
        }
    }

    /// Stops, and starts again with what is on disk.
    pub(crate) async fn restart(self) -> Self {
        let Self {
            dir,
            log,
            store,
            clock,
            pubsub,
            ..
        } = self;
        drop(pubsub);
        log.close().await;
        store.close().await;
        Self::open(dir, clock).await
    }

    pub(crate) async fn topic(&self, id: &str) -> TopicName {
        self.pubsub.create_topic(a_topic(id)).await.unwrap().name
    }

    /// A subscription, changed as the test wants it.
    pub(crate) async fn subscription(
        &self,
        id: &str,
        topic: &TopicName,
        change: impl FnOnce(&mut Subscription),
    ) -> SubscriptionName {
        let mut spec = a_subscription(id, topic);
        change(&mut spec);
        self.pubsub.create_subscription(spec).await.unwrap().name
    }

    pub(crate) async fn publish(&self, topic: &TopicName, texts: &[&str]) -> Vec<String> {
        let messages = texts.iter().map(|t| text(t)).collect();
        self.pubsub.publish(topic, messages).await.unwrap()
    }

    pub(crate) async fn publish_keyed(&self, topic: &TopicName, messages: &[(&str, &str)]) {
        let keyed = |(key, data): &(&str, &str)| Message {
            ordering_key: (*key).to_owned(),
            ..text(data)
        };
        let messages = messages.iter().map(keyed).collect();
        self.pubsub.publish(topic, messages).await.unwrap();
    }

    /// What there is to pull now.
    pub(crate) async fn pull(&self, name: &SubscriptionName) -> Vec<Delivered> {
        self.pubsub.pull(name, 1_000, false).await.unwrap()
    }

    pub(crate) async fn ack(&self, name: &SubscriptionName, messages: &[Delivered]) {
        let refused = self.pubsub.acknowledge(name, &ids(messages)).await;
        assert_eq!(refused.unwrap(), []);
    }

    pub(crate) async fn nack(&self, name: &SubscriptionName, messages: &[Delivered]) {
        let zero = [Duration::ZERO];
        let ids = ids(messages);
        let refused = self.pubsub.modify_ack_deadline(name, &ids, &zero).await;
        assert_eq!(refused.unwrap(), []);
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

pub(crate) fn a_topic(id: &str) -> Topic {
    Topic::new(TopicName::parse("", &format!("projects/demo/topics/{id}")).unwrap())
}

pub(crate) fn a_subscription(id: &str, topic: &TopicName) -> Subscription {
    let name = format!("projects/demo/subscriptions/{id}");
    Subscription::new(SubscriptionName::parse("", &name).unwrap(), topic.clone())
}

pub(crate) fn text(data: &str) -> Message {
    Message {
        data: Bytes::copy_from_slice(data.as_bytes()),
        ..Message::default()
    }
}

pub(crate) fn ids(messages: &[Delivered]) -> Vec<String> {
    messages.iter().map(|m| m.ack_id.clone()).collect()
}

pub(crate) fn texts(messages: &[Delivered]) -> Vec<&str> {
    messages
        .iter()
        .map(|m| std::str::from_utf8(&m.message.message.data).unwrap())
        .collect()
}
