//! The door.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::{
    Key, ListQuery, Object, OpenError, Page, ReadError, StoreConfig, Txn, Version, Watch,
    WatchQuery, WriteError,
    history::{Kept, Recent},
    lock,
    read::{self, Readers},
    schema,
    watch::Feed,
    writer::{Request, Write, Writer},
};

/// A handle on the store; clones are the same store. The store ends when the last handle is dropped
/// or [`Store::close`] is called.
#[derive(Clone)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    queue_bytes: Arc<Semaphore>,
    queue_bytes_max: usize,
    feed: Arc<Feed>,
    published: watch::Receiver<Version>,
}

impl Store {
    /// Opens the store in the file `path`, made if there is none. Waits for the disk, so call it
    /// when the program starts.
    ///
    /// # Errors
    /// See [`OpenError`]: in use, newer, not ours, damaged, or the system says no.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, &StoreConfig::default())
    }

    /// As [`Store::open`], with settings.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(path: impl AsRef<Path>, config: &StoreConfig) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let lock = lock::acquire(path)?;
        let conn = schema::open_file(path)?;
        let readers = Readers::open(path, config.readers.get())?;
        Self::start(
            path,
            Arc::new(Mutex::new(conn)),
            readers,
            Some(lock),
            config,
        )
    }

    /// A store that is gone with the process. For tests.
    ///
    /// # Errors
    /// None that can be expected.
    pub fn in_memory() -> Result<Self, OpenError> {
        Self::in_memory_with(&StoreConfig::default())
    }

    /// As [`Store::in_memory`], with settings.
    ///
    /// # Errors
    /// As [`Store::in_memory`].
    pub fn in_memory_with(config: &StoreConfig) -> Result<Self, OpenError> {
        let conn = Arc::new(Mutex::new(schema::open_memory()?));
        let readers = Readers::shared(Arc::clone(&conn));
        Self::start(Path::new(":memory:"), conn, readers, None, config)
    }

    fn start(
        path: &Path,
        conn: Arc<Mutex<rusqlite::Connection>>,
        readers: Readers,
        lock: Option<std::fs::File>,
        config: &StoreConfig,
    ) -> Result<Self, OpenError> {
        let (version, kept) = {
            let conn = conn
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            schema::meta(&conn, "version")
                .and_then(|version| {
                    let kept = Kept::load(&conn, config.history_changes, config.history_bytes)?;
                    Ok((version, kept))
                })
                .map_err(|error| schema::open_error(path, &error))?
        };
        let recent = Recent::new(version, config.recent_changes, config.recent_bytes);
        let feed = Arc::new(Feed {
            recent: Mutex::new(recent),
            readers,
        });
        let (requests, queue) = mpsc::channel(config.queue_len.get());
        let (publish, published) = watch::channel(version);
        let writer = Writer {
            conn,
            requests: queue,
            feed: Arc::clone(&feed),
            published: publish,
            kept,
            version,
            lock,
        };
        thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Io {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        let queue_bytes_max = config.queue_bytes.min(Semaphore::MAX_PERMITS);
        Ok(Self {
            requests,
            queue_bytes: Arc::new(Semaphore::new(queue_bytes_max)),
            queue_bytes_max,
            feed,
            published,
        })
    }

    /// The object under `key`, if there is one. Sees every write that was acknowledged before.
    ///
    /// # Errors
    /// [`ReadError::Io`] when the disk or the database fails.
    pub async fn get(&self, key: &Key) -> Result<Option<Object>, ReadError> {
        let key = key.clone();
        self.feed
            .readers
            .run(move |conn| read::get(conn, &key))
            .await
    }

    /// A page of objects, by scope and name.
    ///
    /// # Errors
    /// [`ReadError::Io`] when the disk or the database fails.
    pub async fn list(&self, query: &ListQuery) -> Result<Page, ReadError> {
        let query = query.clone();
        self.feed
            .readers
            .run(move |conn| read::list(conn, &query))
            .await
    }

    /// Applies `txn` if all its conditions hold, and returns the version it took once it is safely
    /// on disk. A transaction that changes nothing takes no version of its own: it returns the
    /// version at which its conditions held.
    ///
    /// Dropping the future does not undo the write.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write(&self, txn: Txn) -> Result<Version, WriteError> {
        if let Some(problem) = txn.problem() {
            return Err(WriteError::Invalid(problem));
        }
        let weight = txn.weight();
        if weight > self.queue_bytes_max {
            return Err(WriteError::Invalid(format!(
                "a transaction has {weight} bytes; at most {} are allowed: split it",
                self.queue_bytes_max
            )));
        }
        let permit = u32::try_from(weight)
            .ok()
            .and_then(|weight| {
                Arc::clone(&self.queue_bytes)
                    .try_acquire_many_owned(weight)
                    .ok()
            })
            .ok_or(WriteError::QueueFull)?;
        let (reply, answer) = oneshot::channel();
        let request = Request::Write(Write { txn, reply, permit });
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => WriteError::QueueFull,
                mpsc::error::TrySendError::Closed(_) => WriteError::Closed,
            })?;
        answer.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Follows the changes after `from`, normally the version of a list.
    #[must_use]
    pub fn watch(&self, query: WatchQuery, from: Version) -> Watch {
        Watch::new(Arc::clone(&self.feed), self.published.clone(), query, from)
    }

    /// The version of the last write.
    #[must_use]
    pub fn version(&self) -> Version {
        *self.published.borrow()
    }

    /// Takes no more writes, finishes those that wait, and gives the file free. Watches end after
    /// the last change.
    pub async fn close(&self) {
        // An error says that another has closed it; the end is the same.
        let _ = self.requests.send(Request::Close).await;
        let mut published = self.published.clone();
        while published.changed().await.is_ok() {}
    }
}
