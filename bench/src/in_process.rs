//! Pub/Sub's core in this process, without the wire, for what is measured of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use lauf_events::Caller;
use lauf_events::log::{EmbeddedConfig, EmbeddedLog};
use lauf_events::pubsub::{
    Deps, Message, PubSub, Push, Subscription, SubscriptionName, Topic, TopicName,
};
use lauf_model::{Clock, Status};
use lauf_store::Store;

use crate::machine::now;

/// As long as a subscriber may have a message.
const LEASE: Duration = Duration::from_secs(600);

/// Starts it in a folder; gives its log, too, to be closed.
pub(crate) async fn start(
    dir: &Path,
    store: Store,
    clock: Arc<dyn Clock>,
    caller: Arc<dyn Caller>,
) -> anyhow::Result<(PubSub, EmbeddedLog)> {
    let files = dir.join("events");
    let log = EmbeddedLog::open(files, &EmbeddedConfig::default(), Arc::clone(&clock))?;
    let pubsub = PubSub::start(Deps {
        log: Arc::new(log.clone()),
        store,
        clock,
        caller,
    });
    Ok((pubsub.await?, log))
}

/// Makes a topic with a subscription, which pushes where it is given an endpoint.
pub(crate) async fn make(
    pubsub: &PubSub,
    id: &str,
    endpoint: Option<&str>,
) -> anyhow::Result<(TopicName, SubscriptionName)> {
    let topic = said(TopicName::parse("", &format!("projects/bench/topics/{id}")))?;
    let path = format!("projects/bench/subscriptions/{id}");
    let name = said(SubscriptionName::parse("", &path))?;
    said(pubsub.create_topic(Topic::new(topic.clone())).await)?;
    let made = pubsub.create_subscription(Subscription {
        push: endpoint.map(|endpoint| Push::new(endpoint.to_owned())),
        ack_deadline: LEASE,
        expiration: None,
        ..Subscription::new(name.clone(), topic.clone())
    });
    said(made.await)?;
    Ok((topic, name))
}

/// A message of so many bytes.
pub(crate) fn message(size: usize) -> Message {
    Message {
        data: Bytes::from(vec![b'x'; size]),
        ..Message::default()
    }
}

/// Publishes a batch again and again from several publishers, as often as `messages` takes, and what is left one by one.
pub(crate) async fn publish(
    pubsub: &PubSub,
    topic: &TopicName,
    messages: usize,
    (batch, publishers): (Vec<Message>, usize),
) -> anyhow::Result<Duration> {
    let rounds = messages / batch.len();
    let begin = now();
    let publishing: Vec<_> = (0..publishers)
        .map(|publisher| {
            let rounds = (rounds + publisher) / publishers;
            let (pubsub, topic, batch) = (pubsub.clone(), topic.clone(), batch.clone());
            tokio::spawn(async move {
                for _ in 0..rounds {
                    pubsub.publish(&topic, batch.clone()).await?;
                }
                Ok::<(), Status>(())
            })
        })
        .collect();
    for publisher in publishing {
        said(publisher.await?)?;
    }
    for message in &batch[..messages % batch.len()] {
        said(pubsub.publish(topic, vec![message.clone()]).await)?;
    }
    Ok(begin.elapsed())
}

/// Pulls and acknowledges at least so many messages; says how many, and in what time.
pub(crate) async fn pull(
    pubsub: &PubSub,
    name: &SubscriptionName,
    messages: usize,
) -> anyhow::Result<(usize, Duration)> {
    let begin = now();
    let mut stream = said(pubsub.subscribe(name, 10_000, 0, LEASE).await)?;
    let mut got = 0;
    while got < messages {
        let hand = said(stream.next().await.context("the stream ended")?)?;
        got += hand.len();
        let ids: Vec<String> = hand.into_iter().map(|one| one.ack_id).collect();
        said(pubsub.acknowledge(name, &ids).await)?;
    }
    Ok((got, begin.elapsed()))
}

/// An answer of the core, for those who only tell what went wrong.
pub(crate) fn said<T>(result: Result<T, Status>) -> anyhow::Result<T> {
    result.map_err(|status| anyhow::anyhow!("{status}"))
}
