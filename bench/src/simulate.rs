//! `bench simulate`: a live run and its simulation, side by side, on two loads.
//!
//! An app that waits as long as each request says runs on a platform of its own. What it was asked, what it logged and how long
//! its starts took is then played by `lauf simulate`, and the two are compared: instance-seconds, and the 99th percentile of
//! latency as the gateway measured it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::http1;
use crate::machine::{self, now};
use crate::platform::Platform;
use crate::sample::Sample;
use crate::stats::Times;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds of each load.
    #[arg(long, default_value_t = 45)]
    seconds: u32,
    /// Write the result here, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// How long an idle instance stays: the windows are 0.6 s and 6 s.
const IDLE: &str = "9s";
/// How long the app takes to listen.
const START_MS: &str = "700";

/// A request to come.
#[derive(Clone, Copy)]
struct Planned {
    at: Duration,
    takes_ms: u64,
}

struct Load {
    name: &'static str,
    concurrency: u32,
    plan: fn(u32) -> Vec<Planned>,
}

const LOADS: [Load; 2] = [
    Load {
        name: "waves",
        concurrency: 4,
        plan: waves,
    },
    Load {
        name: "bursts",
        concurrency: 1,
        plan: bursts,
    },
];

/// Numbers from 0 to 1 that are the same in each run (Weyl).
fn numbers() -> impl FnMut() -> f64 {
    let mut last = 0.0_f64;
    move || {
        last = (last + 0.618_033_988_749_895).fract();
        last
    }
}

/// Requests that come at random, from 2 to 40 a second and back, twice; most short, some long.
fn waves(seconds: u32) -> Vec<Planned> {
    let (mut number, mut place) = (numbers(), numbers());
    place();
    let (mut at, end) = (0.0, f64::from(seconds));
    let mut plan = Vec::new();
    while at < end {
        let wave = (at / end * 2.0 * std::f64::consts::TAU).cos();
        let rate = 21.0 - 19.0 * wave;
        at -= (1.0 - number()).max(1e-9).ln() / rate;
        let takes_ms = if place() < 0.9 { 120 } else { 700 };
        plan.push(planned(at, takes_ms));
    }
    plan
}

/// A dozen requests at once every twelve seconds, and now and then one between.
fn bursts(seconds: u32) -> Vec<Planned> {
    let mut plan = Vec::new();
    for burst in 0..seconds / 12 {
        let begin = f64::from(burst * 12);
        plan.extend((0..12).map(|i| planned(begin + f64::from(i) * 0.01, 400)));
        plan.push(planned(begin + 3.0, 250));
        plan.push(planned(begin + 6.5, 250));
    }
    plan
}

fn planned(at: f64, takes_ms: u64) -> Planned {
    Planned {
        at: Duration::from_secs_f64(at),
        takes_ms,
    }
}

/// What came of a load.
#[derive(Debug)]
struct Outcome {
    requests: usize,
    instance_seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    machine::check()?;
    let folder = tempfile::tempdir()?;
    let app = app(folder.path())?;
    let platform = Platform::up(&["--idle-timeout", IDLE])?;
    platform.pack(&app)?;
    println!(
        "{:<10}{:>10}{:>22}{:>22}{:>10}{:>10}",
        "load", "requests", "instance-seconds", "p99 ms", "", ""
    );
    let mut rows = Vec::new();
    for load in &LOADS {
        let (live, simulated) = compare(&platform, load, options.seconds)?;
        let off = |simulated: f64, live: f64| (simulated / live - 1.0) * 100.0;
        let seconds = off(simulated.instance_seconds, live.instance_seconds);
        let p99 = off(simulated.p99_ms, live.p99_ms);
        for (what, outcome) in [("live", &live), ("simulated", &simulated)] {
            println!(
                "{:<10}{:>10}{:>22.1}{:>22.1}{:>10}",
                load.name, outcome.requests, outcome.instance_seconds, outcome.p99_ms, what
            );
        }
        println!("{:<10}{:>10}{seconds:>+21.1}%{p99:>+21.1}%", "", "");
        let figures = |outcome: &Outcome| {
            json!({
                "requests": outcome.requests, "instance_seconds": outcome.instance_seconds,
                "p50_ms": outcome.p50_ms, "p99_ms": outcome.p99_ms,
            })
        };
        rows.push(json!({
            "load": load.name, "live": figures(&live), "simulated": figures(&simulated),
            "instance_seconds_off_percent": seconds, "p99_off_percent": p99,
        }));
    }
    crate::write(options.json.as_deref(), "simulate", &rows)
}

/// Builds the app of `tests/scaling`, which waits as long as it is asked to.
fn app(folder: &Path) -> anyhow::Result<Sample> {
    let rootfs = folder.join("rootfs");
    std::fs::create_dir(&rootfs)?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scaling/app.c");
    let status = Command::new("cc")
        .args(["-O1", "-static", "-pthread", "-o"])
        .args([&rootfs.join("app"), &source])
        .status()
        .context("cc, which builds the app, cannot be run")?;
    if !status.success() {
        bail!("cc failed on {}", source.display());
    }
    Ok(Sample {
        name: "waits".to_owned(),
        rootfs,
        entrypoint: vec!["/app".to_owned()],
        env: [("START_MS".to_owned(), START_MS.to_owned())].into(),
        workdir: "/".to_owned(),
    })
}

fn compare(platform: &Platform, load: &Load, seconds: u32) -> anyhow::Result<(Outcome, Outcome)> {
    let mut api = platform.api();
    let mut service = api.service(load.name, "waits", None);
    service["spec"]["template"]["spec"]["containerConcurrency"] = load.concurrency.into();
    let host = api.deploy(&service)?;
    api.wait_for_none(Some(load.name))?;
    let plan = (load.plan)(seconds);
    play(platform, &host, &plan)?;
    // What happened after the last answer counts for neither.
    let log = log(platform, load.name, plan.len())?;
    let live = live(&log)?;
    let output = platform.lauf(&[
        "simulate",
        "--from-service",
        load.name,
        "--base",
        &format!("idle-timeout={IDLE}"),
        "--format",
        "json",
    ])?;
    let report: Value = serde_json::from_slice(&output)?;
    let totals = &report["scenarios"][0]["totals"];
    let figure = |pointer: &str| {
        let value = totals.pointer(pointer).and_then(Value::as_f64);
        value.with_context(|| format!("no {pointer} in {totals}"))
    };
    let simulated = Outcome {
        requests: usize::try_from(totals["requests"].as_u64().unwrap_or(0))?,
        instance_seconds: figure("/instanceSeconds")?,
        p50_ms: figure("/latency/p50")?,
        p99_ms: figure("/latency/p99")?,
    };
    Ok((live, simulated))
}

/// Asks as planned, whatever becomes of what was asked before.
fn play(platform: &Platform, host: &str, plan: &[Planned]) -> anyhow::Result<()> {
    let begin = now();
    let failed: usize = thread::scope(|scope| {
        let clients: Vec<_> = plan
            .iter()
            .map(|request| {
                thread::sleep(request.at.saturating_sub(begin.elapsed()));
                let path = format!("/wait?{}", request.takes_ms);
                scope.spawn(move || {
                    let answer = http1::get(platform.address, host, &path);
                    usize::from(!answer.is_ok_and(|a| a.status == 200))
                })
            })
            .collect();
        let outcome = clients.into_iter().map(|client| client.join().unwrap_or(1));
        outcome.sum()
    });
    if failed > 0 {
        bail!("{failed} of {} requests failed", plan.len());
    }
    Ok(())
}

/// The log of a service, once it has all its requests.
fn log(platform: &Platform, service: &str, requests: usize) -> anyhow::Result<Vec<Value>> {
    let begin = now();
    loop {
        let words = ["logs", service, "-n", "100000", "--format", "json"];
        let entries: Vec<Value> = serde_json::from_slice(&platform.lauf(&words)?)?;
        let logged = entries.iter().filter(|e| e.get("httpRequest").is_some());
        if logged.count() >= requests {
            return Ok(entries);
        }
        if begin.elapsed() > Duration::from_secs(30) {
            bail!("not all requests of {service} come into its log");
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What happened live, from the first request to the last answer, as the log has it.
fn live(log: &[Value]) -> anyhow::Result<Outcome> {
    let seconds = |text: &Value| -> Option<f64> { text.as_str()?.strip_suffix('s')?.parse().ok() };
    let time = |entry: &Value| -> anyhow::Result<f64> {
        let time: Timestamp = entry["timestamp"].as_str().unwrap_or_default().parse()?;
        Ok(Duration::try_from(time.as_duration())?.as_secs_f64())
    };
    let mut latencies = Vec::new();
    let (mut first, mut last) = (f64::INFINITY, 0.0_f64);
    for entry in log {
        if let Some(latency) = seconds(&entry["httpRequest"]["latency"]) {
            let at = time(entry)?;
            first = first.min(at);
            last = last.max(at + latency);
            latencies.push(Duration::from_secs_f64(latency));
        }
    }
    let mut lives = std::collections::BTreeMap::new();
    for entry in log {
        let id = entry["labels"]["instanceId"].as_str().unwrap_or_default();
        let text = entry["textPayload"].as_str().unwrap_or_default();
        if let Some(took) = seconds(&entry["labels"]["lauf.dev/started-in"]) {
            lives.insert(id, (time(entry)? - took, last));
        } else if text.starts_with("Instance stopped")
            && let Some(life) = lives.get_mut(id)
        {
            life.1 = time(entry)?;
        }
    }
    let inside = |(from, to): &(f64, f64)| (to.min(last) - from.max(first)).max(0.0);
    let requests = latencies.len();
    let times = Times::new(latencies);
    Ok(Outcome {
        requests,
        instance_seconds: lives.values().map(inside).sum(),
        p50_ms: times.ms(50),
        p99_ms: times.ms(99),
    })
}
