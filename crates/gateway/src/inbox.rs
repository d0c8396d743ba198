//! Commands on their way from the fleet to a worker. Most revisions are at zero and have none: a channel would take
//! more memory for each of them than all else that a worker has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::oneshot;

use lauf_engine::StartError;

use crate::pool::RevisionPool;

/// What the fleet asks of a worker.
pub(crate) enum Command {
    /// Answer when the first instances have been ready, or with why they cannot be.
    First(oneshot::Sender<Result<(), StartError>>),
    /// Drain, stop everything, answer, end.
    Retire(oneshot::Sender<()>),
}

/// Where the fleet puts them. As many as there are deploys that wait; when it is dropped, the worker ends.
pub(crate) struct Inbox {
    pool: Arc<RevisionPool>,
    /// `None` once the worker has ended.
    commands: Mutex<Option<Vec<Command>>>,
}

impl Inbox {
    /// Both ends.
    pub(crate) fn new(pool: Arc<RevisionPool>) -> (Arc<Self>, Commands) {
        let inbox = Arc::new(Self {
            pool,
            commands: Mutex::new(Some(Vec::new())),
        });
        let commands = Commands(Arc::downgrade(&inbox));
        (inbox, commands)
    }

    /// Hands one over and wakes the worker. Dropped, with the reply in it, when that has ended.
    pub(crate) fn send(&self, command: Command) {
        if let Some(commands) = &mut *self.lock() {
            commands.push(command);
        }
        self.pool.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.pool.changed.notify_one();
    }
}

/// The worker's end.
pub(crate) struct Commands(Weak<Inbox>);

impl Commands {
    /// What has come since the last time; `None` when the fleet is gone.
    pub(crate) fn take(&self) -> Option<Vec<Command>> {
        let inbox = self.0.upgrade()?;
        let mut commands = inbox.lock();
        commands.as_mut().map(std::mem::take)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if let Some(inbox) = self.0.upgrade() {
            *inbox.lock() = None;
        }
    }
}
