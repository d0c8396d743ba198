//! Stop 4: a slot on a ready instance, or a place in the queue.
//!
//! A free slot is found and taken without a lock, in the order of [`lauf_scale::assign`]. Only a request
//! that finds none takes the queue's lock, and it has to wait anyway.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use lauf_engine::StartError;
use lauf_model::{Clock, Protocol, RevisionKey};
use tokio::sync::{Notify, oneshot};

use crate::fleet::RevisionConfig;
use crate::slot::{Released, Slots};

/// The instances of one revision, as requests see them.
pub struct RevisionPool {
    key: Arc<RevisionKey>,
    clock: Arc<dyn Clock>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) timeout: Duration,
    pub(crate) concurrency: u32,
    pub(crate) session_affinity: bool,
    /// Those that may get requests, in the order they became ready.
    ready: ArcSwap<Vec<Arc<Slots>>>,
    /// Below this index nobody had room within his share lately. A hint.
    first_free: AtomicUsize,
    /// Requests that an instance should have before the next one gets any.
    share: AtomicU32,
    /// The worker looks at nothing until a request comes.
    resting: AtomicBool,
    /// Entries of the queue, readable without its lock.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    retired: AtomicBool,
    /// Wakes the fleet's worker of this revision: demand, a drained instance, new settings.
    pub(crate) changed: Notify,
    config: ArcSwap<RevisionConfig>,
    average_start_micros: AtomicU64,
    pub(crate) starting: AtomicUsize,
    /// All that run, ready or not.
    members: ArcSwap<Vec<Arc<Slots>>>,
}

impl fmt::Debug for RevisionPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevisionPool")
            .field("key", &self.key)
            .field("ready", &self.ready.load().len())
            .field("waiting", &self.waiting.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Queue {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Lease, Refused>>>,
}

/// Why a request gets no instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The queue is full, or the wait was too long.
    NoInstance,
    /// An instance was started for it, and that failed.
    StartFailed(StartError),
    /// The revision is being removed; the route table has something newer.
    Retired,
}

/// A slot of an instance, held until dropped.
pub(crate) struct Lease {
    pub(crate) slots: Arc<Slots>,
    pool: Arc<RevisionPool>,
    /// Cleared when the slot was given back by other means.
    held: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.held {
            self.pool.release(&self.slots);
        }
    }
}

impl RevisionPool {
    pub(crate) fn new(config: RevisionConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            key: Arc::new(config.key.clone()),
            clock,
            protocol: config.spec.container.port.protocol,
            port: config.spec.container.port.number,
            timeout: config.spec.timeout,
            concurrency: config.spec.concurrency.max(1),
            session_affinity: config.spec.session_affinity,
            ready: ArcSwap::default(),
            first_free: AtomicUsize::new(0),
            share: AtomicU32::new(u32::MAX),
            resting: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            retired: AtomicBool::new(false),
            changed: Notify::new(),
            config: ArcSwap::from_pointee(config),
            average_start_micros: AtomicU64::new(0),
            starting: AtomicUsize::new(0),
            members: ArcSwap::default(),
        }
    }

    /// Which revision it is.
    #[must_use]
    pub fn key(&self) -> &Arc<RevisionKey> {
        &self.key
    }

    pub(crate) fn config(&self) -> Arc<RevisionConfig> {
        self.config.load_full()
    }

    pub(crate) fn configure(&self, config: RevisionConfig) {
        if **self.config.load() != config {
            self.config.store(Arc::new(config));
            self.changed.notify_one();
        }
    }

    /// Takes a slot if one is free and nobody is waiting for it.
    pub(crate) fn try_acquire(self: &Arc<Self>, now: Duration) -> Option<Lease> {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return None;
        }
        self.take(now)
    }

    /// Takes a slot of one instance, as [`try_acquire`](Self::try_acquire) does of any.
    pub(crate) fn try_acquire_of(
        self: &Arc<Self>,
        slots: &Arc<Slots>,
        now: Duration,
    ) -> Option<Lease> {
        if self.waiting.load(Ordering::SeqCst) > 0 || !slots.try_acquire(now, self.concurrency) {
            return None;
        }
        self.wake();
        Some(self.lease(slots))
    }

    /// An instance that may get requests, by its id.
    pub(crate) fn ready_one(&self, id: &str) -> Option<Arc<Slots>> {
        let ready = self.ready.load();
        let found = ready
            .iter()
            .find(|slots| slots.instance.id().0.as_str() == id);
        found.cloned()
    }

    fn take(self: &Arc<Self>, now: Duration) -> Option<Lease> {
        let ready = self.ready.load();
        let hint = self.first_free.load(Ordering::Relaxed);
        let share = self.share.load(Ordering::Relaxed);
        let found = lauf_scale::assign(&ready, hint, share, self.concurrency, |slots, limit| {
            slots.try_acquire(now, limit)
        })?;
        if found.first_free != hint {
            self.first_free.store(found.first_free, Ordering::Relaxed);
        }
        self.wake();
        ready.get(found.index).map(|slots| self.lease(slots))
    }

    /// Wakes a worker that rests until a request comes.
    fn wake(&self) {
        // SeqCst as in the slots: either this sees that the worker rests, or the worker the request.
        if self.resting.load(Ordering::SeqCst) && self.resting.swap(false, Ordering::SeqCst) {
            self.changed.notify_one();
        }
    }

    fn lease(self: &Arc<Self>, slots: &Arc<Slots>) -> Lease {
        Lease {
            slots: Arc::clone(slots),
            pool: Arc::clone(self),
            held: true,
        }
    }

    fn release(self: &Arc<Self>, slots: &Arc<Slots>) {
        match slots.release(self.clock.monotonic()) {
            Released::Free => {
                // Load gathers on the first instances again once they have room.
                if self.first_free.load(Ordering::Relaxed) != 0 {
                    self.first_free.store(0, Ordering::Relaxed);
                }
                if self.waiting.load(Ordering::SeqCst) > 0 {
                    self.dispatch();
                }
            }
            Released::Drained => self.changed.notify_one(),
            Released::Draining => {}
        }
    }

    /// Joins the queue and asks for one more instance. The slot comes through the [`Waiter`].
    pub(crate) fn enqueue(self: &Arc<Self>) -> Result<Waiter, Refused> {
        let config = self.config.load();
        let (sender, receiver) = oneshot::channel();
        let ticket = {
            let mut queue = self.queue();
            if self.retired.load(Ordering::SeqCst) {
                return Err(Refused::Retired);
            }
            let limit = lauf_scale::queue_limit(config.max_instances(), self.concurrency);
            if queue.waiting.len() >= limit {
                return Err(Refused::NoInstance);
            }
            let ticket = queue.next;
            queue.next += 1;
            queue.waiting.insert(ticket, sender);
            self.waiting.store(queue.waiting.len(), Ordering::SeqCst);
            ticket
        };
        let waiter = Waiter {
            pool: Arc::clone(self),
            ticket,
            receiver,
        };
        // A slot may have become free between the search and the queue.
        self.dispatch();
        self.changed.notify_one();
        Ok(waiter)
    }

    /// Hands free slots to those who have waited longest.
    pub(crate) fn dispatch(self: &Arc<Self>) {
        let now = self.clock.monotonic();
        loop {
            let Some(lease) = self.take(now) else { return };
            let mut queue = self.queue();
            let first = queue.waiting.pop_first();
            self.waiting.store(queue.waiting.len(), Ordering::SeqCst);
            drop(queue);
            match first {
                Some((_, sender)) => {
                    // Who has gone leaves the slot to the next; dropping the lease would come back here.
                    if let Err(Ok(lease)) = sender.send(Ok(lease)) {
                        self.put_back(lease);
                    }
                }
                None => {
                    self.put_back(lease);
                    // Somebody may have queued after the look at the queue and before the slot was back.
                    if self.waiting.load(Ordering::SeqCst) == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Gives a slot back without looking at the queue.
    fn put_back(&self, mut lease: Lease) {
        lease.held = false;
        if lease.slots.release(self.clock.monotonic()) == Released::Drained {
            self.changed.notify_one();
        }
    }

    /// Tells everybody in the queue that no instance will come.
    pub(crate) fn refuse_waiting(&self, why: &Refused) {
        let waiting = {
            let mut queue = self.queue();
            self.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut queue.waiting)
        };
        for sender in waiting.into_values() {
            let _ = sender.send(Err(why.clone()));
        }
    }

    /// No further requests: sends everybody in the queue away, now and later.
    pub(crate) fn retire(&self) {
        {
            let _queue = self.queue();
            self.retired.store(true, Ordering::SeqCst);
        }
        self.ready.store(Arc::default());
        self.refuse_waiting(&Refused::Retired);
        self.changed.notify_one();
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Replaces the list of those that may get requests, and serves the queue from it.
    pub(crate) fn set_ready(self: &Arc<Self>, ready: Vec<Arc<Slots>>) {
        self.ready.store(Arc::new(ready));
        self.first_free.store(0, Ordering::Relaxed);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.dispatch();
        }
    }

    /// How many requests an instance should have before the next one gets any.
    pub(crate) fn set_share(&self, share: u32) {
        if self.share.swap(share, Ordering::Relaxed) != share {
            self.first_free.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the next request is to wake the worker.
    pub(crate) fn set_resting(&self, resting: bool) {
        self.resting.store(resting, Ordering::SeqCst);
    }

    pub(crate) fn ready(&self) -> Arc<Vec<Arc<Slots>>> {
        self.ready.load_full()
    }

    pub(crate) fn set_members(&self, members: Vec<Arc<Slots>>) {
        self.members.store(Arc::new(members));
    }

    pub(crate) fn members(&self) -> Arc<Vec<Arc<Slots>>> {
        self.members.load_full()
    }

    /// Requests in the queue.
    pub(crate) fn queued(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How long a request may wait in the queue.
    pub(crate) fn queue_deadline(&self) -> Duration {
        let average = self.average_start_micros.load(Ordering::Relaxed);
        lauf_scale::queue_deadline(Duration::from_micros(average))
    }

    /// Takes a start's duration into the average.
    pub(crate) fn note_start(&self, took: Duration) {
        let before = self.average_start_micros.load(Ordering::Relaxed);
        let after = lauf_scale::average_start(Duration::from_micros(before), took);
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.average_start_micros.store(micros, Ordering::Relaxed);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue. Dropping it leaves the queue.
pub(crate) struct Waiter {
    pool: Arc<RevisionPool>,
    ticket: u64,
    receiver: oneshot::Receiver<Result<Lease, Refused>>,
}

impl Future for Waiter {
    type Output = Result<Lease, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver)
            .poll(cx)
            .map(|granted| granted.unwrap_or(Err(Refused::Retired)))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut queue = self.pool.queue();
        if queue.waiting.remove(&self.ticket).is_some() {
            self.pool
                .waiting
                .store(queue.waiting.len(), Ordering::SeqCst);
        }
        // A slot that was granted meanwhile is in the receiver and goes back when that is dropped.
    }
}
