//! Benchmarks with the peers beside us, in the same run.
#![forbid(unsafe_code)]

mod backend;
mod backlog;
mod burst;
mod cold_start;
mod density;
mod deploy;
mod events;
mod http1;
mod in_process;
mod jobs;
mod machine;
mod peers;
mod platform;
mod proxies;
mod proxy;
mod pubsub;
mod sample;
mod schedules;
mod simulate;
mod stats;

use std::path::Path;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "Benchmarks of Lauf beside its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// From a request at zero instances to its 200, beside a bare process and other runtimes.
    ColdStart(cold_start::Options),
    /// Many services from zero at once, and starts per second.
    Burst(burst::Options),
    /// From storing a service to Ready.
    Deploy(deploy::Options),
    /// An execution with many one-line tasks, beside bare sandboxes.
    Jobs(jobs::Options),
    /// Pub/Sub's core: durable publishes beside the bare disk, pulls, pushes.
    Events(events::Options),
    /// Ten million messages that nobody reads: memory, and the speed of everything else.
    Backlog(backlog::Options),
    /// Cloud Scheduler with a hundred thousand jobs.
    Schedules(schedules::Options),
    /// Publishes, pulls and pushes over the wire, beside Google's emulator, NATS and Redis.
    Pubsub(pubsub::Options),
    /// Memory and descriptors of idle instances.
    Density(density::Options),
    /// Requests per CPU-second, p50 and p99 of the gateway beside nginx, haproxy, Envoy and Caddy.
    Proxy(proxy::Options),
    /// A live run beside its simulation: instance-seconds and p99 on two loads.
    Simulate(simulate::Options),
    /// The gateway in a process of its own, with one route to a backend. Used by `proxy`.
    #[command(hide = true)]
    ServeGateway {
        /// Where to listen.
        listen: std::net::SocketAddr,
        /// The only instance.
        backend: std::net::SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::ColdStart(options) => cold_start::run(&options),
        Command::Burst(options) => burst::run(&options),
        Command::Deploy(options) => deploy::run(&options),
        Command::Jobs(options) => jobs::run(&options),
        Command::Events(options) => events::run(&options),
        Command::Backlog(options) => backlog::run(&options),
        Command::Schedules(options) => schedules::run(&options),
        Command::Pubsub(options) => pubsub::run(&options),
        Command::Density(options) => density::run(&options),
        Command::Proxy(options) => proxy::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::ServeGateway { listen, backend } => backend::serve_gateway(listen, backend),
    }
}

/// Writes a result for programs, with what the reader must know of the machine.
fn write(path: Option<&Path>, bench: &str, rows: &[serde_json::Value]) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let report = serde_json::json!({
        "bench": bench, "cores": cores, "load_average": machine::load(), "rows": rows,
    });
    std::fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    Ok(())
}
