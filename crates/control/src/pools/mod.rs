//! Worker pools: revisions stamped, made ready, and given their shares of the instances.
//!
//! In: changes of pools and their revisions in the store, and of the instances of each. Out:
//! revisions and statuses written, and how many instances each revision shall have. A new revision
//! takes over instance by instance: the old one gives one up for each of the new one's that runs.

mod crew;
pub(crate) mod plan;
pub(crate) mod pool;
pub(crate) mod revision;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lauf_engine::{Engine, Instance, Owner, StartError};
use lauf_model::{Clock, InstanceId, WorkerPoolKey, WorkerPoolRevision, WorkerPoolRevisionKey};
use tokio::sync::oneshot;

use crate::queue::WorkQueue;
use crew::{Crew, Needs, Order, Wanted};

/// The instances of all worker pools.
pub(crate) struct Crews {
    engine: Arc<dyn Engine>,
    clock: Arc<dyn Clock>,
    new_id: fn() -> InstanceId,
    by_revision: Mutex<HashMap<WorkerPoolRevisionKey, Crew>>,
    /// Running instances whose revisions have not asked for them yet.
    unclaimed: Mutex<Vec<Arc<Instance>>>,
    /// Pools whose instances have changed in number.
    pools: Arc<WorkQueue<WorkerPoolKey>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crews {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        clock: Arc<dyn Clock>,
        new_id: fn() -> InstanceId,
        running: Vec<Arc<Instance>>,
        pools: Arc<WorkQueue<WorkerPoolKey>>,
    ) -> Self {
        Self {
            engine,
            clock,
            new_id,
            by_revision: Mutex::default(),
            unclaimed: Mutex::new(running),
            pools,
        }
    }

    /// Makes sure that a revision's instances are started, one for now: see [`Wanted::Check`].
    pub(crate) fn check(&self, key: &WorkerPoolRevisionKey, revision: &WorkerPoolRevision) {
        let mut crews = lock(&self.by_revision);
        if !crews.contains_key(key) {
            let crew = self.crew(key, revision, Wanted::Check);
            crews.insert(key.clone(), crew);
        }
    }

    /// Gives a revision its share of the instances.
    pub(crate) fn want(
        &self,
        key: &WorkerPoolRevisionKey,
        revision: &WorkerPoolRevision,
        count: u32,
    ) {
        let share = Wanted::Share(count);
        let mut crews = lock(&self.by_revision);
        let Some(crew) = crews.get(key) else {
            let crew = self.crew(key, revision, share);
            crews.insert(key.clone(), crew);
            return;
        };
        crew.wanted.send_if_modified(|wanted| {
            let changed = *wanted != share;
            *wanted = share;
            changed
        });
    }

    /// Starts the crew of a revision with what an earlier server started for it.
    fn crew(
        &self,
        key: &WorkerPoolRevisionKey,
        revision: &WorkerPoolRevision,
        wanted: Wanted,
    ) -> Crew {
        let mut adopted = Vec::new();
        lock(&self.unclaimed).retain(|instance| {
            let own = matches!(&instance.spec.owner, Owner::WorkerPool(of) if of == key);
            if own {
                adopted.push(Arc::clone(instance));
            }
            !own
        });
        let needs = Needs {
            engine: Arc::clone(&self.engine),
            clock: Arc::clone(&self.clock),
            key: key.clone(),
            revision: revision.clone(),
            adopted,
            new_id: self.new_id,
        };
        let crew = crew::start(needs, wanted);
        let (mut running, pools, pool) = (
            crew.running.clone(),
            Arc::clone(&self.pools),
            key.pool.clone(),
        );
        // Ends with the crew.
        tokio::spawn(async move {
            while running.changed().await.is_ok() {
                pools.add(pool.clone());
            }
        });
        crew
    }

    /// How many instances of a revision run.
    pub(crate) fn running(&self, key: &WorkerPoolRevisionKey) -> u32 {
        let crews = lock(&self.by_revision);
        crews.get(key).map_or(0, |crew| *crew.running.borrow())
    }

    /// Answers when an instance of a revision has run once, or with why none can.
    pub(crate) async fn first_instance(
        &self,
        key: &WorkerPoolRevisionKey,
    ) -> Result<(), StartError> {
        let gone = || StartError::Host(format!("revision {key} is being removed"));
        let orders = lock(&self.by_revision).get(key).map(|c| c.orders.clone());
        let (reply, answer) = oneshot::channel();
        let orders = orders.ok_or_else(gone)?;
        orders.send(Order::First(reply)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Stops all of a revision's instances.
    pub(crate) async fn retire(&self, key: &WorkerPoolRevisionKey) {
        let crew = lock(&self.by_revision).remove(key);
        let Some(crew) = crew else { return };
        let (reply, done) = oneshot::channel();
        if crew.orders.send(Order::Retire(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Stops, in the background, the adopted instances that no revision has asked for.
    pub(crate) fn stop_unclaimed(&self) {
        for instance in std::mem::take(&mut *lock(&self.unclaimed)) {
            let engine = Arc::clone(&self.engine);
            tokio::spawn(async move {
                engine
                    .stop(instance.id(), std::time::Duration::from_secs(10))
                    .await;
            });
        }
    }
}
