//! Tasks: the parts of an execution. There may be ten thousand of them, so one holds little: what it
//! runs stands in its execution, and its conditions follow from its state.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::execution::{COMPLETED, STARTED};
use crate::{
    Code, Condition, ConditionStatus, Execution, ExecutionKey, InstanceId, Severity, TaskKey,
};

/// A stored task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Project id.
    pub project: String,
    /// Region.
    pub region: String,
    /// The job that was run.
    pub job: String,
    /// The execution it is a part of.
    pub execution: String,
    /// Which part, from 0.
    pub index: u32,
    /// Unique for ever.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// When something of it last changed.
    pub updated: Timestamp,
    /// Attempts begun so far.
    #[serde(default)]
    pub attempts: u32,
    /// When the first attempt began.
    #[serde(default)]
    pub started: Option<Timestamp>,
    /// Where it stands.
    #[serde(default)]
    pub state: TaskState,
    /// How the last attempt that ended did so.
    #[serde(default)]
    pub last_attempt: Option<AttemptResult>,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum TaskState {
    /// It waits for its first attempt, or for another.
    #[default]
    Pending,
    /// An attempt is under way.
    Running(Attempt),
    /// An attempt ended well.
    Succeeded(Timestamp),
    /// The last allowed attempt ended badly.
    Failed(Timestamp),
    /// It was ended, or not even begun, because its execution was cancelled.
    Cancelled(Timestamp),
}

/// An attempt that is under way. It is stored before its instance is started, so that whoever comes
/// after a crash knows which instance to look for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its instance.
    pub instance: InstanceId,
    /// The life of the host's keeper in which it was begun. In another one the instance is gone.
    pub keeper: String,
    /// When it was begun.
    pub begun: Timestamp,
}

/// How an attempt ended (`TaskAttemptResult`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptResult {
    /// The exit code, when it exited by itself.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// The signal, when one ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// What is wrong, in a code; `None` when it ended well.
    #[serde(default)]
    pub code: Option<Code>,
    /// What is wrong, in a sentence; empty when it ended well.
    #[serde(default)]
    pub message: String,
}

impl Task {
    /// A task that nobody has tried yet.
    #[must_use]
    pub fn new(of: &Execution, index: u32, uid: String, now: Timestamp) -> Self {
        Self {
            project: of.meta.project.clone(),
            region: of.meta.region.clone(),
            job: of.job.clone(),
            execution: of.meta.name.clone(),
            index,
            uid,
            created: now,
            updated: now,
            attempts: 0,
            started: None,
            state: TaskState::Pending,
            last_attempt: None,
        }
    }

    /// The key of its execution.
    #[must_use]
    pub fn execution_key(&self) -> ExecutionKey {
        ExecutionKey {
            project: self.project.clone(),
            region: self.region.clone(),
            name: self.execution.clone(),
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> TaskKey {
        self.execution_key().task(self.index)
    }

    /// How often it was tried again.
    #[must_use]
    pub fn retried(&self) -> u32 {
        self.attempts.saturating_sub(1)
    }

    /// When it ended, if it has.
    #[must_use]
    pub fn completed(&self) -> Option<Timestamp> {
        match self.state {
            TaskState::Pending | TaskState::Running(_) => None,
            TaskState::Succeeded(at) | TaskState::Failed(at) | TaskState::Cancelled(at) => Some(at),
        }
    }

    /// Its state in the word of the label `run.googleapis.com/runningState`.
    #[must_use]
    pub fn running_state(&self) -> &'static str {
        match self.state {
            TaskState::Pending => "Pending",
            TaskState::Running(_) => "Running",
            TaskState::Succeeded(_) => "Succeeded",
            TaskState::Failed(_) => "Failed",
            TaskState::Cancelled(_) => "Cancelled",
        }
    }

    /// `Completed`, `Started`, `ResourcesAvailable` and, when it was tried again, `Retry`.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        use ConditionStatus::{False, True, Unknown};
        let make = |kind: &str, status, reason: &str, message: String, at| Condition {
            kind: kind.to_owned(),
            status,
            reason: reason.to_owned(),
            message,
            severity: Severity::Error,
            last_transition: at,
        };
        let last = self.last_attempt.as_ref();
        let (status, reason, message, at) = match self.state {
            TaskState::Pending => (
                Unknown,
                "Deploying",
                "Waiting to be started.".to_owned(),
                self.created,
            ),
            TaskState::Running(_) => (Unknown, "", String::new(), self.created),
            TaskState::Succeeded(at) => {
                let took = took(self.started.unwrap_or(self.created), at);
                let text = format!("Task completed successfully in {took}.");
                (True, "", text, at)
            }
            TaskState::Failed(at) => {
                let text = last.map_or_else(String::new, AttemptResult::sentence);
                let reason = last.map_or("", AttemptResult::reason);
                (False, reason, text, at)
            }
            TaskState::Cancelled(at) => (False, "Cancelled", "Task was cancelled.".to_owned(), at),
        };
        let mut all = vec![make(COMPLETED, status, reason, message, at)];
        match self.started {
            Some(at) => {
                let took = took(self.created, at);
                let text = format!("Started deployed task in {took}.");
                all.push(make(STARTED, True, "", text, at));
                let text = "Provisioned imported containers.".to_owned();
                all.push(make("ResourcesAvailable", True, "", text, at));
            }
            None => all.push(make(STARTED, Unknown, "", String::new(), self.created)),
        }
        if let (Some(last), true) = (last, self.retried() > 0 || self.state == TaskState::Pending) {
            let next = if self.state == TaskState::Pending {
                self.attempts
            } else {
                self.retried()
            };
            let text = format!(
                "System will retry after 0:00:00 from lastTransitionTime for attempt {next}. {}",
                last.sentence()
            );
            all.push(Condition {
                severity: Severity::Info,
                ..make("Retry", True, "ImmediateRetry", text, self.updated)
            });
        }
        all
    }
}

impl AttemptResult {
    /// An attempt that ended well.
    #[must_use]
    pub fn success() -> Self {
        Self {
            exit_code: Some(0),
            signal: None,
            code: None,
            message: String::new(),
        }
    }

    /// What went wrong, for people: `Task failed with exit code: 3 and message: ...`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let message = &self.message;
        match (self.exit_code, self.signal) {
            (Some(code), _) => format!("Task failed with exit code: {code} and message: {message}"),
            (None, Some(signal)) => {
                format!("Task failed with signal: {signal} and message: {message}")
            }
            (None, None) => format!("Task failed with message: {message}"),
        }
    }

    /// What went wrong, in one word for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match (self.code, self.exit_code) {
            (Some(Code::DeadlineExceeded), _) => "DeadlineExceeded",
            (Some(Code::ResourceExhausted), _) => "OutOfMemory",
            (_, Some(_)) => "NonZeroExitCode",
            _ => "TaskFailed",
        }
    }
}

/// The time between two moments as Cloud Run writes it: `25.2s`, `1m3.5s`.
#[must_use]
pub fn took(from: Timestamp, to: Timestamp) -> String {
    let millis = u64::try_from(to.duration_since(from).as_millis()).unwrap_or_default();
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let (seconds, hundredths) = (millis / 1000, millis % 1000 / 10);
    let mut text = if minutes > 0 {
        format!("{minutes}m{seconds}")
    } else {
        seconds.to_string()
    };
    if hundredths > 0 {
        text.push_str(format!(".{hundredths:02}").trim_end_matches('0'));
    }
    text.push('s');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition;

    fn task() -> Task {
        Task {
            project: "demo".into(),
            region: "us-central1".into(),
            job: "etl".into(),
            execution: "etl-abcde".into(),
            index: 7,
            uid: "u".into(),
            created: at(0),
            updated: at(0),
            attempts: 0,
            started: None,
            state: TaskState::Pending,
            last_attempt: None,
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn times_are_written_as_cloud_run_does() {
        for (millis, text) in [
            (0, "0s"),
            (5730, "5.73s"),
            (25_200, "25.2s"),
            (63_500, "1m3.5s"),
            (7, "0s"),
        ] {
            assert_eq!(took(at(0), at(millis)), text);
        }
    }

    #[test]
    fn conditions_follow_from_the_state() {
        let mut task = task();
        assert_eq!(task.key().name, "etl-abcde-task7");
        let status = |task: &Task, kind| {
            condition::find(&task.conditions(), kind).map(|c| (c.status, c.message.clone()))
        };
        assert_eq!(
            status(&task, COMPLETED).unwrap().0,
            ConditionStatus::Unknown
        );
        task.attempts = 2;
        task.started = Some(at(1000));
        task.state = TaskState::Failed(at(3000));
        task.last_attempt = Some(AttemptResult {
            exit_code: Some(3),
            code: Some(Code::Unknown),
            message: "The container exited with an error.".into(),
            ..AttemptResult::success()
        });
        let text = "Task failed with exit code: 3 and message: The container exited with an error.";
        let failed = (ConditionStatus::False, text.to_owned());
        assert_eq!(status(&task, COMPLETED), Some(failed));
        assert_eq!(status(&task, STARTED).unwrap().0, ConditionStatus::True);
        assert!(
            status(&task, "Retry").unwrap().1.contains("attempt 1."),
            "{:?}",
            task.conditions()
        );
    }
}
