//! What an engine is told and what it gives back.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use lauf_model::{Container, InstanceId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Owner;

/// All that is needed to start one instance. It travels with the instance, so that a restarted
/// server learns from the instance itself what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Its identity.
    pub id: InstanceId,
    /// What it is a part of.
    #[serde(flatten)]
    pub owner: Owner,
    /// The image by digest, `NAME@sha256:...`.
    pub image: String,
    /// What to run.
    pub container: Container,
    /// More CPU until the startup probe has passed and ten seconds longer.
    #[serde(default)]
    pub startup_cpu_boost: bool,
}

/// A TCP way into an instance.
pub trait Endpoint: Send + Sync + std::fmt::Debug {
    /// Begins a connection to `port` of the instance. The socket is nonblocking and may still be
    /// connecting; it is writable when connected, and `take_error` tells how that went. Quick
    /// enough for the request path.
    fn connect(&self, port: u16) -> io::Result<TcpStream>;

    /// Whether a process of this host may be the one that listens there.
    fn may_hold(&self, _pid: u32) -> bool {
        true
    }
}

/// A started instance.
#[derive(Debug)]
pub struct Instance {
    /// What it was started with.
    pub spec: InstanceSpec,
    /// When its start began.
    pub started: Timestamp,
    /// Where the time of the start went.
    pub phases: StartPhases,
    /// How to reach it.
    pub endpoint: Arc<dyn Endpoint>,
    /// The connection that found it listening, if there is one.
    pub first: FirstConnection,
    /// Its state, now and to come.
    pub state: watch::Receiver<InstanceState>,
}

/// A connection to an instance's port on which nothing was sent yet: the startup probe's, kept for the request that the instance was
/// started for, which is spared making another, and the instance one that is closed again.
#[derive(Debug, Default)]
pub struct FirstConnection(Mutex<Option<TcpStream>>);

impl FirstConnection {
    /// One to be taken.
    #[must_use]
    pub fn new(stream: Option<TcpStream>) -> Self {
        Self(Mutex::new(stream))
    }

    /// Takes it, if nobody has and the instance has not closed it.
    pub fn take(&self) -> Option<TcpStream> {
        let stream = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        // A server that speaks first is none that we know; whatever else can be read is the end.
        let quiet =
            matches!(stream.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        quiet.then_some(stream)
    }
}

impl Instance {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> &InstanceId {
        &self.spec.id
    }
}

/// The phases of a start, in order. Their sum is the whole start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StartPhases {
    /// Until the image was ready to mount.
    pub image: Duration,
    /// Until the command was executed.
    pub sandbox: Duration,
    /// From then until the startup probe passed.
    pub boot: Duration,
}

/// Where an instance is in its life, once started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// Has started; may get requests if it is one that does.
    Ready,
    /// Runs, but its readiness probe fails: no new requests.
    Unready,
    /// Gone.
    Exited(Exit),
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, when it exited by itself.
    pub code: Option<i32>,
    /// Signal number, when a signal ended it.
    pub signal: Option<i32>,
    /// Why, as far as the platform knows.
    pub reason: ExitReason,
    /// When.
    pub at: Timestamp,
}

/// Why an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// By its own doing: it returned, crashed or was signalled from inside.
    Own,
    /// It used more memory than its limit.
    OutOfMemory,
    /// Its liveness probe failed.
    Liveness,
    /// The platform stopped it.
    Stopped,
    /// The sandbox under it went away (the keeper or the host's runtime died).
    Lost,
}

/// Why an instance could not be started. The text is for the user who deployed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The image cannot be had or used. Holds the whole sentence.
    #[error("{0}")]
    Image(String),
    /// The command cannot be executed. Holds the whole sentence.
    #[error("{0}")]
    Command(String),
    /// The container ended before it was ready.
    #[error("The container ended with {how} before it was ready.")]
    Ended {
        /// `exit code 1`, `signal 11`.
        how: String,
    },
    /// It used up its memory before it was ready.
    #[error(
        "Memory limit of {limit_mib} MiB exceeded while the container was starting. Raise the memory limit."
    )]
    OutOfMemory {
        /// The limit in MiB.
        limit_mib: u64,
    },
    /// The startup probe did not pass in time.
    #[error("{0}")]
    Probe(String),
    /// The machine has no room for it until others have ended.
    #[error("There is no room for another instance: {0}.")]
    NoRoom(String),
    /// This host cannot start it now; another try may work.
    #[error("The instance could not be started on this host: {0}")]
    Host(String),
}

impl StartError {
    /// Whether the user has to change something; otherwise a retry may help.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Host(_) | Self::NoRoom(_))
    }
}
