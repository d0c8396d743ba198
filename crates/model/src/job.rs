//! Jobs: work that ends. A job is a template; each time it is run, an execution is made of it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Condition, Container, JobKey, Meta};

/// A stored job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Identity and bookkeeping.
    pub meta: Meta,
    /// What the user wants.
    pub spec: JobSpec,
    /// What came of it.
    #[serde(default)]
    pub status: JobStatus,
}

impl Job {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> JobKey {
        JobKey::beside(&self.meta, &self.meta.name)
    }
}

/// What the user wants of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What each execution shall be.
    pub template: ExecutionTemplate,
    /// Asks for one execution as soon as it is stored, and for how much of it `Ready` waits.
    #[serde(default)]
    pub execute: Option<ExecuteNow>,
}

/// An execution that comes with the job itself, named by the suffix that the client chose. The same
/// suffix again asks for nothing new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecuteNow {
    /// `startExecutionToken`: the job is ready when the execution has started.
    Started(String),
    /// `runExecutionToken`: the job is ready when the execution has succeeded.
    Completed(String),
}

impl ExecuteNow {
    /// The suffix of the execution's name.
    #[must_use]
    pub fn token(&self) -> &str {
        let (Self::Started(token) | Self::Completed(token)) = self;
        token
    }
}

/// What an execution shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionTemplate {
    /// Labels as sent.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations as sent.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// As in [`Meta::as_sent`], for the template's annotations and limits.
    #[serde(default)]
    pub as_sent: BTreeMap<String, String>,
    /// What to run, and how often.
    pub spec: ExecutionSpec,
}

/// What an execution runs, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionSpec {
    /// How many tasks may run at once; 0 is as many as possible.
    #[serde(default)]
    pub parallelism: u32,
    /// How many tasks there are; 1 to 10,000.
    pub task_count: u32,
    /// What each task runs.
    pub task: TaskSpec,
}

/// What a task runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The container. It has no port. (Further ones come with sidecars.)
    pub container: Container,
    /// How often a task that failed is run again; 0 to 10.
    pub max_retries: u32,
    /// How long one attempt may take, 1 s to 168 h.
    pub timeout: Duration,
    /// Email of the identity it runs as; the default one when empty.
    #[serde(default)]
    pub service_account: String,
}

/// Tasks of an execution that says nothing.
pub const DEFAULT_TASK_COUNT: u32 = 1;
/// Retries of a task that says nothing (Cloud Run, "Set maximum number of retries").
pub const DEFAULT_MAX_RETRIES: u32 = 3;
/// How long an attempt may take when nothing is said, in seconds (Cloud Run, "Task timeout").
pub const DEFAULT_TASK_TIMEOUT_SECONDS: u32 = 600;

impl ExecutionSpec {
    /// What is run when nothing but the container was said.
    #[must_use]
    pub fn new(container: Container) -> Self {
        Self {
            parallelism: 0,
            task_count: DEFAULT_TASK_COUNT,
            task: TaskSpec {
                container,
                max_retries: DEFAULT_MAX_RETRIES,
                timeout: Duration::from_secs(u64::from(DEFAULT_TASK_TIMEOUT_SECONDS)),
                service_account: String::new(),
            },
        }
    }
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobStatus {
    /// The generation the conditions are about.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Ready`, `ResourcesAvailable`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// How many executions were ever made.
    #[serde(default)]
    pub execution_count: u32,
    /// The newest of them.
    #[serde(default)]
    pub latest_execution: Option<LatestExecution>,
}

/// The newest execution of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatestExecution {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ended, if it has.
    #[serde(default)]
    pub completed: Option<Timestamp>,
    /// When it was deleted, if it was.
    #[serde(default)]
    pub deleted: Option<Timestamp>,
    /// How it stands.
    pub status: CompletionStatus,
}

/// How an execution stands, in one word (`ExecutionReference.CompletionStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CompletionStatus {
    /// Nothing of it runs yet.
    #[default]
    Pending,
    /// Its tasks run.
    Running,
    /// All tasks succeeded.
    Succeeded,
    /// A task failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl CompletionStatus {
    /// The word of the API: `EXECUTION_RUNNING`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "EXECUTION_PENDING",
            Self::Running => "EXECUTION_RUNNING",
            Self::Succeeded => "EXECUTION_SUCCEEDED",
            Self::Failed => "EXECUTION_FAILED",
            Self::Cancelled => "EXECUTION_CANCELLED",
        }
    }
}
