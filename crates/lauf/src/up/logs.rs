//! From what containers and the platform say to Cloud Logging's entries, and back out again.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use lauf_api::{AuditEntry, LogPage, LogQuery, LogStream, Logs};
use lauf_engine::{Exit, ExitReason, InstanceLog, InstanceSpec, LocalEngine, Owner};
use lauf_gateway::{FleetEvent, FleetEvents};
use lauf_model::{Clock, Code, RevisionKey, Status, WorkerPoolRevisionKey};
use lauf_observe::{
    Filter, LogEntry, LogError, LogSink, LogStore, Order, Payload, Query, Resource, Severity,
    TailEvent, parse_container_line,
};
use lauf_sandbox::spool::{Entry, Position, SpoolReader, Stream};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::aside::replace;

/// Instances whose lines can be told apart. Far more than one machine runs at once, so that late
/// lines of ended ones still find their revision.
const REMEMBERED: usize = 50_000;
/// How much of the spool is read at once, in bytes.
const READ_BYTES: usize = 1 << 20;

/// The label that says how long a start took, from being asked for to ready.
const STARTED_IN: &str = "lauf.dev/started-in";

/// The resource that entries about a revision belong to.
pub(super) fn resource(revision: &RevisionKey) -> Resource {
    let service = &revision.service;
    make_resource(
        "cloud_run_revision",
        &[
            ("project_id", &service.project),
            ("location", &service.region),
            ("service_name", &service.name),
            ("revision_name", &revision.revision),
            ("configuration_name", &service.name),
        ],
    )
}

fn make_resource(kind: &str, labels: &[(&str, &String)]) -> Resource {
    Resource {
        kind: kind.to_owned(),
        labels: labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).clone()))
            .collect(),
    }
}

/// The resource that entries about an instance belong to.
fn resource_of(owner: &Owner) -> Resource {
    match owner {
        Owner::Revision(revision) => resource(revision),
        Owner::Task(task) => make_resource(
            "cloud_run_job",
            &[
                ("project_id", &task.execution.project),
                ("location", &task.execution.region),
                ("job_name", &task.job),
            ],
        ),
        Owner::WorkerPool(WorkerPoolRevisionKey { pool, revision }) => make_resource(
            "cloud_run_worker_pool",
            &[
                ("project_id", &pool.project),
                ("location", &pool.region),
                ("worker_pool_name", &pool.name),
                ("revision_name", revision),
            ],
        ),
    }
}

fn project_of(owner: &Owner) -> &str {
    match owner {
        Owner::Revision(revision) => &revision.service.project,
        Owner::Task(task) => &task.execution.project,
        Owner::WorkerPool(revision) => &revision.pool.project,
    }
}

/// An entry about an instance, with the labels that tell it from others of its resource.
fn entry_of(owner: &Owner, instance: &str, log: &str, at: Timestamp, text: String) -> LogEntry {
    let name = log_name(project_of(owner), log);
    let mut entry = LogEntry::new(name, resource_of(owner), at, Payload::Text(text));
    let mut label = |name: &str, value: String| entry.labels.insert(name.to_owned(), value);
    label("instanceId", instance.to_owned());
    if let Owner::Task(task) = owner {
        let execution = task.execution.name.clone();
        label("run.googleapis.com/execution_name", execution);
        label("run.googleapis.com/task_index", task.index.to_string());
        label("run.googleapis.com/task_attempt", task.attempt.to_string());
    }
    entry
}

/// The full name of a log of a project: `projects/P/logs/run.googleapis.com%2FNAME`.
pub(super) fn log_name(project: &str, name: &str) -> String {
    format!("projects/{project}/logs/run.googleapis.com%2F{name}")
}

/// Makes entries of what containers write and of what happens to instances.
pub(crate) struct Journal {
    sink: LogSink,
    clock: Arc<dyn Clock>,
    owners: Mutex<Remembered>,
    more: Notify,
}

#[derive(Default)]
struct Remembered {
    by_instance: HashMap<String, Arc<Owner>>,
    order: VecDeque<String>,
}

impl Journal {
    pub(crate) fn new(sink: LogSink, clock: Arc<dyn Clock>) -> Self {
        Self {
            sink,
            clock,
            owners: Mutex::default(),
            more: Notify::new(),
        }
    }

    fn owner(&self, instance: &str) -> Option<Arc<Owner>> {
        let remembered = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.by_instance.get(instance).cloned()
    }

    fn platform(&self, owner: &Owner, instance: &str, severity: Severity, text: String) {
        self.sink.push(self.entry(owner, instance, severity, text));
    }

    fn entry(&self, owner: &Owner, instance: &str, severity: Severity, text: String) -> LogEntry {
        let now = self.clock.now();
        let mut entry = entry_of(owner, instance, "varlog%2Fsystem", now, text);
        entry.severity = severity;
        entry
    }

    /// One line of a container.
    fn line(&self, line: Entry) {
        let Ok(received) = Timestamp::from_nanosecond(i128::from(line.time)) else {
            return;
        };
        let name = match line.stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Dropped => {
                tracing::warn!(
                    "{} bytes of container output were lost: it came faster than it could be read",
                    String::from_utf8_lossy(&line.bytes)
                );
                return;
            }
        };
        let Some(owner) = self.owner(&line.instance) else {
            tracing::warn!(instance = %line.instance, "output of an instance that nobody knows");
            return;
        };
        let mut entry = entry_of(&owner, &line.instance, name, received, String::new());
        parse_container_line(&line.bytes, received).fill(&mut entry);
        self.sink.push(entry);
    }
}

impl InstanceLog for Journal {
    fn starting(&self, spec: &InstanceSpec) {
        let mut remembered = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let id = spec.id.0.clone();
        let known = remembered
            .by_instance
            .insert(id.clone(), Arc::new(spec.owner.clone()));
        if known.is_none() {
            remembered.order.push_back(id);
        }
        if remembered.order.len() > REMEMBERED
            && let Some(oldest) = remembered.order.pop_front()
        {
            remembered.by_instance.remove(&oldest);
        }
    }

    fn system(&self, spec: &InstanceSpec, warning: bool, text: &str) {
        let severity = if warning {
            Severity::Error
        } else {
            Severity::Info
        };
        self.platform(&spec.owner, &spec.id.0, severity, text.to_owned());
    }

    fn spool_advanced(&self) {
        self.more.notify_one();
    }
}

impl FleetEvents for Journal {
    fn event(&self, event: FleetEvent) {
        match event {
            FleetEvent::Started { instance, took } => {
                let text = format!(
                    "Instance started in {} ms (image {} ms, sandbox {} ms, container {} ms).",
                    took.as_millis(),
                    instance.phases.image.as_millis(),
                    instance.phases.sandbox.as_millis(),
                    instance.phases.boot.as_millis(),
                );
                let (owner, id) = (&instance.spec.owner, &instance.id().0);
                let mut entry = self.entry(owner, id, Severity::Info, text);
                // For programs; `lauf simulate` learns from it.
                let took = format!("{:.6}s", took.as_secs_f64());
                entry.labels.insert(STARTED_IN.into(), took);
                self.sink.push(entry);
            }
            FleetEvent::StartFailed {
                revision,
                id,
                error,
            } => {
                let owner = Owner::Revision((*revision).clone());
                self.platform(&owner, &id.0, Severity::Error, error.to_string());
            }
            FleetEvent::Exited { instance, exit } => {
                let lived = self.clock.now().duration_since(instance.started);
                if let Some((severity, text)) = exit_text(&exit, lived) {
                    self.platform(&instance.spec.owner, &instance.id().0, severity, text);
                }
            }
        }
    }
}

/// What the owner should know of an exit.
fn exit_text(exit: &Exit, lived: SignedDuration) -> Option<(Severity, String)> {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    };
    match exit.reason {
        ExitReason::Own if exit.code == Some(0) => {
            Some((Severity::Warning, "Container called exit(0).".to_owned()))
        }
        ExitReason::Own => Some((Severity::Error, format!("Container ended with {how}."))),
        ExitReason::Lost => Some((
            Severity::Error,
            "The instance was lost with its keeper.".into(),
        )),
        ExitReason::Stopped => Some((
            Severity::Info,
            format!("Instance stopped after {:.1} s.", lived.as_secs_f64()),
        )),
        // Those have their own lines.
        ExitReason::OutOfMemory | ExitReason::Liveness => None,
    }
}

/// How often the position in the spool is written down. A crash brings the lines since then twice.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long the end of the server may wait for lines. What an instance writes without a pause is
/// there for the next server.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Reads the spool into the log for as long as the server runs, on a thread of its own, since it
/// waits for the disk. The position is kept in a file, so that the next server goes on where this
/// one stopped; a line may come twice after a crash, never not at all.
pub(crate) struct SpoolFollower {
    journal: Arc<Journal>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl SpoolFollower {
    pub(crate) fn start(
        engine: LocalEngine,
        journal: Arc<Journal>,
        log: LogStore,
        data: &Path,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let follower = Follower {
            reader: SpoolReader::open(&engine.spool_dir(), saved_position(data)),
            saved: data.join("spool.position"),
            saved_at: journal.clock.monotonic(),
            unsaved: false,
            ends: 0,
            asked: 0,
            engine,
            journal: Arc::clone(&journal),
            log,
        };
        let (runtime, stopped) = (Handle::current(), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("lauf-spool".into())
            .spawn(move || follower.run(&runtime, &stopped))?;
        Ok(Self {
            journal,
            stop,
            thread,
        })
    }

    /// Reads what is there to its end, for [`LAST_LINES`] at most, and stops.
    pub(crate) fn finish(self) {
        self.stop.store(true, Ordering::Release);
        self.journal.more.notify_one();
        if self.thread.join().is_err() {
            tracing::error!("the reader of container output ended badly");
        }
    }
}

fn saved_position(data: &Path) -> Position {
    fs::read_to_string(data.join("spool.position"))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

struct Follower {
    reader: SpoolReader,
    saved: PathBuf,
    saved_at: Duration,
    /// Whether anything was read since.
    unsaved: bool,
    /// How many instances had ended when the end of the spool was last reached.
    ends: u64,
    /// When the keeper was last asked for all instances, in nanoseconds since 1970.
    asked: u64,
    engine: LocalEngine,
    journal: Arc<Journal>,
    log: LogStore,
}

impl Follower {
    fn run(mut self, runtime: &Handle, stop: &AtomicBool) {
        let mut ends_by = None;
        loop {
            let ending = stop.load(Ordering::Acquire);
            let ends = self.engine.ends();
            match self.reader.read(READ_BYTES) {
                Ok(lines) if !lines.is_empty() => {
                    self.unsaved = true;
                    for line in lines {
                        if self.journal.owner(&line.instance).is_none() {
                            self.find_owner(runtime, line.time);
                        }
                        self.journal.line(line);
                    }
                    if self.save_in().is_zero() {
                        self.save(runtime);
                    }
                    let now = self.journal.clock.monotonic();
                    if ending && now >= *ends_by.get_or_insert(now + LAST_LINES) {
                        return self.save(runtime);
                    }
                    continue;
                }
                Ok(_) => {
                    self.unsaved |= ends != self.ends;
                    self.ends = ends;
                    self.engine.spool_seen(self.reader.position());
                }
                Err(error) => tracing::error!(%error, "container output cannot be read"),
            }
            if ending {
                return self.save(runtime);
            }
            if self.unsaved {
                let (left, more) = (self.save_in(), self.journal.more.notified());
                let waited = runtime.block_on(async { tokio::time::timeout(left, more).await });
                if waited.is_err() {
                    self.save(runtime);
                }
            } else {
                runtime.block_on(self.journal.more.notified());
            }
        }
    }

    /// An instance that a server asked for before it died has written before this server has heard of it.
    fn find_owner(&mut self, runtime: &Handle, written: u64) {
        // Whoever wrote before the last listing and was not in it is forgotten: its output has been read before, by a
        // server that could not write down how far it was. There may be very many such lines, and a listing takes
        // long when there are very many instances.
        if written < self.asked {
            return;
        }
        let now = self.journal.clock.now().as_nanosecond();
        for spec in runtime.block_on(self.engine.specs()) {
            self.journal.starting(&spec);
        }
        self.asked = u64::try_from(now).unwrap_or_default();
    }

    /// In how long the position is to be written down.
    fn save_in(&self) -> Duration {
        let now = self.journal.clock.monotonic();
        SAVE_EVERY.saturating_sub(now.saturating_sub(self.saved_at))
    }

    /// Writes the position down, after what was read is in the log; only then may what is before it go,
    /// and whose it was.
    fn save(&mut self, runtime: &Handle) {
        self.saved_at = self.journal.clock.monotonic();
        let flushed = runtime.block_on(self.log.flush());
        let written = flushed
            .map_err(std::io::Error::other)
            .and_then(|()| Ok(serde_json::to_string(&self.reader.position())?))
            // Half a position would be none, and all output that is still there would be read again.
            .and_then(|text| replace(&self.saved, &text))
            .and_then(|()| self.reader.release());
        match written {
            Ok(()) => {
                self.unsaved = false;
                self.engine.forget_ends(self.ends);
            }
            Err(error) => {
                tracing::warn!(%error, "the position in the containers' output cannot be kept");
            }
        }
    }
}

/// The log as the API reads it.
pub(crate) struct StoredLogs(pub(crate) LogStore);

impl StoredLogs {
    fn filter(text: &str) -> Result<Filter, Status> {
        Filter::parse(text)
            .map_err(|e| Status::invalid(vec![lauf_model::Violation::new("filter", e.to_string())]))
    }
}

fn parents(projects: &[String]) -> Vec<String> {
    projects
        .iter()
        .map(|project| format!("projects/{project}"))
        .collect()
}

fn failed(error: &LogError) -> Status {
    match error {
        LogError::PageToken => Status::new(Code::InvalidArgument, error.to_string()),
        _ => Status::new(Code::Unavailable, error.to_string()),
    }
}

#[async_trait]
impl Logs for StoredLogs {
    fn audit(&self, entry: AuditEntry) -> serde_json::Value {
        let log = format!(
            "projects/{}/logs/cloudaudit.googleapis.com%2Factivity",
            entry.project
        );
        let resource = Resource {
            kind: "audited_resource".to_owned(),
            labels: entry.labels,
        };
        let payload = Payload::Proto(entry.proto);
        let mut written = LogEntry::new(log, resource, entry.time, payload);
        written.insert_id = entry.insert_id;
        written.severity = if entry.failed {
            Severity::Error
        } else {
            Severity::Notice
        };
        let shown = written.to_json();
        self.0.sink().push(written);
        shown
    }

    async fn list(&self, query: LogQuery) -> Result<LogPage, Status> {
        let page = self
            .0
            .query(Query {
                filter: Self::filter(&query.filter)?,
                order: if query.newest_first {
                    Order::Desc
                } else {
                    Order::Asc
                },
                page_size: query.page_size,
                page_token: Some(query.page_token).filter(|token| !token.is_empty()),
                resource_names: parents(&query.projects),
            })
            .await
            .map_err(|e| failed(&e))?;
        Ok(LogPage {
            entries: page.entries.iter().map(LogEntry::to_json).collect(),
            next_page_token: page.next_page_token.unwrap_or_default(),
        })
    }

    async fn tail(&self, filter: &str) -> Result<LogStream, Status> {
        let tail = self
            .0
            .tail(Self::filter(filter)?, Vec::new())
            .map_err(|e| failed(&e))?;
        let batches =
            stream::unfold(
                (tail, VecDeque::new()),
                |(mut tail, mut ready)| async move {
                    while ready.is_empty() {
                        ready.extend(tail.next().await?.into_iter().filter_map(
                            |event| match event {
                                TailEvent::Entry(entry) => Some(entry.to_json()),
                                TailEvent::Lagged(missed) => {
                                    tracing::warn!(missed, "a follower of logs is too slow");
                                    None
                                }
                            },
                        ));
                    }
                    let next = ready.pop_front()?;
                    Some((next, (tail, ready)))
                },
            );
        Ok(Box::pin(batches))
    }
}
