//! The instances of one worker pool's revision: as many as are wanted, no more, started again with
//! growing pauses when they end by themselves.

use std::sync::Arc;
use std::time::Duration;

use lauf_engine::{Engine, Instance, InstanceSpec, InstanceState, Owner, StartError};
use lauf_model::{Clock, InstanceId, WorkerPoolRevision, WorkerPoolRevisionKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// What an instance gets between SIGTERM and SIGKILL (Cloud Run, "Container contract").
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Starts of one revision under way at once.
const STARTS: usize = 8;

/// What a crew is told.
pub(crate) enum Order {
    /// Answer when an instance has run once, or with why none can.
    First(oneshot::Sender<Result<(), StartError>>),
    /// Stop everything, answer, end.
    Retire(oneshot::Sender<()>),
}

/// How many instances a revision shall have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// One, until its share of the pool is known: the one by which it was found to be well goes on,
    /// so that the share need not begin with another start.
    Check,
    /// Its share.
    Share(u32),
}

/// How a crew is reached.
#[derive(Clone)]
pub(crate) struct Crew {
    /// How many instances there shall be.
    pub(crate) wanted: Arc<watch::Sender<Wanted>>,
    /// How many run.
    pub(crate) running: watch::Receiver<u32>,
    pub(crate) orders: mpsc::Sender<Order>,
}

/// All that a crew needs.
pub(crate) struct Needs {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) key: WorkerPoolRevisionKey,
    pub(crate) revision: WorkerPoolRevision,
    /// Instances that an earlier server started.
    pub(crate) adopted: Vec<Arc<Instance>>,
    pub(crate) new_id: fn() -> InstanceId,
}

/// Starts a crew that wants as many instances as `wanted` says. Dropping all of its orders' senders ends it and leaves
/// the instances running.
pub(crate) fn start(needs: Needs, wanted: Wanted) -> Crew {
    let (orders, inbox) = mpsc::channel(16);
    let wanted = Arc::new(watch::Sender::new(wanted));
    let (count, running) = watch::channel(0);
    let work = Work {
        wants: wanted.subscribe(),
        needs,
        count,
        members: Vec::new(),
        starts: JoinSet::new(),
        exits: JoinSet::new(),
        stops: JoinSet::new(),
        firsts: Vec::new(),
        ran: false,
        backoff: Backoff::default(),
    };
    tokio::spawn(work.run(inbox));
    Crew {
        wanted,
        running,
        orders,
    }
}

struct Work {
    needs: Needs,
    wants: watch::Receiver<Wanted>,
    count: watch::Sender<u32>,
    /// The instances that run, the oldest first.
    members: Vec<Member>,
    starts: JoinSet<Result<Arc<Instance>, StartError>>,
    exits: JoinSet<InstanceId>,
    stops: JoinSet<()>,
    firsts: Vec<oneshot::Sender<Result<(), StartError>>>,
    ran: bool,
    backoff: Backoff,
}

struct Member {
    id: InstanceId,
    since: Duration,
    stopping: bool,
}

impl Work {
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) {
        for instance in std::mem::take(&mut self.needs.adopted) {
            self.add(&instance);
        }
        loop {
            let now = self.needs.clock.monotonic();
            let pause = self.act(now);
            tokio::select! {
                order = inbox.recv() => match order {
                    None => return,
                    Some(Order::First(reply)) if self.ran => drop(reply.send(Ok(()))),
                    Some(Order::First(reply)) => self.firsts.push(reply),
                    Some(Order::Retire(reply)) => {
                        self.retire().await;
                        let _ = reply.send(());
                        return;
                    }
                },
                changed = self.wants.changed() => if changed.is_err() { return },
                Some(start) = self.starts.join_next() => self.start_ended(start),
                Some(exit) = self.exits.join_next() => if let Ok(id) = exit { self.exited(&id) },
                Some(_) = self.stops.join_next() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// Starts and stops as many as are missing or too many. Says how long to wait before it starts
    /// more, if it has to.
    fn act(&mut self, now: Duration) -> Option<Duration> {
        let wanted = match *self.wants.borrow_and_update() {
            Wanted::Check => 1,
            Wanted::Share(count) => usize::try_from(count).unwrap_or(usize::MAX),
        };
        let there = self.members.iter().filter(|m| !m.stopping).count();
        let have = there + self.starts.len();
        if have < wanted {
            if let Some(left) = self.backoff.left(now) {
                return Some(left);
            }
            let room = STARTS.saturating_sub(self.starts.len());
            for _ in 0..(wanted - have).min(room) {
                self.start();
            }
        } else {
            let excess = there.saturating_sub(wanted);
            let newest = self.members.iter_mut().rev().filter(|m| !m.stopping);
            for member in newest.take(excess) {
                member.stopping = true;
                let (engine, id) = (Arc::clone(&self.needs.engine), member.id.clone());
                self.stops
                    .spawn(async move { engine.stop(&id, STOP_GRACE).await });
            }
        }
        None
    }

    fn start(&mut self) {
        let revision = &self.needs.revision;
        let spec = InstanceSpec {
            id: (self.needs.new_id)(),
            owner: Owner::WorkerPool(self.needs.key.clone()),
            image: revision.status.image_digest.clone(),
            container: revision.spec.container.clone(),
            startup_cpu_boost: false,
        };
        let engine = Arc::clone(&self.needs.engine);
        self.starts.spawn(async move { engine.start(spec).await });
    }

    fn start_ended(
        &mut self,
        start: Result<Result<Arc<Instance>, StartError>, tokio::task::JoinError>,
    ) {
        let failed = StartError::Host("the engine failed; its log says why".to_owned());
        match start.unwrap_or(Err(failed)) {
            Ok(instance) => {
                self.ran = true;
                for first in self.firsts.drain(..) {
                    let _ = first.send(Ok(()));
                }
                self.add(&instance);
            }
            Err(error) => {
                tracing::warn!(revision = %self.needs.key, %error, "a worker did not start");
                self.backoff.failed(self.needs.clock.monotonic());
                if self.starts.is_empty() {
                    for first in self.firsts.drain(..) {
                        let _ = first.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn add(&mut self, instance: &Arc<Instance>) {
        self.ran = true;
        self.members.push(Member {
            id: instance.id().clone(),
            since: self.needs.clock.monotonic(),
            stopping: false,
        });
        let (id, mut state) = (instance.id().clone(), instance.state.clone());
        self.exits.spawn(async move {
            // An engine that forgets an instance has lost it.
            let _ = state
                .wait_for(|s| matches!(s, InstanceState::Exited(_)))
                .await;
            id
        });
        self.tell();
    }

    fn exited(&mut self, id: &InstanceId) {
        let now = self.needs.clock.monotonic();
        if let Some(index) = self.members.iter().position(|m| m.id == *id) {
            let member = self.members.remove(index);
            if !member.stopping {
                self.backoff.ended(now, now.saturating_sub(member.since));
            }
        }
        self.tell();
    }

    fn tell(&self) {
        let running = self.members.iter().filter(|m| !m.stopping).count();
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        self.count.send_if_modified(|told| {
            let changed = *told != running;
            *told = running;
            changed
        });
    }

    async fn retire(&mut self) {
        // A start that is aborted leaves nothing behind (law 1 of the engine).
        self.starts.shutdown().await;
        for first in self.firsts.drain(..) {
            let gone = StartError::Host("the revision is being removed".to_owned());
            let _ = first.send(Err(gone));
        }
        for member in &self.members {
            let (engine, id) = (Arc::clone(&self.needs.engine), member.id.clone());
            self.stops
                .spawn(async move { engine.stop(&id, STOP_GRACE).await });
        }
        while self.stops.join_next().await.is_some() {}
    }
}

/// How long to wait before the next start, when instances end by themselves.
#[derive(Debug, Default)]
struct Backoff {
    in_a_row: u32,
    until: Duration,
}

/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// An instance that has run this long has not failed to start.
const LIVED_WELL: Duration = Duration::from_secs(600);

impl Backoff {
    /// A start failed.
    fn failed(&mut self, now: Duration) {
        // What failed together counts once.
        if now < self.until {
            return;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.in_a_row.min(16));
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.until = now + doubled.min(LONGEST_PAUSE);
    }

    /// An instance ended by itself after it had run this long.
    fn ended(&mut self, now: Duration, lived: Duration) {
        if lived >= LIVED_WELL {
            *self = Self::default();
        }
        if self.in_a_row == 0 {
            // The first time it is started again at once.
            self.in_a_row = 1;
            self.until = now;
        } else {
            self.failed(now);
        }
    }

    fn left(&self, now: Duration) -> Option<Duration> {
        let left = self.until.saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_are_answered_later_and_later_and_forgiven() {
        let mut backoff = Backoff::default();
        let mut now = Duration::from_secs(100);
        let mut pauses = Vec::new();
        for _ in 0..11 {
            backoff.ended(now, Duration::from_secs(1));
            let left = backoff.left(now).unwrap_or_default();
            pauses.push(left.as_secs());
            now += left;
        }
        assert_eq!(pauses, [0, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.ended(now, LIVED_WELL);
        assert_eq!(backoff.left(now), None);
    }

    #[test]
    fn failures_at_the_same_time_are_one() {
        let mut backoff = Backoff::default();
        let now = Duration::from_secs(100);
        for _ in 0..5 {
            backoff.failed(now);
        }
        assert_eq!(backoff.left(now), Some(FIRST_PAUSE));
    }
}
