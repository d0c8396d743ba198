//! What every controller needs, passed in once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lauf_engine::{Engine, ImageResolver, Instance, Owner};
use lauf_gateway::{
    Access, Denied, Fleet, InvokerCheck, RevisionConfig, RevisionPool, ServiceRoute,
};
use lauf_iam::Iam;
use lauf_model::url::Site;
use lauf_model::{
    Clock, InstanceId, Policy, Revision, RevisionKey, Service, ServiceKey, TrafficStatus,
    WorkerPoolKey,
};
use lauf_store::Store;

use crate::jobs::{Slots, Underway};
use crate::plan::{self, Counts};
use crate::pools::Crews;
use crate::queue::WorkQueue;
use crate::routes::Routes;

/// The parts the controllers are built from.
pub struct Deps {
    /// Where desired state is.
    pub store: Store,
    /// Finds images.
    pub images: Arc<dyn ImageResolver>,
    /// Starts and stops instances of tasks and worker pools.
    pub engine: Arc<dyn Engine>,
    /// What it ran before this server started. The fleet has its own part of it.
    pub running: Vec<Arc<Instance>>,
    /// What the machine gives to tasks.
    pub jobs: JobLimits,
    /// Where the number of executions under way is shown.
    pub underway: Underway,
    /// Starts and stops instances of services' revisions.
    pub fleet: Fleet,
    /// Where routes are published.
    pub routes: lauf_gateway::Routes,
    /// Decides who may call.
    pub iam: Arc<Iam>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the platform is reached.
    pub site: Site,
    /// Numbers of the projects, by id.
    pub projects: BTreeMap<String, u64>,
    /// How long an instance without requests stays.
    pub idle_timeout: Duration,
}

/// What the machine gives to tasks, all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobLimits {
    /// The sum of memory limits of the tasks that run, in bytes.
    pub memory: u64,
    /// How many run.
    pub tasks: usize,
}

/// See [`Deps`].
pub struct Context {
    pub(crate) store: Store,
    pub(crate) images: Arc<dyn ImageResolver>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) fleet: Fleet,
    pub(crate) crews: Arc<Crews>,
    pub(crate) slots: Slots,
    pub(crate) routes: Routes,
    pub(crate) clock: Arc<dyn Clock>,
    iam: Arc<Iam>,
    site: Site,
    projects: BTreeMap<String, u64>,
    idle_timeout: Duration,
    /// Instances of tasks that an earlier server started and no execution has asked for yet.
    tasks: Mutex<HashMap<InstanceId, Arc<Instance>>>,
}

impl Context {
    /// `pools` are told of pools whose instances change in number.
    pub(crate) fn new(deps: Deps, pools: Arc<WorkQueue<WorkerPoolKey>>) -> Self {
        let mut tasks = HashMap::new();
        let mut workers = Vec::new();
        for instance in deps.running {
            match &instance.spec.owner {
                Owner::Task(_) => drop(tasks.insert(instance.id().clone(), instance)),
                Owner::WorkerPool(_) => workers.push(instance),
                Owner::Revision(_) => {}
            }
        }
        let (engine, clock) = (Arc::clone(&deps.engine), Arc::clone(&deps.clock));
        Self {
            engine: deps.engine,
            crews: Arc::new(Crews::new(engine, clock, new_instance_id, workers, pools)),
            slots: Slots::new(deps.jobs.memory, deps.jobs.tasks),
            tasks: Mutex::new(tasks),
            store: deps.store,
            images: deps.images,
            fleet: deps.fleet,
            routes: Routes::new(deps.routes),
            clock: deps.clock,
            iam: deps.iam,
            site: deps.site,
            projects: deps.projects,
            idle_timeout: deps.idle_timeout,
        }
    }

    fn project_number(&self, project: &str) -> u64 {
        self.projects.get(project).copied().unwrap_or_default()
    }

    pub(crate) fn url(
        &self,
        project: &str,
        region: &str,
        service: &str,
        tag: Option<&str>,
    ) -> String {
        self.site
            .url(service, self.project_number(project), region, tag)
    }

    pub(crate) fn new_uid(&self) -> String {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).expect("the kernel gives random bytes");
        lauf_model::meta::uid(random)
    }

    pub(crate) fn new_instance_id(&self) -> InstanceId {
        new_instance_id()
    }

    /// The instance of that id, if an earlier server started it. Once.
    pub(crate) fn claim(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.remove(id)
    }

    /// The instances of tasks that nobody has claimed.
    pub(crate) fn unclaimed(&self) -> Vec<Arc<Instance>> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.values().cloned().collect()
    }

    /// Makes sure the gateway has a pool for a revision, with these counts.
    pub(crate) fn ensure_pool(
        &self,
        key: &RevisionKey,
        revision: &Revision,
        counts: Counts,
    ) -> Arc<RevisionPool> {
        self.fleet.ensure(RevisionConfig {
            key: key.clone(),
            image_digest: revision.status.image_digest.clone(),
            spec: revision.spec.clone(),
            min: counts.min,
            max: Some(counts.max),
            manual: counts.manual,
            idle_timeout: self.idle_timeout,
        })
    }

    /// Publishes where requests for a service go.
    pub(crate) fn route(
        &self,
        key: &ServiceKey,
        service: &Service,
        revisions: &BTreeMap<String, Revision>,
        served: &[TrafficStatus],
        policy: Policy,
    ) {
        let host = self
            .site
            .host(&key.name, self.project_number(&key.project), &key.region);
        let access = if service.spec.invoker_iam_disabled || policy.is_public() {
            Access::Public
        } else {
            Access::Restricted(Arc::new(PolicyCheck {
                iam: Arc::clone(&self.iam),
                policy,
            }))
        };
        // A revision may be served by several targets (a share and a tag): its counts come from
        // all its shares together.
        let mut shares = Vec::<(&Revision, u32)>::new();
        for target in served {
            let name = &target.revision;
            match shares.iter_mut().find(|(r, _)| r.meta.name == *name) {
                Some((_, percent)) => *percent += target.percent,
                None => shares.extend(revisions.get(name).map(|r| (r, target.percent))),
            }
        }
        let counts = plan::counts(&service.spec.scaling, &shares);
        let pools: BTreeMap<_, _> = shares
            .iter()
            .zip(counts)
            .map(|((revision, _), counts)| {
                let name = &revision.meta.name;
                let pool = self.ensure_pool(&key.revision(name), revision, counts);
                (name, pool)
            })
            .collect();
        let route = |targets: Vec<(u32, Arc<RevisionPool>)>| {
            Arc::new(ServiceRoute {
                key: key.clone(),
                access: access.clone(),
                ingress: service.spec.ingress,
                targets,
            })
        };
        let target =
            |t: &TrafficStatus, percent| Some((percent, Arc::clone(pools.get(&t.revision)?)));
        let shares = served
            .iter()
            .filter(|t| t.percent > 0)
            .filter_map(|t| target(t, t.percent));
        let mut hosts = vec![(host.clone(), route(shares.collect()))];
        for t in served {
            if let (Some(tag), Some(target)) = (&t.tag, target(t, 100)) {
                hosts.push((format!("{tag}---{host}"), route(vec![target])));
            }
        }
        self.routes.set(key, hosts);
    }
}

/// A new identity: 80 random bits, in hexadecimal.
fn new_instance_id() -> InstanceId {
    let mut random = [0_u8; 10];
    getrandom::fill(&mut random).expect("the kernel gives random bytes");
    InstanceId(random.iter().map(|b| format!("{b:02x}")).collect())
}

/// Admission by the service's IAM policy.
struct PolicyCheck {
    iam: Arc<Iam>,
    policy: Policy,
}

impl InvokerCheck for PolicyCheck {
    fn check(&self, _service: &ServiceKey, host: &str, token: Option<&str>) -> Result<(), Denied> {
        let token = token.ok_or(Denied::Forbidden)?;
        let caller = self
            .iam
            .identify(token, host)
            .map_err(|_| Denied::Unauthenticated)?;
        if self.iam.may_invoke(&caller, &self.policy) {
            Ok(())
        } else {
            Err(Denied::Forbidden)
        }
    }
}
