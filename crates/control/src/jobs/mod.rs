//! Jobs: executions driven to their ends, and what their jobs show of them.
//!
//! In: changes of the store and of instances. Out: tasks and executions written, instances started
//! and stopped. The laws, beside those of the room:
//!
//! 1. An attempt is on record before its instance is started; its result is on record before the
//!    keeper is told that it may forget it. So no task is lost, and none runs again after it succeeded.
//! 2. Nobody but an execution's one driver writes its tasks and its status.
//! 3. What the host could not start is no attempt.

mod attempt;
pub(crate) mod execution;
pub(crate) mod job;
mod machine;
mod slots;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lauf_model::{Execution, ExecutionKey};
use lauf_store::{Event, WriteError};
use tokio::sync::Notify;
use tokio::task::JoinSet;

pub(crate) use slots::Slots;

use crate::Context;
use crate::error::TurnError;

/// How many executions are under way. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Underway(Arc<AtomicUsize>);

impl Underway {
    /// The number now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The executions under way, each with its driver.
pub(crate) struct Executions {
    context: Arc<Context>,
    drivers: Mutex<Drivers>,
    underway: Underway,
}

#[derive(Default)]
struct Drivers {
    by_key: HashMap<ExecutionKey, Arc<Changed>>,
    /// Dropped with the controllers, and the drivers with it.
    tasks: JoinSet<()>,
}

/// Says that an execution was written.
#[derive(Default)]
struct Changed {
    notify: Notify,
    /// Set with each notice, and taken back before the store is read.
    unseen: AtomicBool,
}

/// Whether an execution still waits for its driver.
pub(crate) fn is_unsettled(execution: &Execution) -> bool {
    !execution.is_over() || execution.meta.deleted.is_some()
}

/// Whether a job has anything to learn from a change of its execution: that it was made, began or
/// ended, or that it goes.
pub(crate) fn is_news(execution: &Execution, event: &Event) -> bool {
    let status = &execution.status;
    let just_begun = status.started.is_some() && status.succeeded + status.failed == 0;
    matches!(event, Event::Deleted(_))
        || status.started.is_none()
        || just_begun
        || execution.is_over()
        || execution.meta.deleted.is_some()
}

impl Executions {
    pub(crate) fn new(context: Arc<Context>, underway: Underway) -> Arc<Self> {
        Arc::new(Self {
            context,
            drivers: Mutex::default(),
            underway,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Drivers> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves every execution where it is. What runs goes on without a driver.
    pub(crate) fn stop(&self) {
        self.lock().tasks.abort_all();
    }

    /// An execution was made or written: its driver looks at it, or one is made.
    pub(crate) fn look_at(self: &Arc<Self>, key: ExecutionKey) {
        let mut drivers = self.lock();
        while drivers.tasks.try_join_next().is_some() {}
        if let Some(changed) = drivers.by_key.get(&key) {
            changed.unseen.store(true, Ordering::Release);
            changed.notify.notify_one();
            return;
        }
        let changed = Arc::new(Changed::default());
        drivers.by_key.insert(key.clone(), Arc::clone(&changed));
        self.underway
            .0
            .store(drivers.by_key.len(), Ordering::Relaxed);
        let this = Arc::clone(self);
        drivers
            .tasks
            .spawn(async move { this.drive(key, changed).await });
    }

    async fn drive(self: Arc<Self>, key: ExecutionKey, changed: Arc<Changed>) {
        let mut pause = FIRST_PAUSE;
        loop {
            changed.unseen.store(false, Ordering::Release);
            match execution::drive(&self.context, &key, &changed.notify).await {
                Ok(()) => {}
                // A user wrote first; the next turn sees it.
                Err(TurnError::Write(WriteError::Conflict { .. })) => continue,
                // A turn with a body it cannot read would only fail again.
                Err(error @ TurnError::Body(_)) => tracing::error!(%key, %error, "left alone"),
                Err(error) => {
                    tracing::warn!(%key, %error, "will be tried again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            }
            let mut drivers = self.lock();
            if !changed.unseen.load(Ordering::Acquire) {
                drivers.by_key.remove(&key);
                self.underway
                    .0
                    .store(drivers.by_key.len(), Ordering::Relaxed);
                return;
            }
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
