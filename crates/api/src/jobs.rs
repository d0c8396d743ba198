//! Writing and reading jobs, executions and tasks, in the words of the model. Both versions of the
//! API come here; controllers do the rest.

use std::collections::BTreeMap;

use lauf_iam::Caller;
use lauf_model::job::LatestExecution;
use lauf_model::{
    Code, Execution, ExecutionKey, ExecutionStatus, Job, JobKey, JobSpec, JobStatus, Meta,
    Overrides, Policy, Status, Task, TaskKey, Violation, validate,
};
use lauf_store::{Condition, PolicyName, Resource as _, Stored, Txn, Version};

use crate::api::Api;
use crate::services::{
    Expected, TRIES, already_exists, being_deleted, check, conflict, new_uid, not_found, random,
};

/// How often a run is tried again when others run the same job at the same time: each time one of
/// them gets through.
const RUN_TRIES: usize = 100;
/// The most executions under way at once (Cloud Run, "Quotas and limits").
const MAX_RUNNING: usize = 1000;

/// What a client wants a job to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DesiredJob {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) as_sent: BTreeMap<String, String>,
    pub(crate) client: String,
    pub(crate) client_version: String,
    pub(crate) spec: JobSpec,
}

impl DesiredJob {
    fn into_job(self, meta: Meta, status: JobStatus) -> Job {
        Job {
            meta: Meta {
                client: self.client,
                client_version: self.client_version,
                labels: self.labels,
                annotations: self.annotations,
                as_sent: self.as_sent,
                ..meta
            },
            spec: self.spec,
            status,
        }
    }
}

/// A task with the execution it is a part of, which says what it runs.
#[derive(Debug, Clone)]
pub(crate) struct TaskOf {
    pub(crate) task: Stored<Task>,
    pub(crate) execution: Stored<Execution>,
}

impl Api {
    /// A job, or `NOT_FOUND`.
    pub(crate) async fn job(&self, key: &JobKey) -> Result<Stored<Job>, Status> {
        self.find(key)
            .await?
            .ok_or_else(|| not_found("Job", key, &key.name))
    }

    /// An execution, or `NOT_FOUND`.
    pub(crate) async fn execution(&self, key: &ExecutionKey) -> Result<Stored<Execution>, Status> {
        self.find(key)
            .await?
            .ok_or_else(|| not_found("Execution", key, &key.name))
    }

    /// A task with its execution, or `NOT_FOUND`.
    pub(crate) async fn task(&self, key: &TaskKey) -> Result<TaskOf, Status> {
        let missing = || not_found("Task", key, &key.name);
        let task = self.find::<Task>(key).await?.ok_or_else(missing)?;
        let of = task.value.execution_key();
        let execution = self.find(&of).await?.ok_or_else(missing)?;
        Ok(TaskOf { task, execution })
    }

    /// Creates a job, and its first execution if it comes with one.
    pub(crate) async fn create_job(
        &self,
        caller: &Caller,
        key: &JobKey,
        desired: DesiredJob,
        mut found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<Job>, Status> {
        let meta = Meta {
            uid: new_uid()?,
            creator: caller.principal.clone(),
            last_modifier: caller.principal.clone(),
            ..Meta::new(key, self.deps.clock.now())
        };
        let mut job = desired.into_job(meta, JobStatus::default());
        check(validate::job(&job), &mut found)?;
        if let Some(existing) = self.find::<Job>(key).await? {
            return Err(already_exists(key, existing.value.meta.deleted.is_some()));
        }
        let first = self.execution_of(caller, &mut job, None)?;
        if dry_run {
            return Ok(Stored {
                value: job,
                version: Version::ZERO,
            });
        }
        // A policy that an earlier job of this name left behind must not open this one.
        let txn = Txn::create(Job::at(key), job.body()).delete(Policy::at(&PolicyName::of(key)));
        match self.write(with_execution(txn, first.as_ref())).await? {
            Some(version) => Ok(Stored {
                value: job,
                version,
            }),
            None => Err(already_exists(key, false)),
        }
    }

    /// Replaces what is wanted of a job. Executions that there are go on as they were made.
    pub(crate) async fn replace_job(
        &self,
        caller: &Caller,
        key: &JobKey,
        desired: DesiredJob,
        expected: Expected,
        mut found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<Job>, Status> {
        for _ in 0..TRIES {
            let old = self.job(key).await?;
            if old.value.meta.deleted.is_some() {
                return Err(being_deleted("Job", key));
            }
            expected.check(old.version, old.value.meta.generation, key)?;
            let mut job = self.changed_job(caller, &old.value, desired.clone());
            check(validate::job(&job), &mut found)?;
            let next = self.execution_of(caller, &mut job, Some(&old.value))?;
            if dry_run || job == old.value {
                return Ok(Stored {
                    value: job,
                    version: old.version,
                });
            }
            if let Some(execution) = &next
                && self.find::<Execution>(&execution.key()).await?.is_some()
            {
                return Err(already_exists(&execution.key(), false));
            }
            let txn = Txn::replace(Job::at(key), old.version, job.body());
            if let Some(version) = self.write(with_execution(txn, next.as_ref())).await? {
                return Ok(Stored {
                    value: job,
                    version,
                });
            }
        }
        Err(conflict(key))
    }

    /// The job as it is when `desired` takes the place of what was wanted.
    fn changed_job(&self, caller: &Caller, old: &Job, desired: DesiredJob) -> Job {
        let changed = old.spec != desired.spec
            || old.meta.labels != desired.labels
            || old.meta.annotations != desired.annotations
            || old.meta.as_sent != desired.as_sent;
        if !changed {
            return old.clone();
        }
        let meta = Meta {
            generation: old.meta.generation + 1,
            updated: self.deps.clock.now(),
            last_modifier: caller.principal.clone(),
            ..old.meta.clone()
        };
        desired.into_job(meta, old.status.clone())
    }

    /// The execution that a written job asks for by a token it did not have before.
    fn execution_of(
        &self,
        caller: &Caller,
        job: &mut Job,
        old: Option<&Job>,
    ) -> Result<Option<Execution>, Status> {
        let Some(now) = &job.spec.execute else {
            return Ok(None);
        };
        let token = now.token().to_owned();
        let before = old.and_then(|old| old.spec.execute.as_ref());
        if before.is_some_and(|before| before.token() == token) {
            return Ok(None);
        }
        let name = format!("{}-{token}", job.meta.name);
        self.make_execution(caller, job, name).map(Some)
    }

    /// An execution of a job as it is now, and the job that knows of it.
    fn make_execution(
        &self,
        caller: &Caller,
        job: &mut Job,
        name: String,
    ) -> Result<Execution, Status> {
        let now = self.deps.clock.now();
        let template = &job.spec.template;
        let key = ExecutionKey::beside(&job.meta, name);
        let execution = Execution {
            meta: Meta {
                uid: new_uid()?,
                creator: caller.principal.clone(),
                last_modifier: caller.principal.clone(),
                client: job.meta.client.clone(),
                client_version: job.meta.client_version.clone(),
                labels: template.labels.clone(),
                annotations: template.annotations.clone(),
                ..Meta::new(&key, now)
            },
            job: job.meta.name.clone(),
            job_uid: job.meta.uid.clone(),
            job_generation: job.meta.generation,
            template_as_sent: template.as_sent.clone(),
            spec: template.spec.clone(),
            cancelled: None,
            status: ExecutionStatus::new(now),
        };
        job.status.execution_count = job.status.execution_count.saturating_add(1);
        job.status.latest_execution = Some(LatestExecution {
            name: key.name,
            created: now,
            completed: None,
            deleted: None,
            status: execution.completion(),
        });
        Ok(execution)
    }

    /// Makes an execution of a job, with what `overrides` say otherwise.
    pub(crate) async fn run_job(
        &self,
        caller: &Caller,
        key: &JobKey,
        overrides: &Overrides,
        expected: Expected,
        mut found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<Execution>, Status> {
        if self.deps.live.executions() >= MAX_RUNNING {
            return Err(Status::new(
                Code::ResourceExhausted,
                format!(
                    "{MAX_RUNNING} executions are under way, which is as many as may be. Wait until \
                     one has ended, or cancel one."
                ),
            ));
        }
        for _ in 0..RUN_TRIES {
            let mut job = self.job(key).await?;
            if job.value.meta.deleted.is_some() {
                return Err(being_deleted("Job", key));
            }
            expected.check(job.version, job.value.meta.generation, key)?;
            let name = format!("{}-{}", key.name, suffix()?);
            let mut execution = self.make_execution(caller, &mut job.value, name)?;
            overrides.apply(&mut execution.spec, &mut found);
            check(validate::execution(&execution.spec), &mut found)?;
            if dry_run {
                return Ok(Stored {
                    value: execution,
                    version: Version::ZERO,
                });
            }
            let txn = Txn::replace(Job::at(key), job.version, job.value.body());
            if let Some(version) = self.write(with_execution(txn, Some(&execution))).await? {
                return Ok(Stored {
                    value: execution,
                    version,
                });
            }
        }
        Err(conflict(key))
    }

    /// Marks a job for deletion; controllers end its executions and remove all of it.
    pub(crate) async fn delete_job(
        &self,
        caller: &Caller,
        key: &JobKey,
        expected: Expected,
        dry_run: bool,
    ) -> Result<Stored<Job>, Status> {
        for _ in 0..TRIES {
            let mut job = self.job(key).await?;
            expected.check(job.version, job.value.meta.generation, key)?;
            if dry_run || job.value.meta.deleted.is_some() {
                return Ok(job);
            }
            job.value.meta.deleted = Some(self.deps.clock.now());
            job.value.meta.last_modifier = caller.principal.clone();
            // Nobody can run it from here on, and its policy is gone with it.
            let txn = Txn::replace(Job::at(key), job.version, job.value.body())
                .delete(Policy::at(&PolicyName::of(key)));
            if let Some(version) = self.write(txn).await? {
                job.version = version;
                return Ok(job);
            }
        }
        Err(conflict(key))
    }

    /// Asks for the end of an execution. One that has ended cannot be cancelled.
    pub(crate) async fn cancel_execution(
        &self,
        caller: &Caller,
        key: &ExecutionKey,
        expected: Expected,
        dry_run: bool,
    ) -> Result<Stored<Execution>, Status> {
        let now = self.deps.clock.now();
        self.change_execution(caller, key, expected, dry_run, |execution| {
            if execution.is_over() {
                return Err(Status::new(
                    Code::FailedPrecondition,
                    format!(
                        "Execution '{}' has ended and cannot be cancelled.",
                        key.name
                    ),
                ));
            }
            execution.cancelled.get_or_insert(now);
            Ok(())
        })
        .await
    }

    /// Marks an execution for deletion; controllers end what runs of it and remove it.
    pub(crate) async fn delete_execution(
        &self,
        caller: &Caller,
        key: &ExecutionKey,
        expected: Expected,
        dry_run: bool,
    ) -> Result<Stored<Execution>, Status> {
        let now = self.deps.clock.now();
        self.change_execution(caller, key, expected, dry_run, |execution| {
            execution.meta.deleted.get_or_insert(now);
            Ok(())
        })
        .await
    }

    async fn change_execution(
        &self,
        caller: &Caller,
        key: &ExecutionKey,
        expected: Expected,
        dry_run: bool,
        change: impl Fn(&mut Execution) -> Result<(), Status>,
    ) -> Result<Stored<Execution>, Status> {
        // The controller writes to it all the time while it runs.
        for _ in 0..RUN_TRIES {
            let old = self.execution(key).await?;
            expected.check(old.version, old.value.meta.generation, key)?;
            let mut new = old.clone();
            change(&mut new.value)?;
            if dry_run || new.value == old.value {
                return Ok(old);
            }
            new.value.meta.updated = self.deps.clock.now();
            new.value.meta.last_modifier = caller.principal.clone();
            let txn = Txn::replace(Execution::at(key), old.version, new.value.body());
            if let Some(version) = self.write(txn).await? {
                new.version = version;
                return Ok(new);
            }
        }
        Err(conflict(key))
    }
}

fn with_execution(txn: Txn, execution: Option<&Execution>) -> Txn {
    let Some(execution) = execution else {
        return txn;
    };
    let at = Execution::at(&execution.key());
    txn.require(Condition::Absent(at.clone()))
        .put(at, execution.body())
}

/// Five letters and digits that end an execution's name. No vowels, so that they never spell a word.
fn suffix() -> Result<String, Status> {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let random: [u8; 5] = random()?;
    let letter = |byte: u8| char::from(LETTERS[usize::from(byte) % LETTERS.len()]);
    Ok(random.map(letter).iter().collect())
}
