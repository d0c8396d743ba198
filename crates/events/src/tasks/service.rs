//! The door: queues and tasks, with names and plain types.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lauf_model::{Clock, Code, Status, Violation};
use lauf_store::{Condition, ReadError, Resource as _, Store, Txn, WriteError};
use tokio::sync::{Mutex, oneshot};

use super::queue::{Queue, QueueName, TaskName};
use super::stored::Task;
use super::work::{Ask, Handle, Tools, start, stream_of};
use crate::call::Caller;
use crate::log::{LogError, MessageLog, failed};
use crate::page::{Page, page_size};
use crate::random::{random, uid};
use crate::scheduler::{check_http, check_identity};

/// The most bytes of a task's body.
const MAX_BODY: usize = 1 << 20;
/// How far ahead a task may be scheduled.
const MAX_AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);
const MIN_DEADLINE: Duration = Duration::from_secs(15);
const MAX_DEADLINE: Duration = Duration::from_secs(30 * 60);
const MAX_PAGE: usize = 9_800;

/// What Tasks works with.
#[derive(Clone)]
pub struct Deps {
    /// Where tasks are kept.
    pub log: Arc<dyn MessageLog>,
    /// Where queues are kept.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How requests leave the house.
    pub caller: Arc<dyn Caller>,
}

/// Why Tasks cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The log fails.
    #[error("the message log: {0}")]
    Log(#[from] LogError),
}

/// Cloud Tasks. Clones are the same.
#[derive(Clone)]
pub struct Tasks(Arc<Inner>);

struct Inner {
    tools: Tools,
    store: Store,
    queues: RwLock<BTreeMap<QueueName, Arc<Open>>>,
    /// Held by whoever changes what there is.
    admin: Mutex<()>,
}

/// A queue at work.
struct Open {
    queue: Queue,
    handle: Arc<Handle>,
}

impl Tasks {
    /// Starts with what the store and the log hold.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(deps: Deps) -> Result<Self, StartError> {
        let tools = Tools {
            log: deps.log,
            clock: deps.clock,
            caller: deps.caller,
        };
        let mut queues = BTreeMap::new();
        let mut known = Vec::new();
        for stored in deps.store.all::<Queue>().await?.0 {
            let queue = stored.value;
            let stream = stream_of(&queue.uid);
            tools.log.create(&stream).await?;
            known.push(stream);
            // One that cannot be read must not keep all others from working.
            match start(tools.clone(), queue.clone()).await {
                Ok(handle) => {
                    let name = queue.name.clone();
                    let handle = Arc::new(handle);
                    queues.insert(name, Arc::new(Open { queue, handle }));
                }
                Err(error) => {
                    tracing::error!(%error, name = %queue.name, "a queue cannot be opened");
                }
            }
        }
        // Of queues that were being made or deleted when the machine stopped.
        for stream in tools.log.streams().await? {
            if stream.starts_with("tasks/") && !known.contains(&stream) {
                tools.log.delete(&stream).await?;
            }
        }
        Ok(Self(Arc::new(Inner {
            tools,
            store: deps.store,
            queues: RwLock::new(queues),
            admin: Mutex::new(()),
        })))
    }

    fn open(&self, name: &QueueName) -> Result<Arc<Open>, Status> {
        let queues = self.0.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.get(name).cloned().ok_or_else(|| missing(name))
    }

    fn put_open(&self, queue: Queue, handle: Arc<Handle>) {
        let mut queues = self
            .0
            .queues
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        queues.insert(queue.name.clone(), Arc::new(Open { queue, handle }));
    }

    async fn write(&self, txn: Txn, conflict: impl FnOnce() -> Status) -> Result<(), Status> {
        match self.0.store.write(txn).await {
            Ok(_) => Ok(()),
            Err(WriteError::Conflict { .. }) => Err(conflict()),
            Err(error) => Err(Status::new(
                Code::Unavailable,
                format!("It could not be stored: {error}. Try again."),
            )),
        }
    }

    // --- Queues.

    /// Makes a queue. Its `uid` is given here.
    ///
    /// # Errors
    /// When something is wrong with it, or there is one of that name.
    pub async fn create_queue(&self, spec: Queue) -> Result<Queue, Status> {
        spec.check()?;
        let _admin = self.0.admin.lock().await;
        if self.open(&spec.name).is_ok() {
            return Err(exists(&spec.name));
        }
        let queue = Queue {
            uid: uid()?,
            paused: false,
            purged: None,
            ..spec
        };
        let made = async {
            self.0.tools.log.create(&stream_of(&queue.uid)).await?;
            start(self.0.tools.clone(), queue.clone()).await
        };
        let handle = made.await.map_err(|error| failed(&error))?;
        let create = Txn::create(Queue::at(&queue.name), queue.body());
        self.write(create, || exists(&queue.name)).await?;
        self.put_open(queue.clone(), Arc::new(handle));
        Ok(queue)
    }

    /// The queue of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn queue(&self, name: &QueueName) -> Result<Queue, Status> {
        Ok(self.open(name)?.queue.clone())
    }

    /// How many tasks a queue has.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn size(&self, name: &QueueName) -> Result<usize, Status> {
        Ok(self.open(name)?.handle.size.load(Ordering::Relaxed))
    }

    /// A region's queues, by name.
    #[must_use]
    pub fn list_queues(
        &self,
        project: &str,
        location: &str,
        size: usize,
        token: &str,
    ) -> Page<Queue> {
        let queues = self.0.queues.read().unwrap_or_else(PoisonError::into_inner);
        let of_region = queues
            .values()
            .map(|open| &open.queue)
            .filter(|queue| queue.name.project == project && queue.name.location == location);
        Page::of(
            of_region,
            |queue| &queue.name.id,
            page_size(size, MAX_PAGE),
            token,
        )
    }

    /// Changes a queue: `change` is given what there is.
    ///
    /// # Errors
    /// When there is none, or something is wrong with what it becomes.
    pub async fn update_queue(
        &self,
        name: &QueueName,
        change: impl FnOnce(&mut Queue) -> Result<(), Status>,
    ) -> Result<Queue, Status> {
        let _admin = self.0.admin.lock().await;
        let open = self.open(name)?;
        let mut queue = open.queue.clone();
        change(&mut queue)?;
        queue.check()?;
        let key = Queue::at(name);
        let txn = Txn::new()
            .require(Condition::Exists(key.clone()))
            .put(key, queue.body());
        self.write(txn, || missing(name)).await?;
        let ask = Ask::Configure(Box::new(queue.clone()));
        let _ = open.handle.mailbox.send(ask).await;
        self.put_open(queue.clone(), Arc::clone(&open.handle));
        Ok(queue)
    }

    /// Holds a queue, or lets it go on.
    ///
    /// # Errors
    /// When there is none.
    pub async fn set_paused(&self, name: &QueueName, paused: bool) -> Result<Queue, Status> {
        let changed = self.update_queue(name, |queue| {
            queue.paused = paused;
            Ok(())
        });
        changed.await
    }

    /// Deletes all tasks of a queue. Their names can be used again.
    ///
    /// # Errors
    /// When there is none, or the log fails.
    pub async fn purge(&self, name: &QueueName) -> Result<Queue, Status> {
        let open = self.open(name)?;
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::Purge(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(missing(name)))?;
        let now = self.0.tools.clock.now();
        let changed = self.update_queue(name, |queue| {
            queue.purged = Some(now);
            Ok(())
        });
        changed.await
    }

    /// Deletes a queue with its tasks.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete_queue(&self, name: &QueueName) -> Result<(), Status> {
        let _admin = self.0.admin.lock().await;
        let open = self.open(name)?;
        let delete = Txn::new().delete(Queue::at(name));
        self.write(delete, || missing(name)).await?;
        {
            let mut queues = self
                .0
                .queues
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            queues.remove(name);
        }
        let _ = open.handle.mailbox.send(Ask::End).await;
        // What cannot be deleted now, the next start deletes.
        let _ = self.0.tools.log.delete(&stream_of(&open.queue.uid)).await;
        Ok(())
    }

    // --- Tasks.

    async fn ask(&self, open: &Open, ask: Ask) -> Result<(), Status> {
        let sent = open.handle.mailbox.send(ask).await;
        sent.map_err(|_| missing(&open.queue.name))
    }

    /// Adds a task; one without a name is given one. It is durable when this returns.
    ///
    /// # Errors
    /// When something is wrong with it, its name is or was in use, or the queue is full.
    pub async fn add(&self, queue: &QueueName, mut task: Task) -> Result<Task, Status> {
        let open = self.open(queue)?;
        let now = self.0.tools.clock.now();
        if task.id.is_empty() {
            task.id = new_id()?;
        }
        task.created = now;
        // What is to be sent in the past is to be sent now.
        task.schedule = task.schedule.max(now);
        check(&task, now)?;
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::Add(Box::new(task), reply)).await?;
        answer.await.unwrap_or_else(|_| Err(missing(queue)))
    }

    /// The task of that name.
    ///
    /// # Errors
    /// When there is none.
    pub async fn task(&self, name: &TaskName) -> Result<Task, Status> {
        let open = self.open(&name.queue)?;
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::Get(name.id.clone(), reply)).await?;
        answer.await.unwrap_or_else(|_| Err(missing(&name.queue)))
    }

    /// A queue's tasks, by name.
    ///
    /// # Errors
    /// When there is no such queue, or the log fails.
    pub async fn list(
        &self,
        queue: &QueueName,
        size: usize,
        token: &str,
    ) -> Result<Page<Task>, Status> {
        let open = self.open(queue)?;
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::List(token.to_owned(), size, reply))
            .await?;
        answer.await.unwrap_or_else(|_| Err(missing(queue)))
    }

    /// Deletes a task. One that is under way ends as it ends.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete(&self, name: &TaskName) -> Result<(), Status> {
        let open = self.open(&name.queue)?;
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::Delete(name.id.clone(), reply)).await?;
        answer.await.unwrap_or_else(|_| Err(missing(&name.queue)))
    }

    /// Sends a task now, whatever its time.
    ///
    /// # Errors
    /// When there is none.
    pub async fn run(&self, name: &TaskName) -> Result<Task, Status> {
        let open = self.open(&name.queue)?;
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::Run(name.id.clone(), reply)).await?;
        answer.await.unwrap_or_else(|_| Err(missing(&name.queue)))
    }
}

fn new_id() -> Result<String, Status> {
    Ok(u64::from_be_bytes(random()?).to_string())
}

fn check(task: &Task, now: Timestamp) -> Result<(), Status> {
    let mut wrong = Vec::new();
    let request = &task.request;
    check_http(
        "task.http_request",
        &request.uri,
        &request.method,
        &request.headers,
        &request.body,
        MAX_BODY,
        &mut wrong,
    );
    let identity = request.identity.as_ref();
    check_identity("task.http_request", &request.uri, identity, &mut wrong);
    if task.schedule.duration_since(now) > MAX_AHEAD {
        wrong.push(Violation::new(
            "task.schedule_time",
            "It is more than 30 days ahead, the furthest that is allowed.",
        ));
    }
    if !(MIN_DEADLINE..=MAX_DEADLINE).contains(&task.deadline) {
        wrong.push(Violation::new(
            "task.dispatch_deadline",
            format!(
                "{} s is out of range: 15 s to 1800 s are allowed.",
                task.deadline.as_secs_f64()
            ),
        ));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(wrong))
    }
}

fn missing(name: &QueueName) -> Status {
    Status::new(
        Code::NotFound,
        format!("Queue does not exist. Create it first: {name}."),
    )
}

fn exists(name: &QueueName) -> Status {
    Status::new(
        Code::AlreadyExists,
        format!("Queue already exists: {name}."),
    )
}
