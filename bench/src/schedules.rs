//! `bench schedules`: Cloud Scheduler with very many jobs: what it costs while none is due, and how long after their minute those that
//! are due are called.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use jiff::{SignedDuration, Timestamp};
use lauf_events::log::MessageLog as _;
use lauf_events::scheduler::{self, Job, JobName, Retries, Scheduler, Target};
use lauf_events::{CallError, Caller, Identity};
use lauf_model::{Clock, SystemClock};
use lauf_store::{Resource as _, Store, Txn};
use serde_json::json;
use tokio::sync::mpsc;

use crate::in_process::{self, said};
use crate::machine::{self, now};
use crate::stats::{Times, heading, median};

const MINUTES_OF_A_DAY: usize = 24 * 60;
/// The most jobs that the store takes at once.
const AT_ONCE: usize = 1_000;
/// A minute is looked at from so long before it begins.
const BEFORE: SignedDuration = SignedDuration::from_secs(2);
/// And until so long after.
const AFTER: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Jobs.
    #[arg(long, default_value_t = 100_000)]
    jobs: usize,
    /// How many of them are due every minute, all others once a day, spread over its minutes.
    #[arg(long, default_value_t = 1_000)]
    due: usize,
    /// Minutes whose jobs are waited for.
    #[arg(long, default_value_t = 3)]
    minutes: usize,
    /// A folder for the store.
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
    fill(&store, options, clock.now()).await?;

    let (calls, mut called) = mpsc::unbounded_channel();
    let caller = Arc::new(Notes(calls, Arc::clone(&clock)));
    let (pubsub, log) = in_process::start(
        dir.path(),
        store.clone(),
        Arc::clone(&clock),
        Arc::clone(&caller) as _,
    )
    .await?;
    let begin = now();
    let scheduler = Scheduler::start(scheduler::Deps {
        store,
        clock: Arc::clone(&clock),
        caller,
        pubsub,
    })
    .await?;
    println!("{} jobs taken up in {:.1?}", options.jobs, begin.elapsed());

    let me = std::process::id();
    let (mut errors, mut idle) = (Vec::new(), Vec::new());
    for _ in 0..options.minutes {
        let minute = next_minute(clock.now());
        let begin = now();
        let before = machine::cpu(me)?;
        let rest = (minute - BEFORE).duration_since(clock.now());
        tokio::time::sleep(Duration::try_from(rest).unwrap_or_default()).await;
        if begin.elapsed() > Duration::from_secs(5) {
            let busy = machine::cpu(me)?.saturating_sub(before);
            idle.push(100.0 * busy.as_secs_f64() / begin.elapsed().as_secs_f64());
        }
        // What the start made up for, and what was due meanwhile.
        while called.try_recv().is_ok() {}
        let rest = Duration::try_from(minute.duration_since(clock.now())).unwrap_or_default();
        tokio::time::sleep(rest + AFTER).await;
        while let Ok(time) = called.try_recv() {
            let late: Timestamp = time;
            let late = Duration::try_from(late.duration_since(minute));
            errors.push(late.context("a job is called before its minute")?);
        }
    }
    drop(scheduler);
    log.close().await;

    let idle = median(&idle);
    let memory = machine::resident(me)? >> 20;
    println!("idle: {idle:.3} % of a core, {memory} MiB");
    println!("{}", heading("called after its minute"));
    let times = Times::new(errors);
    println!(
        "{:<28}{}",
        format!("{} calls", times.len()),
        times.columns()
    );
    println!("load average: {}", machine::load());
    let row = json!({ "jobs": options.jobs, "idle_percent": idle, "late": times.json() });
    crate::write(options.json.as_deref(), "schedules", &[row])
}

fn next_minute(time: Timestamp) -> Timestamp {
    let seconds = time.as_second().div_euclid(60) + 1;
    Timestamp::from_second(seconds * 60).unwrap_or(time)
}

/// Puts the jobs into the store, as those of a server that starts again.
async fn fill(store: &Store, options: &Options, now: Timestamp) -> anyhow::Result<()> {
    let all: Vec<usize> = (0..options.jobs).collect();
    for some in all.chunks(AT_ONCE) {
        let mut txn = Txn::new();
        for number in some {
            let job = job(*number, *number < options.due, now)?;
            txn = txn.put(Job::at(&job.name), job.body());
        }
        store.write(txn).await?;
    }
    Ok(())
}

fn job(number: usize, every_minute: bool, now: Timestamp) -> anyhow::Result<Job> {
    let minute = number % MINUTES_OF_A_DAY;
    let name = format!("projects/bench/locations/here/jobs/job-{number}");
    let today = now.as_second().div_euclid(86_400) * 86_400;
    let next = today + i64::try_from(minute)? * 60;
    let (next, schedule) = if every_minute {
        (next_minute(now).as_second(), "* * * * *".to_owned())
    } else {
        let next = next + if next <= now.as_second() { 86_400 } else { 0 };
        (next, format!("{} {} * * *", minute % 60, minute / 60))
    };
    Ok(Job {
        name: said(JobName::parse("", &name))?,
        description: String::new(),
        target: Target::Http {
            uri: "http://worker.example/".to_owned(),
            method: "POST".to_owned(),
            headers: BTreeMap::new(),
            body: Vec::new(),
            identity: None,
        },
        schedule,
        time_zone: "UTC".to_owned(),
        paused: false,
        retries: Retries::default(),
        deadline: Duration::from_secs(180),
        updated: now,
        again: 0,
        next: Some(Timestamp::from_second(next)?),
        last: None,
    })
}

/// Notes when it is called.
struct Notes(mpsc::UnboundedSender<Timestamp>, Arc<dyn Clock>);

#[async_trait]
impl Caller for Notes {
    async fn call(
        &self,
        _: Request<Bytes>,
        _: Option<Identity>,
        _: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let _ = self.0.send(self.1.now());
        Ok(Response::new(Bytes::new()))
    }
}
