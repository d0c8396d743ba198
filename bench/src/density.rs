//! `bench density`: what an idle instance costs the machine.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;

use crate::machine::{self, now};
use crate::platform::{Instances, Platform};
use crate::sample::Sample;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Idle instances of hello.
    #[arg(long, default_value_t = 1000)]
    instances: u32,
    /// Instances of one service.
    #[arg(long, default_value_t = 100)]
    each: u32,
    /// Seconds until what was started has come to rest.
    #[arg(long, default_value_t = 5)]
    rest: u64,
    /// Write the result here, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The longest the instances may take to start.
const PATIENCE: Duration = Duration::from_secs(300);

struct State {
    available: u64,
    resident: [u64; 2],
    descriptors: [usize; 2],
    cpu: [Duration; 2],
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    machine::check()?;
    let platform = Platform::up(&["--idle-timeout", "300ms"])?;
    platform.pack(&Sample::read("hello")?)?;
    let mut api = platform.api();
    // Started once before, so that what every instance shares is not counted.
    api.deploy(&api.service("first", "hello", None))?;
    api.wait_for_none(None)?;
    thread::sleep(Duration::from_secs(1));
    let processes = [platform.server()?, platform.keeper()?];
    let before = state(processes)?;
    let begin = now();
    let (mut left, mut number) = (options.instances, 0);
    while left > 0 {
        let some = left.min(options.each.clamp(1, 1000));
        api.create(&api.service(&format!("dense-{number}"), "hello", Some(some)))?;
        left -= some;
        number += 1;
    }
    let mut seen = Instances::default();
    while seen.ready < u64::from(options.instances) {
        if begin.elapsed() > PATIENCE {
            bail!("of {} instances: {seen:?}", options.instances);
        }
        thread::sleep(Duration::from_millis(100));
        seen = api.instances(None)?;
    }
    let started = begin.elapsed();
    thread::sleep(Duration::from_secs(options.rest));
    let after = state(processes)?;
    thread::sleep(Duration::from_secs(5));
    let later = state(processes)?;
    let alive = api.instances(None)?;

    let n = f64::from(options.instances);
    let memory = kib(before.available) - kib(after.available);
    let rate = n / started.as_secs_f64();
    println!(
        "density: {} idle instances of hello in {number} services",
        options.instances
    );
    println!(
        "{:<44}{:>14.1}",
        "memory of an instance, all in all, KiB",
        memory / n
    );
    let mut report = json!({
        "instances": options.instances, "alive": alive.ready, "services": number, "start_seconds": started.as_secs_f64(),
        "starts_per_second": rate, "kib_per_instance": memory / n,
    });
    for (at, who) in ["server", "keeper"].into_iter().enumerate() {
        let resident = (kib(after.resident[at]) - kib(before.resident[at])) / n;
        let open = (count(after.descriptors[at]) - count(before.descriptors[at])) / n;
        let cpu = (later.cpu[at] - after.cpu[at]).as_secs_f64() / 5.0 * 100.0;
        println!("{:<44}{resident:>14.1}", format!("  of it in the {who}"));
        println!(
            "{:<44}{open:>14.2}",
            format!("descriptors of the {who}, each")
        );
        println!(
            "{:<44}{cpu:>14.1}",
            format!("processor of the {who} when all are idle, %")
        );
        report[format!("{who}_kib_per_instance")] = json!(resident);
        report[format!("{who}_descriptors_per_instance")] = json!(open);
        report[format!("{who}_idle_cpu_percent")] = json!(cpu);
    }
    println!("{:<44}{:>14.1}", "all started in, s", started.as_secs_f64());
    println!("{:<44}{rate:>14.0}", "starts per second");
    println!("{:<44}{:>14}", "alive at the end", alive.ready);
    let begin = now();
    drop(platform);
    let down = begin.elapsed().as_secs_f64();
    println!("{:<44}{down:>14.1}", "`lauf down --purge` took, s");
    report["down_seconds"] = json!(down);
    println!("load average: {}", machine::load());
    crate::write(options.json.as_deref(), "density", &[report])
}

fn state(processes: [u32; 2]) -> anyhow::Result<State> {
    let [server, keeper] = processes;
    Ok(State {
        available: machine::available()?,
        resident: [machine::resident(server)?, machine::resident(keeper)?],
        descriptors: [machine::descriptors(server)?, machine::descriptors(keeper)?],
        cpu: [machine::cpu(server)?, machine::cpu(keeper)?],
    })
}

fn kib(bytes: u64) -> f64 {
    u32::try_from(bytes / 1024).map_or(f64::INFINITY, f64::from)
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}
