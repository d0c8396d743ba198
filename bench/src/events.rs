//! `bench events`: Pub/Sub's core in one process, without the wire: publishes that are durable when they are
//! answered, beside the bare disk; a stream of pulls; and from a publish to the push of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use lauf_events::log::MessageLog as _;
use lauf_events::{CallError, Caller, Identity};
use lauf_model::{Clock, SystemClock};
use lauf_store::Store;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::in_process::{self, make, message, said};
use crate::machine::{self, now};
use crate::stats::{Times, heading, rate};

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
    machine::on_two_threads(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let disk = machine::synced(dir.path(), options.size, options.rounds)?;
    let (calls, mut pushed) = mpsc::unbounded_channel();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = Store::open(dir.path().join("state.db"))?;
    let caller = Arc::new(Answers(calls));
    let (pubsub, log) = in_process::start(dir.path(), store, clock, caller).await?;

    let single = make(&pubsub, "single", None).await?.0;
    let mut alone = Vec::new();
    for _ in 0..options.rounds {
        let begin = now();
        said(pubsub.publish(&single, vec![message(options.size)]).await)?;
        alone.push(begin.elapsed());
    }

    let (bulk, work) = make(&pubsub, "bulk", None).await?;
    let batch = vec![message(options.size); options.batch];
    let publishing = (batch, options.publishers);
    let published = in_process::publish(&pubsub, &bulk, options.messages, publishing).await?;
    let (_, pulled) = in_process::pull(&pubsub, &work, options.messages).await?;

    let (topic, _) = make(&pubsub, "push", Some("http://worker.example/")).await?;
    let mut pushes = Vec::new();
    for _ in 0..options.rounds {
        let begin = now();
        said(pubsub.publish(&topic, vec![message(options.size)]).await)?;
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
        let rate = rate(options.messages, time)?;
        println!("{what:<28}{rate:>10.0} messages a second");
        rows.push(json!({ "what": what, "messages": options.messages, "per_second": rate }));
    }
    println!("load average: {}", machine::load());
    crate::write(options.json.as_deref(), "events", &rows as &[Value])
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
