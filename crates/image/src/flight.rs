//! One piece of work, many waiters: callers with the same key share one run and its outcome.
//!
//! The work runs as a task of its own, so a caller that goes away harms nobody.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::error::ImageError;

type Outcome<T> = Option<Result<T, ImageError>>;

/// The runs under way, by key; an entry lives only as long as its run.
pub(crate) struct Flights<K, T>(Arc<Mutex<HashMap<K, watch::Receiver<Outcome<T>>>>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> Flights<K, T>
where
    K: Hash + Eq + Clone + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Runs `work`, or waits for the run of the same key that is under way.
    pub(crate) async fn run<F>(&self, key: K, work: F) -> Result<T, ImageError>
    where
        F: Future<Output = Result<T, ImageError>> + Send + 'static,
    {
        let mut outcome = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(running) = flights.get(&key) {
                running.clone()
            } else {
                let (tell, outcome) = watch::channel(None);
                flights.insert(key.clone(), outcome.clone());
                let landing = Landing {
                    flights: self.0.clone(),
                    key,
                };
                tokio::spawn(async move {
                    let result = work.await;
                    // Out of the table first: who comes now begins anew.
                    drop(landing);
                    tell.send_replace(Some(result));
                });
                outcome
            }
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or_else(|| Err(lost())),
            Err(_) => Err(lost()),
        }
    }
}

fn lost() -> ImageError {
    ImageError::storage("finish background work", "it was torn down")
}

/// Takes the entry out even when the work panics.
struct Landing<K: Hash + Eq, T> {
    flights: Arc<Mutex<HashMap<K, watch::Receiver<Outcome<T>>>>>,
    key: K,
}

impl<K: Hash + Eq, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}
