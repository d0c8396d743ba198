//! What the gateway can be told.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::certificates::CertificateFiles;

/// Names that `CONNECT` and absolute URIs may lead to besides the platform's own domain: those that
/// Google's clients call and the platform answers.
const GOOGLE: [&str; 3] = ["googleapis.com", "pkg.dev", "gcr.io"];

/// The gateway's settings.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Addresses to listen on. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The domain under which services live, such as `run.localhost`.
    pub domain: String,
    /// Data-plane threads, each with its own listener and runtime; at least 1.
    pub threads: usize,
    /// Networks whose members count as the platform's own instances, for internal ingress.
    pub internal: Vec<Network>,
    /// Domains (with everything under them) that forward-proxy requests may name, besides
    /// [`domain`](Self::domain).
    pub impersonated: Vec<String>,
    /// Certificates for names that clients ask for over TLS, before those of the platform's own authority.
    pub certificates: Option<Arc<CertificateFiles>>,
    /// Bounds on what clients may do.
    pub limits: Limits,
}

impl GatewayConfig {
    /// The defaults for a domain: one thread, Google's API domains impersonated.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>, domain: &str) -> Self {
        Self {
            listen,
            domain: domain.trim_matches('.').to_ascii_lowercase(),
            threads: 1,
            internal: Vec::new(),
            impersonated: GOOGLE.map(str::to_owned).to_vec(),
            certificates: None,
            limits: Limits::default(),
        }
    }
}

/// Bounds on what one client, or all of them, may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's head (HTTP/1) or header list (HTTP/2); more is 431. At least 8 KiB.
    pub header_bytes: usize,
    /// Header lines of a request; more is 431.
    pub header_count: usize,
    /// From the beginning of a connection or request to the end of its head, TLS included. This is
    /// also how long an HTTP/1 connection may be idle between requests.
    pub header_timeout: Duration,
    /// Connections from clients at once, over all threads. More wait to be accepted.
    pub connections: usize,
    /// Requests at once on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Ping an HTTP/2 client that is silent for this long; the connection ends when it does not
    /// answer within the header timeout.
    pub h2_ping: Duration,
    /// Bytes of a request's body to an HTTP/1 container; more is 413. `None` lifts the limit.
    pub http1_request_body: Option<u64>,
    /// How long a connection to an instance may take to be made.
    pub connect_timeout: Duration,
    /// Idle connections kept to each instance by each thread.
    pub idle_upstreams: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            header_count: 100,
            header_timeout: Duration::from_secs(60),
            connections: 100_000,
            h2_streams: 100,
            h2_ping: Duration::from_secs(30),
            http1_request_body: Some(32 * 1024 * 1024),
            connect_timeout: Duration::from_secs(5),
            idle_upstreams: 1000,
        }
    }
}

/// A network in CIDR form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// An address in it.
    pub address: IpAddr,
    /// How many leading bits all its addresses share.
    pub prefix: u8,
}

impl Network {
    /// Whether an address belongs to it. IPv4 in its IPv6-mapped form counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        fn bits(address: IpAddr) -> (u128, u32) {
            match address.to_canonical() {
                IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
                IpAddr::V6(v6) => (u128::from(v6), 128),
            }
        }
        let (ours, width) = bits(self.address);
        let (theirs, their_width) = bits(address);
        let host_bits = width.saturating_sub(u32::from(self.prefix));
        width == their_width
            && ours.checked_shr(host_bits).unwrap_or(0)
                == theirs.checked_shr(host_bits).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_its_addresses_only() {
        let net = Network {
            address: "10.88.0.0".parse().unwrap(),
            prefix: 16,
        };
        assert!(net.contains("10.88.3.4".parse().unwrap()));
        assert!(net.contains("::ffff:10.88.3.4".parse().unwrap()));
        assert!(!net.contains("10.89.0.1".parse().unwrap()));
        assert!(!net.contains("::1".parse().unwrap()));
        let all = Network {
            address: "::".parse().unwrap(),
            prefix: 0,
        };
        assert!(all.contains("2001:db8::1".parse().unwrap()));
    }
}
