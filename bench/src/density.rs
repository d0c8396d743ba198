//! `bench density`: what idle instances cost the machine, and what services at zero do.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;

use crate::machine::{self, Group, now};
use crate::platform::{Instances, Platform};
use crate::sample::Sample;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Idle instances of hello; 0 leaves that part out.
    #[arg(long, default_value_t = 1000)]
    instances: u32,
    /// Services without an instance; 0 leaves that part out.
    #[arg(long, default_value_t = 0)]
    at_zero: u32,
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

/// Callers of the API at once.
const CALLERS: u32 = 4;

/// Runs the benchmark and prints its tables.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    machine::check()?;
    let mut report = Vec::new();
    if options.instances > 0 {
        report.push(idle_instances(options)?);
    }
    if options.at_zero > 0 {
        report.push(services_at_zero(options)?);
    }
    crate::write(options.json.as_deref(), "density", &report)
}

/// A platform that has started an instance before, so that what all share is not counted.
fn platform() -> anyhow::Result<(Platform, [u32; 2])> {
    let platform = Platform::up(&["--idle-timeout", "300ms"])?;
    platform.pack(&Sample::read("hello")?)?;
    let mut api = platform.api();
    api.deploy(&api.service("first", "hello", None))?;
    api.wait_for_none(None)?;
    thread::sleep(Duration::from_secs(1));
    let processes = [platform.server()?, platform.keeper()?];
    Ok((platform, processes))
}

/// Deploys services until there are as many as wanted, waits until none has an instance, and looks.
fn services_at_zero(options: &Options) -> anyhow::Result<serde_json::Value> {
    let (platform, processes) = platform()?;
    let before = state(processes)?;
    let begin = now();
    thread::scope(|scope| -> anyhow::Result<()> {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let mut api = platform.api();
                scope.spawn(move || -> anyhow::Result<()> {
                    for number in (caller..options.at_zero).step_by(CALLERS as usize) {
                        api.deploy(&api.service(&format!("zero-{number}"), "hello", None))?;
                    }
                    Ok(())
                })
            })
            .collect();
        for caller in callers {
            caller
                .join()
                .map_err(|_| anyhow::anyhow!("a caller panicked"))??;
        }
        Ok(())
    })?;
    let deployed = begin.elapsed().as_secs_f64();
    platform.api().wait_for_none(None)?;
    thread::sleep(Duration::from_secs(options.rest));
    let after = state(processes)?;
    thread::sleep(Duration::from_secs(10));
    let later = state(processes)?;
    let n = f64::from(options.at_zero);
    println!("density: {} services of hello at zero", options.at_zero);
    let mut report = json!({"services_at_zero": options.at_zero, "deploy_seconds": deployed});
    for (at, who) in ["server", "keeper"].into_iter().enumerate() {
        let resident = (kib(after.resident[at]) - kib(before.resident[at])) / n;
        let cpu = (later.cpu[at] - after.cpu[at]).as_secs_f64() / 10.0 * 100.0;
        println!(
            "{:<44}{resident:>14.1}",
            format!("memory of a service in the {who}, KiB")
        );
        println!("{:<44}{cpu:>14.2}", format!("processor of the {who}, %"));
        report[format!("{who}_kib_per_service")] = json!(resident);
        report[format!("{who}_idle_cpu_percent")] = json!(cpu);
    }
    println!("{:<44}{deployed:>14.1}", "all deployed in, s");
    println!("load average: {}", machine::load());
    Ok(report)
}

/// KiB of memory that the sample takes without a container around it, averaged over many.
fn bare(many: u32) -> anyhow::Result<f64> {
    let sample = Sample::read("hello")?;
    let before = machine::available()?;
    let mut processes = Vec::new();
    for _ in 0..many {
        let program = sample
            .rootfs
            .join(sample.entrypoint[0].trim_start_matches('/'));
        let mut command = Command::new(program);
        command
            .args(&sample.entrypoint[1..])
            .env_clear()
            .envs(&sample.env)
            .env("PORT", machine::free_port()?.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        processes.push(Group::spawn(&mut command)?);
    }
    thread::sleep(Duration::from_secs(2));
    let used = kib(before) - kib(machine::available()?);
    let ended = processes
        .iter_mut()
        .filter_map(|p| p.ended().then_some(()))
        .count();
    if ended > 0 {
        bail!("{ended} of {many} bare processes have ended");
    }
    Ok(used / f64::from(many))
}

/// Bare processes to compare with.
const BARE: u32 = 500;

fn idle_instances(options: &Options) -> anyhow::Result<serde_json::Value> {
    let bare = bare(BARE)?;
    let (platform, processes) = platform()?;
    let mut api = platform.api();
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
    println!(
        "{:<44}{bare:>14.1}",
        "  of it the app, as a bare process has"
    );
    println!(
        "{:<44}{:>14.1}",
        "  the rest, which is the platform's",
        memory / n - bare
    );
    let mut report = json!({
        "bare_kib": bare, "overhead_kib": memory / n - bare,
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
    Ok(report)
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
