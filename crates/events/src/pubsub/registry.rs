//! What there is of a kind, by name, in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};

use lauf_model::{Status, Violation};

/// The most things on a page of a list, and how many there are if nobody says.
const MAX_PAGE: usize = 1_000;
const DEFAULT_PAGE: usize = 100;

/// Things by name.
pub(super) struct Registry<K, V>(RwLock<BTreeMap<K, Arc<V>>>);

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Ord + Clone, V> Registry<K, V> {
    pub(super) fn get(&self, name: &K) -> Option<Arc<V>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(name).cloned()
    }

    pub(super) fn put(&self, name: K, value: V) -> Arc<V> {
        let value = Arc::new(value);
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(name, Arc::clone(&value));
        value
    }

    pub(super) fn remove(&self, name: &K) -> Option<Arc<V>> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(name)
    }

    pub(super) fn all(&self) -> Vec<Arc<V>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// A page of those that `wanted` selects from `begin` on, up to the first that `ours` does not
    /// know, and the name of the last if there are more.
    pub(super) fn page(
        &self,
        begin: Bound<K>,
        size: usize,
        ours: impl Fn(&K) -> bool,
        wanted: impl Fn(&V) -> bool,
    ) -> (Vec<Arc<V>>, Option<K>) {
        let size = match size {
            0 => DEFAULT_PAGE,
            _ => size.min(MAX_PAGE),
        };
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        let mut last = None;
        for (name, value) in all.range((begin, Bound::Unbounded)) {
            if !ours(name) {
                break;
            }
            if !wanted(value) {
                continue;
            }
            if found.len() == size {
                return (found, last);
            }
            found.push(Arc::clone(value));
            last = Some(name.clone());
        }
        (found, None)
    }
}

/// The answer to a page token that is none.
pub(super) fn bad_token(token: &str) -> Status {
    Status::invalid(vec![Violation::new(
        "page_token",
        format!("'{token}' is not a token of an earlier page."),
    )])
}
