//! Small clients for what the samples speak: HTTP/1.1, gRPC over cleartext HTTP/2, WebSocket.
//!
//! Each connects to an address and names a host, so that no name needs to be resolved: that is how a service on a machine without
//! wildcard DNS is reached.

pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod rest;
pub(crate) mod ws;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::TcpStream;

use crate::clock;

/// How long one exchange may take; a cold start of the slowest sample is far below it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where to connect and whom to ask for there.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The address of Lauf's one port, or of a container.
    pub(crate) addr: SocketAddr,
    /// The `Host` or `:authority` of each request.
    pub(crate) host: String,
}

impl Target {
    /// Takes the host from a service's URL, and connects to `addr` for it.
    pub(crate) fn of_url(url: &str, addr: SocketAddr) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split(['/', '?']).next().unwrap_or(rest);
        Self {
            addr,
            host: host.to_owned(),
        }
    }

    async fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.addr)
            .await
            .with_context(|| format!("connecting to {}", self.addr))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Runs an exchange within [`PATIENCE`] and tells how long it took.
pub(crate) async fn timed<T>(exchange: impl Future<Output = Result<T>>) -> Result<(Duration, T)> {
    let start = clock::now();
    let result = tokio::time::timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))??;
    Ok((start.elapsed(), result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_url_is_asked_for() {
        let addr: SocketAddr = "127.0.0.1:18080".parse().unwrap();
        let target = Target::of_url("http://hello-1.us-central1.run.localhost:18080/x?y", addr);
        assert_eq!(target.host, "hello-1.us-central1.run.localhost:18080");
    }
}
