//! Following the log.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

use super::{LogError, query};
use crate::{Filter, LogEntry};

/// How many may follow.
const MAX_TAILS: usize = 64;

/// How far behind one may be, in entries and in bytes.
const BACKLOG: usize = 4_096;
const BACKLOG_BYTES: usize = 8 << 20;

/// What a follower gets.
#[derive(Clone, Debug, PartialEq)]
pub enum TailEvent {
    /// A new entry.
    Entry(Arc<LogEntry>),
    /// So many entries were left out here, because the follower was too slow.
    Lagged(u64),
}

/// New entries, as they come. Ends when it is dropped, or with the log.
pub struct Tail {
    entries: mpsc::Receiver<Queued>,
    lag: Arc<Lag>,
}

/// An entry and how many were left out before it.
struct Queued {
    entry: Arc<LogEntry>,
    weight: usize,
    missed: u64,
}

#[derive(Default)]
struct Lag {
    bytes: AtomicUsize,
    /// Left out since the last entry that was queued.
    missed: AtomicU64,
}

impl Tail {
    /// Waits for entries and returns those that are there, at least one. `None` when the log closes.
    ///
    /// It is safe to drop the future before it is done: nothing is lost.
    pub async fn next(&mut self) -> Option<Vec<TailEvent>> {
        let mut events = Vec::new();
        let mut next = self.entries.recv().await;
        while let Some(queued) = next {
            self.lag.bytes.fetch_sub(queued.weight, Ordering::Relaxed);
            if queued.missed > 0 {
                events.push(TailEvent::Lagged(queued.missed));
            }
            events.push(TailEvent::Entry(queued.entry));
            next = if events.len() < 256 {
                self.entries.try_recv().ok()
            } else {
                None
            };
        }
        if events.is_empty() {
            let missed = self.lag.missed.swap(0, Ordering::Relaxed);
            return (missed > 0).then(|| vec![TailEvent::Lagged(missed)]);
        }
        Some(events)
    }
}

/// All who follow. The writer offers each entry to each.
#[derive(Default)]
pub(super) struct Followers {
    followers: Vec<Follower>,
}

struct Follower {
    filter: Filter,
    resource_names: Vec<String>,
    entries: mpsc::Sender<Queued>,
    lag: Arc<Lag>,
}

impl Followers {
    pub(super) fn add(
        &mut self,
        filter: Filter,
        resource_names: Vec<String>,
    ) -> Result<Tail, LogError> {
        self.followers
            .retain(|follower| !follower.entries.is_closed());
        if self.followers.len() >= MAX_TAILS {
            return Err(LogError::TooManyTails(MAX_TAILS));
        }
        let (sender, entries) = mpsc::channel(BACKLOG);
        let lag = Arc::new(Lag::default());
        self.followers.push(Follower {
            filter,
            resource_names,
            entries: sender,
            lag: Arc::clone(&lag),
        });
        Ok(Tail { entries, lag })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.followers.is_empty()
    }

    pub(super) fn offer(&mut self, entry: LogEntry) {
        let entry = Arc::new(entry);
        self.followers.retain(|follower| follower.offer(&entry));
    }

    /// Ends all of them.
    pub(super) fn end(&mut self) {
        self.followers.clear();
    }
}

impl Follower {
    /// Whether it still follows.
    fn offer(&self, entry: &Arc<LogEntry>) -> bool {
        if self.entries.is_closed() {
            return false;
        }
        if !query::names_match(&self.resource_names, entry) || !self.filter.matches(entry) {
            return true;
        }
        let weight = entry.weight();
        if self.lag.bytes.load(Ordering::Relaxed) + weight > BACKLOG_BYTES {
            self.lag.missed.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        // Only this thread adds, so the room that was there is there.
        match self.entries.try_reserve() {
            Ok(place) => {
                self.lag.bytes.fetch_add(weight, Ordering::Relaxed);
                let missed = self.lag.missed.swap(0, Ordering::Relaxed);
                place.send(Queued {
                    entry: Arc::clone(entry),
                    weight,
                    missed,
                });
            }
            Err(_) => {
                self.lag.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }
}
