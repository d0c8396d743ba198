//! `bench backlog`: a subscription that nobody reads while messages come by the million. What they cost in memory, and whether publishing
//! and pulling are as fast as before.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use lauf_events::log::MessageLog as _;
use lauf_events::{CallError, Caller, Identity};
use lauf_model::{Clock, SystemClock};
use lauf_store::Store;
use serde_json::{Value, json};

use crate::in_process;
use crate::machine;
use crate::stats::rate;

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
    machine::on_two_threads(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = Store::open(dir.path().join("state.db"))?;
    let (pubsub, log) = in_process::start(dir.path(), store, clock, Arc::new(Nobody)).await?;
    let (topic, work) = in_process::make(&pubsub, "backlog", None).await?;
    let batch = vec![in_process::message(options.size); BATCH];

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
        let publishing = (batch.clone(), PUBLISHERS);
        let time = in_process::publish(&pubsub, &topic, missing, publishing).await?;
        let published = rate(missing, time)?;
        waiting = wanted;
        let resident = machine::resident(std::process::id())?;
        // In between, pulling would take away what is to wait.
        let pulled = match step {
            0 | 10 => {
                waiting -= options.pulled;
                let (got, time) = in_process::pull(&pubsub, &work, options.pulled).await?;
                Some(rate(got, time)?)
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
