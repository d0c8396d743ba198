//! One container of a revision: what to run, with what resources, and how to tell it is well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A container as the user described it, defaults filled in by the API faces
/// (`cloud-run` "container contract").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The container's name; may be empty when it is the only one.
    #[serde(default)]
    pub name: String,
    /// The image as the user named it, by tag or digest.
    pub image: String,
    /// Replaces the image's ENTRYPOINT when not empty. `$(VAR)` is expanded at start.
    #[serde(default)]
    pub command: Vec<String>,
    /// Replaces the image's CMD when not empty. `$(VAR)` is expanded at start.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment, in the order given; later variables may refer to earlier ones.
    #[serde(default)]
    pub env: Vec<EnvVar>,
    /// Replaces the image's WORKDIR when not empty.
    #[serde(default)]
    pub working_dir: String,
    /// Where the container listens for requests.
    #[serde(default)]
    pub port: Port,
    /// CPU limit in millicores; 1000 is one vCPU.
    pub cpu_millis: u32,
    /// Memory limit in bytes; the writable file system counts against it.
    pub memory_bytes: u64,
    /// When the container counts as started. `None` is the default TCP probe of the contract.
    #[serde(default)]
    pub startup_probe: Option<Probe>,
    /// When it must be killed and replaced.
    #[serde(default)]
    pub liveness_probe: Option<Probe>,
    /// When it may get requests.
    #[serde(default)]
    pub readiness_probe: Option<Probe>,
}

/// The CPU of a container that says nothing, in millicores (Cloud Run, "CPU limits").
pub const DEFAULT_CPU_MILLIS: u32 = 1000;
/// The memory of a container that says nothing, in bytes (Cloud Run, "Memory limits").
pub const DEFAULT_MEMORY_BYTES: u64 = 512 << 20;

impl Container {
    /// A container of which nothing but the image was said.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            name: String::new(),
            image: image.into(),
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: String::new(),
            port: Port::default(),
            cpu_millis: DEFAULT_CPU_MILLIS,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            startup_probe: None,
            liveness_probe: None,
            readiness_probe: None,
        }
    }
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value before `$(VAR)` expansion.
    #[serde(default)]
    pub value: String,
}

/// The port of the ingress container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// TCP port number, given to the container as `PORT`.
    pub number: u16,
    /// What is spoken on it.
    #[serde(default)]
    pub protocol: Protocol,
}

impl Default for Port {
    fn default() -> Self {
        Self {
            number: 8080,
            protocol: Protocol::Http1,
        }
    }
}

/// The protocol between gateway and container; the wire names are `http1` and `h2c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1; WebSocket works through its upgrade.
    #[default]
    Http1,
    /// HTTP/2 cleartext with prior knowledge, end to end. gRPC uses it.
    H2c,
}

/// A probe with Kubernetes' semantics and Cloud Run's limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What to try.
    pub action: ProbeAction,
    /// Wait before the first try.
    pub initial_delay: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// From the start of one try to the start of the next.
    pub period: Duration,
    /// Failures in a row until the probe has failed.
    pub failure_threshold: u32,
    /// Successes in a row until it has succeeded (readiness only; otherwise 1).
    #[serde(default = "one")]
    pub success_threshold: u32,
}

fn one() -> u32 {
    1
}

/// What a probe tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeAction {
    /// A TCP connection to the port (the container's own when `None`).
    Tcp {
        /// Port to connect to.
        port: Option<u16>,
    },
    /// `GET path`; 200 to 399 is success.
    Http {
        /// Path with query, beginning with `/`.
        path: String,
        /// Port to connect to (the container's own when `None`).
        port: Option<u16>,
        /// Extra headers, in order.
        headers: Vec<(String, String)>,
    },
    /// The standard gRPC health service; `SERVING` is success.
    Grpc {
        /// Port to connect to (the container's own when `None`).
        port: Option<u16>,
        /// The service name to ask about; empty for the server as a whole.
        service: String,
    },
}

impl Probe {
    /// The startup probe of a container that has none: TCP, once, within four minutes
    /// (Cloud Run, "Configure container health checks", default startup probe).
    #[must_use]
    pub fn default_startup() -> Self {
        Self {
            action: ProbeAction::Tcp { port: None },
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(240),
            period: Duration::from_secs(240),
            failure_threshold: 1,
            success_threshold: 1,
        }
    }
}
