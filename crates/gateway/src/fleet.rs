//! All revisions' instances: who is asked for a pool, for a first instance, for an end.
//!
//! Each revision has one [worker](crate::worker) on the control runtime that alone starts and stops
//! its instances. The fleet finds the worker and talks to it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lauf_engine::{Engine, Instance, StartError};
use lauf_model::revision::DEFAULT_MAX_INSTANCES;
use lauf_model::{
    Clock, InstanceId, KnativeMetric, KnativeScaling, RevisionKey, RevisionSpec, ScalingTarget,
    ServiceKey,
};
use lauf_scale::{Kpa, Metric, Rules, Settings, Target, Targets};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::cpu::CpuMeter;
use crate::inbox::{Command, Inbox};
use crate::pool::RevisionPool;
use crate::worker::{self, FleetEvents};

/// What a container gets between SIGTERM and SIGKILL (Cloud Run, "Container contract").
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// A revision as the fleet runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionConfig {
    /// Which revision it is.
    pub key: RevisionKey,
    /// The image by digest, `NAME@sha256:...`.
    pub image_digest: String,
    /// What its instances run. Never changes for one key.
    pub spec: RevisionSpec,
    /// Instances kept even when idle (its own minimum, or its share of the service's).
    pub min: u32,
    /// The most instances; Cloud Run's default when `None`.
    pub max: Option<u32>,
    /// Exactly this many instances, no autoscaling.
    pub manual: Option<u32>,
    /// How long an idle instance is kept. The windows of the autoscaler are proportional to it.
    pub idle_timeout: Duration,
}

impl RevisionConfig {
    /// The most instances.
    #[must_use]
    pub fn max_instances(&self) -> u32 {
        self.manual
            .unwrap_or_else(|| self.max.unwrap_or(DEFAULT_MAX_INSTANCES))
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            min: self.min,
            max: self.max_instances(),
            manual: self.manual,
            concurrency: self.spec.concurrency,
            cpus: f64::from(self.spec.container.cpu_millis) / 1000.0,
            cpu_always: !self.spec.cpu_throttling,
            rules: self.rules(),
            idle_timeout: self.idle_timeout,
        }
    }
}

impl RevisionConfig {
    fn rules(&self) -> Rules {
        let share = |target| match target {
            ScalingTarget::Default => Target::Default,
            ScalingTarget::Share(share) => Target::Share(f64::from(share) / 10_000.0),
            ScalingTarget::Disabled => Target::Off,
        };
        let targets = &self.spec.targets;
        match &self.spec.knative {
            Some(knative) => Rules::Knative(kpa(knative, self.spec.concurrency)),
            None => Rules::CloudRun(Targets {
                cpu: share(targets.cpu),
                concurrency: share(targets.concurrency),
            }),
        }
    }
}

/// Knative's settings with its defaults (Knative Serving, `config-autoscaler`).
fn kpa(set: &KnativeScaling, concurrency: u32) -> Kpa {
    let percent = |value: Option<u32>, default: u32| {
        f64::from(value.unwrap_or(default * 100)) / 100.0 / 100.0
    };
    let metric = set.metric.unwrap_or(KnativeMetric::Concurrency);
    let own = set.target.map(|target| f64::from(target) / 100.0);
    let concurrency = f64::from(concurrency.max(1));
    let total = match metric {
        KnativeMetric::Concurrency => own.map_or(concurrency, |own| own.min(concurrency)),
        KnativeMetric::Rps => own.unwrap_or(200.0),
    };
    Kpa {
        metric: match metric {
            KnativeMetric::Concurrency => Metric::Concurrency,
            KnativeMetric::Rps => Metric::Rps,
        },
        target: total * percent(set.target_utilization, 70),
        window: set.window.unwrap_or(Duration::from_secs(60)),
        panic_window: percent(set.panic_window, 10),
        panic_threshold: percent(set.panic_threshold, 200),
        scale_down_delay: set.scale_down_delay.unwrap_or_default(),
        retention: set.retention.unwrap_or_default(),
        activation: set.activation_scale.unwrap_or(1),
    }
}

/// What a revision, or all of a service's, has now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RevisionCounts {
    /// Instances being started.
    pub starting: usize,
    /// Instances that may get requests.
    pub ready: usize,
    /// Instances that run but may not get requests: unready, or draining.
    pub unready: usize,
    /// Requests that instances work on.
    pub in_flight: usize,
    /// Requests that wait for a slot.
    pub queued: usize,
    /// The instances that run.
    pub instances: Vec<InstanceId>,
}

/// What the fleet is made of.
#[derive(Clone)]
pub struct FleetDeps {
    /// Starts and stops instances.
    pub engine: Arc<dyn Engine>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The runtime that the workers run on.
    pub control: Handle,
    /// Who wants to know of starts and exits.
    pub events: Arc<dyn FleetEvents>,
}

/// The instances of all revisions. Clones share it. When the last clone is dropped the workers end and
/// leave the instances running.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

struct Shared {
    deps: FleetDeps,
    cpu: CpuMeter,
    revisions: Mutex<HashMap<RevisionKey, Member>>,
    /// Running instances whose revisions have not come into the fleet yet.
    unclaimed: Mutex<HashMap<RevisionKey, Vec<Arc<Instance>>>>,
}

#[derive(Clone)]
struct Member {
    pool: Arc<RevisionPool>,
    inbox: Arc<Inbox>,
}

impl Fleet {
    /// A fleet without revisions.
    #[must_use]
    pub fn new(deps: FleetDeps) -> Self {
        Self {
            shared: Arc::new(Shared {
                cpu: CpuMeter::new(Arc::clone(&deps.engine), &deps.control),
                deps,
                revisions: Mutex::default(),
                unclaimed: Mutex::default(),
            }),
        }
    }

    /// Makes sure a revision is there with these settings, and gives its pool. Settings of one that is
    /// there already are replaced in place and take effect at once.
    pub fn ensure(&self, config: RevisionConfig) -> Arc<RevisionPool> {
        let mut revisions = self.revisions();
        if let Some(member) = revisions.get(&config.key) {
            member.pool.configure(config);
            return Arc::clone(&member.pool);
        }
        let key = config.key.clone();
        let pool = Arc::new(RevisionPool::new(
            config,
            Arc::clone(&self.shared.deps.clock),
        ));
        let running = self.unclaimed().remove(&key).unwrap_or_default();
        let (deps, cpu) = (&self.shared.deps, self.shared.cpu.clone());
        let inbox = worker::spawn(deps, cpu, Arc::clone(&pool), running);
        let member = Member {
            pool: Arc::clone(&pool),
            inbox,
        };
        revisions.insert(key, member);
        pool
    }

    /// Makes sure that an instance of the revision has become ready at least once; joins a start that
    /// is under way. This is the check of a deploy.
    ///
    /// # Errors
    /// Why the start failed. [`StartError::Host`] also when the revision is not in the fleet.
    pub async fn first_instance(&self, key: &RevisionKey) -> Result<(), StartError> {
        let gone = || StartError::Host(format!("revision {key} is being removed"));
        let (reply, answer) = oneshot::channel();
        let member = self.member(key).ok_or_else(gone)?;
        member.inbox.send(Command::First(reply));
        // The worker lives for as long as somebody has its inbox.
        drop(member);
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Ends a revision: no new requests, those in flight finish (within the revision's request
    /// timeout), then all its instances are stopped. Take it out of the route table first. The
    /// revision leaves the fleet at the call, before the future is polled, so that an
    /// [`ensure`](Self::ensure) that follows makes a new pool; the future ends when nothing of it is
    /// left.
    pub fn retire(&self, key: &RevisionKey) -> impl Future<Output = ()> + Send + use<> {
        let member = self.revisions().remove(key);
        if let Some(member) = &member {
            member.pool.retire();
        }
        async move {
            let Some(member) = member else { return };
            let (reply, done) = oneshot::channel();
            member.inbox.send(Command::Retire(reply));
            let _ = done.await;
        }
    }

    /// Takes over instances that ran before this server started. Call it before any revision is in the
    /// fleet: each revision then has its instances from the moment it is there, so that no request starts
    /// one too many. Follow it with [`stop_unclaimed`](Self::stop_unclaimed) once the revisions are there.
    pub fn adopt(&self, instances: Vec<Arc<Instance>>) {
        let mut unclaimed = self.unclaimed();
        for instance in instances {
            // Others than services' are none of the fleet's business.
            if let Some(revision) = instance.spec.owner.revision() {
                let of = unclaimed.entry(revision.clone()).or_default();
                of.push(instance);
            }
        }
    }

    /// Stops, in the background, the adopted instances whose revisions are not in the fleet.
    pub fn stop_unclaimed(&self) {
        let unclaimed = std::mem::take(&mut *self.unclaimed());
        self.stop_strays(unclaimed.into_values().flatten().collect());
    }

    fn stop_strays(&self, instances: Vec<Arc<Instance>>) {
        for instance in instances {
            let engine = Arc::clone(&self.shared.deps.engine);
            self.shared.deps.control.spawn(async move {
                engine.stop(instance.id(), STOP_GRACE).await;
            });
        }
    }

    /// The pool of a revision, if it is in the fleet.
    #[must_use]
    pub fn pool(&self, key: &RevisionKey) -> Option<Arc<RevisionPool>> {
        self.member(key).map(|member| member.pool)
    }

    /// The revisions in the fleet.
    #[must_use]
    pub fn revision_keys(&self) -> Vec<RevisionKey> {
        self.revisions().keys().cloned().collect()
    }

    /// What a revision has now; all zero when it is not in the fleet.
    #[must_use]
    pub fn revision(&self, key: &RevisionKey) -> RevisionCounts {
        let mut counts = RevisionCounts::default();
        if let Some(member) = self.member(key) {
            count(&member.pool, &mut counts);
        }
        counts
    }

    /// What all revisions of a service have now.
    #[must_use]
    pub fn service(&self, key: &ServiceKey) -> RevisionCounts {
        let pools: Vec<_> = self
            .revisions()
            .iter()
            .filter(|(revision, _)| revision.service == *key)
            .map(|(_, member)| Arc::clone(&member.pool))
            .collect();
        let mut counts = RevisionCounts::default();
        for pool in pools {
            count(&pool, &mut counts);
        }
        counts
    }

    fn member(&self, key: &RevisionKey) -> Option<Member> {
        self.revisions().get(key).cloned()
    }

    fn unclaimed(&self) -> MutexGuard<'_, HashMap<RevisionKey, Vec<Arc<Instance>>>> {
        self.shared
            .unclaimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn revisions(&self) -> MutexGuard<'_, HashMap<RevisionKey, Member>> {
        self.shared
            .revisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(pool: &RevisionPool, counts: &mut RevisionCounts) {
    let ready = pool.ready().iter().filter(|s| !s.is_closed()).count();
    let members = pool.members();
    counts.starting += pool.starting.load(Ordering::Relaxed);
    counts.ready += ready;
    counts.unready += members.len().saturating_sub(ready);
    counts.in_flight += members
        .iter()
        .map(|s| usize::try_from(s.in_flight()).unwrap_or(usize::MAX))
        .sum::<usize>();
    counts.queued += pool.queued();
    counts
        .instances
        .extend(members.iter().map(|s| s.instance.id().clone()));
}
