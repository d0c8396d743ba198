//! Whose an instance is, and what follows from it: what it is told, when it has started, and who has
//! to hear of its end.

use lauf_model::{Container, ExecutionKey, JobKey, RevisionKey, TaskKey, WorkerPoolRevisionKey};
use serde::{Deserialize, Serialize};

/// What an instance is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// A service's revision: it serves requests.
    Revision(RevisionKey),
    /// A task of an execution: it ends by itself.
    Task(TaskAttempt),
    /// A worker pool's revision: it works for as long as it is wanted.
    WorkerPool(WorkerPoolRevisionKey),
}

/// One attempt of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAttempt {
    /// The execution that the task is a part of.
    pub execution: ExecutionKey,
    /// The job that is run.
    pub job: String,
    /// Which part, from 0.
    pub index: u32,
    /// How many parts there are.
    pub count: u32,
    /// Which attempt, from 0.
    pub attempt: u32,
}

impl TaskAttempt {
    /// The key of the task.
    #[must_use]
    pub fn task(&self) -> TaskKey {
        self.execution.task(self.index)
    }

    /// The key of the job.
    #[must_use]
    pub fn job(&self) -> JobKey {
        JobKey::beside(&self.execution, &self.job)
    }
}

impl Owner {
    /// The revision of a service, if it is one.
    #[must_use]
    pub fn revision(&self) -> Option<&RevisionKey> {
        match self {
            Self::Revision(key) => Some(key),
            Self::Task(_) | Self::WorkerPool(_) => None,
        }
    }

    /// Whether an exit is told again and again until it is known for good: what came of a task is a
    /// result, and must not be lost between two servers.
    #[must_use]
    pub fn keeps_exits(&self) -> bool {
        matches!(self, Self::Task(_))
    }

    /// Whether an instance has started only when a port of its answers. One without requests and
    /// without a probe has started when its command runs.
    #[must_use]
    pub(crate) fn waits_for_port(&self, container: &Container) -> bool {
        matches!(self, Self::Revision(_)) || container.startup_probe.is_some()
    }

    /// The variables that the platform sets (Cloud Run, "Container runtime contract").
    pub(crate) fn env(&self, container: &Container) -> Vec<(String, String)> {
        let own = |vars: Vec<(&str, String)>| {
            vars.into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()
        };
        match self {
            Self::Revision(RevisionKey { service, revision }) => own(vec![
                ("PORT", container.port.number.to_string()),
                ("K_SERVICE", service.name.clone()),
                ("K_REVISION", revision.clone()),
                ("K_CONFIGURATION", service.name.clone()),
            ]),
            Self::Task(task) => own(vec![
                ("CLOUD_RUN_JOB", task.job.clone()),
                ("CLOUD_RUN_EXECUTION", task.execution.name.clone()),
                ("CLOUD_RUN_TASK_INDEX", task.index.to_string()),
                ("CLOUD_RUN_TASK_ATTEMPT", task.attempt.to_string()),
                ("CLOUD_RUN_TASK_COUNT", task.count.to_string()),
            ]),
            Self::WorkerPool(WorkerPoolRevisionKey { pool, revision }) => own(vec![
                ("CLOUD_RUN_WORKER_POOL", pool.name.clone()),
                ("CLOUD_RUN_WORKER_POOL_REVISION", revision.clone()),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_written_as_before_there_was_anything_else() {
        #[derive(Serialize, Deserialize)]
        struct Spec {
            id: u32,
            #[serde(flatten)]
            owner: Owner,
        }
        let old = r#"{"id":1,"revision":{"service":{"project":"p","region":"r","name":"s"},"revision":"s-1"}}"#;
        let read: Spec = serde_json::from_str(old).unwrap();
        assert_eq!(read.owner.revision().unwrap().revision, "s-1");
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
    }
}
