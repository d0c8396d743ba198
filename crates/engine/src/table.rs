//! The instances an engine knows of, from the start of the start to the exit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use lauf_model::InstanceId;
use tokio::sync::watch;

use crate::{Exit, ExitReason, InstanceState, fault};

/// What is known of one instance.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its state as users of the engine see it. `Unready` while it starts.
    pub(crate) state: watch::Sender<InstanceState>,
    /// Why the platform is ending it, once it is.
    ending: Mutex<Option<ExitReason>>,
}

impl Entry {
    /// Says why the instance is about to be ended by the platform. The first reason stays.
    pub(crate) fn ending(&self, reason: ExitReason) {
        self.ending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(reason);
    }

    /// Moves between `Ready` and `Unready`; an instance that has exited stays so.
    pub(crate) fn set_ready(&self, ready: bool) {
        let new = if ready {
            InstanceState::Ready
        } else {
            InstanceState::Unready
        };
        self.state.send_if_modified(|state| {
            if matches!(state, InstanceState::Exited(_)) || *state == new {
                return false;
            }
            *state = new;
            true
        });
    }

    /// Waits for the exit.
    pub(crate) async fn exited(&self) -> Exit {
        let mut state = self.state.subscribe();
        let exited = state
            .wait_for(|s| matches!(s, InstanceState::Exited(_)))
            .await;
        match exited.as_deref() {
            Ok(InstanceState::Exited(exit)) => exit.clone(),
            // The sender lives in `self`, and the predicate lets nothing else through.
            _ => unreachable!("the wait ends only with an exit"),
        }
    }
}

/// All entries by id. Entries leave when they exit.
#[derive(Debug, Default)]
pub(crate) struct Table(Mutex<HashMap<InstanceId, Arc<Entry>>>);

impl Table {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, id: &InstanceId) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            state: watch::Sender::new(InstanceState::Unready),
            ending: Mutex::new(None),
        });
        self.lock().insert(id.clone(), Arc::clone(&entry));
        entry
    }

    pub(crate) fn get(&self, id: &InstanceId) -> Option<Arc<Entry>> {
        self.lock().get(id).cloned()
    }

    /// Forgets an instance that never ran.
    pub(crate) fn remove(&self, id: &InstanceId) {
        self.lock().remove(id);
    }

    /// The instance is gone; `exit` says how, but not why if the platform itself ended it. Whether
    /// anybody knew of it.
    pub(crate) fn exited(&self, id: &InstanceId, mut exit: Exit) -> bool {
        let Some(entry) = self.lock().remove(id) else {
            return false;
        };
        if let Some(reason) = *entry.ending.lock().unwrap_or_else(PoisonError::into_inner) {
            exit.reason = reason;
        }
        entry.state.send_replace(InstanceState::Exited(exit));
        true
    }

    /// Every instance is gone at once.
    pub(crate) fn all_lost(&self, at: jiff::Timestamp) {
        let all: Vec<InstanceId> = self.lock().keys().cloned().collect();
        for id in all {
            self.exited(&id, fault::unseen(at));
        }
    }
}
