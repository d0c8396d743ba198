//! Drives one execution from its first task to its last: decides by the [machine](super::machine),
//! writes what changed, and only then does what follows from it.
//!
//! Everything that happened while a write was under way goes into the next one, so that an execution
//! of many short tasks waits for sandboxes and not for the disk. Killed at any point, the next server
//! finds the attempts on record, takes over their instances, and hears from the keeper what came of
//! those that ended meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use lauf_engine::{Instance, InstanceSpec, Owner, StartError, TaskAttempt};
use lauf_model::{Execution, ExecutionKey, ExecutionStatus, InstanceId, Task, condition};
use lauf_store::{Condition, Resource as _, Stored, Txn, Version, WriteError};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::attempt::{Attempt, News};
use super::machine::{Machine, lost};
use super::slots::Slot;
use crate::error::TurnError;
use crate::{Context, wording};

/// The most tasks in one write. A transaction takes a thousand operations.
const BATCH: usize = 500;
/// Attempts on record that have not started yet: enough that starts never wait for the disk, and few
/// enough that other executions get their turn.
const AHEAD: usize = 64;
/// Pauses after a start that the host could not do.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Takes an execution as far as it goes. `changed` says that somebody else wrote it.
pub(crate) async fn drive(
    context: &Arc<Context>,
    key: &ExecutionKey,
    changed: &Notify,
) -> Result<(), TurnError> {
    let Some(stored) = context.store.find::<Execution>(key).await? else {
        return Ok(());
    };
    if stored.value.is_over() {
        return if stored.value.meta.deleted.is_some() {
            remove(context, key).await
        } else {
            Ok(())
        };
    }
    let Some(stored) = resolve(context, stored, changed).await? else {
        return Ok(());
    };
    let tasks = context
        .store
        .beginning::<Task>(key.scope(), key.task_prefix());
    let tasks = tasks
        .await?
        .into_iter()
        .map(|stored| stored.value)
        .collect();
    let (news, inbox) = mpsc::unbounded_channel();
    let driver = Driver {
        context: Arc::clone(context),
        key: key.clone(),
        version: stored.version,
        written: stored.value.status.clone(),
        machine: Machine::new(stored.value, tasks),
        attempts: JoinSet::new(),
        ending: watch::Sender::new(false),
        news,
        starting: 0,
        spare: None,
        pause: FIRST_PAUSE,
        resume: None,
    };
    driver.run(inbox, changed).await
}

/// Makes sure that the image is known, or says that there is none.
async fn resolve(
    context: &Arc<Context>,
    mut stored: Stored<Execution>,
    changed: &Notify,
) -> Result<Option<Stored<Execution>>, TurnError> {
    let key = stored.value.key();
    let image = stored.value.spec.task.container.image.clone();
    let resolve = async {
        let mut pause = FIRST_PAUSE;
        loop {
            match context.images.resolve(&image).await {
                Err(error) if !error.is_permanent() => {
                    tracing::warn!(execution = %key, %error, "the image cannot be had yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                other => return other,
            }
        }
    };
    tokio::pin!(resolve);
    let resolved = loop {
        let execution = &stored.value;
        if execution.is_ending() || !execution.status.image_digest.is_empty() {
            return Ok(Some(stored));
        }
        tokio::select! {
            resolved = &mut resolve => break resolved,
            () = changed.notified() => match context.store.find(&key).await? {
                Some(again) => stored = again,
                None => return Ok(None),
            },
        }
    };
    let now = context.clock.now();
    // Only the status is written here; who cancels at the same time makes this a conflict, and
    // another turn sees it.
    let failed = match resolved {
        Ok(digest) => {
            let status = &mut stored.value.status;
            status.image_digest = digest;
            status.observed_generation = stored.value.meta.generation;
            let text = "Imported container image.";
            let ready = wording::holds_with("ContainerReady", text, now);
            condition::set(&mut status.conditions, ready);
            false
        }
        Err(error) => {
            let (reason, text) = image_failure(&error);
            let mut machine = Machine::new(stored.value, Vec::new());
            machine.fail(reason, &text, now);
            stored.value = machine.execution;
            true
        }
    };
    let body = stored.value.body();
    let txn = Txn::replace(Execution::at(&key), stored.version, body);
    stored.version = context.store.write(txn).await?;
    Ok(Some(stored).filter(|_| !failed))
}

fn image_failure(error: &StartError) -> (&'static str, String) {
    ("ContainerMissing", error.to_string())
}

/// Removes an execution that has ended, tasks first, so that what is left after a crash is found
/// again by what is left.
async fn remove(context: &Arc<Context>, key: &ExecutionKey) -> Result<(), TurnError> {
    let tasks = context
        .store
        .beginning::<Task>(key.scope(), key.task_prefix());
    let tasks = tasks.await?;
    for some in tasks.chunks(BATCH) {
        let delete = |txn: Txn, task: &Stored<Task>| txn.delete(Task::at(&task.value.key()));
        context
            .store
            .write(some.iter().fold(Txn::new(), delete))
            .await?;
    }
    let txn = Txn::new().delete(Execution::at(key));
    context.store.write(txn).await?;
    Ok(())
}

struct Driver {
    context: Arc<Context>,
    key: ExecutionKey,
    /// Of the execution as it was last read or written.
    version: Version,
    /// The status as it is stored.
    written: ExecutionStatus,
    machine: Machine,
    attempts: JoinSet<()>,
    ending: watch::Sender<bool>,
    news: mpsc::UnboundedSender<News>,
    /// Attempts that are spawned and have not started.
    starting: usize,
    /// A slot that was waited for.
    spare: Option<Slot>,
    pause: Duration,
    /// When to begin again, by the monotonic clock, after the host could not start something.
    resume: Option<Duration>,
}

/// What is to be done once a write is on disk.
#[derive(Default)]
struct Effects {
    begin: Vec<(u32, InstanceId, Slot)>,
    forget: Vec<InstanceId>,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<News>,
        changed: &Notify,
    ) -> Result<(), TurnError> {
        self.make_tasks().await?;
        let mut effects = self.take_over();
        let mut some = Vec::new();
        loop {
            if self.machine.is_ending() {
                self.machine.end_waiting(self.now());
                self.ending.send_replace(true);
            }
            self.begin(&mut effects);
            self.machine.conclude(self.now());
            self.write().await?;
            self.carry_out(std::mem::take(&mut effects));
            if self.machine.execution.is_over() {
                break;
            }
            let starved = self.spare.is_none() && self.wanted() > 0 && self.resume.is_none();
            let monotonic = self.context.clock.monotonic();
            let pause = self.resume.map(|at| at.saturating_sub(monotonic));
            let memory = self.machine.execution.spec.task.container.memory_bytes;
            let slots = self.context.slots.clone();
            tokio::select! {
                _ = inbox.recv_many(&mut some, BATCH) => {
                    for news in some.drain(..) {
                        self.hear(news, &mut effects);
                    }
                }
                () = changed.notified() => self.look_again().await?,
                slot = slots.take(memory), if starved => self.spare = Some(slot),
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {
                    self.resume = None;
                }
            }
            while self.attempts.try_join_next().is_some() {}
        }
        if self.machine.execution.meta.deleted.is_some() {
            remove(&self.context, &self.key).await?;
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    /// Stores those tasks that are not there yet.
    async fn make_tasks(&mut self) -> Result<(), TurnError> {
        let execution = Execution::at(&self.key);
        while let (Some(from), false) = (self.machine.next_missing(), self.machine.is_ending()) {
            let now = self.now();
            let all = self.machine.execution.spec.task_count;
            let most = u32::try_from(BATCH).unwrap_or(u32::MAX);
            let upto = all.min(from.saturating_add(most));
            let of = &self.machine.execution;
            let tasks: Vec<Task> = (from..upto)
                .map(|index| Task::new(of, index, self.context.new_uid(), now))
                .collect();
            let exists = Txn::new().require(Condition::Exists(execution.clone()));
            let put = |txn: Txn, task: &Task| txn.put(Task::at(&task.key()), task.body());
            self.context
                .store
                .write(tasks.iter().fold(exists, put))
                .await?;
            self.machine.add(tasks);
        }
        Ok(())
    }

    /// Goes on with the attempts that an earlier server began.
    fn take_over(&mut self) -> Effects {
        let life = self.context.engine.life();
        let under_way: Vec<(u32, InstanceId, bool)> = self
            .machine
            .attempts()
            .map(|(task, a)| (task.index, a.instance.clone(), a.keeper == life))
            .collect();
        let mut adopted: HashMap<InstanceId, Arc<Instance>> = HashMap::new();
        for (_, id, _) in &under_way {
            if let Some(instance) = self.context.claim(id) {
                adopted.insert(id.clone(), instance);
            }
        }
        let now = self.now();
        for (index, id, this_life) in under_way {
            let instance = adopted.remove(&id);
            if instance.is_none() && !this_life {
                self.machine.ended(index, &id, lost(), now);
                continue;
            }
            if instance.is_some() {
                self.machine.started(now);
            }
            // What runs already has its share of the machine, whether there is room or not.
            let memory = self.machine.execution.spec.task.container.memory_bytes;
            let slot = self.context.slots.try_take(memory);
            self.spawn(index, id, slot, instance);
        }
        Effects::default()
    }

    /// How many tasks to begin now.
    fn wanted(&self) -> usize {
        let room = AHEAD.saturating_sub(self.starting);
        self.machine.may_begin().min(room)
    }

    /// Begins as many tasks as may and fit. They are started once that is written.
    fn begin(&mut self, effects: &mut Effects) {
        if self.resume.is_some() {
            return;
        }
        let life = self.context.engine.life();
        let memory = self.machine.execution.spec.task.container.memory_bytes;
        let now = self.now();
        for _ in 0..self.wanted() {
            let taken = self.spare.take();
            let Some(slot) = taken.or_else(|| self.context.slots.try_take(memory)) else {
                break;
            };
            let id = self.context.new_instance_id();
            let Some(index) = self.machine.begin(id.clone(), &life, now) else {
                break;
            };
            effects.begin.push((index, id, slot));
        }
    }

    fn hear(&mut self, news: News, effects: &mut Effects) {
        let now = self.now();
        match news {
            News::Started(result) => {
                self.starting = self.starting.saturating_sub(1);
                match result {
                    Ok(()) => {
                        self.machine.started(now);
                        self.pause = FIRST_PAUSE;
                    }
                    Err(text) => {
                        self.machine.waits_for_host(&text, now);
                        // Starts that failed together are one failure.
                        if self.resume.is_none() {
                            let monotonic = self.context.clock.monotonic();
                            self.resume = Some(monotonic + self.pause);
                            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                        }
                    }
                }
            }
            News::Ended {
                index,
                instance,
                outcome,
            } => {
                self.machine.ended(index, &instance, outcome, now);
                effects.forget.push(instance);
            }
        }
    }

    fn carry_out(&mut self, effects: Effects) {
        for id in &effects.forget {
            self.context.engine.forget(id);
        }
        for (index, id, slot) in effects.begin {
            self.spawn(index, id, Some(slot), None);
        }
    }

    fn spawn(
        &mut self,
        index: u32,
        id: InstanceId,
        slot: Option<Slot>,
        adopted: Option<Arc<Instance>>,
    ) {
        let execution = &self.machine.execution;
        let attempts = self.machine.task(index).map_or(1, |task| task.attempts);
        if adopted.is_none() {
            self.starting += 1;
        }
        let attempt = Attempt {
            engine: Arc::clone(&self.context.engine),
            clock: Arc::clone(&self.context.clock),
            slots: self.context.slots.clone(),
            slot,
            index,
            timeout: execution.spec.task.timeout,
            adopted,
            ending: self.ending.subscribe(),
            news: self.news.clone(),
            spec: InstanceSpec {
                id,
                owner: Owner::Task(TaskAttempt {
                    execution: self.key.clone(),
                    job: execution.job.clone(),
                    index,
                    count: execution.spec.task_count,
                    attempt: attempts.saturating_sub(1),
                }),
                image: execution.status.image_digest.clone(),
                container: execution.spec.task.container.clone(),
                startup_cpu_boost: false,
            },
        };
        self.attempts.spawn(attempt.run());
    }

    /// Somebody wrote the execution: a user wants its end, or it was this driver itself.
    async fn look_again(&mut self) -> Result<(), TurnError> {
        if let Some(stored) = self.context.store.find::<Execution>(&self.key).await? {
            self.merge(stored);
        }
        Ok(())
    }

    /// Takes what users wrote; the status is this driver's alone.
    fn merge(&mut self, stored: Stored<Execution>) {
        self.version = stored.version;
        let status = std::mem::take(&mut self.machine.execution.status);
        self.machine.execution = Execution {
            status,
            ..stored.value
        };
    }

    /// Stores what changed, tasks and counts together.
    async fn write(&mut self) -> Result<(), TurnError> {
        let tasks = self.machine.take_changes();
        if tasks.is_empty() && self.machine.execution.status == self.written {
            return Ok(());
        }
        let at = Execution::at(&self.key);
        let mut rest = tasks.as_slice();
        let put = |txn: Txn, task: &Task| txn.put(Task::at(&task.key()), task.body());
        while rest.len() > BATCH {
            let (some, more) = rest.split_at(BATCH);
            let exists = Txn::new().require(Condition::Exists(at.clone()));
            self.context
                .store
                .write(some.iter().fold(exists, put))
                .await?;
            rest = more;
        }
        loop {
            let body = self.machine.execution.body();
            let txn = Txn::replace(at.clone(), self.version, body);
            match self.context.store.write(rest.iter().fold(txn, put)).await {
                Ok(version) => {
                    self.version = version;
                    self.written.clone_from(&self.machine.execution.status);
                    return Ok(());
                }
                // A user wrote it meanwhile.
                Err(WriteError::Conflict { key, .. }) if key == at => {
                    let Some(stored) = self.context.store.find::<Execution>(&self.key).await?
                    else {
                        return Ok(());
                    };
                    self.merge(stored);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
