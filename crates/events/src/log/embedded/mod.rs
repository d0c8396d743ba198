//! The log of one machine: files in a folder, and one thread that writes them.
//!
//! ```text
//! append --> bounded queue --> writer --(1)--> segments of the stream, not synced
//!                                    --(2)--> journal, synced: one sync for all that queued
//!                                    --(3)--> receipts, tails
//! ```
//!
//! The *journal* makes records durable: a few files of fixed size, written over again and again, so
//! that a sync costs no change of the file system's own tables (0.3 ms where an append to a growing
//! file takes 4). *Segments* are where records stay: each stream has files of its own, read without
//! asking the writer and deleted from the front. When a journal file is full, a second thread syncs the segments written
//! meanwhile, and the file is free again. A start cuts the segments back to where the oldest journal
//! file in use begins, and plays the journal from there: what the machine lost is written again, and
//! what was never acknowledged is gone or whole.
//!
//! A disk that fails to sync has told lies about what it holds; the log then refuses every further
//! append until it is opened again.

mod checkpoint;
mod files;
mod frame;
mod journal;
#[cfg(test)]
mod power_tests;
mod read;
mod record;
mod recover;
mod segment;
mod stream;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use lauf_model::Clock;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    Chunk, Extent, Limit, LogError, MessageLog, Position, Receipt, append_problem, name_problem,
};
use files::Folder;
use read::Readers;
use stream::{Stream, Streams};
use writer::{Ask, Request, Writer};

/// How large things get.
#[derive(Clone, Debug)]
pub struct EmbeddedConfig {
    /// A segment is closed when it has grown to so many bytes.
    pub segment_bytes: u64,
    /// The size of a journal file. An append may take half of it.
    pub journal_bytes: u64,
    /// How many journal files there may be.
    pub journal_files: usize,
    /// How many bytes may wait to be written.
    pub queue_bytes: usize,
    /// How many requests may wait to be written.
    pub queue_len: usize,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            journal_bytes: 64 << 20,
            journal_files: 4,
            queue_bytes: 128 << 20,
            queue_len: 65_536,
        }
    }
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the message log {0} is in use by another process")]
    InUse(PathBuf),
    /// The files contradict each other.
    #[error("the message log is damaged: {path}: {problem}; restore it from a backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The system refuses.
    #[error("the message log cannot be opened: {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A handle on the log of a folder; clones are the same log.
#[derive(Clone)]
pub struct EmbeddedLog {
    requests: mpsc::Sender<Request>,
    queue: Arc<Semaphore>,
    streams: Arc<Streams>,
    readers: Arc<Readers>,
    /// The most bytes of one append, heads included.
    largest: usize,
}

impl EmbeddedLog {
    /// Opens the log in a folder, made if there is none. Waits for the disk, so call it when the
    /// program starts.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        dir: impl AsRef<Path>,
        config: &EmbeddedConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let (streams, journal, lock) = recover::open(dir.as_ref(), config)?;
        let streams = Arc::new(streams);
        let (requests, queue) = mpsc::channel(config.queue_len);
        let folder = Folder::new(dir.as_ref());
        let writer = Writer::new(
            queue,
            Arc::clone(&streams),
            journal,
            lock,
            folder,
            clock,
            config,
        );
        thread::Builder::new()
            .name("events-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io {
                path: dir.as_ref().to_owned(),
                source,
            })?;
        Ok(Self {
            requests,
            queue: Arc::new(Semaphore::new(config.queue_bytes)),
            readers: Arc::new(Readers::new()),
            streams,
            largest: usize::try_from(config.journal_bytes / 2).unwrap_or(usize::MAX),
        })
    }

    fn stream(&self, name: &str) -> Result<Arc<Stream>, LogError> {
        self.streams
            .get(name)
            .ok_or_else(|| LogError::NoStream(name.to_owned()))
    }

    async fn ask(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<(), LogError>>) -> Ask,
    ) -> Result<(), LogError> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            ask: ask(reply),
            permit: None,
        };
        let sent = self.requests.send(request).await;
        sent.map_err(|_| LogError::Closed)?;
        answer.await.unwrap_or(Err(LogError::Closed))
    }

    async fn reading<T: Send + 'static>(
        &self,
        stream: &str,
        job: impl FnOnce(&Readers, &Stream) -> io::Result<T> + Send + 'static,
    ) -> Result<T, LogError> {
        let stream = self.stream(stream)?;
        let readers = Arc::clone(&self.readers);
        let job = move || match job(&readers, &stream) {
            // Whatever went wrong did because it went away.
            Err(_) if stream.is_deleted() => Err(LogError::NoStream(stream.name.clone())),
            other => other.map_err(|error| LogError::Failed(error.to_string())),
        };
        let done = tokio::task::spawn_blocking(job).await;
        done.unwrap_or_else(|error| Err(LogError::Failed(error.to_string())))
    }
}

#[async_trait]
impl MessageLog for EmbeddedLog {
    async fn create(&self, stream: &str) -> Result<(), LogError> {
        if let Some(problem) = name_problem(stream) {
            return Err(LogError::Invalid(problem));
        }
        self.ask(|reply| Ask::Create(stream.to_owned(), reply))
            .await
    }

    async fn delete(&self, stream: &str) -> Result<(), LogError> {
        self.ask(|reply| Ask::Delete(stream.to_owned(), reply))
            .await
    }

    async fn streams(&self) -> Result<Vec<String>, LogError> {
        Ok(self.streams.names())
    }

    fn append(&self, stream: &str, records: Vec<Bytes>) -> Result<Receipt, LogError> {
        if let Some(problem) = append_problem(&records) {
            return Err(LogError::Invalid(problem));
        }
        let stream = self.stream(stream)?;
        let bytes: usize = records.iter().map(|r| r.len() + record::HEADER).sum();
        if bytes > self.largest {
            return Err(LogError::Invalid(format!(
                "an append takes {bytes} bytes; this log's journal has room for {}",
                self.largest
            )));
        }
        let permit = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| Arc::clone(&self.queue).try_acquire_many_owned(bytes).ok())
            .ok_or(LogError::Full)?;
        let (reply, answer) = oneshot::channel();
        let request = Request {
            ask: Ask::Append {
                stream,
                records,
                bytes,
                reply,
            },
            permit: Some(permit),
        };
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => LogError::Full,
                mpsc::error::TrySendError::Closed(_) => LogError::Closed,
            })?;
        Ok(Receipt(answer))
    }

    async fn read(&self, stream: &str, from: Position, limit: Limit) -> Result<Chunk, LogError> {
        let known = self.stream(stream)?;
        // A reader that has caught up, which is most of them most of the time, needs no thread.
        if from >= known.next() {
            return Ok(Chunk {
                records: Vec::new(),
                next: from,
            });
        }
        self.reading(stream, move |readers, stream| {
            readers.read(stream, from, limit)
        })
        .await
    }

    async fn extent(&self, stream: &str) -> Result<Extent, LogError> {
        Ok(self.stream(stream)?.extent())
    }

    async fn position_at(&self, stream: &str, time: Timestamp) -> Result<Position, LogError> {
        let time = time.as_microsecond();
        self.reading(stream, move |readers, stream| {
            readers.position_at(stream, time)
        })
        .await
    }

    async fn trim(&self, stream: &str, before: Position) -> Result<(), LogError> {
        let stream = self.stream(stream)?;
        self.ask(|reply| Ask::Trim(stream, before, reply)).await
    }

    async fn tail(&self, stream: &str) -> Result<watch::Receiver<Position>, LogError> {
        Ok(self.stream(stream)?.tail())
    }

    async fn close(&self) {
        let _ = self.ask(Ask::Close).await;
    }
}
