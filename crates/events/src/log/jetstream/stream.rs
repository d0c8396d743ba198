//! A stream as this process knows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use super::super::{LogError, Position};
use super::writer::Append;

/// The records of a block have positions from its sequence times this on.
pub(super) const PER_BLOCK: u64 = 4_096;

/// The position of the first record of a block.
pub(super) fn position(sequence: u64) -> Position {
    Position(sequence.saturating_mul(PER_BLOCK))
}

/// A stream.
pub(super) struct Stream {
    /// Its number in this process; never used again.
    pub(super) id: u64,
    /// Its name in Lauf.
    pub(super) name: String,
    /// Its name on the server.
    pub(super) on_server: String,
    /// Where its messages are published.
    pub(super) subject: String,
    /// The sequence of the first block that has not been given up.
    first: AtomicU64,
    /// The sequence after the last block that is whole and durable.
    end: AtomicU64,
    open: Mutex<Option<Open>>,
}

/// What a stream has until it is deleted or the log is closed.
struct Open {
    queue: mpsc::UnboundedSender<Append>,
    tail: watch::Sender<Position>,
}

impl Stream {
    pub(super) fn new(
        id: u64,
        name: String,
        on_server: String,
        subject: String,
        (first, end): (u64, u64),
        queue: mpsc::UnboundedSender<Append>,
    ) -> Self {
        let (tail, _) = watch::channel(position(end));
        Self {
            id,
            name,
            on_server,
            subject,
            first: AtomicU64::new(first),
            end: AtomicU64::new(end),
            open: Mutex::new(Some(Open { queue, tail })),
        }
    }

    /// The sequence after the last block that is whole and durable.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The sequence of the first block that has not been given up.
    pub(super) fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    /// Everything before this sequence is given up.
    pub(super) fn begins_at(&self, sequence: u64) {
        self.first.fetch_max(sequence, Ordering::AcqRel);
    }

    /// Lets readers see everything before this sequence.
    pub(super) fn ends_at(&self, sequence: u64) {
        self.end.store(sequence, Ordering::Release);
        let guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*guard {
            open.tail.send_replace(position(sequence));
        }
    }

    /// Puts an append at the end of the writer's queue.
    pub(super) fn queue(&self, append: Append) -> Result<(), LogError> {
        let guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = guard.as_ref().ok_or_else(|| self.missing())?;
        open.queue.send(append).map_err(|_| LogError::Closed)
    }

    pub(super) fn tail(&self) -> Result<watch::Receiver<Position>, LogError> {
        let guard = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = guard.as_ref().ok_or_else(|| self.missing())?;
        Ok(open.tail.subscribe())
    }

    /// No more is appended, and who follows it is told that it has ended.
    pub(super) fn shut(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn missing(&self) -> LogError {
        LogError::NoStream(self.name.clone())
    }
}
