//! The one who starts and stops a revision's instances.
//!
//! It sleeps until something happens: demand, a start that ended, an instance that changed its state, a
//! command, or a deadline that the last decision named. Then it asks [`lauf_scale::decide`] and does it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use lauf_engine::{Engine, Exit, ExitReason, Instance, InstanceSpec, InstanceState, StartError};
use lauf_model::{InstanceId, RevisionKey};
use lauf_scale::{Demand, History};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::fleet::{FleetDeps, STOP_GRACE};
use crate::pool::{Refused, RevisionPool};
use crate::slot::Slots;

/// An instance that ends by itself sooner than this counts as a failed start.
const LIVED_TOO_SHORT: Duration = Duration::from_secs(10);
/// The longest pause between starts of a revision whose instances keep failing.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Something that happened to an instance.
#[derive(Debug, Clone)]
pub enum FleetEvent {
    /// It became ready.
    Started {
        /// The instance.
        instance: Arc<Instance>,
        /// How long the start took as the fleet saw it.
        took: Duration,
    },
    /// It did not become ready.
    StartFailed {
        /// Whose instance it would have been.
        revision: Arc<RevisionKey>,
        /// What it would have been called.
        id: InstanceId,
        /// Why.
        error: StartError,
    },
    /// It ended.
    Exited {
        /// The instance.
        instance: Arc<Instance>,
        /// How.
        exit: Exit,
    },
}

/// Wants to know what happens to instances. Called on the control runtime; must not block.
pub trait FleetEvents: Send + Sync + 'static {
    /// Something happened.
    fn event(&self, event: FleetEvent);
}

/// Nobody wants to know.
impl FleetEvents for () {
    fn event(&self, _: FleetEvent) {}
}

/// What the fleet asks of a worker.
pub(crate) enum Command {
    /// Answer when an instance has been ready once, or with why it cannot be.
    First(oneshot::Sender<Result<(), StartError>>),
    /// Drain, stop everything, answer, end.
    Retire(oneshot::Sender<()>),
}

/// Starts the worker of a pool.
pub(crate) fn spawn(
    deps: &FleetDeps,
    pool: Arc<RevisionPool>,
    running: Vec<Arc<Instance>>,
) -> mpsc::Sender<Command> {
    let (commands, inbox) = mpsc::channel(16);
    let history = History::new(pool.config().settings().long_window());
    let mut worker = Worker {
        deps: deps.clone(),
        pool,
        members: Vec::new(),
        starts: JoinSet::new(),
        stops: JoinSet::new(),
        states: FuturesUnordered::new(),
        history,
        request_time: Duration::ZERO,
        firsts: Vec::new(),
        was_ready: false,
        failures: Failures::default(),
    };
    worker.adopt(running);
    deps.control.spawn(worker.run(inbox));
    commands
}

/// Names instances in the threads' connection pools; unique in this process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

type StateChange = (u64, InstanceState, watch::Receiver<InstanceState>);

struct Worker {
    deps: FleetDeps,
    pool: Arc<RevisionPool>,
    /// In the order they became ready.
    members: Vec<Member>,
    starts: JoinSet<Start>,
    stops: JoinSet<()>,
    states: FuturesUnordered<Pin<Box<dyn Future<Output = StateChange> + Send>>>,
    history: History,
    /// Of all instances, gone ones included.
    request_time: Duration,
    firsts: Vec<oneshot::Sender<Result<(), StartError>>>,
    was_ready: bool,
    failures: Failures,
}

struct Member {
    slots: Arc<Slots>,
    ready: bool,
    since: Duration,
    request_time: Duration,
    measured: Duration,
}

struct Start {
    id: InstanceId,
    began: Duration,
    result: Result<Arc<Instance>, StartError>,
}

/// How starts have failed lately.
#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    pause_until: Option<Duration>,
}

impl Failures {
    /// Starts that failed together count once.
    fn add(&mut self, now: Duration) {
        if self.pause_until.is_some_and(|until| now < until) {
            return;
        }
        let pause = match self.in_a_row {
            0 => Duration::from_millis(100),
            n => Duration::from_secs(1 << (n - 1).min(6)).min(LONGEST_PAUSE),
        };
        self.in_a_row += 1;
        self.pause_until = Some(now + pause);
    }

    /// The host's own trouble says nothing of the container: a short pause, never a longer one.
    fn add_host(&mut self, now: Duration) {
        let until = now + Duration::from_millis(100);
        self.pause_until = Some(self.pause_until.map_or(until, |paused| paused.max(until)));
    }

    fn pause(&self, now: Duration) -> Option<Duration> {
        self.pause_until.filter(|until| now < *until)
    }
}

impl Worker {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let pool = Arc::clone(&self.pool);
        loop {
            let wake = self.act();
            let deadline = async {
                match wake {
                    Some(after) => tokio::time::sleep(after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = inbox.recv() => match command {
                    None => return,
                    Some(Command::First(reply)) => self.first(reply),
                    Some(Command::Retire(reply)) => {
                        self.retire().await;
                        let _ = reply.send(());
                        return;
                    }
                },
                Some(start) = self.starts.join_next() => self.start_ended(start.ok()),
                Some((serial, state, watch)) = self.states.next() => self.state_changed(serial, &state, watch),
                Some(_) = self.stops.join_next() => {}
                () = pool.changed.notified() => {}
                () = deadline => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.deps.clock.monotonic()
    }

    /// Decides and does it. Says after what time to ask again if nothing happens.
    fn act(&mut self) -> Option<Duration> {
        if self.pool.is_retired() {
            return None;
        }
        let now = self.now();
        self.stop_drained();
        let settings = self.pool.config().settings();
        self.history.set_longest(settings.long_window());
        self.measure(now);
        let mut idle_since = Vec::new();
        let (mut in_flight, mut ready, mut unready) = (0_u32, 0, 0);
        for member in &self.members {
            in_flight = in_flight.saturating_add(member.slots.in_flight());
            if member.slots.is_closed() {
                continue;
            }
            if member.ready {
                ready += 1;
                idle_since.extend(member.slots.idle_since());
            } else {
                unready += 1;
            }
        }
        let demand = Demand {
            in_flight,
            queued: u32::try_from(self.pool.queued()).unwrap_or(u32::MAX),
            ready,
            unready,
            starting: u32::try_from(self.starts.len()).unwrap_or(u32::MAX),
            idle_since: &idle_since,
        };
        let decision = lauf_scale::decide(now, &settings, &self.history, &demand);
        let mut next = decision.next;
        if decision.start > 0 {
            if let Some(until) = self.failures.pause(now) {
                next = Some(until);
            } else {
                self.history.started(now);
                for _ in 0..decision.start {
                    self.start(now);
                }
                next = Some(now + settings.short_window().max(Duration::from_millis(1)));
            }
        }
        if decision.stop > 0 {
            let busy_too = settings.manual.is_some() || ready + unready > settings.max;
            self.scale_in(decision.stop, busy_too);
        }
        next.map(|at| at.saturating_sub(now))
    }

    /// Takes a sample of the load.
    fn measure(&mut self, now: Duration) {
        for member in &mut self.members {
            let elapsed = now.saturating_sub(member.measured);
            let time = member.slots.request_time(now, member.request_time, elapsed);
            self.request_time += time.saturating_sub(member.request_time);
            member.request_time = time;
            member.measured = now;
        }
        self.history.record(now, self.request_time);
    }

    fn start(&mut self, now: Duration) {
        let config = self.pool.config();
        let id = instance_id();
        let spec = InstanceSpec {
            id: id.clone(),
            revision: config.key.clone(),
            image: config.image_digest.clone(),
            container: config.spec.container.clone(),
            startup_cpu_boost: config.spec.startup_cpu_boost,
        };
        let engine = Arc::clone(&self.deps.engine);
        self.starts.spawn_on(
            async move {
                let result = engine.start(spec).await;
                Start {
                    id,
                    began: now,
                    result,
                }
            },
            &self.deps.control,
        );
        self.count_starting();
    }

    fn count_starting(&self) {
        self.pool
            .starting
            .store(self.starts.len(), Ordering::Relaxed);
    }

    /// A start ended; `None` when the engine panicked.
    fn start_ended(&mut self, start: Option<Start>) {
        self.count_starting();
        let now = self.now();
        let (began, id, result) = match start {
            Some(start) => (start.began, start.id, start.result),
            None => {
                let error = StartError::Host("the engine failed; its log says why".to_owned());
                (now, InstanceId(String::new()), Err(error))
            }
        };
        match result {
            Ok(instance) => {
                let took = now.saturating_sub(began);
                self.pool.note_start(took);
                // Who waits comes first; where nobody does, no connection stays open for nothing.
                if self.pool.queued() == 0 {
                    drop(instance.first.take());
                }
                self.add(Arc::clone(&instance), now);
                self.publish();
                for first in self.firsts.drain(..) {
                    let _ = first.send(Ok(()));
                }
                self.deps
                    .events
                    .event(FleetEvent::Started { instance, took });
            }
            Err(error) => {
                self.deps.events.event(FleetEvent::StartFailed {
                    revision: Arc::clone(self.pool.key()),
                    id,
                    error: error.clone(),
                });
                if error.is_permanent() {
                    self.failures.add(now);
                } else {
                    self.failures.add_host(now);
                }
                if self.starts.is_empty() {
                    for first in self.firsts.drain(..) {
                        let _ = first.send(Err(error.clone()));
                    }
                    // Whoever waits would wait for nothing, unless somebody else gives a slot back.
                    if !self.members.iter().any(|m| !m.slots.is_closed()) {
                        self.pool.refuse_waiting(&Refused::StartFailed(error));
                    }
                }
            }
        }
    }

    fn add(&mut self, instance: Arc<Instance>, now: Duration) {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let mut watch = instance.state.clone();
        let state = watch.borrow_and_update().clone();
        let slots = Slots::new(instance, serial, self.pool.concurrency, now);
        self.members.push(Member {
            slots: Arc::new(slots),
            ready: false,
            since: now,
            request_time: Duration::ZERO,
            measured: now,
        });
        self.was_ready = true;
        self.state_changed(serial, &state, watch);
    }

    fn state_changed(
        &mut self,
        serial: u64,
        state: &InstanceState,
        mut watch: watch::Receiver<InstanceState>,
    ) {
        let Some(index) = self.members.iter().position(|m| m.slots.serial == serial) else {
            return;
        };
        match state {
            InstanceState::Exited(exit) => {
                self.exited(index, exit.clone());
                return;
            }
            InstanceState::Ready => {
                let now = self.now();
                if let Some(member) = self.members.get_mut(index) {
                    member.ready = true;
                    if now.saturating_sub(member.since) >= LIVED_TOO_SHORT {
                        self.failures = Failures::default();
                    }
                }
            }
            InstanceState::Unready => {
                if let Some(member) = self.members.get_mut(index) {
                    member.ready = false;
                }
            }
        }
        self.publish();
        self.states.push(Box::pin(async move {
            let state = match watch.changed().await {
                Ok(()) => watch.borrow_and_update().clone(),
                // An engine that forgets an instance has lost it.
                Err(_) => match watch.borrow().clone() {
                    exited @ InstanceState::Exited(_) => exited,
                    _ => InstanceState::Exited(lost()),
                },
            };
            (serial, state, watch)
        }));
    }

    fn exited(&mut self, index: usize, exit: Exit) {
        let now = self.now();
        let member = self.members.remove(index);
        member.slots.close();
        let lived = now.saturating_sub(member.since);
        // What went with its keeper did not fail, however short it lived.
        let own = !matches!(exit.reason, ExitReason::Stopped | ExitReason::Lost);
        if own && !member.slots.instance_was_stopped() {
            if lived < LIVED_TOO_SHORT {
                self.failures.add(now);
            } else {
                self.failures = Failures::default();
            }
        }
        self.publish();
        self.deps.events.event(FleetEvent::Exited {
            instance: Arc::clone(&member.slots.instance),
            exit,
        });
    }

    /// Shows the members to the requests.
    fn publish(&self) {
        let all: Vec<_> = self.members.iter().map(|m| Arc::clone(&m.slots)).collect();
        self.pool.set_members(all);
        let ready = self
            .members
            .iter()
            .filter(|m| m.ready && !m.slots.is_closed())
            .map(|m| Arc::clone(&m.slots))
            .collect();
        self.pool.set_ready(ready);
    }

    /// Stops `count` instances: idle ones, the longest idle first; then, if allowed, busy ones, which
    /// finish what they have.
    fn scale_in(&mut self, count: u32, busy_too: bool) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut idle: Vec<_> = self
            .members
            .iter()
            .filter(|m| !m.slots.is_closed())
            .filter_map(|m| Some((m.slots.idle_since()?, Arc::clone(&m.slots))))
            .collect();
        idle.sort_by_key(|(since, _)| *since);
        let mut stopped = 0;
        for (_, slots) in idle {
            if stopped == count {
                break;
            }
            if slots.close_if_idle() {
                self.stop(&slots);
                stopped += 1;
            }
        }
        if busy_too {
            // The newest have the least to lose.
            let busy: Vec<_> = self
                .members
                .iter()
                .rev()
                .filter(|m| !m.slots.is_closed())
                .map(|m| Arc::clone(&m.slots))
                .take(count - stopped)
                .collect();
            for slots in busy {
                if slots.close() == 0 {
                    self.stop(&slots);
                }
                stopped += 1;
            }
        }
        if stopped > 0 {
            self.publish();
        }
    }

    /// Stops those whose last request has ended.
    fn stop_drained(&mut self) {
        let drained: Vec<_> = self
            .members
            .iter()
            .filter(|m| m.slots.is_closed() && m.slots.in_flight() == 0)
            .map(|m| Arc::clone(&m.slots))
            .collect();
        for slots in drained {
            self.stop(&slots);
        }
    }

    fn stop(&mut self, slots: &Slots) {
        if !slots.mark_stopped() {
            return;
        }
        let engine: Arc<dyn Engine> = Arc::clone(&self.deps.engine);
        let id = slots.instance.id().clone();
        self.stops.spawn_on(
            async move { engine.stop(&id, STOP_GRACE).await },
            &self.deps.control,
        );
    }

    fn first(&mut self, reply: oneshot::Sender<Result<(), StartError>>) {
        if self.was_ready {
            let _ = reply.send(Ok(()));
            return;
        }
        self.firsts.push(reply);
        if self.starts.is_empty() {
            let now = self.now();
            self.start(now);
        }
    }

    /// Takes over instances that ran before this server did, before any decision is made.
    fn adopt(&mut self, instances: Vec<Arc<Instance>>) {
        let now = self.now();
        for instance in instances {
            self.add(instance, now);
        }
        self.publish();
    }

    /// Drains and stops everything. Ends when nothing is left.
    async fn retire(&mut self) {
        let pool = Arc::clone(&self.pool);
        // A start that is aborted leaves nothing behind (law 1 of the engine).
        self.starts.shutdown().await;
        self.count_starting();
        for first in self.firsts.drain(..) {
            let _ = first.send(Err(StartError::Host(
                "the revision is being removed".to_owned(),
            )));
        }
        for member in &self.members {
            member.slots.close();
        }
        self.publish();
        let deadline = tokio::time::sleep(self.pool.timeout);
        tokio::pin!(deadline);
        let mut expired = false;
        while !self.members.is_empty() {
            self.stop_drained();
            tokio::select! {
                Some((serial, state, watch)) = self.states.next() => self.state_changed(serial, &state, watch),
                Some(_) = self.stops.join_next() => {}
                () = pool.changed.notified() => {}
                () = &mut deadline, if !expired => {
                    expired = true;
                    let all: Vec<_> = self.members.iter().map(|m| Arc::clone(&m.slots)).collect();
                    for slots in all {
                        self.stop(&slots);
                    }
                }
            }
        }
        while self.stops.join_next().await.is_some() {}
    }
}

fn lost() -> Exit {
    Exit {
        code: None,
        signal: None,
        reason: ExitReason::Lost,
        at: Timestamp::UNIX_EPOCH,
    }
}

/// A new identity: 80 random bits, in hexadecimal.
fn instance_id() -> InstanceId {
    let mut bytes = [0; 10];
    if getrandom::fill(&mut bytes).is_err() {
        // No system that runs containers lacks randomness; unique in this process is what is left.
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        bytes[..8].copy_from_slice(&serial);
    }
    InstanceId(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_slows_down_and_is_forgiven() {
        let mut failures = Failures::default();
        let mut now = Duration::from_secs(100);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            failures.add(now);
            let until = failures.pause(now).unwrap_or(now);
            pauses.push((until - now).as_secs());
            // Failing again during the pause changes nothing.
            failures.add(now);
            now = until;
        }
        assert_eq!(pauses[0], 0);
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&60), "{pauses:?}");
    }
}
