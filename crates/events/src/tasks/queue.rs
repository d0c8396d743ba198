//! Queues as they are stored, their names and those of tasks, and what is allowed.

use std::time::Duration;

use jiff::Timestamp;
use lauf_model::{Status, Violation};
use lauf_store::{Key, Kind, Resource};
use serde::{Deserialize, Serialize};

use crate::retry::Backoff;

/// The name of a queue: `projects/PROJECT/locations/LOCATION/queues/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueName {
    /// The project's id.
    pub project: String,
    /// The region.
    pub location: String,
    /// Its name there.
    pub id: String,
}

/// The name of a task: that of its queue, `/tasks/`, and its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskName {
    /// Its queue.
    pub queue: QueueName,
    /// Its name there.
    pub id: String,
}

fn wrong(field: &str, text: String) -> Status {
    Status::invalid(vec![Violation::new(field, text)])
}

impl QueueName {
    /// Reads a name.
    ///
    /// # Errors
    /// When the text has another form, or the id is not one.
    pub fn parse(field: &str, text: &str) -> Result<Self, Status> {
        let words: Vec<&str> = text.split('/').collect();
        let ["projects", project, "locations", location, "queues", id] = words.as_slice() else {
            return Err(wrong(
                field,
                format!(
                    "'{text}' has not the form projects/PROJECT/locations/LOCATION/queues/QUEUE."
                ),
            ));
        };
        let fits = (1..=100).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !fits || project.is_empty() || location.is_empty() {
            return Err(wrong(
                field,
                format!("'{id}' is not the id of a queue: 1 to 100 letters, digits and -."),
            ));
        }
        Ok(Self {
            project: (*project).to_owned(),
            location: (*location).to_owned(),
            id: (*id).to_owned(),
        })
    }
}

impl TaskName {
    /// Reads a name.
    ///
    /// # Errors
    /// When the text has another form, or an id is not one.
    pub fn parse(field: &str, text: &str) -> Result<Self, Status> {
        let Some((queue, id)) = text.split_once("/tasks/") else {
            return Err(wrong(
                field,
                format!(
                    "'{text}' has not the form \
                     projects/PROJECT/locations/LOCATION/queues/QUEUE/tasks/TASK."
                ),
            ));
        };
        let fits = (1..=500).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fits {
            return Err(wrong(
                field,
                format!("'{id}' is not the id of a task: 1 to 500 letters, digits, - and _."),
            ));
        }
        Ok(Self {
            queue: QueueName::parse(field, queue)?,
            id: id.to_owned(),
        })
    }
}

impl std::fmt::Display for QueueName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "projects/{}/locations/{}/queues/{}",
            self.project, self.location, self.id
        )
    }
}

impl std::fmt::Display for TaskName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/tasks/{}", self.queue, self.id)
    }
}

/// How fast tasks leave, and how often they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Tasks a second.
    pub per_second: f64,
    /// Tasks at once after a pause.
    pub burst: u32,
    /// Tasks under way at a time.
    pub concurrent: u32,
    /// How often a task is sent; `None` for no matter how often.
    pub max_attempts: Option<u32>,
    /// For how long a task is sent again, whatever `max_attempts` says.
    pub retry_duration: Option<Duration>,
    /// How long is waited in between.
    pub backoff: Backoff,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            per_second: 500.0,
            burst: 100,
            concurrent: 1_000,
            max_attempts: Some(100),
            retry_duration: None,
            backoff: Backoff {
                minimum: Duration::from_millis(100),
                maximum: Duration::from_secs(3_600),
                doublings: 16,
            },
        }
    }
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// What its tasks are kept under.
    pub uid: String,
    /// How fast and how often.
    pub limits: Limits,
    /// Whether it is held.
    pub paused: bool,
    /// When its tasks were last deleted all at once.
    pub purged: Option<Timestamp>,
}

impl Resource for Queue {
    const KIND: Kind = Kind::new("TasksQueue");
    type Name = QueueName;

    fn at(name: &QueueName) -> Key {
        let scope = format!("{}/{}", name.project, name.location);
        Key::new(Self::KIND, scope, &*name.id)
    }
}

impl Queue {
    /// Everything that is wrong with it.
    pub(crate) fn check(&self) -> Result<(), Status> {
        let mut wrong = Vec::new();
        let mut add = |field: &str, text: &str| wrong.push(Violation::new(field, text));
        let limits = &self.limits;
        if !(limits.per_second > 0.0 && limits.per_second <= 500.0) {
            add(
                "rate_limits.max_dispatches_per_second",
                "It is out of range: more than 0 and at most 500 are allowed.",
            );
        }
        if limits.burst == 0 || limits.burst > 500 {
            add(
                "rate_limits.max_burst_size",
                "It is out of range: 1 to 500 are allowed.",
            );
        }
        if limits.concurrent == 0 || limits.concurrent > 5_000 {
            add(
                "rate_limits.max_concurrent_dispatches",
                "It is out of range: 1 to 5000 are allowed.",
            );
        }
        if limits.max_attempts == Some(0) {
            add(
                "retry_config.max_attempts",
                "It must be -1, for no limit, or at least 1.",
            );
        }
        if limits.backoff.minimum > limits.backoff.maximum {
            add("retry_config.min_backoff", "It is longer than max_backoff.");
        }
        if limits.backoff.doublings > 16 {
            add(
                "retry_config.max_doublings",
                "It is out of range: 0 to 16 are allowed.",
            );
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid(wrong))
        }
    }
}
