//! `bench burst`: many services from zero at once, then starts as fast as two callers can cause them.

use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::http1;
use crate::machine::{self, now};
use crate::platform::Platform;
use crate::sample::Sample;
use crate::stats::{Times, heading};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Services, each with one instance to start.
    #[arg(long, default_value_t = 100)]
    services: usize,
    /// Bursts; all services are at zero before each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of starts one after the other; 0 leaves that part out.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Callers that cause those starts.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Prepared sandboxes that the server keeps [default: its own].
    #[arg(long)]
    pool: Option<u32>,
    /// Write the result here, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Runs the benchmark and prints its tables.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    machine::check()?;
    let pool = options.pool.map(|n| n.to_string());
    let mut arguments = vec!["--idle-timeout", "100ms"];
    arguments.extend(pool.iter().flat_map(|n| ["--pool", n.as_str()]));
    let platform = Platform::up(&arguments)?;
    platform.pack(&Sample::read("hello")?)?;
    let mut api = platform.api();
    let mut hosts = Vec::new();
    let begin = now();
    for number in 0..options.services {
        hosts.push(api.deploy(&api.service(&format!("hello-{number}"), "hello", None))?);
    }
    println!(
        "{} services deployed one after the other in {:.1} s",
        hosts.len(),
        begin.elapsed().as_secs_f64()
    );
    println!(
        "\nburst: {} services from zero at once, hello",
        options.services
    );
    println!("{}{:>14}", heading(""), "starts/s");
    let mut report = Vec::new();
    let mut all = Vec::new();
    for round in 1..=options.rounds {
        api.wait_for_none(None)?;
        thread::sleep(Duration::from_millis(500));
        let (times, whole) = burst(&platform, &hosts)?;
        all.extend_from_slice(&times);
        let times = Times::new(times);
        let rate = count(times.len()) / whole.as_secs_f64();
        println!("round {round:<22}{}{rate:>14.0}", times.columns());
        let mut row = times.json();
        row["round"] = json!(round);
        row["starts_per_second"] = json!(rate);
        report.push(row);
    }
    let all = Times::new(all);
    println!("{:<28}{}", "all rounds", all.columns());
    println!("load average: {}", machine::load());
    let mut row = all.json();
    row["round"] = json!("all");
    report.push(row);
    if options.seconds > 0 {
        api.wait_for_none(None)?;
        report.push(sustained(&platform, &hosts, options)?);
    }
    crate::write(options.json.as_deref(), "burst", &report)
}

/// Calls all at once; each answer's time from the common beginning.
fn burst(platform: &Platform, hosts: &[String]) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let gate = Barrier::new(hosts.len() + 1);
    thread::scope(|scope| {
        let callers: Vec<_> = hosts
            .iter()
            .map(|host| {
                let gate = &gate;
                thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn_scoped(scope, move || {
                        gate.wait();
                        let begin = now();
                        let answer = http1::get(platform.address, host, "/")?;
                        if answer.status != 200 {
                            bail!(
                                "{host} answered {}: {}",
                                answer.status,
                                String::from_utf8_lossy(&answer.body)
                            );
                        }
                        Ok(answer.at - begin)
                    })
            })
            .collect::<Result<_, _>>()?;
        gate.wait();
        let begin = now();
        let mut times = Vec::new();
        for caller in callers {
            times.push(
                caller
                    .join()
                    .map_err(|_| anyhow::anyhow!("a caller panicked"))??,
            );
        }
        Ok((times, begin.elapsed()))
    })
}

/// Each caller goes round its own share of the services; an answer that is an instance's first
/// counts as a start.
fn sustained(
    platform: &Platform,
    hosts: &[String],
    options: &Options,
) -> anyhow::Result<serde_json::Value> {
    let (server, keeper) = (platform.server()?, platform.keeper()?);
    let cpu = || -> anyhow::Result<(Duration, Duration)> {
        Ok((machine::cpu(server)?, machine::cpu(keeper)?))
    };
    let stop = AtomicBool::new(false);
    let before = cpu()?;
    let begin = now();
    let (cold, warm) = thread::scope(|scope| -> anyhow::Result<_> {
        let share = hosts.len().div_ceil(options.workers.max(1));
        let callers: Vec<_> = hosts
            .chunks(share.max(1))
            .map(|hosts| scope.spawn(|| go_round(platform, hosts, &stop)))
            .collect();
        thread::sleep(Duration::from_secs(options.seconds));
        stop.store(true, Ordering::Relaxed);
        let mut sum = (Vec::new(), 0_usize);
        for caller in callers {
            let (cold, warm) = caller
                .join()
                .map_err(|_| anyhow::anyhow!("a caller panicked"))??;
            sum.0.extend(cold);
            sum.1 += warm;
        }
        Ok(sum)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let after = cpu()?;
    let times = Times::new(cold);
    let starts = count(times.len());
    let rate = starts / seconds;
    let each = |of: Duration| of.as_secs_f64() * 1e3 / starts;
    let (server, keeper) = (each(after.0 - before.0), each(after.1 - before.1));
    println!(
        "\nsustained: {} callers for {seconds:.1} s",
        options.workers
    );
    println!("{}{:>14}", heading(""), "starts/s");
    println!("{:<28}{}{rate:>14.0}", "first answers", times.columns());
    println!(
        "answers of warm instances: {warm}; processor time of a start: server {server:.2} ms, keeper {keeper:.2} ms"
    );
    println!("load average: {}", machine::load());
    let mut row = times.json();
    row["sustained_starts_per_second"] = json!(rate);
    row["workers"] = json!(options.workers);
    row["server_cpu_ms_per_start"] = json!(server);
    row["keeper_cpu_ms_per_start"] = json!(keeper);
    Ok(row)
}

fn go_round(
    platform: &Platform,
    hosts: &[String],
    stop: &AtomicBool,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let (mut cold, mut warm) = (Vec::new(), 0);
    for host in hosts.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begin: Instant = now();
        let answer = http1::get(platform.address, host, "/info")?;
        let info: serde_json::Value = serde_json::from_slice(&answer.body)
            .with_context(|| format!("{host} answered {}", answer.status))?;
        if info["served"] == 1 {
            cold.push(answer.at - begin);
        } else {
            warm += 1;
        }
    }
    Ok((cold, warm))
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}
