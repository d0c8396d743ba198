//! Benchmarks with the peers beside us, in the same run.
#![forbid(unsafe_code)]

mod backend;
mod proxy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench", about = "Benchmarks of Lauf beside its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Requests per CPU-second, p50 and p99 of the gateway beside nginx and haproxy.
    Proxy(proxy::Options),
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
        Command::Proxy(options) => proxy::run(&options),
        Command::ServeGateway { listen, backend } => backend::serve_gateway(listen, backend),
    }
}
