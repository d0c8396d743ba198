//! `bench backlog`: a subscription that nobody reads while messages come by the million. What they cost in memory, and whether publishing
//! and pulling are as fast as before.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use lauf_events::log::{EmbeddedConfig, EmbeddedLog, MessageLog as _};
use lauf_events::pubsub::{
    Deps, Message, PubSub, Subscription, SubscriptionName, Topic, TopicName,
};
use lauf_events::{CallError, Caller, Identity};
use lauf_model::{Clock, Status, SystemClock};
use lauf_store::Store;
use serde_json::{Value, json};

use crate::machine::{self, now};

/// Messages in a request: as many as one may have.
const BATCH: usize = 1_000;
/// Requests on their way.
const PUBLISHERS: usize = 8;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Messages that wait in the end.
    #[arg(long, default_value_t = 10_000_000)]
    messages: usize,
    /// Bytes of each.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Messages that are pulled at the beginning and at the end.
    #[arg(long, default_value_t = 200_000)]
    pulled: usize,
    /// A folder on the disk that they are written to.
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
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let files = dir.path().join("events");
    let log = EmbeddedLog::open(&files, &EmbeddedConfig::default(), Arc::clone(&clock))?;
    let pubsub = PubSub::start(Deps {
        log: Arc::new(log.clone()),
        store: Store::open(dir.path().join("state.db"))?,
        clock,
        caller: Arc::new(Nobody),
    })
    .await?;
    let topic = said(TopicName::parse("", "projects/bench/topics/backlog"))?;
    let work = said(SubscriptionName::parse(
        "",
        "projects/bench/subscriptions/backlog",
    ))?;
    said(pubsub.create_topic(Topic::new(topic.clone())).await)?;
    let subscription = Subscription {
        ack_deadline: Duration::from_secs(600),
        ..Subscription::new(work.clone(), topic.clone())
    };
    said(pubsub.create_subscription(subscription).await)?;

    println!(
        "messages of {} bytes\n{:>12}{:>12}{:>14}{:>14}",
        options.size, "waiting", "memory MiB", "published/s", "pulled/s"
    );
    let mut rows = Vec::new();
    let mut waiting = 0;
    for step in 0..=10 {
        let wanted = match step {
            0 => options.pulled * 2,
            step => options.messages * step / 10,
        };
        let Some(missing) = wanted.checked_sub(waiting).filter(|missing| *missing > 0) else {
            continue;
        };
        let published = publish(&pubsub, &topic, missing, options).await?;
        waiting = wanted;
        let resident = machine::resident(std::process::id())?;
        // In between, pulling would take away what is to wait.
        let pulled = match step {
            0 | 10 => {
                waiting -= options.pulled;
                Some(pull(&pubsub, &work, options.pulled).await?)
            }
            _ => None,
        };
        let shown = pulled.map_or_else(String::new, |rate| format!("{rate:.0}"));
        let mib = resident >> 20;
        println!("{wanted:>12}{mib:>12}{published:>14.0}{shown:>14}");
        rows.push(json!({
            "waiting": wanted, "resident_bytes": resident, "published_per_second": published,
            "pulled_per_second": pulled,
        }));
    }
    log.close().await;
    println!("load average: {}", machine::load());
    crate::write(options.json.as_deref(), "backlog", &rows as &[Value])
}

/// Publishes so many messages; says how many a second.
async fn publish(
    pubsub: &PubSub,
    topic: &TopicName,
    messages: usize,
    options: &Options,
) -> anyhow::Result<f64> {
    let message = Message {
        data: Bytes::from(vec![b'x'; options.size]),
        ..Message::default()
    };
    let batch = vec![message; BATCH];
    let begin = now();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let rounds = (messages / BATCH + publisher) / PUBLISHERS;
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
    rate(messages, begin.elapsed())
}

/// Pulls and acknowledges at least so many messages; says how many a second.
async fn pull(pubsub: &PubSub, work: &SubscriptionName, messages: usize) -> anyhow::Result<f64> {
    let begin = now();
    let mut stream = said(
        pubsub
            .subscribe(work, 10_000, 0, Duration::from_secs(600))
            .await,
    )?;
    let mut got = 0;
    while got < messages {
        let hand = said(stream.next().await.context("the stream ended")?)?;
        got += hand.len();
        let ids: Vec<String> = hand.into_iter().map(|one| one.ack_id).collect();
        said(pubsub.acknowledge(work, &ids).await)?;
    }
    rate(got, begin.elapsed())
}

fn rate(messages: usize, time: Duration) -> anyhow::Result<f64> {
    Ok(f64::from(u32::try_from(messages)?) / time.as_secs_f64())
}

fn said<T>(result: Result<T, Status>) -> anyhow::Result<T> {
    result.map_err(|status| anyhow::anyhow!("{status}"))
}

/// Nothing is pushed here.
struct Nobody;

#[async_trait]
impl Caller for Nobody {
    async fn call(
        &self,
        _: Request<Bytes>,
        _: Option<Identity>,
        _: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        Ok(Response::new(Bytes::new()))
    }
}
