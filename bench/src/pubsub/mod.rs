//! `bench pubsub`: messages over the wire, as clients send them, to a whole Lauf and to what others use for the same: Google's emulator,
//! NATS JetStream and Redis Streams, in the same run and in turn.

mod endpoint;
mod google;
mod nats;
mod redis;
mod server;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::machine::{self, now};
use crate::stats::{Times, heading, median, rate};

/// Everybody, in the order of the table.
const PEERS: [&str; 7] = [
    "lauf",
    "lauf-on-nats",
    "emulator",
    "nats",
    "nats-lazy",
    "redis",
    "rabbitmq",
];

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Bytes of a message.
    #[arg(long, default_value_t = 1_024)]
    size: usize,
    /// Messages in a batch: what Google's clients send at once when there is much to send.
    #[arg(long, default_value_t = 100)]
    batch: usize,
    /// Batches on their way at a time.
    #[arg(long, default_value_t = 16)]
    batches: usize,
    /// Seconds of publishing in each round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Seconds after which a peer has shown how fast its messages are pulled.
    #[arg(long, default_value_t = 8)]
    pull_seconds: u64,
    /// Messages that a subscriber has before it acknowledges any: what Google's clients say by themselves.
    #[arg(long, default_value_t = 1_000)]
    outstanding: u32,
    /// Messages that are published one after the other in each round, and that are pushed.
    #[arg(long, default_value_t = 200)]
    singles: usize,
    /// Rounds, each with every peer.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these: lauf, lauf-on-nats, emulator, nats, nats-lazy, redis, rabbitmq.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// A folder on the disk that all of them write to.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Write the result here, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Options {
    fn pulling(&self) -> Duration {
        Duration::from_secs(self.pull_seconds)
    }
}

/// Something that takes messages and gives them to others.
#[async_trait]
trait Peer: Send {
    /// Its name in the table.
    fn name(&self) -> &'static str;
    /// What it has done with a message when it acknowledges it.
    fn durability(&self) -> &'static str;
    /// The processes that do its work.
    fn processes(&self) -> anyhow::Result<Vec<u32>>;
    /// Makes a topic with a subscription, or what it has in their place; later calls are about these.
    async fn begin(&mut self, round: usize) -> anyhow::Result<()>;
    /// Publishes batches for a while. Says how many messages were acknowledged, and in what time.
    async fn publish(&mut self, options: &Options) -> anyhow::Result<(usize, Duration)>;
    /// Pulls and acknowledges so many messages, or as many as it can in the time that there is for it.
    async fn pull(
        &mut self,
        messages: usize,
        options: &Options,
    ) -> anyhow::Result<(usize, Duration)>;
    /// Publishes messages one after the other; says what each took.
    async fn singles(&mut self, options: &Options) -> anyhow::Result<Vec<Duration>>;
    /// The same with a subscription that pushes: until the endpoint has it. Nothing where there is no push.
    async fn pushes(&mut self, options: &Options) -> anyhow::Result<Vec<Duration>>;
    /// Takes away what [`Peer::begin`] made, so that no round is in the way of the next.
    async fn end(&mut self) -> anyhow::Result<()>;
}

/// A peer, with what has been measured of it.
struct Row {
    peer: Box<dyn Peer>,
    figures: Figures,
    /// Why it is measured no further.
    failed: Option<String>,
}

/// What has been measured of a peer.
#[derive(Default)]
struct Figures {
    published: Vec<f64>,
    /// Microseconds of processor time for each message.
    publish_cpu: Vec<f64>,
    pulled: Vec<f64>,
    pull_cpu: Vec<f64>,
    singles: Vec<Duration>,
    pushes: Vec<Duration>,
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    machine::check()?;
    machine::on_two_threads(measure(options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for name in PEERS {
        if !options.peers.is_empty() && !options.peers.iter().any(|wanted| wanted == name) {
            continue;
        }
        match start(name, options).await {
            Ok(peer) => rows.push(Row {
                peer,
                figures: Figures::default(),
                failed: None,
            }),
            Err(why) => println!("{name}: NOT MEASURED: {why:#}"),
        }
    }
    let disk = tempfile::tempdir_in(&options.dir)?;
    let mut bare = Vec::new();
    for round in 0..options.rounds {
        rustix::fs::sync();
        bare.extend(machine::synced(disk.path(), options.size, options.singles)?);
        for row in rows.iter_mut().filter(|row| row.failed.is_none()) {
            let done = one_round(&mut *row.peer, round, options, &mut row.figures).await;
            row.failed = done.err().map(|why| format!("round {round}: {why:#}"));
        }
    }
    tell(&rows, Times::new(bare), options)
}

async fn start(name: &str, options: &Options) -> anyhow::Result<Box<dyn Peer>> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    Ok(match name {
        "lauf" => Box::new(google::Google::lauf(dir).await?),
        "lauf-on-nats" => Box::new(google::Google::lauf_on_nats(dir).await?),
        "emulator" => Box::new(google::Google::emulator(dir).await?),
        "nats" => Box::new(nats::Nats::synced(dir).await?),
        "nats-lazy" => Box::new(nats::Nats::lazy(dir).await?),
        "redis" => Box::new(redis::Redis::start(dir).await?),
        _ => bail!("nobody has written a client of it here"),
    })
}

async fn one_round(
    peer: &mut dyn Peer,
    round: usize,
    options: &Options,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    // What others have left the disk to do is not this one's.
    rustix::fs::sync();
    peer.begin(round).await?;
    figures.singles.extend(peer.singles(options).await?);
    figures.pushes.extend(peer.pushes(options).await?);
    let before = busy(peer)?;
    let (messages, time) = peer.publish(options).await?;
    let between = busy(peer)?;
    figures.published.push(rate(messages, time)?);
    figures.publish_cpu.push(each(between - before, messages)?);
    let (messages, time) = peer.pull(messages, options).await?;
    figures.pulled.push(rate(messages, time)?);
    figures
        .pull_cpu
        .push(each(busy(peer)?.saturating_sub(between), messages)?);
    peer.end().await
}

/// Processor time of a peer so far.
fn busy(peer: &dyn Peer) -> anyhow::Result<Duration> {
    peer.processes()?.into_iter().map(machine::cpu).sum()
}

/// Microseconds for each message.
fn each(time: Duration, messages: usize) -> anyhow::Result<f64> {
    Ok(time.as_secs_f64() * 1e6 / f64::from(u32::try_from(messages)?))
}

/// For how long is published.
#[derive(Clone, Copy)]
struct While {
    begin: Instant,
    length: Duration,
}

impl While {
    fn lasts(&self) -> bool {
        self.begin.elapsed() < self.length
    }
}

/// Publishes from several at a time for a while: each publisher says how many of its messages were acknowledged.
async fn side_by_side<F>(
    options: &Options,
    publisher: impl Fn(While) -> F,
) -> anyhow::Result<(usize, Duration)>
where
    F: Future<Output = anyhow::Result<usize>> + Send + 'static,
{
    let publishing = While {
        begin: now(),
        length: Duration::from_secs(options.seconds),
    };
    let mut publishers = JoinSet::new();
    for _ in 0..options.batches {
        publishers.spawn(publisher(publishing));
    }
    let mut messages = 0;
    while let Some(published) = publishers.join_next().await {
        messages += published??;
    }
    Ok((messages, publishing.begin.elapsed()))
}

fn tell(peers: &[Row], bare: Times, options: &Options) -> anyhow::Result<()> {
    println!(
        "messages of {} bytes, batches of {}, {} on their way; medians of {} rounds; µs of its processors for each message",
        options.size, options.batch, options.batches, options.rounds
    );
    println!(
        "{:<16}{:>12}{:>8}{:>12}{:>8}  acknowledged is",
        "", "published/s", "µs", "pulled/s", "µs"
    );
    let mut rows = Vec::new();
    for Row {
        peer,
        figures,
        failed,
    } in peers
    {
        let [published, publish_cpu, pulled, pull_cpu] = [
            &figures.published,
            &figures.publish_cpu,
            &figures.pulled,
            &figures.pull_cpu,
        ]
        .map(|figures| median(figures));
        println!(
            "{:<16}{published:>12.0}{publish_cpu:>8.1}{pulled:>12.0}{pull_cpu:>8.1}  {}",
            peer.name(),
            peer.durability()
        );
        if let Some(why) = failed {
            println!("{:<16}NOT MEASURED TO THE END: {why}", "");
        }
        rows.push(json!({
            "peer": peer.name(), "durability": peer.durability(), "failed": failed,
            "published_per_second": published, "publish_cpu_us": publish_cpu,
            "pulled_per_second": pulled, "pull_cpu_us": pull_cpu,
        }));
    }
    latencies("one publish", peers, &mut rows, |figures| &figures.singles);
    latencies("publish to push", peers, &mut rows, |figures| {
        &figures.pushes
    });
    println!("{:<28}{}", "a bare fdatasync", bare.columns());
    rows.push(json!({ "peer": "a bare fdatasync", "one publish": bare.json() }));
    println!("load average: {}", machine::load());
    crate::write(options.json.as_deref(), "pubsub", &rows as &[Value])
}

fn latencies(
    what: &str,
    peers: &[Row],
    rows: &mut [Value],
    of: impl Fn(&Figures) -> &Vec<Duration>,
) {
    println!("{}", heading(what));
    for (row, shown) in peers.iter().zip(rows) {
        let times = Times::new(of(&row.figures).clone());
        if times.len() == 0 {
            println!("{:<28}       does not push", row.peer.name());
            continue;
        }
        println!("{:<28}{}", row.peer.name(), times.columns());
        shown[what] = times.json();
    }
}
