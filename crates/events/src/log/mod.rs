//! Where messages are kept: named streams of records behind one trait, [`MessageLog`].
//!
//! A record goes in at the end of a stream with [`MessageLog::append`], which answers when it is
//! durable; anybody reads a stream from any position, as often as they like, and waits for more with
//! [`MessageLog::tail`]; what nobody needs any longer is given up from the front with
//! [`MessageLog::trim`].
//!
//! The laws, which every implementation keeps and `tests/log` holds against each:
//!
//! 1. **Acknowledged is durable.** Once an append has been answered with success, its records are
//!    read after `kill -9` and after loss of power. One that was not answered, or answered with
//!    [`LogError::Failed`], may be there or not, but wholly or not at all.
//! 2. **One order.** A stream's positions increase and are never used again; records of one append
//!    have consecutive ones. Appends to one stream take effect in the order of the calls. Between
//!    appends positions may be left out.
//! 3. **Nobody sees what is not durable.** Reads and tails end before the first record that is not.
//! 4. **Time goes with position.** Each record bears the time of its append; along a stream it never
//!    goes back, whatever the machine's clock does.
//! 5. **Trimming is a permission.** Below the position it names records may go, at once, later or,
//!    after a restart, not yet; at and above it they stay.
//! 6. **Everything is bounded**: a record, an append, what waits, what is read at once, what is held
//!    in memory whatever the length of a stream. A full queue says so ([`LogError::Full`]).
//! 7. **Creating and deleting may be repeated**; a stream that is made again under an old name begins
//!    empty.

mod embedded;
mod jetstream;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use lauf_model::{Code, Status};
use tokio::sync::{oneshot, watch};

pub use embedded::{EmbeddedConfig, EmbeddedLog, OpenError};
pub use jetstream::{ConnectError, JetStreamConfig, JetStreamLog};

/// The most bytes in all records of one append.
pub const MAX_APPEND_BYTES: usize = 24 << 20;
/// The most records in one append.
pub const MAX_APPEND_RECORDS: usize = 4_096;
/// The longest name of a stream, in bytes.
pub const MAX_STREAM_NAME: usize = 255;

/// A place in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The place `n` further on.
    #[must_use]
    pub fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub position: Position,
    /// When it was appended, to the microsecond.
    pub time: Timestamp,
    /// What was appended.
    pub body: Bytes,
}

/// What an append was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The position of its first record; the others follow without a gap.
    pub first: Position,
    /// The time that all its records bear.
    pub time: Timestamp,
}

/// How much to read.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// At most so many records.
    pub records: usize,
    /// At most so many bytes of bodies, but always one record if there is one.
    pub bytes: usize,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Records in order, all at or after the position asked for; empty at the end of the stream.
    pub records: Vec<Record>,
    /// Where to read on.
    pub next: Position,
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first position that can be read.
    pub first: Position,
    /// The position after the last: all later records come at or after it.
    pub next: Position,
    /// What it takes on disk, roughly.
    pub bytes: u64,
}

/// Why the log did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// There is no such stream.
    #[error("there is no stream '{0}'")]
    NoStream(String),
    /// It can never be done; says what is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Too much waits. Try again later.
    #[error("too many messages wait to be written; try again later")]
    Full,
    /// The disk or the server behind the log refuses. What was being appended may be there or not.
    #[error("the message log failed: {0}")]
    Failed(String),
    /// The log has been closed.
    #[error("the message log is closed")]
    Closed,
}

/// The answer to an append, when it comes. Dropping it does not undo the append.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Appended, LogError>>);

impl Future for Receipt {
    type Output = Result<Appended, LogError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|answer| answer.unwrap_or(Err(LogError::Closed)))
    }
}

/// Streams of records, durable. The module says which laws hold.
#[async_trait]
pub trait MessageLog: Send + Sync + 'static {
    /// Makes an empty stream, if there is none of that name. Durable when it returns.
    ///
    /// # Errors
    /// [`LogError::Invalid`] for a name that is empty, too long or holds a control character.
    async fn create(&self, stream: &str) -> Result<(), LogError>;

    /// Removes a stream and all it holds, if there is one. Durable when it returns.
    ///
    /// # Errors
    /// When the log fails.
    async fn delete(&self, stream: &str) -> Result<(), LogError>;

    /// The names of all streams, sorted.
    ///
    /// # Errors
    /// When the log fails.
    async fn streams(&self) -> Result<Vec<String>, LogError>;

    /// Puts records at the end of a stream. The call itself never waits; of two calls the first
    /// comes first in the stream. The receipt says where they are once they are durable.
    ///
    /// # Errors
    /// [`LogError::NoStream`]; [`LogError::Invalid`] for no records or more than an append may
    /// hold; [`LogError::Full`] when too much waits.
    fn append(&self, stream: &str, records: Vec<Bytes>) -> Result<Receipt, LogError>;

    /// Reads records from a position on; from the first one, if that is later.
    ///
    /// # Errors
    /// [`LogError::NoStream`], or when the log fails.
    async fn read(&self, stream: &str, from: Position, limit: Limit) -> Result<Chunk, LogError>;

    /// What a stream holds.
    ///
    /// # Errors
    /// [`LogError::NoStream`], or when the log fails.
    async fn extent(&self, stream: &str) -> Result<Extent, LogError>;

    /// The position of the first record that was appended at `time` or later; the end of the stream
    /// if there is none.
    ///
    /// # Errors
    /// [`LogError::NoStream`], or when the log fails.
    async fn position_at(&self, stream: &str, time: Timestamp) -> Result<Position, LogError>;

    /// Gives up records before a position.
    ///
    /// # Errors
    /// [`LogError::NoStream`], or when the log fails.
    async fn trim(&self, stream: &str, before: Position) -> Result<(), LogError>;

    /// Follows the position after a stream's last durable record. Ends when the stream is deleted.
    ///
    /// # Errors
    /// [`LogError::NoStream`], or when the log fails.
    async fn tail(&self, stream: &str) -> Result<watch::Receiver<Position>, LogError>;

    /// Writes what waits and lets go of the log. Later calls fail with [`LogError::Closed`].
    async fn close(&self);
}

/// Why a stream cannot have this name, if it cannot.
fn name_problem(name: &str) -> Option<String> {
    if name.is_empty() || name.len() > MAX_STREAM_NAME || name.contains(char::is_control) {
        return Some(format!(
            "a stream cannot be called {name:?}: 1 to {MAX_STREAM_NAME} bytes without control \
             characters are allowed"
        ));
    }
    None
}

/// Why these records cannot be appended at once, if they cannot.
fn append_problem(records: &[Bytes]) -> Option<String> {
    let bytes: usize = records.iter().map(Bytes::len).sum();
    if records.is_empty() || records.len() > MAX_APPEND_RECORDS || bytes > MAX_APPEND_BYTES {
        return Some(format!(
            "an append of {} records and {bytes} bytes; 1 to {MAX_APPEND_RECORDS} records and at \
             most {MAX_APPEND_BYTES} bytes are allowed",
            records.len()
        ));
    }
    None
}

/// What a failure of the log is to a client.
pub(crate) fn failed(error: &LogError) -> Status {
    match error {
        LogError::NoStream(_) => Status::new(
            Code::NotFound,
            "Resource not found: it has just been deleted.",
        ),
        LogError::Full => Status::new(
            Code::ResourceExhausted,
            "More messages wait to be written than there is room for; try again in a moment.",
        ),
        LogError::Invalid(problem) => Status::new(Code::InvalidArgument, problem.clone()),
        LogError::Closed => Status::new(
            Code::Unavailable,
            "Lauf is stopping; try again when it is back.",
        ),
        LogError::Failed(_) => {
            tracing::error!(%error, "the message log failed");
            Status::new(Code::Unavailable, format!("{error}."))
        }
    }
}
