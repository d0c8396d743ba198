//! `bench proxy`: one worker thread each, the same backend behind all, wrk in front, rounds interleaved.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::backend::HOST;
use crate::proxies::{self, Process, Proxy};
use crate::stats;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; each measures every proxy once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of load for each measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Connections.
    #[arg(long, value_delimiter = ',', default_value = "32,256")]
    connections: Vec<u32>,
    /// Write the result here, too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Default, Clone)]
struct Sample {
    per_second: f64,
    per_cpu_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Runs the benchmark and prints its table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        bail!("this is a debug build; run `cargo xtask bench proxy`");
    }
    let dir = tempfile::tempdir()?;
    let backend = free()?;
    let _backend = proxies::nginx(dir.path(), "backend", backend, "return 200 \"hello\\n\";")?;
    wait_for(backend)?;
    let mut proxies = Vec::new();
    let gateway = free()?;
    let process = Command::new(std::env::current_exe()?)
        .args(["serve-gateway", &gateway.to_string(), &backend.to_string()])
        .spawn()?;
    proxies.push(Proxy {
        name: "lauf",
        address: gateway,
        process: Process(process),
    });
    proxies.push(proxies::nginx_to(dir.path(), backend)?);
    for peer in [proxies::haproxy, proxies::envoy, proxies::caddy] {
        match peer(dir.path(), backend) {
            Ok(proxy) => proxies.push(proxy),
            Err(why) => println!("SKIP {why:#}"),
        }
    }
    // What is known here must be up; a peer that does not come is told of and left out.
    let (needed, peers) = proxies.split_at(2);
    for proxy in needed {
        wait_for(proxy.address)?;
    }
    let up = peers.iter().filter(|peer| match wait_for(peer.address) {
        Ok(()) => true,
        Err(why) => {
            println!("SKIP {}: {why}", peer.name);
            false
        }
    });
    let up: Vec<&Proxy> = needed.iter().chain(up).collect();
    let proxies = up;
    let mut report = Vec::new();
    for &connections in &options.connections {
        let mut samples = vec![Vec::new(); proxies.len()];
        for _ in 0..options.rounds {
            for (proxy, samples) in proxies.iter().zip(&mut samples) {
                samples.push(measure(proxy, connections, options.seconds, dir.path())?);
            }
        }
        println!(
            "\n{connections} connections, {} rounds of {} s, medians",
            options.rounds, options.seconds
        );
        println!(
            "{:<10}{:>12}{:>22}{:>10}{:>10}{:>10}",
            "", "req/s", "req per CPU-second", "p50 us", "p99 us", "of nginx"
        );
        let nginx = median(&samples[1], |s| s.per_cpu_second);
        for (proxy, samples) in proxies.iter().zip(&samples) {
            let cpu = median(samples, |s| s.per_cpu_second);
            let (rate, p50, p99) = (
                median(samples, |s| s.per_second),
                median(samples, |s| s.p50_us),
                median(samples, |s| s.p99_us),
            );
            println!(
                "{:<10}{rate:>12.0}{cpu:>22.0}{p50:>10.0}{p99:>10.0}{:>10.2}",
                proxy.name,
                cpu / nginx
            );
            report.push(serde_json::json!({
                "proxy": proxy.name, "connections": connections, "requests_per_second": rate,
                "requests_per_cpu_second": cpu, "p50_us": p50, "p99_us": p99, "ratio_to_nginx": cpu / nginx,
            }));
        }
    }
    println!(
        "\nload average: {}",
        fs::read_to_string("/proc/loadavg")?.trim()
    );
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let values: Vec<f64> = samples.iter().map(of).collect();
    stats::median(&values)
}

fn measure(proxy: &Proxy, connections: u32, seconds: u32, dir: &Path) -> anyhow::Result<Sample> {
    let script = dir.join("report.lua");
    fs::write(
        &script,
        "done = function(s, l, r)\n io.write(string.format(\"R %d %d %f %f %d\\n\", s.requests, s.duration, \
         l:percentile(50), l:percentile(99), s.errors.status + s.errors.read + s.errors.timeout))\nend\n",
    )?;
    let before = cpu_ticks(proxy.process.id())?;
    let output = Command::new("wrk")
        .args([
            "-t1",
            &format!("-c{connections}"),
            &format!("-d{seconds}s"),
            "-H",
        ])
        .arg(format!("Host: {HOST}"))
        .arg("-s")
        .arg(&script)
        .arg(format!("http://{}/", proxy.address))
        .output()
        .context("wrk cannot be run; install the Debian package wrk")?;
    let ticks = cpu_ticks(proxy.process.id())? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("R "))
        .context("wrk reported nothing")?;
    let n: Vec<f64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
    let [requests, micros, p50, p99, errors] = n[..] else {
        bail!("wrk reported {line:?}");
    };
    if errors > 0.0 {
        bail!("{} answered {errors} requests with errors", proxy.name);
    }
    Ok(Sample {
        per_second: requests / (micros / 1e6),
        per_cpu_second: requests / (f64::from(ticks) / 100.0),
        p50_us: p50,
        p99_us: p99,
    })
}

/// User and system time of a process and its children, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> anyhow::Result<u32> {
    let mut ticks = 0;
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    for pid in std::iter::once(pid).chain(children) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, fields) = stat.rsplit_once(')').context("no process state")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        ticks += fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    }
    Ok(ticks)
}

/// An address that nobody has now.
pub(crate) fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn wait_for(address: SocketAddr) -> anyhow::Result<()> {
    for _ in 0..500 {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("nothing listens on {address}")
}
