//! What one execution does next, as functions of what is stored and what happened. No I/O.
//!
//! A task goes `Pending → Running → Succeeded | Failed | Cancelled`, and from `Running` back to
//! `Pending` for another attempt. Every transition marks the task as changed; whoever drives the
//! machine writes what changed before doing what follows from it. So an attempt is on record before
//! its instance is started, and its result is on record before the keeper may forget it.

use std::collections::{BTreeSet, VecDeque};

use jiff::Timestamp;
use lauf_model::execution::{COMPLETED, STARTED};
use lauf_model::task::{Attempt, took};
use lauf_model::{AttemptResult, Code, Execution, InstanceId, Task, TaskState, condition};

use crate::wording;

/// One execution and all its tasks.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) execution: Execution,
    /// By index; as many as there are in the store.
    tasks: Vec<Task>,
    /// Indices of the pending ones, in the order in which they will be begun.
    waiting: VecDeque<u32>,
    /// Indices of those that differ from what is stored.
    changed: BTreeSet<u32>,
    running: u32,
    /// The first task that failed, and how.
    failure: Option<String>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its instance exited with 0.
    Succeeded,
    /// It did not.
    Failed(AttemptResult),
    /// It was ended because its execution was.
    Cancelled,
    /// The host could not start it now, so there was no attempt.
    NotStarted,
}

impl Machine {
    /// `tasks` are those that are stored, in any order, without gaps.
    pub(crate) fn new(execution: Execution, mut tasks: Vec<Task>) -> Self {
        tasks.sort_by_key(|task| task.index);
        let mut machine = Self {
            execution,
            waiting: VecDeque::new(),
            changed: BTreeSet::new(),
            running: 0,
            failure: None,
            tasks: Vec::new(),
        };
        machine.add(tasks);
        machine
    }

    /// Takes in tasks that have just been stored.
    pub(crate) fn add(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            match &task.state {
                TaskState::Pending => self.waiting.push_back(task.index),
                TaskState::Running(_) => self.running += 1,
                TaskState::Failed(_) => self.note_failure(&task),
                TaskState::Succeeded(_) | TaskState::Cancelled(_) => {}
            }
            self.tasks.push(task);
        }
    }

    /// The index of the first task that is not stored yet, if one is missing.
    pub(crate) fn next_missing(&self) -> Option<u32> {
        let there = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        (there < self.execution.spec.task_count).then_some(there)
    }

    pub(crate) fn task(&self, index: u32) -> Option<&Task> {
        self.tasks.get(usize::try_from(index).ok()?)
    }

    /// The attempts under way.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = (&Task, &Attempt)> {
        self.tasks.iter().filter_map(|task| match &task.state {
            TaskState::Running(attempt) => Some((task, attempt)),
            _ => None,
        })
    }

    /// Whether it is being ended by a user.
    pub(crate) fn is_ending(&self) -> bool {
        self.execution.is_ending()
    }

    /// How many tasks may be begun now, as far as the execution itself says.
    pub(crate) fn may_begin(&self) -> usize {
        if self.is_ending() {
            return 0;
        }
        let free = match self.execution.spec.parallelism {
            0 => u32::MAX,
            most => most.saturating_sub(self.running),
        };
        usize::try_from(free)
            .unwrap_or(usize::MAX)
            .min(self.waiting.len())
    }

    /// Begins the next attempt, whose instance is to have this id, in this life of the keeper.
    pub(crate) fn begin(
        &mut self,
        instance: InstanceId,
        life: &str,
        now: Timestamp,
    ) -> Option<u32> {
        let index = self.waiting.pop_front()?;
        let task = self.change(index, now)?;
        task.attempts += 1;
        task.started.get_or_insert(now);
        task.state = TaskState::Running(Attempt {
            instance,
            keeper: life.to_owned(),
            begun: now,
        });
        let again = task.attempts == 2;
        self.running += 1;
        if again {
            self.execution.status.retried += 1;
        }
        Some(index)
    }

    /// The first instance runs.
    pub(crate) fn started(&mut self, now: Timestamp) {
        let status = &mut self.execution.status;
        if status.started.is_some() {
            return;
        }
        status.started = Some(now);
        let took = took(self.execution.meta.created, now);
        let conditions = &mut status.conditions;
        for (kind, text) in [
            (STARTED, format!("Started deployed execution in {took}.")),
            (
                "ResourcesAvailable",
                "Provisioned imported containers.".to_owned(),
            ),
        ] {
            condition::set(conditions, wording::holds_with(kind, &text, now));
        }
    }

    /// The host cannot start anything now.
    pub(crate) fn waits_for_host(&mut self, text: &str, now: Timestamp) {
        let pending = wording::pending("ResourcesAvailable", wording::RETRY, text, now);
        condition::set(&mut self.execution.status.conditions, pending);
    }

    /// An attempt ended. Whether it was one that was still awaited.
    pub(crate) fn ended(
        &mut self,
        index: u32,
        instance: &InstanceId,
        outcome: Outcome,
        now: Timestamp,
    ) -> bool {
        let retries = self.execution.spec.task.max_retries;
        let ending = self.is_ending();
        let awaited = self.task(index).is_some_and(
            |task| matches!(&task.state, TaskState::Running(a) if a.instance == *instance),
        );
        if !awaited {
            return false;
        }
        let Some(task) = self.change(index, now) else {
            return false;
        };
        let mut again = false;
        match outcome {
            Outcome::Succeeded => {
                task.state = TaskState::Succeeded(now);
                task.last_attempt = Some(AttemptResult::success());
            }
            Outcome::Failed(result) => {
                let more = task.attempts <= retries;
                task.last_attempt = Some(result);
                task.state = if !more {
                    TaskState::Failed(now)
                } else if ending {
                    TaskState::Cancelled(now)
                } else {
                    again = true;
                    TaskState::Pending
                };
            }
            Outcome::Cancelled => task.state = TaskState::Cancelled(now),
            Outcome::NotStarted => {
                task.attempts -= 1;
                let untried = task.attempts == 0;
                if untried {
                    task.started = None;
                }
                task.state = if ending {
                    TaskState::Cancelled(now)
                } else {
                    again = true;
                    TaskState::Pending
                };
                if task.attempts == 1 {
                    let retried = &mut self.execution.status.retried;
                    *retried = retried.saturating_sub(1);
                }
            }
        }
        self.running -= 1;
        if again {
            // Before those that have not been tried: an execution is as good as its worst task.
            self.waiting.push_front(index);
        }
        if let Some(task) = self.task(index).cloned()
            && matches!(task.state, TaskState::Failed(_))
        {
            self.note_failure(&task);
        }
        true
    }

    /// Lets go of everything that has not begun, once a user wants the end.
    pub(crate) fn end_waiting(&mut self, now: Timestamp) {
        if !self.is_ending() {
            return;
        }
        while let Some(index) = self.waiting.pop_front() {
            if let Some(task) = self.change(index, now) {
                task.state = TaskState::Cancelled(now);
            }
        }
    }

    /// Whether nothing is left to do but to say so.
    pub(crate) fn is_done(&self) -> bool {
        self.running == 0
            && self.waiting.is_empty()
            && (self.next_missing().is_none() || self.is_ending())
    }

    /// The image cannot be had: nothing will run.
    pub(crate) fn fail(&mut self, reason: &str, text: &str, now: Timestamp) {
        let status = &mut self.execution.status;
        status.completed = Some(now);
        for kind in ["ContainerReady", COMPLETED] {
            let failed = wording::failed(kind, reason, text, now);
            condition::set(&mut status.conditions, failed);
        }
    }

    /// Says that it is over, if it is.
    pub(crate) fn conclude(&mut self, now: Timestamp) {
        if !self.is_done() || self.execution.is_over() {
            return;
        }
        self.count();
        let status = &self.execution.status;
        let from = status.started.unwrap_or(self.execution.meta.created);
        let took = took(from, now);
        let completed = if self.is_ending() {
            wording::failed(COMPLETED, "Cancelled", "Execution was cancelled.", now)
        } else if let Some(text) = &self.failure {
            let reason = self.failure_reason();
            wording::failed(COMPLETED, reason, text, now)
        } else {
            let text = format!("Execution completed successfully in {took}.");
            wording::holds_with(COMPLETED, &text, now)
        };
        let status = &mut self.execution.status;
        status.completed = Some(now);
        condition::set(&mut status.conditions, completed);
    }

    fn failure_reason(&self) -> &'static str {
        let failed = |task: &&Task| matches!(task.state, TaskState::Failed(_));
        let first = self.tasks.iter().find(failed);
        let last = first.and_then(|task| task.last_attempt.as_ref());
        last.map_or("TaskFailed", AttemptResult::reason)
    }

    fn note_failure(&mut self, task: &Task) {
        if self.failure.is_some() {
            return;
        }
        let name = task.key().name;
        let text = task
            .last_attempt
            .as_ref()
            .map(AttemptResult::sentence)
            .unwrap_or_default();
        let text = text.strip_prefix("Task ").unwrap_or(&text);
        self.failure = Some(format!(
            "Task {name} {text} Logs for this execution might contain more information."
        ));
    }

    /// The tasks that differ from what is stored; none does afterwards. Brings the counts up to date.
    pub(crate) fn take_changes(&mut self) -> Vec<Task> {
        self.count();
        let changed = std::mem::take(&mut self.changed);
        let tasks = changed.iter().filter_map(|i| self.task(*i).cloned());
        tasks.collect()
    }

    fn count(&mut self) {
        let of = |wanted: fn(&TaskState) -> bool| {
            let count = self.tasks.iter().filter(|t| wanted(&t.state)).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let (succeeded, failed, cancelled) = (
            of(|s| matches!(s, TaskState::Succeeded(_))),
            of(|s| matches!(s, TaskState::Failed(_))),
            of(|s| matches!(s, TaskState::Cancelled(_))),
        );
        let status = &mut self.execution.status;
        status.running = self.running;
        status.succeeded = succeeded;
        status.failed = failed;
        status.cancelled = cancelled;
    }

    fn change(&mut self, index: u32, now: Timestamp) -> Option<&mut Task> {
        let task = self.tasks.get_mut(usize::try_from(index).ok()?)?;
        task.updated = now;
        self.changed.insert(index);
        Some(task)
    }
}

/// An attempt whose instance is gone with the keeper that held it.
pub(crate) fn lost() -> Outcome {
    Outcome::Failed(AttemptResult {
        exit_code: None,
        signal: None,
        code: Some(Code::Unavailable),
        message: "The instance was lost with the process that held it.".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lauf_model::job::CompletionStatus;
    use proptest::prelude::*;

    use crate::testing::{execution, new_task};

    fn machine(tasks: u32, parallelism: u32, retries: u32) -> Machine {
        let mut execution = execution("etl", "etl-abcde", tasks);
        execution.spec.parallelism = parallelism;
        execution.spec.task.max_retries = retries;
        let all = (0..tasks).map(|i| new_task(&execution, i)).collect();
        Machine::new(execution, all)
    }

    fn id(number: u64) -> InstanceId {
        InstanceId(format!("i{number}"))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn exit(code: i32) -> Outcome {
        Outcome::Failed(AttemptResult {
            exit_code: Some(code),
            code: Some(Code::Unknown),
            message: "The container exited with an error.".into(),
            signal: None,
        })
    }

    #[test]
    fn a_task_is_tried_again_as_often_as_allowed_and_then_the_execution_fails() {
        let mut m = machine(2, 1, 1);
        assert_eq!(m.may_begin(), 1);
        assert_eq!(m.begin(id(1), "l", at(1)), Some(0));
        m.started(at(1));
        assert_eq!(m.may_begin(), 0, "parallelism is one");
        assert!(m.ended(0, &id(1), exit(3), at(2)));
        // The retry comes before the next task.
        assert_eq!(m.begin(id(2), "l", at(3)), Some(0));
        assert!(!m.ended(0, &id(1), Outcome::Succeeded, at(3)), "an old one");
        assert!(m.ended(0, &id(2), exit(4), at(4)));
        assert_eq!(m.begin(id(3), "l", at(5)), Some(1));
        assert!(m.ended(1, &id(3), Outcome::Succeeded, at(6)));
        assert!(m.is_done());
        m.conclude(at(6));
        let status = &m.execution.status;
        assert_eq!((status.succeeded, status.failed, status.retried), (1, 1, 1));
        assert_eq!(m.execution.completion(), CompletionStatus::Failed);
        let completed = condition::find(&status.conditions, COMPLETED).unwrap();
        assert!(
            completed.message.starts_with(
                "Task etl-abcde-task0 failed with exit code: 4 and message: The container exited"
            ),
            "{}",
            completed.message
        );
        assert_eq!(completed.reason, "NonZeroExitCode");
    }

    #[test]
    fn what_the_host_could_not_start_was_no_attempt() {
        let mut m = machine(1, 0, 0);
        m.begin(id(1), "l", at(1));
        m.ended(0, &id(1), Outcome::NotStarted, at(2));
        assert_eq!(m.task(0).unwrap().attempts, 0);
        assert_eq!(m.begin(id(2), "l", at(3)), Some(0));
        m.ended(0, &id(2), Outcome::Succeeded, at(4));
        m.conclude(at(4));
        assert_eq!(m.execution.completion(), CompletionStatus::Succeeded);
        assert_eq!(m.task(0).unwrap().attempts, 1);
        assert_eq!(m.execution.status.retried, 0);
    }

    #[test]
    fn a_cancelled_execution_begins_nothing_and_ends_when_what_runs_has() {
        let mut m = machine(3, 1, 3);
        m.begin(id(1), "l", at(1));
        m.execution.cancelled = Some(at(2));
        m.end_waiting(at(2));
        assert_eq!(m.may_begin(), 0);
        assert!(!m.is_done());
        m.ended(0, &id(1), Outcome::Cancelled, at(3));
        assert!(m.is_done());
        m.conclude(at(3));
        assert_eq!(m.execution.status.cancelled, 3);
        assert_eq!(m.execution.completion(), CompletionStatus::Cancelled);
    }

    #[test]
    fn what_was_stored_is_all_that_is_needed_to_go_on() {
        let mut m = machine(3, 0, 1);
        m.begin(id(1), "l", at(1));
        m.begin(id(2), "l", at(1));
        m.ended(0, &id(1), Outcome::Succeeded, at(2));
        let stored: Vec<Task> = (0..3).map(|i| m.task(i).unwrap().clone()).collect();
        let mut again = Machine::new(m.execution.clone(), stored);
        assert_eq!(again.attempts().count(), 1);
        assert!(again.ended(1, &id(2), lost(), at(3)));
        assert_eq!(again.begin(id(3), "m", at(4)), Some(1));
        assert_eq!(again.task(1).unwrap().attempts, 2);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Begin,
        End(usize, u8),
        Cancel,
        Crash,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Begin),
            4 => (any::<usize>(), 0..3_u8).prop_map(|(which, how)| Step::End(which, how)),
            1 => Just(Step::Crash),
            1 => prop::bool::weighted(0.1)
                .prop_map(|cancel| if cancel { Step::Cancel } else { Step::Begin }),
        ]
    }

    proptest! {
        /// Whatever happens, and wherever a server dies: no task is lost, none runs again after it
        /// succeeded, attempts stay within bounds, and the counts are those of the tasks.
        #[test]
        fn no_order_of_events_breaks_a_law(
            tasks in 1..9_u32, parallelism in 0..4_u32, retries in 0..3_u32,
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let mut m = machine(tasks, parallelism, retries);
            let mut stored: Vec<Task> = (0..tasks).map(|i| m.task(i).unwrap().clone()).collect();
            let mut succeeded = BTreeSet::new();
            let mut next = 0;
            let mut now = 1;
            for step in steps {
                now += 1;
                match step {
                    Step::Begin => if m.may_begin() > 0 {
                        next += 1;
                        let index = m.begin(id(next), "l", at(now)).unwrap();
                        prop_assert!(!succeeded.contains(&index), "ran again after success");
                    },
                    Step::End(which, how) => {
                        let running: Vec<(u32, InstanceId)> = m
                            .attempts()
                            .map(|(task, attempt)| (task.index, attempt.instance.clone()))
                            .collect();
                        if let Some((index, instance)) = running.get(which % running.len().max(1)) {
                            let outcome = match how {
                                0 => Outcome::Succeeded,
                                1 => exit(1),
                                _ => Outcome::NotStarted,
                            };
                            if outcome == Outcome::Succeeded {
                                succeeded.insert(*index);
                            }
                            prop_assert!(m.ended(*index, instance, outcome, at(now)));
                        }
                    }
                    Step::Cancel => {
                        m.execution.cancelled = Some(at(now));
                        m.end_waiting(at(now));
                    }
                    Step::Crash => {
                        m = Machine::new(m.execution.clone(), stored.clone());
                        m.end_waiting(at(now));
                    }
                }
                for task in m.take_changes() {
                    let index = usize::try_from(task.index).unwrap();
                    stored[index] = task;
                }
                let status = &m.execution.status;
                let waiting = u32::try_from(m.waiting.len()).unwrap();
                prop_assert_eq!(
                    status.running + status.succeeded + status.failed + status.cancelled + waiting,
                    tasks
                );
                prop_assert!(parallelism == 0 || status.running <= parallelism);
                prop_assert!(stored.iter().all(|t| t.attempts <= retries + 1));
                let retried = stored.iter().filter(|t| t.attempts > 1).count();
                prop_assert_eq!(usize::try_from(status.retried).unwrap(), retried);
            }
        }
    }
}
