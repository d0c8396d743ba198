//! Following what changes.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::{
    Key, Kind, Object, Version, WatchError,
    history::{self, Next, Recent},
    read::Readers,
    schema,
};

/// Which changes to follow.
#[derive(Clone, Debug, Default)]
pub struct WatchQuery {
    /// Of this kind, or of all.
    pub kind: Option<Kind>,
    /// In scopes that start with this text.
    pub scope_prefix: String,
}

impl WatchQuery {
    /// All changes of a kind.
    pub fn kind(kind: impl Into<Kind>) -> Self {
        Self {
            kind: Some(kind.into()),
            scope_prefix: String::new(),
        }
    }

    pub(crate) fn matches(&self, key: &Key) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == key.kind)
            && key.scope.starts_with(&self.scope_prefix)
    }
}

/// Something that happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When, in the one order. The changes of one transaction share it.
    pub version: Version,
    /// To what.
    pub key: Key,
    /// What.
    pub event: Event,
}

impl Change {
    pub(crate) fn weight(&self) -> usize {
        let (Event::Put(object) | Event::Deleted(object)) = &self.event;
        object.body.len() + 2 * (self.key.scope.len() + self.key.name.len()) + 256
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was created (`created` is the version) or changed.
    Put(Object),
    /// It was deleted; this is what it was.
    Deleted(Object),
}

/// What watchers share with the writer.
pub(crate) struct Feed {
    pub(crate) recent: Mutex<Recent>,
    pub(crate) readers: Readers,
}

/// The changes after a version, as they come.
pub struct Watch {
    feed: Arc<Feed>,
    published: watch::Receiver<Version>,
    query: WatchQuery,
    /// Everything up to here was looked at and is in `ready` or was handed out.
    at: Version,
    ready: VecDeque<Arc<Change>>,
    /// The version up to which everything was handed out.
    seen: Version,
    started: bool,
    over: bool,
}

impl Watch {
    pub(crate) fn new(
        feed: Arc<Feed>,
        published: watch::Receiver<Version>,
        query: WatchQuery,
        from: Version,
    ) -> Self {
        Self {
            feed,
            published,
            query,
            at: from,
            ready: VecDeque::new(),
            seen: from,
            started: false,
            over: false,
        }
    }

    /// Finds out whether this watch can start, without waiting for a change.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub async fn begin(&mut self) -> Result<(), WatchError> {
        if self.started || self.over {
            return Ok(());
        }
        let begun = async {
            self.check_start().await?;
            self.fill().await
        };
        let begun = begun.await;
        self.started = begun.is_ok();
        self.over = begun.is_err();
        begun
    }

    /// The next change. `None` when the store has closed; nothing comes after an error or `None`.
    ///
    /// It is safe to drop the future before it is done: nothing is lost.
    ///
    /// # Errors
    /// See [`WatchError`]; both say how to start again.
    pub async fn next(&mut self) -> Option<Result<Arc<Change>, WatchError>> {
        if self.over {
            return None;
        }
        let next = self.advance().await;
        self.over = !matches!(next, Ok(Some(_)));
        next.transpose()
    }

    /// The version up to which this watch has handed out everything that matched, which moves on
    /// while nothing matches. A new watch may start from here.
    #[must_use]
    pub fn version(&self) -> Version {
        self.seen
    }

    async fn advance(&mut self) -> Result<Option<Arc<Change>>, WatchError> {
        if !self.started {
            self.check_start().await?;
            self.started = true;
        }
        loop {
            if let Some(change) = self.ready.pop_front() {
                // A version is seen when its last change is out.
                self.seen = match self.ready.front() {
                    None => self.at,
                    Some(next) if next.version > change.version => change.version,
                    Some(_) => self.seen,
                };
                return Ok(Some(change));
            }
            self.seen = self.at;
            // Taken before looking, so that what is published meanwhile wakes the wait below.
            let open = self.published.has_changed().is_ok();
            self.published.borrow_and_update();
            let before = self.at;
            self.fill().await?;
            if self.at > before {
                continue;
            }
            if !open {
                return Ok(None);
            }
            // An error says that the writer has ended: look once more for its last words.
            let _ = self.published.changed().await;
        }
    }

    /// Takes the next changes from memory, or from disk where memory no longer has them.
    async fn fill(&mut self) -> Result<(), WatchError> {
        let recent = self
            .feed
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .after(self.at, &self.query);
        let next = match recent {
            Next::Changes(..) => recent,
            Next::Gone(_) => {
                let (at, query) = (self.at, self.query.clone());
                self.feed
                    .readers
                    .run(move |conn| history::after(conn, at, &query))
                    .await?
            }
        };
        match next {
            Next::Changes(changes, upto) => {
                self.ready = changes;
                self.at = self.at.max(upto);
                Ok(())
            }
            Next::Gone(oldest) => Err(WatchError::Compacted {
                from: self.at,
                oldest,
            }),
        }
    }

    async fn check_start(&self) -> Result<(), WatchError> {
        // A list may know of a commit a moment before it is published, so ask the tables too.
        if self.at > *self.published.borrow() {
            let current = self
                .feed
                .readers
                .run(|conn| schema::meta(conn, "version"))
                .await?;
            if self.at > current {
                return Err(WatchError::Ahead {
                    from: self.at,
                    current,
                });
            }
        }
        Ok(())
    }
}
