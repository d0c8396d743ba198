//! `bench events`: Pub/Sub's core in one process, without the wire: publishes that are durable when they are
//! answered, beside the bare disk; a stream of pulls; and from a publish to the push of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use lauf_events::log::{EmbeddedConfig, EmbeddedLog, MessageLog as _};
use lauf_events::pubsub::{
    Deps, Message, PubSub, Push, Subscription, SubscriptionName, Topic, TopicName,
};
use lauf_events::{CallError, Caller, Identity};
use lauf_model::{Clock, Status, SystemClock};
use lauf_store::Store;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::machine::{self, now};
use crate::stats::{Times, heading};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Messages that are published in batches, and pulled again.
    #[arg(long, default_value_t = 200_000)]
    messages: usize,
    /// Bytes of each.
    #[arg(long, default_value_t = 1_024)]
    size: usize,
    /// Messages in a batch.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Publishers at a time.
    #[arg(long, default_value_t = 16)]
    publishers: usize,
    /// Messages that are published one after the other, and that are pushed.
    #[arg(long, default_value_t = 500)]
    rounds: usize,
    /// A folder on the disk that is measured.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Write the result here, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    machine::check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let disk = machine::synced(dir.path(), options.size, options.rounds)?;
    let (calls, mut pushed) = mpsc::unbounded_channel();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let log = EmbeddedLog::open(
        dir.path().join("events"),
        &EmbeddedConfig::default(),
        Arc::clone(&clock),
    )?;
    let pubsub = PubSub::start(Deps {
        log: Arc::new(log.clone()),
        store: Store::open(dir.path().join("state.db"))?,
        clock,
        caller: Arc::new(Answers(calls)),
    })
    .await?;

    let single = make(&pubsub, "single", None).await?.0;
    let mut alone = Vec::new();
    for _ in 0..options.rounds {
        let begin = now();
        said(pubsub.publish(&single, vec![message(options)]).await)?;
        alone.push(begin.elapsed());
    }

    let (bulk, work) = make(&pubsub, "bulk", None).await?;
    let published = publish_all(&pubsub, &bulk, options).await?;
    let pulled = pull_all(&pubsub, &work, options.messages).await?;

    let (topic, _) = make(&pubsub, "push", Some("http://worker.example/")).await?;
    let mut pushes = Vec::new();
    for _ in 0..options.rounds {
        let begin = now();
        said(pubsub.publish(&topic, vec![message(options)]).await)?;
        let at: Instant = pushed.recv().await.context("nothing is pushed")?;
        pushes.push(at.saturating_duration_since(begin));
    }
    log.close().await;
    tell(options, [disk, alone, pushes], published, pulled)
}

fn tell(
    options: &Options,
    [disk, alone, pushes]: [Vec<Duration>; 3],
    published: Duration,
    pulled: Duration,
) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    println!(
        "{}",
        heading(&format!("{} bytes, in one process", options.size))
    );
    for (what, times) in [
        ("bare write and fdatasync", disk),
        ("publish, one at a time", alone),
        ("publish to push", pushes),
    ] {
        let times = Times::new(times);
        println!("{what:<28}{}", times.columns());
        let mut row = times.json();
        row["what"] = json!(what);
        rows.push(row);
    }
    for (what, time) in [
        ("publish, in batches", published),
        ("streaming pull", pulled),
    ] {
        let rate = f64::from(u32::try_from(options.messages)?) / time.as_secs_f64();
        println!("{what:<28}{rate:>10.0} messages a second");
        rows.push(json!({ "what": what, "messages": options.messages, "per_second": rate }));
    }
    println!("load average: {}", machine::load());
    crate::write(options.json.as_deref(), "events", &rows as &[Value])
}

async fn publish_all(
    pubsub: &PubSub,
    topic: &TopicName,
    options: &Options,
) -> anyhow::Result<Duration> {
    let batch = vec![message(options); options.batch];
    let rounds = options.messages / options.batch / options.publishers;
    let begin = now();
    let publishers: Vec<_> = (0..options.publishers)
        .map(|_| {
            let (pubsub, topic, batch) = (pubsub.clone(), topic.clone(), batch.clone());
            tokio::spawn(async move {
                for _ in 0..rounds {
                    pubsub.publish(&topic, batch.clone()).await?;
                }
                Ok::<(), Status>(())
            })
        })
        .collect();
    for publisher in publishers {
        said(publisher.await?)?;
    }
    // What does not divide evenly.
    let left = options.messages - rounds * options.batch * options.publishers;
    for _ in 0..left {
        said(pubsub.publish(topic, vec![message(options)]).await)?;
    }
    Ok(begin.elapsed())
}

async fn pull_all(
    pubsub: &PubSub,
    name: &SubscriptionName,
    messages: usize,
) -> anyhow::Result<Duration> {
    let begin = now();
    let deadline = Duration::from_secs(600);
    let mut stream = said(pubsub.subscribe(name, 10_000, 0, deadline).await)?;
    let mut got = 0;
    while got < messages {
        let hand = said(stream.next().await.context("the stream ended")?)?;
        got += hand.len();
        let ids: Vec<String> = hand.into_iter().map(|one| one.ack_id).collect();
        said(pubsub.acknowledge(name, &ids).await)?;
    }
    Ok(begin.elapsed())
}

async fn make(
    pubsub: &PubSub,
    id: &str,
    endpoint: Option<&str>,
) -> anyhow::Result<(TopicName, SubscriptionName)> {
    let topic = said(TopicName::parse("", &format!("projects/bench/topics/{id}")))?;
    let path = format!("projects/bench/subscriptions/{id}");
    let name = said(SubscriptionName::parse("", &path))?;
    let made = pubsub.create_topic(Topic::new(topic.clone()));
    said(made.await)?;
    let made = pubsub.create_subscription(Subscription {
        push: endpoint.map(|endpoint| Push::new(endpoint.to_owned())),
        ack_deadline: Duration::from_secs(60),
        expiration: None,
        ..Subscription::new(name.clone(), topic.clone())
    });
    said(made.await)?;
    Ok((topic, name))
}

fn message(options: &Options) -> Message {
    Message {
        data: Bytes::from(vec![b'x'; options.size]),
        ..Message::default()
    }
}

fn said<T>(result: Result<T, Status>) -> anyhow::Result<T> {
    result.map_err(|status| anyhow::anyhow!("{status}"))
}

/// An endpoint that takes everything at once, and notes when.
struct Answers(mpsc::UnboundedSender<Instant>);

#[async_trait]
impl Caller for Answers {
    async fn call(
        &self,
        _: Request<Bytes>,
        _: Option<Identity>,
        _: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let _ = self.0.send(now());
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = http::StatusCode::NO_CONTENT;
        Ok(response)
    }
}
