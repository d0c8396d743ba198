//! A queue at work: one task that owns its backlog, sends what is due and writes down what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, header};
use jiff::Timestamp;
use lauf_model::{Clock, Code, Status};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::backlog::{Backlog, MAX_TASKS, Next, again};
use super::queue::{Limits, Queue, TaskName};
use super::stored::{Attempt, Kind, StoredDone, Task};
use crate::call::{CallError, Caller, code_of};
use crate::log::{Limit, LogError, MessageLog, Position, Receipt, failed};
use crate::page::{Page, page_size};

/// How many requests wait for a queue.
const MAILBOX: usize = 4_096;
/// What is read of a stream at once.
const READ: Limit = Limit {
    records: 1_000,
    bytes: 1 << 20,
};
/// A stream is written anew when it takes so many bytes, and the better part of its records is about
/// tasks that are no more.
const REWRITE: u64 = 4 << 20;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const MAX_PAGE: usize = 1_000;
/// How many requests are heard, and tasks sent, in a row.
const BATCH: usize = 256;

/// The stream that a queue's tasks are kept in.
pub(super) fn stream_of(uid: &str) -> String {
    format!("tasks/{uid}")
}

/// What a queue is asked.
pub(super) enum Ask {
    Add(Box<Task>, oneshot::Sender<Result<Task, Status>>),
    Get(String, oneshot::Sender<Result<Task, Status>>),
    List(String, usize, oneshot::Sender<Result<Page<Task>, Status>>),
    Delete(String, oneshot::Sender<Result<(), Status>>),
    Run(String, oneshot::Sender<Result<Task, Status>>),
    Purge(oneshot::Sender<Result<(), Status>>),
    Configure(Box<Queue>),
    /// What came of a task that was sent.
    Settled(Box<Task>, Option<Timestamp>),
    End,
}

/// The way to a queue.
pub(super) struct Handle {
    pub(super) mailbox: mpsc::Sender<Ask>,
    /// How many tasks it has.
    pub(super) size: Arc<AtomicUsize>,
}

/// What all queues work with.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) log: Arc<dyn MessageLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) caller: Arc<dyn Caller>,
}

/// Starts a queue from its stream.
pub(super) async fn start(tools: Tools, queue: Queue) -> Result<Handle, LogError> {
    let stream = stream_of(&queue.uid);
    let mut backlog = Backlog::new(queue.limits, tools.clock.monotonic());
    let mut records = 0;
    let mut next = Position(0);
    loop {
        let chunk = tools.log.read(&stream, next, READ).await?;
        if chunk.records.is_empty() {
            break;
        }
        next = chunk.next;
        records += chunk.records.len();
        for record in chunk.records {
            let kind = Kind::from_record(record.body)
                .map_err(|error| LogError::Failed(format!("{stream} is damaged: {error}")))?;
            replay(&mut backlog, kind, record.position);
        }
    }
    backlog.forget_names(tools.clock.now());
    let (mailbox, asks) = mpsc::channel(MAILBOX);
    let size = Arc::new(AtomicUsize::new(backlog.len()));
    let work = Work {
        stream,
        backlog,
        records,
        mailbox: mailbox.downgrade(),
        size: Arc::clone(&size),
        look_at: Duration::ZERO,
        queue,
        tools,
    };
    tokio::spawn(work.run(asks));
    Ok(Handle { mailbox, size })
}

fn replay(backlog: &mut Backlog, kind: Option<Kind>, position: Position) {
    let time = |micros| Timestamp::from_microsecond(micros).unwrap_or_default();
    match kind {
        Some(Kind::Added(task)) => {
            let due = task
                .failed
                .as_ref()
                .map_or(task.schedule, |failed| failed.next);
            backlog.add(&task.id, position, time(due));
        }
        Some(Kind::Failed(failed)) => {
            let (id, due) = (failed.id.clone(), time(failed.next));
            backlog.failed(&id, failed, due);
        }
        Some(Kind::Done(done)) => _ = backlog.done(&done.id, time(done.at)),
        Some(Kind::Purged(_)) => backlog.purge(),
        None => {}
    }
}

struct Work {
    tools: Tools,
    queue: Queue,
    stream: String,
    backlog: Backlog,
    /// How many records the stream has, roughly.
    records: usize,
    mailbox: mpsc::WeakSender<Ask>,
    size: Arc<AtomicUsize>,
    look_at: Duration,
}

/// A task that was added, and is not known to be durable yet.
struct Added {
    task: Task,
    receipt: Receipt,
    reply: oneshot::Sender<Result<Task, Status>>,
}

impl Work {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        loop {
            let wait = self.turn().await;
            let ask = tokio::select! {
                ask = asks.recv() => ask,
                () = sleep(wait) => continue,
            };
            let mut next = ask;
            if next.is_none() {
                return;
            }
            // What was added meanwhile becomes durable together.
            let mut added = Vec::new();
            for _ in 0..BATCH {
                let Some(ask) = next.take() else { break };
                match ask {
                    Ask::Add(task, reply) => {
                        let one = self.add(*task, reply, &added);
                        added.extend(one);
                    }
                    other => {
                        self.settle_added(&mut added).await;
                        if !self.hear(other).await {
                            return;
                        }
                    }
                }
                next = asks.try_recv().ok();
            }
            self.settle_added(&mut added).await;
            if let Some(ask) = next {
                // One more than a batch.
                if let Ask::Add(task, reply) = ask {
                    added.extend(self.add(*task, reply, &[]));
                    self.settle_added(&mut added).await;
                } else if !self.hear(ask).await {
                    return;
                }
            }
        }
    }

    fn wall(&self) -> Timestamp {
        self.tools.clock.now()
    }

    /// Sends what is due. Says how long there is nothing to do.
    async fn turn(&mut self) -> Duration {
        self.size.store(self.backlog.len(), Ordering::Relaxed);
        let now = self.tools.clock.monotonic();
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            self.backlog.forget_names(self.wall());
            if let Err(error) = self.rewrite().await {
                tracing::warn!(%error, queue = %self.queue.name, "tasks cannot be written anew");
            }
        }
        let look = self.look_at.saturating_sub(now);
        if self.queue.paused {
            return look;
        }
        // Not all at once: others want to be heard in between.
        for _ in 0..BATCH {
            let now = self.tools.clock.monotonic();
            match self.backlog.next(self.wall(), now) {
                Next::Nothing => return look,
                Next::Wait(wait) => return wait.min(look),
                Next::Send(id) => self.send(&id).await,
            }
        }
        Duration::ZERO
    }

    async fn hear(&mut self, ask: Ask) -> bool {
        match ask {
            Ask::Add(_, reply) => {
                // Taken care of by whoever reads the mailbox.
                let _ = reply.send(Err(Status::new(Code::Internal, "A task was not added.")));
            }
            Ask::Get(id, reply) => _ = reply.send(self.task(&id).await),
            Ask::List(after, size, reply) => _ = reply.send(self.list(&after, size).await),
            Ask::Delete(id, reply) => {
                let answer = match self.finish(&id) {
                    Some(receipt) => durable(receipt).await,
                    None => Err(self.missing(&id)),
                };
                let _ = reply.send(answer);
            }
            Ask::Run(id, reply) => {
                let task = self.task(&id).await;
                if task.is_ok() {
                    let wall = self.wall();
                    self.backlog.hasten(&id, wall);
                }
                let _ = reply.send(task);
            }
            Ask::Purge(reply) => {
                let record = Kind::Purged(self.wall().as_microsecond()).into_record();
                let purged = durable(self.append(record)).await;
                if purged.is_ok() {
                    self.backlog.purge();
                }
                let _ = reply.send(purged);
            }
            Ask::Configure(queue) => {
                let now = self.tools.clock.monotonic();
                self.backlog.set_limits(queue.limits, now);
                self.queue = *queue;
            }
            Ask::Settled(task, due) => self.settle(*task, due),
            Ask::End => return false,
        }
        true
    }

    fn missing(&self, id: &str) -> Status {
        Status::new(
            Code::NotFound,
            format!("The task {}/tasks/{id} does not exist.", self.queue.name),
        )
    }

    // --- Adding.

    fn add(
        &mut self,
        task: Task,
        reply: oneshot::Sender<Result<Task, Status>>,
        with: &[Added],
    ) -> Option<Added> {
        let twin = with.iter().any(|other| other.task.id == task.id);
        let refused = if twin || self.backlog.is_taken(&task.id, self.wall()) {
            Some(Status::new(
                Code::AlreadyExists,
                format!(
                    "The task {}/tasks/{} exists, or existed within the last hour; give it another \
                     name.",
                    self.queue.name, task.id
                ),
            ))
        } else if self.backlog.len() + with.len() >= MAX_TASKS {
            Some(Status::new(
                Code::ResourceExhausted,
                format!(
                    "{} has {MAX_TASKS} tasks, the most there may be.",
                    self.queue.name
                ),
            ))
        } else {
            None
        };
        let written = match refused {
            Some(status) => Err(status),
            None => self
                .append(Kind::Added(Box::new(task.to_stored())).into_record())
                .map_err(|error| failed(&error)),
        };
        match written {
            Ok(receipt) => Some(Added {
                task,
                receipt,
                reply,
            }),
            Err(status) => {
                let _ = reply.send(Err(status));
                None
            }
        }
    }

    async fn settle_added(&mut self, added: &mut Vec<Added>) {
        for one in added.drain(..) {
            let Added {
                task,
                receipt,
                reply,
            } = one;
            match receipt.await {
                Ok(appended) => {
                    self.backlog.add(&task.id, appended.first, task.schedule);
                    let _ = reply.send(Ok(task));
                }
                Err(error) => _ = reply.send(Err(failed(&error))),
            }
        }
    }

    // --- Reading.

    /// A task, with what happened to it.
    async fn task(&self, id: &str) -> Result<Task, Status> {
        let waiting = self.backlog.get(id).cloned();
        let waiting = waiting.ok_or_else(|| self.missing(id))?;
        let one = Limit {
            records: 1,
            bytes: usize::MAX,
        };
        let chunk = self
            .tools
            .log
            .read(&self.stream, waiting.position, one)
            .await;
        let record = chunk
            .map_err(|error| failed(&error))?
            .records
            .into_iter()
            .next();
        let kind = record
            .filter(|record| record.position == waiting.position)
            .and_then(|record| Kind::from_record(record.body).ok().flatten());
        let Some(Kind::Added(stored)) = kind else {
            return Err(Status::new(
                Code::Internal,
                format!(
                    "What is stored of {}/tasks/{id} cannot be read.",
                    self.queue.name
                ),
            ));
        };
        let mut task = Task::from_stored(*stored);
        if let Some(failed) = waiting.failed {
            task.apply(*failed);
        }
        task.schedule = waiting.due;
        Ok(task)
    }

    async fn list(&self, after: &str, size: usize) -> Result<Page<Task>, Status> {
        let size = page_size(size, MAX_PAGE);
        let mut ids: Vec<Arc<str>> = self
            .backlog
            .after(after)
            .take(size + 1)
            .map(|(id, _)| Arc::clone(id))
            .collect();
        let more = ids.len() > size;
        ids.truncate(size);
        let mut items = Vec::with_capacity(ids.len());
        for id in &ids {
            items.push(self.task(id).await?);
        }
        let last = ids.last().filter(|_| more);
        Ok(Page {
            items,
            next: last.map_or_else(String::new, ToString::to_string),
        })
    }

    // --- Sending.

    async fn send(&mut self, id: &Arc<str>) {
        let task = match self.task(id).await {
            Ok(task) => task,
            Err(status) => {
                tracing::error!(%status, "a task cannot be sent and is given up");
                self.finish(id);
                return;
            }
        };
        let name = TaskName {
            queue: self.queue.name.clone(),
            id: task.id.clone(),
        };
        let limits = self.queue.limits;
        let (tools, mailbox) = (self.tools.clone(), self.mailbox.clone());
        tokio::spawn(async move {
            let (task, due) = dispatch(&tools, &name, limits, task).await;
            if let Some(mailbox) = mailbox.upgrade() {
                let _ = mailbox.send(Ask::Settled(Box::new(task), due)).await;
            }
        });
    }

    /// Puts down what came of a task.
    fn settle(&mut self, task: Task, due: Option<Timestamp>) {
        if self.backlog.get(&task.id).is_none() {
            return;
        }
        match due {
            Some(due) => {
                let failed = task.to_failure();
                // What cannot be written now is at worst tried once more than it should be.
                let _ = self.append(Kind::Failed(failed.clone()).into_record());
                self.backlog.failed(&task.id, failed, due);
            }
            None => _ = self.finish(&task.id),
        }
    }

    /// A task is no more. `None` if it was not there.
    fn finish(&mut self, id: &str) -> Option<Result<Receipt, LogError>> {
        let at = self.wall();
        if !self.backlog.done(id, at) {
            return None;
        }
        let done = StoredDone {
            id: id.to_owned(),
            at: at.as_microsecond(),
        };
        Some(self.append(Kind::Done(done).into_record()))
    }

    fn append(&mut self, record: Bytes) -> Result<Receipt, LogError> {
        let receipt = self.tools.log.append(&self.stream, vec![record])?;
        self.records += 1;
        Ok(receipt)
    }

    /// Writes all tasks anew when most of what is written is about others, and gives up the rest.
    async fn rewrite(&mut self) -> Result<(), LogError> {
        let extent = self.tools.log.extent(&self.stream).await?;
        let needed = self.backlog.len() + self.backlog.kept_names().count();
        if extent.bytes < REWRITE || self.records < 2 * needed + 1_000 {
            return Ok(());
        }
        let names: Vec<Bytes> = self
            .backlog
            .kept_names()
            .map(|(id, at)| {
                let done = StoredDone {
                    id: id.to_string(),
                    at: at.as_microsecond(),
                };
                Kind::Done(done).into_record()
            })
            .collect();
        let ids: Vec<Arc<str>> = self
            .backlog
            .after("")
            .map(|(id, _)| Arc::clone(id))
            .collect();
        let begin = extent.next;
        let mut records = 0;
        for batch in names.chunks(READ.records) {
            self.tools.log.append(&self.stream, batch.to_vec())?.await?;
            records += batch.len();
        }
        for batch in ids.chunks(100) {
            let mut tasks = Vec::new();
            for id in batch {
                let task = self.task(id).await;
                let task = task.map_err(|status| LogError::Failed(status.message))?;
                tasks.push(task);
            }
            let bodies = tasks
                .iter()
                .map(|task| Kind::Added(Box::new(task.to_stored())).into_record())
                .collect();
            let appended = self.tools.log.append(&self.stream, bodies)?.await?;
            for (n, task) in (0..).zip(&tasks) {
                self.backlog
                    .add(&task.id, appended.first.plus(n), task.schedule);
            }
            records += tasks.len();
        }
        self.records = records;
        self.tools.log.trim(&self.stream, begin).await
    }
}

async fn durable(receipt: Result<Receipt, LogError>) -> Result<(), Status> {
    let written = match receipt {
        Ok(receipt) => receipt.await.map(drop),
        Err(error) => Err(error),
    };
    written.map_err(|error| failed(&error))
}

/// Sends a task. Gives it back with what came of it, and when it is sent again, if it is.
async fn dispatch(
    tools: &Tools,
    name: &TaskName,
    limits: Limits,
    mut task: Task,
) -> (Task, Option<Timestamp>) {
    let dispatched = tools.clock.now();
    let request = request(name, &task);
    let identity = task.request.identity.clone();
    let answer = match request {
        Ok(request) => tools.caller.call(request, identity, task.deadline).await,
        Err(error) => Err(CallError::Unreachable(error.to_string())),
    };
    let answered = tools.clock.now();
    let (code, message, was_answered) = match &answer {
        Ok(response) if response.status().is_success() => (0, String::new(), true),
        Ok(response) => {
            let code = code_of(response.status().as_u16()).grpc();
            (
                code,
                format!("The endpoint answered {}.", response.status()),
                true,
            )
        }
        Err(error @ CallError::TimedOut(_)) => {
            (Code::DeadlineExceeded.grpc(), format!("{error}."), false)
        }
        Err(error) => (Code::Unavailable.grpc(), format!("{error}."), false),
    };
    let attempt = Attempt {
        scheduled: task.schedule,
        dispatched,
        answered,
        code,
        message,
    };
    task.dispatched = task.dispatched.saturating_add(1);
    task.answered = task.answered.saturating_add(u32::from(was_answered));
    let first = task.first.get_or_insert_with(|| attempt.clone()).clone();
    task.last = Some(attempt);
    if code == 0 {
        return (task, None);
    }
    let due = again(&limits, task.dispatched, &first, answered);
    match due {
        Some(due) => task.schedule = due,
        None => {
            tracing::warn!(%name, attempts = task.dispatched, "a task has failed too often and is given up")
        }
    }
    (task, due)
}

/// The request of a task.
fn request(name: &TaskName, task: &Task) -> Result<Request<Bytes>, http::Error> {
    let mut request = Request::builder()
        .method(&*task.request.method)
        .uri(&task.request.uri)
        .body(task.request.body.clone())?;
    let all = request.headers_mut();
    for (name, value) in &task.request.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            all.insert(name, value);
        }
    }
    let last = task.last.as_ref();
    let seconds = |at: Timestamp| {
        let micros = at.as_microsecond();
        format!(
            "{}.{:06}",
            micros.div_euclid(1_000_000),
            micros.rem_euclid(1_000_000)
        )
    };
    for (header, value) in [
        ("x-cloudtasks-queuename", Some(name.queue.id.clone())),
        ("x-cloudtasks-taskname", Some(name.id.clone())),
        (
            "x-cloudtasks-taskretrycount",
            Some(task.dispatched.to_string()),
        ),
        (
            "x-cloudtasks-taskexecutioncount",
            Some(task.answered.to_string()),
        ),
        ("x-cloudtasks-tasketa", Some(seconds(task.schedule))),
        (
            "x-cloudtasks-taskretryreason",
            last.map(|last| last.message.clone()),
        ),
    ] {
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            all.insert(HeaderName::from_static(header), value);
        }
    }
    all.insert(
        header::USER_AGENT,
        HeaderValue::from_static("Google-Cloud-Tasks"),
    );
    if !task.request.body.is_empty() && !all.contains_key(header::CONTENT_TYPE) {
        let octets = HeaderValue::from_static("application/octet-stream");
        all.insert(header::CONTENT_TYPE, octets);
    }
    Ok(request)
}
