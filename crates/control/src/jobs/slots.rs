//! How much of the machine tasks may have at once.
//!
//! An execution without a limit of its own runs as many tasks at once as fit: the sum of their memory
//! limits is at most what the machine gives to jobs, so that no task dies for another's sake. A task
//! that wants more than all of it runs alone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Starts of tasks under way at once. Enough to keep the keeper busy; more would only make a
/// service's cold start wait behind them.
const STARTS: usize = 16;

/// What the machine gives to tasks. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    memory: Arc<Semaphore>,
    tasks: Arc<Semaphore>,
    starts: Arc<Semaphore>,
    /// In MiB.
    all_memory: u32,
}

/// One task's share, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    _memory: OwnedSemaphorePermit,
    _task: OwnedSemaphorePermit,
}

impl Slots {
    /// `memory` in bytes, for at most `tasks` tasks.
    pub(crate) fn new(memory: u64, tasks: usize) -> Self {
        let all_memory = mib(memory).max(1);
        let permits = usize::try_from(all_memory).unwrap_or(usize::MAX);
        Self {
            memory: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            tasks: Arc::new(Semaphore::new(tasks.clamp(1, Semaphore::MAX_PERMITS))),
            starts: Arc::new(Semaphore::new(STARTS)),
            all_memory,
        }
    }

    /// A slot for a task with this memory limit in bytes, if there is one now.
    pub(crate) fn try_take(&self, memory: u64) -> Option<Slot> {
        let task = Arc::clone(&self.tasks).try_acquire_owned().ok()?;
        let wanted = mib(memory).clamp(1, self.all_memory);
        let memory = Arc::clone(&self.memory).try_acquire_many_owned(wanted);
        Some(Slot {
            _memory: memory.ok()?,
            _task: task,
        })
    }

    /// Waits for a slot, in the order of asking.
    pub(crate) async fn take(&self, memory: u64) -> Slot {
        let wanted = mib(memory).clamp(1, self.all_memory);
        // Nobody closes these.
        let task = Arc::clone(&self.tasks).acquire_owned().await;
        let memory = Arc::clone(&self.memory).acquire_many_owned(wanted).await;
        match (memory, task) {
            (Ok(memory), Ok(task)) => Slot {
                _memory: memory,
                _task: task,
            },
            _ => std::future::pending().await,
        }
    }

    /// Waits until one more start may be under way.
    pub(crate) async fn start(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.starts).acquire_owned().await.ok()
    }
}

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test]
    async fn memory_is_given_once_and_a_task_that_wants_all_of_it_runs_alone() {
        let slots = Slots::new(1000 * MIB, 10);
        let one = slots.try_take(600 * MIB).unwrap();
        assert!(slots.try_take(600 * MIB).is_none());
        let other = slots.try_take(400 * MIB).unwrap();
        drop(one);
        assert!(slots.try_take(2000 * MIB).is_none());
        drop(other);
        let alone = slots.try_take(2000 * MIB).unwrap();
        assert!(slots.try_take(MIB).is_none());
        let next = slots.take(MIB);
        drop(alone);
        drop(next.await);
        let all: Vec<Slot> = (0..10).filter_map(|_| slots.try_take(MIB)).collect();
        assert_eq!(all.len(), 10);
        assert!(slots.try_take(MIB).is_none(), "no more than ten tasks");
    }
}
