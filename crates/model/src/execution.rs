//! Executions: one run of a job. What it runs never changes; only the status does.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::{CompletionStatus, ExecutionSpec};
use crate::{
    Condition, ConditionStatus, EnvVar, ExecutionKey, JobKey, Meta, Severity, Violation, condition,
};

/// A stored execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Identity; labels and annotations are those of the job's template.
    pub meta: Meta,
    /// The job it is a run of.
    pub job: String,
    /// The job's identity, which tells it from a later job of the same name.
    pub job_uid: String,
    /// The job's generation that was run.
    pub job_generation: i64,
    /// As [`crate::job::ExecutionTemplate::as_sent`] at the time.
    #[serde(default)]
    pub template_as_sent: BTreeMap<String, String>,
    /// What it runs, overrides included.
    pub spec: ExecutionSpec,
    /// When its cancellation was asked for.
    #[serde(default)]
    pub cancelled: Option<Timestamp>,
    /// What the controllers made of it.
    #[serde(default)]
    pub status: ExecutionStatus,
}

impl Execution {
    /// Its key.
    #[must_use]
    pub fn key(&self) -> ExecutionKey {
        ExecutionKey::beside(&self.meta, &self.meta.name)
    }

    /// The key of its job.
    #[must_use]
    pub fn job_key(&self) -> JobKey {
        JobKey::beside(&self.meta, &self.job)
    }

    /// How it stands, in one word.
    #[must_use]
    pub fn completion(&self) -> CompletionStatus {
        let completed = condition::find(&self.status.conditions, COMPLETED);
        match completed.map(|c| c.status) {
            Some(ConditionStatus::True) => CompletionStatus::Succeeded,
            Some(ConditionStatus::False) if self.cancelled.is_some() => CompletionStatus::Cancelled,
            Some(ConditionStatus::False) => CompletionStatus::Failed,
            _ if self.status.started.is_some() => CompletionStatus::Running,
            _ => CompletionStatus::Pending,
        }
    }

    /// Whether a user wants its end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.cancelled.is_some() || self.meta.deleted.is_some()
    }

    /// Whether it has ended, one way or another.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.status.completed.is_some()
    }
}

/// The condition that says how an execution, or a task, ended.
pub const COMPLETED: &str = "Completed";
/// The condition that says that it began.
pub const STARTED: &str = "Started";

/// What the controllers know of an execution. Counts are of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecutionStatus {
    /// The generation the rest is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Completed`, `Started`, `ResourcesAvailable`, `ContainerReady`, `Retry`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The image by digest, once resolved; the same for all tasks.
    #[serde(default)]
    pub image_digest: String,
    /// When the first task began.
    #[serde(default)]
    pub started: Option<Timestamp>,
    /// When the last task ended.
    #[serde(default)]
    pub completed: Option<Timestamp>,
    /// Those that run.
    #[serde(default)]
    pub running: u32,
    /// Those that succeeded.
    #[serde(default)]
    pub succeeded: u32,
    /// Those that failed for good.
    #[serde(default)]
    pub failed: u32,
    /// Those that were cancelled.
    #[serde(default)]
    pub cancelled: u32,
    /// Those that were run again at least once.
    #[serde(default)]
    pub retried: u32,
}

impl ExecutionStatus {
    /// That of an execution of which nothing is known but that it was asked for.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let waiting = |(kind, message): (&str, &str)| Condition {
            kind: kind.to_owned(),
            status: ConditionStatus::Unknown,
            reason: String::new(),
            message: message.to_owned(),
            severity: Severity::Error,
            last_transition: now,
        };
        let conditions = [
            (COMPLETED, "Waiting for execution to complete."),
            (STARTED, ""),
            ("ContainerReady", ""),
            ("ResourcesAvailable", ""),
        ];
        Self {
            conditions: conditions.into_iter().map(waiting).collect(),
            ..Self::default()
        }
    }
}

/// What one run of a job has otherwise than the job (`RunJobRequest.Overrides`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides {
    /// For containers.
    pub containers: Vec<ContainerOverride>,
    /// Another number of tasks.
    pub task_count: Option<u32>,
    /// Another timeout of tasks.
    pub timeout: Option<Duration>,
}

/// What one run of a job has otherwise in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerOverride {
    /// Which container; empty is the only one.
    pub name: String,
    /// Other arguments, unless empty.
    pub args: Vec<String>,
    /// No arguments at all.
    pub clear_args: bool,
    /// Variables, which replace those of the same name and are added otherwise.
    pub env: Vec<EnvVar>,
}

impl Overrides {
    /// Puts the overrides into `spec`. What they name and is not there is added to `found`.
    pub fn apply(&self, spec: &mut ExecutionSpec, found: &mut Vec<Violation>) {
        for (i, change) in self.containers.iter().enumerate() {
            let at = format!("overrides.containerOverrides[{i}]");
            let container = &mut spec.task.container;
            if !change.name.is_empty() && change.name != container.name {
                found.push(Violation::new(
                    format!("{at}.name"),
                    format!(
                        "'{}' is not a container of this job; leave the name out.",
                        change.name
                    ),
                ));
                continue;
            }
            if change.clear_args && !change.args.is_empty() {
                found.push(Violation::new(
                    format!("{at}.clearArgs"),
                    "cannot be true when there are args; keep one of them.",
                ));
            }
            if change.clear_args || !change.args.is_empty() {
                container.args.clone_from(&change.args);
            }
            for var in &change.env {
                match container.env.iter_mut().find(|v| v.name == var.name) {
                    Some(there) => there.value.clone_from(&var.value),
                    None => container.env.push(var.clone()),
                }
            }
        }
        if let Some(count) = self.task_count {
            spec.task_count = count;
        }
        if let Some(timeout) = self.timeout {
            spec.task.timeout = timeout;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Container;

    fn var(name: &str, value: &str) -> EnvVar {
        EnvVar {
            name: name.into(),
            value: value.into(),
        }
    }

    fn spec() -> ExecutionSpec {
        let mut container = Container::new("etl");
        container.args = vec!["--all".into()];
        container.env = vec![var("A", "1"), var("B", "2")];
        ExecutionSpec::new(container)
    }

    #[test]
    fn overrides_change_what_they_name_and_nothing_else() {
        let mut changed = spec();
        let mut found = Vec::new();
        Overrides::default().apply(&mut changed, &mut found);
        assert_eq!(changed, spec());
        let overrides = Overrides {
            containers: vec![ContainerOverride {
                args: vec!["--day=1".into()],
                env: vec![var("B", "3"), var("C", "4")],
                ..ContainerOverride::default()
            }],
            task_count: Some(7),
            timeout: Some(Duration::from_secs(5)),
        };
        overrides.apply(&mut changed, &mut found);
        assert_eq!(found, []);
        assert_eq!(changed.task.container.args, ["--day=1"]);
        let env = [var("A", "1"), var("B", "3"), var("C", "4")];
        assert_eq!(changed.task.container.env, env);
        assert_eq!(changed.task_count, 7);
        assert_eq!(changed.task.timeout, Duration::from_secs(5));
    }

    #[test]
    fn arguments_are_cleared_only_when_asked_for_and_not_with_others() {
        let clear = |args: &[&str]| Overrides {
            containers: vec![ContainerOverride {
                clear_args: true,
                args: args.iter().map(|a| (*a).to_owned()).collect(),
                ..ContainerOverride::default()
            }],
            ..Overrides::default()
        };
        let (mut changed, mut found) = (spec(), Vec::new());
        clear(&[]).apply(&mut changed, &mut found);
        assert!(found.is_empty() && changed.task.container.args.is_empty());
        clear(&["x"]).apply(&mut changed, &mut found);
        assert_eq!(found[0].field, "overrides.containerOverrides[0].clearArgs");
    }
}
