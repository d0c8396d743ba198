//! The one who starts and stops a revision's instances.
//!
//! It sleeps until something happens: demand, a start that ended, an instance that changed its state, a
//! command, or a deadline that the last decision named. Then it asks its [`Autoscaler`] and does it.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use lauf_engine::{
    Engine, Exit, ExitReason, Instance, InstanceSpec, InstanceState, Owner, StartError,
};
use lauf_model::{InstanceId, RevisionKey};
use lauf_scale::{Autoscaler, Decision, Victim};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::cpu::{CpuMeter, CpuReading};
use crate::fleet::{FleetDeps, STOP_GRACE};
use crate::inbox::{Command, Commands, Inbox};
use crate::pool::{Refused, RevisionPool};
use crate::slot::Slots;

/// How often the log of a revision says that the machine has no room for it.
const TELL_FULL_EVERY: Duration = Duration::from_secs(30);

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

/// Starts the worker of a pool.
pub(crate) fn spawn(
    deps: &FleetDeps,
    cpu: CpuMeter,
    pool: Arc<RevisionPool>,
    running: Vec<Arc<Instance>>,
) -> Arc<Inbox> {
    let (inbox, commands) = Inbox::new(Arc::clone(&pool));
    let scaler = Autoscaler::new(&pool.config().settings());
    let mut worker = Worker {
        deps: deps.clone(),
        cpu,
        reading: None,
        pool,
        members: Vec::new(),
        starts: JoinSet::new(),
        stops: JoinSet::new(),
        states: FuturesUnordered::new(),
        scaler,
        seen: Vec::new(),
        total: Load::default(),
        firsts: Vec::new(),
        was_ready: false,
        told_full: None,
    };
    worker.adopt(running);
    deps.control.spawn(worker.run(commands));
    inbox
}

/// Names instances in the threads' connection pools; unique in this process.
static SERIAL: AtomicU64 = AtomicU64::new(0);

type StateChange = (u64, InstanceState, watch::Receiver<InstanceState>);

struct Worker {
    deps: FleetDeps,
    cpu: CpuMeter,
    /// What was asked of the CPU meter and is not answered yet.
    reading: Option<CpuReading>,
    pool: Arc<RevisionPool>,
    /// In the order they became ready.
    members: Vec<Member>,
    starts: JoinSet<Start>,
    stops: JoinSet<()>,
    states: FuturesUnordered<Pin<Box<dyn Future<Output = StateChange> + Send>>>,
    scaler: Autoscaler,
    /// The members as the autoscaler sees them, kept for the next time.
    seen: Vec<lauf_scale::Member>,
    /// Of all instances, gone ones included.
    total: Load,
    firsts: Vec<oneshot::Sender<Result<(), StartError>>>,
    was_ready: bool,
    /// When the log was last told that the machine is full.
    told_full: Option<Duration>,
}

struct Member {
    slots: Arc<Slots>,
    ready: bool,
    since: Duration,
    measured: Duration,
    request_time: Duration,
    requests: u64,
    /// The CPU time when it was first and last read; what the start took is nobody's load.
    cpu_time: Option<Duration>,
}

/// What instances have done so far.
#[derive(Default)]
struct Load {
    request_time: Duration,
    requests: u64,
    cpu_time: Duration,
}

struct Start {
    id: InstanceId,
    began: Duration,
    result: Result<Arc<Instance>, StartError>,
}

impl Worker {
    async fn run(mut self, commands: Commands) {
        let pool = Arc::clone(&self.pool);
        loop {
            let Some(come) = commands.take() else { return };
            for command in come {
                match command {
                    Command::First(reply) => self.first(reply),
                    Command::Retire(reply) => {
                        // Boxed, as every revision at zero has this task.
                        Box::pin(self.retire()).await;
                        let _ = reply.send(());
                        return;
                    }
                }
            }
            let wake = self.act();
            let deadline = async {
                match wake {
                    Some(after) => tokio::time::sleep(after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(start) = self.starts.join_next() => self.start_ended(start.ok()),
                Some((serial, state, watch)) = self.states.next() => self.state_changed(serial, &state, watch),
                Some(_) = self.stops.join_next() => {}
                usage = read(&mut self.reading) => self.cpu_read(usage),
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
        self.measure(now);
        let settings = self.pool.config().settings();
        self.look();
        let decision = self.scaler.decide(
            now,
            &settings,
            &self.seen,
            u32::try_from(self.pool.queued()).unwrap_or(u32::MAX),
            u32::try_from(self.starts.len()).unwrap_or(u32::MAX),
        );
        for _ in 0..decision.start {
            self.start(now);
        }
        if decision.stop > 0 {
            let victims = Autoscaler::victims(&settings, &self.seen);
            self.scale_in(decision.stop, &victims);
        }
        if decision.measure_cpu && self.reading.is_none() {
            let ids = self.members.iter().map(|m| m.slots.instance.id().clone());
            self.reading = self.cpu.read(ids.collect());
        }
        self.tell_pool(&decision);
        decision.next.map(|at| at.saturating_sub(now))
    }

    /// Tells those who hand out slots what they need to know of a decision.
    fn tell_pool(&self, decision: &Decision) {
        self.pool.set_share(decision.share);
        self.pool.set_resting(decision.resting);
        // A request that came after the look and before this will not wake anybody.
        if decision.resting && self.members.iter().any(|m| m.slots.in_flight() > 0) {
            self.pool.set_resting(false);
            self.pool.changed.notify_one();
        }
    }

    /// Sees the members as the autoscaler does.
    fn look(&mut self) {
        let seen = self.members.iter().map(|member| lauf_scale::Member {
            ready: member.ready,
            draining: member.slots.is_closed(),
            in_flight: member.slots.in_flight(),
            idle_since: member.slots.idle_since(),
        });
        self.seen.clear();
        self.seen.extend(seen);
    }

    /// Takes a sample of the load.
    fn measure(&mut self, now: Duration) {
        for member in &mut self.members {
            let elapsed = now.saturating_sub(member.measured);
            let time = member.slots.request_time(now, member.request_time, elapsed);
            let requests = member.slots.requests();
            self.total.request_time += time.saturating_sub(member.request_time);
            self.total.requests += requests.saturating_sub(member.requests);
            member.request_time = time;
            member.requests = requests;
            member.measured = now;
        }
        let total = &self.total;
        self.scaler.record(now, total.request_time, total.requests);
    }

    /// Takes a sample of the CPU time.
    fn cpu_read(&mut self, usage: HashMap<InstanceId, Duration>) {
        for member in &mut self.members {
            let Some(time) = usage.get(member.slots.instance.id()) else {
                continue;
            };
            let before = member.cpu_time.unwrap_or(*time);
            self.total.cpu_time += time.saturating_sub(before);
            member.cpu_time = Some(*time);
        }
        self.scaler.record_cpu(self.now(), self.total.cpu_time);
    }

    fn start(&mut self, now: Duration) {
        let config = self.pool.config();
        let id = instance_id();
        let spec = InstanceSpec {
            id: id.clone(),
            owner: Owner::Revision(config.key.clone()),
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
                self.started(now);
                self.deps
                    .events
                    .event(FleetEvent::Started { instance, took });
            }
            Err(error) => {
                let full = matches!(error, StartError::NoRoom(_));
                // A full machine is asked again and again; once is enough to be told.
                if !full || self.told_full.is_none_or(|at| now >= at + TELL_FULL_EVERY) {
                    if full {
                        self.told_full = Some(now);
                    }
                    self.deps.events.event(FleetEvent::StartFailed {
                        revision: Arc::clone(self.pool.key()),
                        id,
                        error: error.clone(),
                    });
                }
                self.scaler.start_failed(now, error.is_permanent());
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
            measured: now,
            request_time: Duration::ZERO,
            requests: 0,
            cpu_time: None,
        });
        self.state_changed(serial, &state, watch);
    }

    /// Whoever waits for the first instances has them, or the next of them is started.
    fn started(&mut self, now: Duration) {
        let wanted = self.initial();
        if self.members.len() >= wanted {
            self.was_ready = true;
            for first in self.firsts.drain(..) {
                let _ = first.send(Ok(()));
            }
        } else if self.starts.is_empty() && !self.firsts.is_empty() {
            self.start_until(wanted, now);
        }
    }

    /// How many instances a new revision has to get ready.
    fn initial(&self) -> usize {
        let config = self.pool.config();
        let initial = config.spec.initial_instances.unwrap_or(1);
        usize::try_from(initial.clamp(1, config.max_instances().max(1))).unwrap_or(1)
    }

    fn start_until(&mut self, wanted: usize, now: Duration) {
        let there = self.members.len() + self.starts.len();
        for _ in there..wanted {
            self.start(now);
        }
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
                    self.scaler.instance_ready(now.saturating_sub(member.since));
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
        if self.members.is_empty() {
            // There are many more services at zero than others.
            self.members = Vec::new();
            self.seen = Vec::new();
            self.firsts.shrink_to_fit();
        }
        member.slots.close();
        let lived = now.saturating_sub(member.since);
        // What went with its keeper did not fail, however short it lived.
        let own = !matches!(exit.reason, ExitReason::Stopped | ExitReason::Lost);
        if own && !member.slots.instance_was_stopped() {
            self.scaler.instance_ended(now, lived);
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

    /// Stops `count` of the victims. Those that are not to be drained go only if they are still idle;
    /// the others finish what they have.
    fn scale_in(&mut self, count: u32, victims: &[Victim]) {
        let mut left = count;
        for victim in victims {
            let Some(member) = self.members.get(victim.index).filter(|_| left > 0) else {
                continue;
            };
            let slots = Arc::clone(&member.slots);
            let closed = if victim.drain {
                !slots.is_closed() && {
                    slots.close();
                    true
                }
            } else {
                slots.close_if_idle()
            };
            if closed {
                left -= 1;
                if slots.in_flight() == 0 {
                    self.stop(&slots);
                }
            }
        }
        if left < count {
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
        let now = self.now();
        self.start_until(self.initial(), now);
    }

    /// Takes over instances that ran before this server did, before any decision is made.
    fn adopt(&mut self, instances: Vec<Arc<Instance>>) {
        let now = self.now();
        self.was_ready = !instances.is_empty();
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

/// The answer to a question that may not have been asked.
async fn read(reading: &mut Option<CpuReading>) -> HashMap<InstanceId, Duration> {
    let Some(answer) = reading else {
        return std::future::pending().await;
    };
    let usage = answer.await.unwrap_or_default();
    *reading = None;
    usage
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
