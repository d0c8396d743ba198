//! What the faces ask of the rest of the house.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::Stream;
use lauf_events::eventarc::Eventarc;
use lauf_events::pubsub::PubSub;
use lauf_events::scheduler::Scheduler;
use lauf_events::tasks::Tasks;
use lauf_iam::Iam;
use lauf_model::{Clock, ServiceKey, Status};
use lauf_store::Store;

/// The rooms the API reads from and writes to.
#[derive(Clone)]
pub struct Deps {
    /// Desired state and what controllers made of it.
    pub store: Store,
    /// Who is calling.
    pub iam: Arc<Iam>,
    /// What instances and the platform wrote.
    pub logs: Arc<dyn Logs>,
    /// Messages.
    pub pubsub: PubSub,
    /// Schedules.
    pub scheduler: Scheduler,
    /// Queues of requests.
    pub tasks: Tasks,
    /// Triggers.
    pub eventarc: Eventarc,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What runs at this moment.
    pub live: Arc<dyn Live>,
}

/// What runs at this moment, which is never stored.
pub trait Live: Send + Sync + 'static {
    /// The instances of all revisions of a service; zeros for one that is not known.
    fn instances(&self, service: &ServiceKey) -> LiveCounts;

    /// The executions of jobs that are under way.
    fn executions(&self) -> usize {
        0
    }
}

/// Instances and requests of a service, now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct LiveCounts {
    /// Instances that are starting.
    pub starting: u32,
    /// Instances that can take requests.
    pub ready: u32,
    /// Requests under way in them.
    pub in_flight: u32,
}

/// Log entries, in the JSON form of Cloud Logging's `LogEntry`.
#[async_trait]
pub trait Logs: Send + Sync + 'static {
    /// One page of the entries that match.
    ///
    /// # Errors
    /// [`lauf_model::Code::InvalidArgument`] for a filter or token that cannot be read.
    async fn list(&self, query: LogQuery) -> Result<LogPage, Status>;

    /// The entries that match, as they are written, from now on.
    ///
    /// # Errors
    /// As [`Logs::list`].
    async fn tail(&self, filter: &str) -> Result<LogStream, Status>;

    /// Takes an entry of the audit log, and says how it is shown.
    fn audit(&self, entry: AuditEntry) -> serde_json::Value;
}

/// Entries as they come.
pub type LogStream = Pin<Box<dyn Stream<Item = serde_json::Value> + Send>>;

/// Which entries to read (`google.logging.v2.ListLogEntriesRequest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogQuery {
    /// Projects they must belong to, by id; at least one.
    pub projects: Vec<String>,
    /// A filter in the Logging query language; empty matches everything.
    pub filter: String,
    /// Newest first (`timestamp desc`) rather than oldest first.
    pub newest_first: bool,
    /// How many at most, 1 to 1000.
    pub page_size: usize,
    /// Where the page before ended; empty for the first.
    pub page_token: String,
}

/// A page of log entries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogPage {
    /// The entries.
    pub entries: Vec<serde_json::Value>,
    /// Where the next page starts; empty when there is none.
    pub next_page_token: String,
}

/// An entry of the audit log, `google.cloud.audit.AuditLog` and what is around it.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// The project's id.
    pub project: String,
    /// When.
    pub time: jiff::Timestamp,
    /// Tells entries of one time apart.
    pub insert_id: String,
    /// Whether it was refused or went wrong.
    pub failed: bool,
    /// Labels of the monitored resource `audited_resource`.
    pub labels: std::collections::BTreeMap<String, String>,
    /// The message as JSON, with its `@type`.
    pub proto: serde_json::Map<String, serde_json::Value>,
}
