//! Where entries are kept.
//!
//! A folder of segment files, `log-0000000001.jsonl` and so on: each line is one entry as
//! `entries:list` returns it, so any tool reads them. Entries are in the order in which they came.
//! In memory, and beside each finished segment in `log-0000000001.idx`, is a sparse index: for each
//! block of about 64 KiB, the span of its times, its highest severity, and its terms (see
//! `filter::hints`). An index that is missing or does not fit its segment is made anew. The oldest
//! segments go when there is too much or they are too old.
//!
//! `sink` takes entries in, `writer` writes them, `segment` and `block` are the files and their
//! index, `query` reads them back, `tail` hands them to followers.

mod block;
mod query;
mod segment;
mod sink;
mod tail;
mod writer;

use std::{
    collections::VecDeque,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, oneshot};

pub use query::{MAX_PAGE_SIZE, Order, Page, Query};
pub use sink::LogSink;
pub use tail::{Tail, TailEvent};

use crate::Filter;
use segment::Segment;
use sink::Message;
use tail::Followers;
use writer::Writer;

/// How many entries may wait to be written.
const QUEUE: usize = 16_384;

/// How many queries run at a time.
const QUERIES: usize = 4;

/// How long `open` waits for a writer that is ending: it has a queue to write and a disk to sync.
const ENDING: Duration = Duration::from_secs(10);

/// How often it asks whether that writer has ended.
const ASK_AGAIN: Duration = Duration::from_millis(2);

/// How much is kept. The defaults suit one machine.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The most bytes of all segments together. Default 1 GiB.
    pub max_bytes: u64,
    /// How long entries are kept, counted from when they came. Default 30 days.
    pub max_age: Duration,
    /// How large a segment grows. Default 16 MiB; at most an eighth of `max_bytes`, so that what
    /// goes at once is little.
    pub segment_bytes: u64,
    /// The most bytes of entries that wait to be written. Default 32 MiB.
    pub queue_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(30 * 24 * 60 * 60),
            segment_bytes: 16 << 20,
            queue_bytes: 32 << 20,
        }
    }
}

/// The log could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk or the folder failed.
    #[error("cannot use the log in {path}: {source}")]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The page token is not one that this query gave.
    #[error("invalid pageToken: it must come from the page before, with the same filter and order")]
    PageToken,
    /// Too many follow the log.
    #[error("{0} clients follow the log already, which is the most: end one of them")]
    TooManyTails(usize),
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

/// A handle on the log; clones are the same log.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    sink: LogSink,
    queries: Arc<Semaphore>,
}

/// What the writer and the readers share.
pub(crate) struct Shared {
    dir: PathBuf,
    segments: RwLock<VecDeque<Arc<Segment>>>,
    followers: Mutex<Followers>,
}

impl Shared {
    fn snapshot(&self) -> Vec<Arc<Segment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.iter().cloned().collect()
    }
}

impl LogStore {
    /// Opens the log in the folder `dir`, made if there is none. Waits for the disk, so call it when
    /// the program starts.
    ///
    /// # Errors
    /// [`LogError::Io`] when the folder cannot be read or written, or when another has it open.
    pub fn open(dir: impl AsRef<Path>, config: &LogConfig) -> Result<Self, LogError> {
        let dir = dir.as_ref();
        let io = |source| LogError::Io {
            path: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(io)?;
        let only_one = lock(dir).map_err(io)?;
        let mut segments = segment::open_all(dir).map_err(io)?;
        if segments.is_empty() {
            segments.push_back(Arc::new(Segment::create(dir, 1).map_err(io)?));
        }
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            segments: RwLock::new(segments),
            followers: Mutex::new(Followers::default()),
        });
        let (sender, queue) = mpsc::channel(QUEUE);
        let sink = LogSink::new(sender, config.queue_bytes).map_err(io)?;
        let writer = Writer::new(Arc::clone(&shared), queue, sink.pressure(), config);
        thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || {
                writer.run();
                drop(only_one);
            })
            .map_err(io)?;
        Ok(Self {
            shared,
            sink,
            queries: Arc::new(Semaphore::new(QUERIES)),
        })
    }

    /// Where to put entries. Clones are cheap.
    #[must_use]
    pub fn sink(&self) -> LogSink {
        self.sink.clone()
    }

    /// A page of the entries that pass a filter.
    ///
    /// A page may be short, even empty, and still have a next one: the work for one page is bounded.
    ///
    /// # Errors
    /// [`LogError::PageToken`] when the token is not from this query, [`LogError::Io`] when the disk
    /// fails.
    pub async fn query(&self, query: Query) -> Result<Page, LogError> {
        let permit = Arc::clone(&self.queries).acquire_owned().await;
        let permit = permit.map_err(|_| LogError::Closed)?;
        let shared = Arc::clone(&self.shared);
        let result = tokio::task::spawn_blocking(move || {
            let page = query::run(&shared, &query);
            drop(permit);
            page
        });
        result.await.map_err(|_| LogError::Closed)?
    }

    /// The entries that pass a filter, as they come from now on.
    ///
    /// # Errors
    /// [`LogError::TooManyTails`] when as many follow as may.
    pub fn tail(&self, filter: Filter, resource_names: Vec<String>) -> Result<Tail, LogError> {
        let mut followers = self
            .shared
            .followers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        followers.add(filter, resource_names)
    }

    /// Waits until every entry that was pushed before can be read.
    ///
    /// # Errors
    /// [`LogError::Closed`] when the log is closed.
    pub async fn flush(&self) -> Result<(), LogError> {
        let (reply, done) = oneshot::channel();
        self.sink
            .send(Message::Flush(reply))
            .await
            .map_err(|()| LogError::Closed)?;
        done.await.map_err(|_| LogError::Closed)
    }

    /// Writes what waits, syncs it to disk, and takes no more. Entries stay readable through this
    /// handle.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.sink.send(Message::Close(reply)).await.is_ok() {
            // An error says that another has closed it; the end is the same.
            let _ = done.await;
        }
    }
}

/// Takes the folder for the life of the file: a second writer would cut off what the first has
/// written.
fn lock(dir: &Path) -> io::Result<File> {
    let folder = File::open(dir)?;
    for _ in 0..ENDING.as_millis() / ASK_AGAIN.as_millis() {
        match folder.try_lock() {
            Ok(()) => return Ok(folder),
            Err(TryLockError::WouldBlock) => thread::sleep(ASK_AGAIN),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "another process has it open: end that one, or use another folder",
    ))
}
