//! The door, and the one task that waits for what is due.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::{HeaderName, HeaderValue, Request, header};
use jiff::{SignedDuration, Timestamp};
use lauf_model::{Clock, Code, Status};
use lauf_store::{Condition, ReadError, Resource as _, Store, Txn, WriteError};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::job::{Job, JobName, Last, Target};
use super::table::{Ended, Entry, Run, Table};
use crate::call::{CallError, Caller, code_of};
use crate::page::{Page, page_size};
use crate::pubsub::{Message, PubSub};

/// How long it may take until it is noticed that the clock was set.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A clock that is corrected a little now and then was not set back.
const SET_BACK: SignedDuration = SignedDuration::from_secs(30);
/// How many jobs run at a time. More wait their turn.
const MAX_RUNNING: usize = 1_000;
/// How many that have run are put down before whoever changes jobs has a turn.
const ENDED: usize = 64;
/// How many of them are stored at a time: together, and with the largest bodies, they fit the store's queue.
const STORED: usize = 16;
const MAX_PAGE: usize = 500;

/// What Scheduler works with.
#[derive(Clone)]
pub struct Deps {
    /// Where jobs are kept.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How requests leave the house.
    pub caller: Arc<dyn Caller>,
    /// Where messages go.
    pub pubsub: PubSub,
}

/// Cloud Scheduler. Clones are the same.
#[derive(Clone)]
pub struct Scheduler(Arc<Inner>);

struct Inner {
    deps: Deps,
    table: Mutex<Table>,
    /// What both clocks said when they were last looked at.
    looked: Mutex<(Timestamp, Duration)>,
    /// Something was put into the table that is due before all else.
    earlier: Arc<Notify>,
    running: Arc<Semaphore>,
    /// Attempts to be put down. A job is there at most once.
    ended: mpsc::UnboundedSender<Ended>,
    /// Held by whoever changes what there is.
    admin: tokio::sync::Mutex<()>,
}

impl Scheduler {
    /// Starts with the jobs that the store holds. What was due meanwhile is made up for at once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(deps: Deps) -> Result<Self, ReadError> {
        let mut table = Table::default();
        for stored in deps.store.all::<Job>().await?.0 {
            let job = stored.value;
            let (name, next) = (job.name.clone(), job.next);
            let entry = Entry {
                job: Arc::new(job),
                due: None,
                run: None,
            };
            table.jobs.insert(name.clone(), entry);
            table.schedule(&name, next);
        }
        let clocks = (deps.clock.now(), deps.clock.monotonic());
        // It may have been set back since the last server stored what is due.
        table.reckon(clocks.0);
        let (ended, mut to_settle) = mpsc::unbounded_channel();
        let this = Self(Arc::new(Inner {
            deps,
            table: Mutex::new(table),
            looked: Mutex::new(clocks),
            earlier: Arc::default(),
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
            ended,
            admin: tokio::sync::Mutex::new(()),
        }));
        // The task must not keep alive what it waits for.
        let (weak, earlier) = (Arc::downgrade(&this.0), Arc::clone(&this.0.earlier));
        tokio::spawn(async move {
            loop {
                let Some(inner) = weak.upgrade() else { return };
                let wait = Self(inner).turn().await;
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = earlier.notified() => {}
                }
            }
        });
        let weak = Arc::downgrade(&this.0);
        tokio::spawn(async move {
            let mut some = Vec::new();
            while to_settle.recv_many(&mut some, ENDED).await > 0 {
                let Some(inner) = weak.upgrade() else { return };
                Self(inner).settle(mem::take(&mut some)).await;
            }
        });
        Ok(this)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        self.0.deps.clock.now()
    }

    /// Whether the wall clock says less than it would if nobody had set it.
    fn was_set_back(&self) -> bool {
        let clock = &self.0.deps.clock;
        let (now, monotonic) = (clock.now(), clock.monotonic());
        let looked = self.0.looked.lock();
        let mut looked = looked.unwrap_or_else(PoisonError::into_inner);
        let passed = SignedDuration::try_from(monotonic.saturating_sub(looked.1));
        let expected = looked.0.checked_add(passed.unwrap_or_default());
        *looked = (now, monotonic);
        expected.is_ok_and(|expected| expected.duration_since(now) > SET_BACK)
    }

    /// Starts what is due. Says how long there is nothing to do.
    async fn turn(&self) -> Duration {
        if self.was_set_back() {
            tracing::warn!("the clock was set back; schedules are reckoned anew");
            self.table().reckon(self.now());
        }
        loop {
            let now = self.now();
            let next = {
                let mut table = self.table();
                match table.due.first().cloned() {
                    Some((at, name)) if at <= now => {
                        table.schedule(&name, None);
                        Ok((at, name))
                    }
                    Some((at, _)) => Err(Some(at)),
                    None => Err(None),
                }
            };
            let (at, name) = match next {
                Ok(due) => due,
                Err(None) => return LOOK_EVERY,
                Err(Some(at)) => {
                    let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                    return wait.min(LOOK_EVERY);
                }
            };
            let permit = Arc::clone(&self.0.running).acquire_owned().await;
            let this = self.clone();
            tokio::spawn(async move {
                this.attempt(name, at).await;
                drop(permit);
            });
        }
    }

    /// Tries a job that is due, and puts down when it is due next.
    async fn attempt(&self, name: JobName, at: Timestamp) {
        let begun = self.0.deps.clock.monotonic();
        let (job, run) = {
            let mut table = self.table();
            let Some(entry) = table.jobs.get_mut(&name) else {
                return;
            };
            let new = Run {
                of: at,
                first: begun,
                failures: 0,
            };
            (Arc::clone(&entry.job), *entry.run.get_or_insert(new))
        };
        let time = self.now();
        let result = self.send(&job, run.of).await;
        let ended = self.0.deps.clock.monotonic();
        let last = Last {
            time,
            code: result.as_ref().err().map_or(0, |status| status.code.grpc()),
            message: result
                .as_ref()
                .err()
                .map_or_else(String::new, |s| s.message.clone()),
        };
        let failures = run.failures + u32::from(result.is_err());
        let retry = result
            .is_err()
            .then(|| job.retry(failures, ended.saturating_sub(run.first)))
            .flatten();
        if let Err(status) = &result {
            tracing::debug!(%name, %status, failures, "a scheduled job failed");
        }
        let ended = Ended {
            name,
            run,
            last,
            failures,
            retry,
        };
        // Nobody is left to hear it only when all is over.
        let _ = self.0.ended.send(ended);
    }

    /// Puts down what came of attempts.
    async fn settle(&self, ended: Vec<Ended>) {
        let _admin = self.0.admin.lock().await;
        let jobs: Vec<(Job, Option<Timestamp>)> = {
            let (now, mut table) = (self.now(), self.table());
            let settled = |one| table.settle(one, now);
            ended.into_iter().filter_map(settled).collect()
        };
        // All at once, so that the store syncs once for many.
        let mut stored = stream::iter(jobs)
            .map(|(job, due)| async move {
                // What cannot be stored is at worst done again by the next start.
                if let Err(status) = self.put(&job).await {
                    tracing::warn!(name = %job.name, %status, "what came of a scheduled job could not be stored");
                }
                (job, due)
            })
            .buffer_unordered(STORED);
        while let Some((job, due)) = stored.next().await {
            let mut table = self.table();
            let name = job.name.clone();
            if let Some(entry) = table.jobs.get_mut(&name) {
                entry.job = Arc::new(job);
            }
            table.schedule(&name, due);
        }
        self.0.earlier.notify_one();
    }

    /// Does what a job says.
    async fn send(&self, job: &Job, of: Timestamp) -> Result<(), Status> {
        match &job.target {
            Target::PubSub {
                topic,
                data,
                attributes,
            } => {
                let message = Message {
                    data: data.clone().into(),
                    attributes: attributes.clone(),
                    ordering_key: String::new(),
                };
                self.0
                    .deps
                    .pubsub
                    .publish(topic, vec![message])
                    .await
                    .map(drop)
            }
            Target::Http {
                uri,
                method,
                headers,
                body,
                identity,
            } => {
                let request = request(job, of, uri, method, headers, body)?;
                let response = self
                    .0
                    .deps
                    .caller
                    .call(request, identity.clone(), job.deadline)
                    .await;
                match response {
                    Ok(response) if response.status().is_success() => Ok(()),
                    Ok(response) => Err(Status::new(
                        code_of(response.status().as_u16()),
                        format!("{uri} answered {}.", response.status()),
                    )),
                    Err(CallError::TimedOut(time)) => Err(Status::new(
                        Code::DeadlineExceeded,
                        format!("{uri} did not answer within {} s.", time.as_secs()),
                    )),
                    Err(error) => Err(Status::new(Code::Unavailable, format!("{error}."))),
                }
            }
        }
    }

    async fn put(&self, job: &Job) -> Result<(), Status> {
        let key = Job::at(&job.name);
        let txn = Txn::new()
            .require(Condition::Exists(key.clone()))
            .put(key, job.body());
        self.write(txn, Code::NotFound, &job.name).await
    }

    async fn write(&self, txn: Txn, conflict: Code, name: &JobName) -> Result<(), Status> {
        match self.0.deps.store.write(txn).await {
            Ok(_) => Ok(()),
            Err(WriteError::Conflict { .. }) if conflict == Code::AlreadyExists => {
                Err(exists(name))
            }
            Err(WriteError::Conflict { .. }) => Err(not_found(name)),
            Err(error) => Err(Status::new(
                Code::Unavailable,
                format!("It could not be stored: {error}. Try again."),
            )),
        }
    }

    // --- The door.

    /// Makes a job.
    ///
    /// # Errors
    /// When something is wrong with it, its topic is not there, or there is one of that name.
    pub async fn create(&self, mut job: Job) -> Result<Job, Status> {
        let now = self.now();
        job.check(now)?;
        self.check_topic(&job)?;
        let _admin = self.0.admin.lock().await;
        if self.table().jobs.contains_key(&job.name) {
            return Err(exists(&job.name));
        }
        job.paused = false;
        job.updated = now;
        job.last = None;
        job.next = job.due_after(now);
        let create = Txn::create(Job::at(&job.name), job.body());
        self.write(create, Code::AlreadyExists, &job.name).await?;
        let mut table = self.table();
        let entry = Entry {
            job: Arc::new(job.clone()),
            due: None,
            run: None,
        };
        table.jobs.insert(job.name.clone(), entry);
        table.schedule(&job.name, job.next);
        drop(table);
        self.0.earlier.notify_one();
        Ok(job)
    }

    fn check_topic(&self, job: &Job) -> Result<(), Status> {
        match &job.target {
            Target::PubSub { topic, .. } => self.0.deps.pubsub.topic(topic).map(drop),
            Target::Http { .. } => Ok(()),
        }
    }

    /// The job of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, name: &JobName) -> Result<Job, Status> {
        let table = self.table();
        let entry = table.jobs.get(name).ok_or_else(|| not_found(name))?;
        Ok((*entry.job).clone())
    }

    /// A region's jobs, by name.
    ///
    /// # Errors
    /// When the token is none.
    pub fn list(
        &self,
        project: &str,
        location: &str,
        size: usize,
        token: &str,
    ) -> Result<Page<Job>, Status> {
        let table = self.table();
        let of_region = table
            .jobs
            .values()
            .map(|entry| &*entry.job)
            .filter(|job| job.name.project == project && job.name.location == location);
        Ok(Page::of(
            of_region,
            |job| &job.name.id,
            page_size(size, MAX_PAGE),
            token,
        ))
    }

    /// Changes a job: `change` is given what there is. A run under way is not disturbed.
    ///
    /// # Errors
    /// When there is none, or something is wrong with what it becomes.
    pub async fn update(
        &self,
        name: &JobName,
        change: impl FnOnce(&mut Job) -> Result<(), Status>,
    ) -> Result<Job, Status> {
        let _admin = self.0.admin.lock().await;
        let now = self.now();
        let mut job = self.get(name)?;
        change(&mut job)?;
        job.check(now)?;
        self.check_topic(&job)?;
        job.updated = now;
        let running = {
            let table = self.table();
            table.jobs.get(name).and_then(|entry| entry.run)
        };
        if running.is_none() {
            job.next = if job.paused { None } else { job.due_after(now) };
        }
        self.put(&job).await?;
        let mut table = self.table();
        if let Some(entry) = table.jobs.get_mut(name) {
            entry.job = Arc::new(job.clone());
        }
        if running.is_none() {
            table.schedule(name, job.next);
        }
        drop(table);
        self.0.earlier.notify_one();
        Ok(job)
    }

    /// Holds a job, or lets it go on.
    ///
    /// # Errors
    /// When there is none.
    pub async fn set_paused(&self, name: &JobName, paused: bool) -> Result<Job, Status> {
        let changed = self.update(name, |job| {
            job.paused = paused;
            Ok(())
        });
        changed.await
    }

    /// Runs a job now, besides its schedule, paused or not. One that is running is run again when its attempt
    /// is over; one that waits for its next attempt does not wait any longer.
    ///
    /// # Errors
    /// When there is none.
    pub async fn run_now(&self, name: &JobName) -> Result<Job, Status> {
        let _admin = self.0.admin.lock().await;
        let mut job = self.get(name)?;
        let (running, waits) = {
            let table = self.table();
            let entry = table.jobs.get(name);
            entry.map_or((false, false), |entry| {
                (entry.run.is_some(), entry.due.is_some())
            })
        };
        if running && !waits {
            job.again = job.again.saturating_add(1);
            self.put(&job).await?;
            // The attempt may have ended, but nothing is put down of it before this is over.
            if let Some(entry) = self.table().jobs.get_mut(name) {
                entry.job = Arc::new(job.clone());
            }
            return Ok(job);
        }
        if running {
            self.table().schedule(name, Some(self.now()));
            self.0.earlier.notify_one();
            return Ok(job);
        }
        // Stored first: whoever was told that it runs must not find that a restart has forgotten it.
        job.next = Some(self.now());
        self.put(&job).await?;
        let mut table = self.table();
        if let Some(entry) = table.jobs.get_mut(name) {
            entry.job = Arc::new(job.clone());
        }
        table.schedule(name, job.next);
        drop(table);
        self.0.earlier.notify_one();
        Ok(job)
    }

    /// Deletes a job. A run under way ends as it ends.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete(&self, name: &JobName) -> Result<(), Status> {
        let _admin = self.0.admin.lock().await;
        self.get(name)?;
        let delete = Txn::new().delete(Job::at(name));
        self.write(delete, Code::NotFound, name).await?;
        self.table().remove(name);
        Ok(())
    }
}

fn not_found(name: &JobName) -> Status {
    Status::not_found("Job", name)
}

fn exists(name: &JobName) -> Status {
    Status::new(Code::AlreadyExists, format!("Job '{name}' already exists."))
}

/// The request of a job, for one of its times.
fn request(
    job: &Job,
    of: Timestamp,
    uri: &str,
    method: &str,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> Result<Request<Bytes>, Status> {
    let wrong = |error: http::Error| Status::new(Code::InvalidArgument, error.to_string());
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .body(Bytes::copy_from_slice(body))
        .map_err(wrong)?;
    let all = request.headers_mut();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            all.insert(name, value);
        }
    }
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            all.insert(name, value);
        }
    };
    set(header::USER_AGENT, "Google-Cloud-Scheduler");
    set(HeaderName::from_static("x-cloudscheduler"), "true");
    set(
        HeaderName::from_static("x-cloudscheduler-jobname"),
        &job.name.id,
    );
    set(
        HeaderName::from_static("x-cloudscheduler-scheduletime"),
        &of.to_string(),
    );
    if !body.is_empty() && !request.headers().contains_key(header::CONTENT_TYPE) {
        let octets = HeaderValue::from_static("application/octet-stream");
        request.headers_mut().insert(header::CONTENT_TYPE, octets);
    }
    Ok(request)
}
