//! The work queue of a controller: each key is worked on by at most one worker at a time, and a
//! key that is added while it is worked on is worked on once more afterwards.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// A set of keys to work on. Bounded by the number of keys there are: adding a key twice keeps it
/// once.
#[derive(Debug)]
pub(crate) struct WorkQueue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    waiting: VecDeque<K>,
    status: HashMap<K, Status>,
    failures: HashMap<K, u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Waiting,
    Working,
    /// Added again while being worked on.
    Again,
}

impl<K: Clone + Eq + Hash + Send + 'static> WorkQueue<K> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                status: HashMap::new(),
                failures: HashMap::new(),
            }),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, key: K) {
        let mut state = self.lock();
        match state.status.get(&key) {
            Some(Status::Waiting | Status::Again) => {}
            Some(Status::Working) => {
                state.status.insert(key, Status::Again);
            }
            None => {
                state.status.insert(key.clone(), Status::Waiting);
                state.waiting.push_back(key);
                drop(state);
                self.changed.notify_one();
            }
        }
    }

    /// The next key to work on. The caller must say [`Self::done`] or [`Self::retry`] for it.
    pub(crate) async fn next(&self) -> K {
        loop {
            {
                let mut state = self.lock();
                if let Some(key) = state.waiting.pop_front() {
                    state.status.insert(key.clone(), Status::Working);
                    if !state.waiting.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
            }
            self.changed.notified().await;
        }
    }

    /// The work on `key` succeeded.
    pub(crate) fn done(&self, key: &K) {
        let mut state = self.lock();
        state.failures.remove(key);
        if state.status.remove(key) == Some(Status::Again) {
            drop(state);
            self.add(key.clone());
        }
    }

    /// The work on `key` failed for a reason that may pass: it is added again after a pause that
    /// doubles with each failure in a row, from 10 ms to 30 s.
    pub(crate) fn retry(self: &Arc<Self>, key: &K) {
        let pause = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures = failures.saturating_add(1);
            let doubled = 10_u64.saturating_mul(1 << (*failures).min(12));
            state.status.remove(key);
            Duration::from_millis(doubled.min(30_000))
        };
        let (queue, key) = (Arc::clone(self), key.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            queue.add(key);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_never_worked_on_twice_at_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        queue.add("a");
        assert!(
            tokio::time::timeout(Duration::from_millis(20), queue.next())
                .await
                .is_err()
        );
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a");
        assert!(
            tokio::time::timeout(Duration::from_millis(20), queue.next())
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_back_later_and_later() {
        let queue = WorkQueue::new();
        queue.add(1);
        for _ in 0..5 {
            let key = queue.next().await;
            queue.retry(&key);
        }
        assert_eq!(queue.next().await, 1);
    }
}
