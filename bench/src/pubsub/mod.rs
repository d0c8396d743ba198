//! `bench pubsub`: messages over the wire, as clients send them, to a whole Lauf and to what others use for the same: Google's emulator,
//! NATS JetStream and Redis Streams, in the same run and in turn.

mod endpoint;
mod google;
mod nats;
mod redis;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::machine;
use crate::stats::{Times, heading, median};

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
    /// Messages that are published one after the other in each round, and that are pushed.
    #[arg(long, default_value_t = 200)]
    singles: usize,
    /// Rounds, each with every peer.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these: lauf, lauf-on-nats, emulator, nats, redis.
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
    fn publishing(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Something that takes messages and gives them to others.
#[async_trait]
trait Peer: Send {
    /// Its name in the table.
    fn name(&self) -> &'static str;
    /// What it has done with a message when it acknowledges it.
    fn durability(&self) -> &'static str;
    /// Makes a topic with a subscription, or what it has in their place; later calls are about these.
    async fn begin(&mut self, round: usize) -> anyhow::Result<()>;
    /// Publishes batches for a while. Says how many messages were acknowledged, and in what time.
    async fn publish(&mut self, options: &Options) -> anyhow::Result<(usize, Duration)>;
    /// Pulls and acknowledges so many messages, and says in what time.
    async fn pull(&mut self, messages: usize) -> anyhow::Result<Duration>;
    /// Publishes messages one after the other; says what each took.
    async fn singles(&mut self, options: &Options) -> anyhow::Result<Vec<Duration>>;
    /// The same with a subscription that pushes: until the endpoint has it. Nothing where there is no push.
    async fn pushes(&mut self, options: &Options) -> anyhow::Result<Vec<Duration>>;
}

/// What has been measured of a peer.
#[derive(Default)]
struct Figures {
    published: Vec<f64>,
    pulled: Vec<f64>,
    singles: Vec<Duration>,
    pushes: Vec<Duration>,
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
    let mut peers = Vec::new();
    for name in ["lauf", "lauf-on-nats", "emulator", "nats", "redis"] {
        if !options.peers.is_empty() && !options.peers.iter().any(|wanted| wanted == name) {
            continue;
        }
        match start(name, options).await {
            Ok(peer) => peers.push((peer, Figures::default())),
            Err(why) => println!("{name}: not measured: {why:#}"),
        }
    }
    for round in 0..options.rounds {
        for (peer, figures) in &mut peers {
            let name = peer.name();
            one_round(&mut **peer, round, options, figures)
                .await
                .with_context(|| format!("{name}, round {round}"))?;
        }
    }
    tell(&peers, options)
}

async fn start(name: &str, options: &Options) -> anyhow::Result<Box<dyn Peer>> {
    let dir = tempfile::tempdir_in(&options.dir)?;
    Ok(match name {
        "lauf" => Box::new(google::Google::lauf(dir).await?),
        "lauf-on-nats" => Box::new(google::Google::lauf_on_nats(dir).await?),
        "emulator" => Box::new(google::Google::emulator(dir).await?),
        "nats" => Box::new(nats::Nats::start(dir).await?),
        _ => Box::new(redis::Redis::start(dir).await?),
    })
}

async fn one_round(
    peer: &mut dyn Peer,
    round: usize,
    options: &Options,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    peer.begin(round).await?;
    let (messages, time) = peer.publish(options).await?;
    figures.published.push(rate(messages, time)?);
    let time = peer.pull(messages).await?;
    figures.pulled.push(rate(messages, time)?);
    figures.singles.extend(peer.singles(options).await?);
    figures.pushes.extend(peer.pushes(options).await?);
    Ok(())
}

fn rate(messages: usize, time: Duration) -> anyhow::Result<f64> {
    Ok(f64::from(u32::try_from(messages)?) / time.as_secs_f64())
}

fn tell(peers: &[(Box<dyn Peer>, Figures)], options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    println!(
        "messages of {} bytes, batches of {}, {} on their way; medians of {} rounds",
        options.size, options.batch, options.batches, options.rounds
    );
    println!(
        "{:<16}{:>14}{:>14}  acknowledged is",
        "", "published/s", "pulled/s"
    );
    for (peer, figures) in peers {
        let (published, pulled) = (median(&figures.published), median(&figures.pulled));
        println!(
            "{:<16}{published:>14.0}{pulled:>14.0}  {}",
            peer.name(),
            peer.durability()
        );
        rows.push(json!({
            "peer": peer.name(), "durability": peer.durability(),
            "published_per_second": published, "pulled_per_second": pulled,
        }));
    }
    for (what, of) in [
        (
            "one publish",
            (|f| &f.singles) as fn(&Figures) -> &Vec<Duration>,
        ),
        ("publish to push", |f| &f.pushes),
    ] {
        println!("{}", heading(what));
        for ((peer, figures), row) in peers.iter().zip(&mut rows) {
            let times = of(figures);
            if times.is_empty() {
                println!("{:<28}       does not push", peer.name());
                continue;
            }
            let times = Times::new(times.clone());
            println!("{:<28}{}", peer.name(), times.columns());
            row[what] = times.json();
        }
    }
    println!("load average: {}", machine::load());
    crate::write(options.json.as_deref(), "pubsub", &rows as &[Value])
}
