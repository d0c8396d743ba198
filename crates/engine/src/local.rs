//! The engine of this machine: images from `lauf-image`, containers by `lauf-sandbox`.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use lauf_image::{Images, PreparedImage, Reference, ResolvedImage};
use lauf_model::{BOOST_AFTER_START, Clock, InstanceId, boosted_cpu};
use lauf_sandbox::{
    ContainerSpec, ExitStatus, Exited, KeeperClient, KeeperConfig, KeeperEvent, NetNs,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::prober::Prober;
use crate::table::{Entry, Table};
use crate::{
    Endpoint, Engine, ExitReason, FirstConnection, ImageResolver, Instance, InstanceSpec,
    InstanceState, StartError, StartPhases, command, fault, health, startup,
};

/// The label under which an instance carries its own [`InstanceSpec`].
const SPEC_LABEL: &str = "lauf.spec";
const SIGTERM: i32 = 15;
/// The most processes and threads of an instance. A fork bomb ends here.
const PIDS_MAX: u32 = 8192;

/// What the engine has to say about an instance to the person who owns it.
pub trait InstanceLog: Send + Sync + 'static {
    /// From now on there may be output of this instance. Said again at adoption, also of one that has
    /// ended meanwhile.
    fn starting(&self, spec: &InstanceSpec);
    /// One line of the platform's own log about an instance.
    fn system(&self, spec: &InstanceSpec, warning: bool, text: &str);
    /// Containers wrote something: read the spool.
    fn spool_advanced(&self);
}

/// How the engine is set up.
pub struct LocalConfig {
    /// How to reach or make the keeper.
    pub keeper: KeeperConfig,
    /// Whether instances ask the platform's name server, which then has to listen on
    /// [`LocalEngine::gateways`]. Otherwise they have the image's `/etc/resolv.conf`.
    pub name_server: bool,
}

/// The engine of this machine. Cheap to clone.
#[derive(Clone)]
pub struct LocalEngine(Arc<Inner>);

struct Inner {
    images: Images,
    clock: Arc<dyn Clock>,
    log: Arc<dyn InstanceLog>,
    config: LocalConfig,
    prober: Prober,
    /// Replaced when the keeper had to be made anew.
    keeper: RwLock<Keeper>,
    table: Table,
    ends: Mutex<Ends>,
}

/// Instances that have ended and that nobody asks for any more, the earliest first. The keeper holds
/// their exits until their output is safe: they say whose it is.
#[derive(Default)]
struct Ends {
    waiting: VecDeque<lauf_sandbox::InstanceId>,
    forgotten: u64,
}

/// As many exits as the keeper holds. Whoever does not read the output does not miss it either.
const MAX_ENDS: usize = 20_000;

/// A keeper, and a name for its life that no other keeper ever has.
struct Keeper {
    client: Arc<KeeperClient>,
    life: String,
}

impl Keeper {
    fn new(client: KeeperClient) -> Self {
        Self {
            life: life(client.keeper_pid()),
            client: Arc::new(client),
        }
    }
}

/// Process ids come again, but not with the same start in the same boot.
fn life(pid: u32) -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The start is field 22; the second field, the name, may hold blanks and ends with the last ')'.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let start = after_name.split_whitespace().nth(19).unwrap_or_default();
    let boot = boot.split('-').next().unwrap_or_default();
    format!("{boot}-{pid}-{start}")
}

#[derive(Debug)]
struct NetNsEndpoint(NetNs);

/// The way into an instance that is no more.
#[derive(Debug)]
struct Nowhere;

impl Endpoint for Nowhere {
    fn connect(&self, _port: u16) -> std::io::Result<TcpStream> {
        Err(std::io::ErrorKind::NotConnected.into())
    }
}

impl Endpoint for NetNsEndpoint {
    fn connect(&self, port: u16) -> std::io::Result<TcpStream> {
        self.0.connect(port)
    }

    fn may_hold(&self, pid: u32) -> bool {
        self.0.may_hold(pid)
    }
}

impl LocalEngine {
    /// Connects to the keeper, or makes one.
    ///
    /// # Errors
    /// When there is no keeper to be had; the text says why.
    pub async fn start(
        config: LocalConfig,
        images: Images,
        clock: Arc<dyn Clock>,
        log: Arc<dyn InstanceLog>,
    ) -> Result<Self, StartError> {
        let (keeper, events) = KeeperClient::connect_or_spawn(config.keeper.clone())
            .await
            .map_err(|e| StartError::Host(e.to_string()))?;
        let pool = config.keeper.settings.pool_size;
        if keeper.settings().is_some_and(|kept| kept.pool_size != pool) {
            keeper
                .configure(pool)
                .await
                .map_err(|e| StartError::Host(e.to_string()))?;
        }
        let prober =
            Prober::start(Arc::clone(&clock)).map_err(|e| StartError::Host(e.to_string()))?;
        let inner = Inner {
            images,
            clock,
            log,
            config,
            prober,
            keeper: RwLock::new(Keeper::new(keeper)),
            table: Table::default(),
            ends: Mutex::default(),
        };
        let engine = Self(Arc::new(inner));
        tokio::spawn(follow(engine.clone(), events));
        Ok(engine)
    }

    /// The host's addresses towards the instances: where a name server for them may listen.
    /// Empty when instances have no network but their own loopback.
    #[must_use]
    pub fn gateways(&self) -> Vec<std::net::Ipv4Addr> {
        self.0.keeper().gateways().to_vec()
    }

    /// The settings that the keeper, made by an earlier server, has otherwise than they were asked for
    /// now. It keeps them as long as it lives.
    #[must_use]
    pub fn kept_settings(&self) -> Vec<lauf_sandbox::Difference> {
        let wanted = &self.0.config.keeper.settings;
        let keeper = self.0.keeper();
        keeper
            .settings()
            .map(|kept| kept.differences(wanted))
            .unwrap_or_default()
    }

    /// Starts a container of a few bytes, to see whether the runtime does what it should on this machine.
    ///
    /// # Errors
    /// What the runtime said.
    pub async fn try_runtime(&self) -> Result<(), String> {
        let settings = &self.0.config.keeper.settings;
        let (dir, owner) = (settings.state_dir.clone(), settings.uid_base);
        let spec =
            tokio::task::spawn_blocking(move || lauf_sandbox::doctor::trial_spec(&dir, owner))
                .await
                .map_err(|e| e.to_string())??;
        let folders = spec.layers.clone();
        let started = self.0.keeper().start(spec).await;
        let remove = move || folders.iter().try_for_each(std::fs::remove_dir_all);
        let removed = tokio::task::spawn_blocking(remove).await;
        started.map_err(|e| e.to_string())?;
        removed
            .map_err(|e| e.to_string())?
            .map_err(|e| format!("the folder for the trial: {e}"))
    }

    /// Where the containers' output is; read it with [`lauf_sandbox::spool::SpoolReader`].
    #[must_use]
    pub fn spool_dir(&self) -> std::path::PathBuf {
        self.0.keeper().spool_dir().to_owned()
    }

    /// Says up to where the spool has been read.
    pub fn spool_seen(&self, position: lauf_sandbox::spool::Position) {
        // A keeper that is gone has nothing to say any more.
        let _ = self.0.keeper().logs_seen(position);
    }

    /// What is known of all instances that run or whose ends are not forgotten, whoever started them.
    pub async fn specs(&self) -> Vec<InstanceSpec> {
        let listed = self.0.keeper().list_all().await.unwrap_or_default();
        let running = listed.running.iter().map(|running| &running.info.labels);
        let exited = listed.exited.iter().map(|exited| &exited.labels);
        running.chain(exited).filter_map(spec_of).collect()
    }

    /// How many instances have ended so far: whoever reads the spool to its end after this has all that
    /// those wrote.
    #[must_use]
    pub fn ends(&self) -> u64 {
        let ends = lock(&self.0.ends);
        ends.forgotten + u64::try_from(ends.waiting.len()).unwrap_or(u64::MAX)
    }

    /// Says that the output of the first so many instances that ended will not be read again.
    pub fn forget_ends(&self, count: u64) {
        let mut ends = lock(&self.0.ends);
        while ends.forgotten < count
            && let Some(id) = ends.waiting.pop_front()
        {
            ends.forgotten += 1;
            // A keeper that is gone has forgotten everything.
            let _ = self.0.keeper().forget(&id);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn keeper(&self) -> Arc<KeeperClient> {
        let keeper = self.keeper.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keeper.client)
    }

    fn at(&self, nanoseconds: u64) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_else(|_| self.clock.now())
    }

    fn resolv_conf(&self) -> Option<String> {
        let gateway = *self.keeper().gateways().first()?;
        self.config
            .name_server
            .then(|| format!("nameserver {gateway}\noptions ndots:0\n"))
    }

    fn container_spec(
        &self,
        spec: &InstanceSpec,
        image: &PreparedImage,
    ) -> Result<ContainerSpec, StartError> {
        let container = &spec.container;
        let declared = command::declared_env(container, &spec.owner);
        let args = command::command_line(container, &image.config, &declared)?;
        let user = image
            .resolve_user(&image.config.user)
            .map_err(|e| StartError::Command(e.to_string()))?;
        let cwd = [&container.working_dir, &image.config.working_dir]
            .into_iter()
            .find(|dir| !dir.is_empty())
            .map_or("/", String::as_str);
        let id = lauf_sandbox::InstanceId::new(spec.id.0.as_str())
            .map_err(|e| StartError::Host(e.to_string()))?;
        let label = serde_json::to_string(spec).map_err(|e| StartError::Host(e.to_string()))?;
        Ok(ContainerSpec {
            layers: image.layers.clone(),
            args,
            env: command::whole_env(&image.config, declared),
            cwd: cwd.to_owned(),
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.groups,
            hostname: "localhost".to_owned(),
            cpu_millis: container.cpu_millis,
            startup_cpu_millis: match spec.startup_cpu_boost {
                true => boosted_cpu(container.cpu_millis),
                false => 0,
            },
            memory_bytes: container.memory_bytes,
            pids_max: PIDS_MAX,
            resolv_conf: self.resolv_conf(),
            hosts: Some("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n".to_owned()),
            labels: [(SPEC_LABEL.to_owned(), label)].into(),
            stop_signal: SIGTERM,
            // An attempt of a task is on record before it is started, so the next server looks for it.
            outlives_asker: spec.owner.keeps_exits(),
            ..ContainerSpec::new(id, Vec::new(), Vec::new())
        })
    }

    /// Has the keeper start a container; the way into it. When nobody waits for the keeper's answer any
    /// more, what it started is stopped: before the answer there is nothing that could be.
    async fn begin(
        self: &Arc<Self>,
        id: &InstanceId,
        container: ContainerSpec,
    ) -> Result<Arc<dyn Endpoint>, lauf_sandbox::StartError> {
        let (tell, told) = oneshot::channel();
        let (engine, id) = (LocalEngine(Arc::clone(self)), id.clone());
        tokio::spawn(async move {
            let answer = engine.0.keeper().start(container).await;
            match tell.send(answer) {
                Err(Ok(_)) => engine.stop(&id, Duration::ZERO).await,
                Err(Err(_)) => engine.0.table.remove(&id),
                Ok(()) => {}
            }
        });
        let gone = |_| Err(lauf_sandbox::KeeperError::Gone.into());
        let running = told.await.unwrap_or_else(gone)?;
        Ok(Arc::new(NetNsEndpoint(running.netns)))
    }

    /// Has the keeper start a task's container, which it may know already, because another server asked
    /// for it and died before it heard of it. It may be about to start, run, or have ended; and when it
    /// could not be started, it is unknown again. Nothing stops it when nobody waits any more: whoever
    /// comes next finds it here.
    async fn begin_or_find(
        &self,
        id: &InstanceId,
        container: ContainerSpec,
        entry: &Arc<Entry>,
    ) -> Result<Arc<dyn Endpoint>, lauf_sandbox::StartError> {
        loop {
            match self.keeper().start(container.clone()).await {
                Ok(running) => return Ok(Arc::new(NetNsEndpoint(running.netns))),
                Err(error) if fault::is_there(&error) => {}
                Err(error) => return Err(error),
            }
            let listed = self.keeper().list_all().await;
            let found = listed.ok().and_then(|listed| {
                let mut running = listed.running.into_iter();
                running.find(|r| r.info.id.as_str() == id.0)
            });
            if let Some(running) = found {
                return Ok(Arc::new(NetNsEndpoint(running.netns)));
            }
            // An exit that is not forgotten is told again with every list. The keeper does not tell
            // this server of a start that another one asked for, so there is nothing to await; it
            // takes milliseconds, and only after a restart.
            let ended = tokio::time::timeout(LOOK_AGAIN, entry.exited()).await;
            if ended.is_ok() {
                return Ok(Arc::new(Nowhere));
            }
        }
    }

    /// Takes notice of the end of an instance.
    fn note_exit(&self, exited: &Exited) {
        let id = InstanceId(exited.id.as_str().to_owned());
        let spec = spec_of(&exited.labels);
        let known = self
            .table
            .exited(&id, fault::exit(exited, self.at(exited.at)));
        let Some(spec) = spec else {
            return self.forget_later(exited.id.clone());
        };
        // One that is told again, or too early, which `look_again` makes up for.
        if !known {
            return;
        }
        log_exit(self, &spec, exited);
        if !spec.owner.keeps_exits() {
            self.forget_later(exited.id.clone());
        }
    }

    /// Ends the entries of those that ended after they were listed and before there was an entry.
    async fn look_again(&self) {
        // A keeper that is gone has lost all instances, and whoever sees that says so.
        let now = self.keeper().list_all().await.unwrap_or_default();
        for exited in &now.exited {
            self.note_exit(exited);
        }
    }

    fn forget_later(&self, id: lauf_sandbox::InstanceId) {
        let mut ends = lock(&self.ends);
        ends.waiting.push_back(id);
        if ends.waiting.len() > MAX_ENDS
            && let Some(oldest) = ends.waiting.pop_front()
        {
            ends.forgotten += 1;
            // A keeper that is gone has forgotten everything.
            let _ = self.keeper().forget(&oldest);
        }
    }

    /// Puts the pieces of a started instance together and starts its health probes.
    fn instance(
        self: &Arc<Self>,
        spec: InstanceSpec,
        started: Timestamp,
        phases: StartPhases,
        endpoint: Arc<dyn Endpoint>,
        first: FirstConnection,
        entry: &Arc<Entry>,
    ) -> Arc<Instance> {
        entry.set_ready(true);
        let instance = Arc::new(Instance {
            spec,
            started,
            phases,
            endpoint,
            first,
            state: entry.state.subscribe(),
        });
        self.watch_health(&instance, entry);
        if instance.spec.startup_cpu_boost {
            self.end_boost(&instance);
        }
        instance
    }

    /// Takes the additional CPU away when its time is over. An instance that was adopted may have had it for longer, when the server
    /// that gave it was killed.
    fn end_boost(self: &Arc<Self>, instance: &Instance) {
        let Ok(id) = lauf_sandbox::InstanceId::new(instance.spec.id.0.as_str()) else {
            return;
        };
        let (inner, millis) = (Arc::clone(self), instance.spec.container.cpu_millis);
        self.until_exit(&instance.state, async move {
            tokio::time::sleep(BOOST_AFTER_START).await;
            if let Err(error) = inner.keeper().limit_cpu(&id, millis).await {
                tracing::warn!(instance = %id, %error, "the CPU limit cannot be set after the start");
            }
        });
    }

    fn watch_health(self: &Arc<Self>, instance: &Arc<Instance>, entry: &Arc<Entry>) {
        let container = &instance.spec.container;
        if let Some(probe) = container.liveness_probe.clone() {
            let (inner, spec, entry) = (Arc::clone(self), instance.spec.clone(), Arc::clone(entry));
            let about = probe.clone();
            self.until_exit(
                &instance.state,
                health::watch(
                    Arc::clone(&instance.endpoint),
                    container.clone(),
                    probe,
                    move |well, cause| {
                        if !well {
                            let text = health::liveness_failed(&spec.container, &about, &cause);
                            inner.log.system(&spec, true, &text);
                            entry.ending(ExitReason::Liveness);
                            let (engine, id) = (LocalEngine(Arc::clone(&inner)), spec.id.clone());
                            // At once: it is not well enough to say goodbye (Cloud Run, "Configure container health checks").
                            tokio::spawn(async move {
                                engine.stop(&id, Duration::ZERO).await;
                            });
                        }
                    },
                ),
            );
        }
        if let Some(probe) = container.readiness_probe.clone() {
            let entry = Arc::clone(entry);
            self.until_exit(
                &instance.state,
                health::watch(
                    Arc::clone(&instance.endpoint),
                    container.clone(),
                    probe,
                    move |well, _| entry.set_ready(well),
                ),
            );
        }
    }

    fn until_exit(
        &self,
        state: &watch::Receiver<InstanceState>,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut state = state.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = work => {}
                _ = state.wait_for(|s| matches!(s, InstanceState::Exited(_))) => {}
            }
        });
    }
}

/// Ends the instance if its start is given up.
struct Abandon {
    engine: Option<LocalEngine>,
    id: InstanceId,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            let id = self.id.clone();
            tokio::spawn(async move { engine.stop(&id, Duration::ZERO).await });
        }
    }
}

#[async_trait]
impl Engine for LocalEngine {
    async fn prepare(&self, image: &str) -> Result<(), StartError> {
        prepare(&self.0.images, image).await.map(|_| ())
    }

    async fn start(&self, spec: InstanceSpec) -> Result<Arc<Instance>, StartError> {
        let inner = &self.0;
        let started = inner.clock.now();
        let begin = inner.clock.monotonic();
        let image = prepare(&inner.images, &spec.image).await?;
        let container = inner.container_spec(&spec, &image)?;
        let image_done = inner.clock.monotonic();

        inner.log.starting(&spec);
        let entry = inner.table.insert(&spec.id);
        let is_task = spec.owner.keeps_exits();
        let mut abandon = Abandon {
            engine: Some(self.clone()).filter(|_| !is_task),
            id: spec.id.clone(),
        };
        let begun = if is_task {
            inner.begin_or_find(&spec.id, container, &entry).await
        } else {
            inner.begin(&spec.id, container).await
        };
        let endpoint = match begun {
            Ok(endpoint) => endpoint,
            Err(error) => {
                abandon.engine = None;
                inner.table.remove(&spec.id);
                return Err(fault::start(&error, &spec));
            }
        };
        let sandbox_done = inner.clock.monotonic();
        let waited = if spec.owner.waits_for_port(&spec.container) {
            tokio::select! {
                biased;
                exit = entry.exited() => if is_task {
                    Ok(None)
                } else {
                    Err(fault::ended(&exit, &spec))
                },
                result = startup::wait(&*inner.clock, &inner.prober, &endpoint, &spec.container) =>
                    result.map_err(StartError::Probe),
            }
        } else {
            Ok(None)
        };
        let first = match waited {
            // Nobody would take one to what gets no requests.
            Ok(first) => FirstConnection::new(first.filter(|_| spec.owner.revision().is_some())),
            Err(error) => {
                self.stop(&spec.id, Duration::ZERO).await;
                abandon.engine = None;
                return Err(error);
            }
        };
        abandon.engine = None;
        let phases = StartPhases {
            image: image_done.saturating_sub(begin),
            sandbox: sandbox_done.saturating_sub(image_done),
            boot: inner.clock.monotonic().saturating_sub(sandbox_done),
        };
        Ok(inner.instance(spec, started, phases, endpoint, first, &entry))
    }

    async fn stop(&self, id: &InstanceId, grace: Duration) {
        let inner = &self.0;
        let Some(entry) = inner.table.get(id) else {
            return;
        };
        let Ok(sandbox_id) = lauf_sandbox::InstanceId::new(id.0.as_str()) else {
            return;
        };
        entry.ending(ExitReason::Stopped);
        let keeper = inner.keeper();
        if !grace.is_zero() && keeper.signal(&sandbox_id, SIGTERM).await.is_ok() {
            let left = tokio::time::timeout(grace, entry.exited()).await;
            if left.is_ok() {
                return;
            }
        }
        match keeper.kill(&sandbox_id).await {
            Ok(()) => {
                entry.exited().await;
            }
            // The keeper does not know it: it has exited, or the keeper is gone and with it the
            // instance. Either way the event is on its way or was here.
            Err(error) => tracing::debug!(instance = %id, %error, "kill found nothing"),
        }
    }

    async fn running(&self) -> Vec<Arc<Instance>> {
        let inner = &self.0;
        let listed = match inner.keeper().list_all().await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(%error, "the keeper does not list its instances");
                return Vec::new();
            }
        };
        let mut adopted = Vec::new();
        for exited in listed.exited {
            let spec = spec_of(&exited.labels);
            if let Some(spec) = &spec {
                inner.log.starting(spec);
            }
            let Some(spec) = spec.filter(|s| s.owner.keeps_exits()) else {
                // Nobody waits for it any more.
                inner.forget_later(exited.id);
                continue;
            };
            let entry = inner.table.insert(&spec.id);
            let at = inner.at(exited.at);
            inner.table.exited(&spec.id, fault::exit(&exited, at));
            adopted.push(inner.instance(
                spec,
                at,
                StartPhases::default(),
                Arc::new(Nowhere),
                FirstConnection::default(),
                &entry,
            ));
        }
        let mut known = Vec::new();
        for running in listed.running {
            let Some(spec) = spec_of(&running.info.labels) else {
                // Not ours, or of a version that cannot be read any more: nobody would stop it.
                if let Err(error) = inner.keeper().kill(&running.info.id).await {
                    tracing::warn!(%error, "an unknown instance cannot be stopped");
                }
                continue;
            };
            inner.log.starting(&spec);
            known.push((inner.table.insert(&spec.id), spec, running));
        }
        inner.look_again().await;
        for (entry, spec, running) in known {
            let endpoint: Arc<dyn Endpoint> = Arc::new(NetNsEndpoint(running.netns));
            // The old server may have died before the instance was ready, so the probe decides
            // again; an instance that serves passes it at once. What a task has done already is not
            // thrown away for that.
            let decides = spec.owner.revision().is_some();
            let ready = !decides
                || tokio::select! {
                    biased;
                    _ = entry.exited() => false,
                    result = tokio::time::timeout(
                        ADOPTION_LIMIT,
                        startup::wait(&*inner.clock, &inner.prober, &endpoint, &spec.container),
                    ) => matches!(result, Ok(Ok(_))),
                };
            if ready {
                let started = inner.at(running.info.started_at);
                let phases = StartPhases::default();
                let first = FirstConnection::default();
                adopted.push(inner.instance(spec, started, phases, endpoint, first, &entry));
            } else {
                self.stop(&spec.id, Duration::ZERO).await;
            }
        }
        adopted
    }

    async fn cpu_time(&self, ids: &[InstanceId]) -> Vec<(InstanceId, Duration)> {
        let ids = ids
            .iter()
            .filter_map(|id| lauf_sandbox::InstanceId::new(id.0.as_str()).ok())
            .collect();
        match self.0.keeper().stats(Some(ids)).await {
            Ok(all) => all
                .into_iter()
                .map(|(id, usage)| (InstanceId(id.as_str().to_owned()), usage.cpu))
                .collect(),
            Err(error) => {
                tracing::debug!(%error, "the keeper does not say what instances use");
                Vec::new()
            }
        }
    }

    fn forget(&self, id: &InstanceId) {
        if let Ok(id) = lauf_sandbox::InstanceId::new(id.0.as_str()) {
            self.0.forget_later(id);
        }
    }

    fn life(&self) -> String {
        let keeper = self.0.keeper.read().unwrap_or_else(PoisonError::into_inner);
        keeper.life.clone()
    }
}

/// What an instance carries about itself.
fn spec_of(labels: &std::collections::BTreeMap<String, String>) -> Option<InstanceSpec> {
    serde_json::from_str(labels.get(SPEC_LABEL)?).ok()
}

/// An instance that was serving answers its probe at once; one that does not in this time was
/// still starting, and a new one starts as well.
const ADOPTION_LIMIT: Duration = Duration::from_millis(500);

#[async_trait]
impl ImageResolver for LocalEngine {
    async fn resolve(&self, image: &str) -> Result<String, StartError> {
        let reference: Reference = image
            .parse()
            .map_err(|e| StartError::Image(format!("{e}")))?;
        let resolved = self
            .0
            .images
            .resolve(&reference)
            .await
            .map_err(|e| fault::image(&e))?;
        self.0
            .images
            .prepare(&resolved)
            .await
            .map_err(|e| fault::image(&e))?;
        Ok(resolved.to_string())
    }
}

async fn prepare(images: &Images, image: &str) -> Result<Arc<PreparedImage>, StartError> {
    let reference: Reference = image
        .parse()
        .map_err(|e| StartError::Image(format!("{e}")))?;
    let resolved = match &reference.digest {
        Some(digest) => ResolvedImage {
            digest: digest.clone(),
            reference,
        },
        None => images
            .resolve(&reference)
            .await
            .map_err(|e| fault::image(&e))?,
    };
    images
        .prepare(&resolved)
        .await
        .map_err(|e| fault::image(&e))
}

/// How often a start that another server asked for is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Takes the keeper's events in, and makes a new keeper when the old one is gone.
async fn follow(engine: LocalEngine, mut events: mpsc::Receiver<KeeperEvent>) {
    let inner = &engine.0;
    loop {
        match events.recv().await {
            Some(KeeperEvent::Exited(exited)) => inner.note_exit(&exited),
            Some(KeeperEvent::Oom(id)) => tracing::debug!(%id, "a process ran out of memory"),
            Some(KeeperEvent::LogsAdvanced) => inner.log.spool_advanced(),
            Some(KeeperEvent::Gone) | None => {
                tracing::error!("the keeper is gone and its instances with it; making a new one");
                inner.table.all_lost(inner.clock.now());
                events = respawn(inner).await;
            }
        }
    }
}

/// What the owner of an instance should read about its end.
fn log_exit(inner: &Inner, spec: &InstanceSpec, exited: &Exited) {
    if exited.oom && !matches!(exited.status, ExitStatus::Code(0)) {
        let mib = |bytes: u64| bytes >> 20;
        let (limit, used) = (
            mib(spec.container.memory_bytes),
            mib(exited.memory_peak_bytes),
        );
        // It was near its own limit, or else what was exhausted is what all have together.
        let text = if used >= limit.saturating_sub(limit / 8) {
            format!(
                "Memory limit of {limit} MiB exceeded with {used} MiB used. Consider increasing the \
                 memory limit, see the memory setting."
            )
        } else {
            format!(
                "The instance was killed with {used} of its {limit} MiB used, because the instances \
                 on this machine have used up the memory that they may use together. Run fewer, or \
                 raise `lauf up --memory`."
            )
        };
        inner.log.system(spec, true, &text);
    } else if spec.owner.revision().is_none() {
        // Of services' instances the fleet tells.
        match exited.status {
            ExitStatus::Code(code) => {
                let text = format!("Container called exit({code}).");
                inner.log.system(spec, code != 0, &text);
            }
            ExitStatus::Signal { signal, .. } => {
                let text = format!("Container terminated on signal {signal}.");
                inner.log.system(spec, true, &text);
            }
        }
    }
}

async fn respawn(inner: &Inner) -> mpsc::Receiver<KeeperEvent> {
    let mut pause = Duration::from_millis(10);
    loop {
        match KeeperClient::connect_or_spawn(inner.config.keeper.clone()).await {
            Ok((keeper, events)) => {
                *inner.keeper.write().unwrap_or_else(PoisonError::into_inner) = Keeper::new(keeper);
                return events;
            }
            Err(error) => {
                tracing::error!(%error, "no keeper can be made; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}
