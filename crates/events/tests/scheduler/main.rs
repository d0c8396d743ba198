//! Cloud Scheduler when somebody sets the clock, and when somebody asks for a run at an awkward moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use jiff::{SignedDuration, Timestamp};
use lauf_events::log::{EmbeddedConfig, EmbeddedLog};
use lauf_events::pubsub::{self, PubSub};
use lauf_events::scheduler::{Deps, Job, JobName, Retries, Scheduler, Target};
use lauf_events::{CallError, Caller, Identity};
use lauf_model::{Clock, SystemClock};
use lauf_store::Store;
use tokio::sync::{mpsc, oneshot};

const DAY: i64 = 24 * 3_600;
/// As long as nothing has to happen.
const NOTHING: Duration = Duration::from_millis(300);

/// The machine's clock, which somebody has set.
struct Set(SystemClock, AtomicI64);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        self.0.now() + SignedDuration::from_secs(self.1.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

/// Hands each call to the test, which says how it is answered.
struct Calls(mpsc::UnboundedSender<oneshot::Sender<u16>>);

#[async_trait]
impl Caller for Calls {
    async fn call(
        &self,
        _: Request<Bytes>,
        _: Option<Identity>,
        _: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let (answer, answered) = oneshot::channel();
        let over = || CallError::Unreachable("the test is over".to_owned());
        self.0.send(answer).map_err(|_| over())?;
        let mut response = Response::new(Bytes::new());
        let status = answered.await.map_err(|_| over())?;
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        Ok(response)
    }
}

struct House {
    scheduler: Scheduler,
    clock: Arc<Set>,
    calls: mpsc::UnboundedReceiver<oneshot::Sender<u16>>,
}

impl House {
    async fn open(dir: &Path, ahead: i64) -> Self {
        let clock = Arc::new(Set(SystemClock::new(), AtomicI64::new(ahead)));
        let (calls, called) = mpsc::unbounded_channel();
        let caller = Arc::new(Calls(calls));
        let store = Store::open(dir.join("state.db")).unwrap();
        let files = dir.join("events");
        let log = EmbeddedLog::open(files, &EmbeddedConfig::default(), Arc::clone(&clock) as _);
        let pubsub = PubSub::start(pubsub::Deps {
            log: Arc::new(log.unwrap()),
            store: store.clone(),
            clock: Arc::clone(&clock) as _,
            caller: Arc::clone(&caller) as _,
        });
        let scheduler = Scheduler::start(Deps {
            store,
            clock: Arc::clone(&clock) as _,
            caller,
            pubsub: pubsub.await.unwrap(),
        });
        Self {
            scheduler: scheduler.await.unwrap(),
            clock,
            calls: called,
        }
    }

    /// Sets the clock, and has the scheduler look at it now and not within half a minute.
    async fn set(&self, by: i64) {
        self.clock.1.fetch_add(by, Ordering::Relaxed);
        let other = name("other");
        if self.scheduler.get(&other).is_err() {
            let job = job("other", "0 0 1 1 *", &*self.clock);
            self.scheduler.create(job).await.unwrap();
        } else {
            self.scheduler.set_paused(&other, false).await.unwrap();
        }
    }

    async fn call(&mut self) -> oneshot::Sender<u16> {
        let call = tokio::time::timeout(Duration::from_secs(60), self.calls.recv());
        call.await.expect("nothing is called").unwrap()
    }

    async fn is_quiet(&mut self) {
        let call = tokio::time::timeout(NOTHING, self.calls.recv()).await;
        assert!(call.is_err(), "something is called");
    }

    /// Until the job is as it should be.
    async fn until(&self, job: &JobName, so: impl Fn(&Job) -> bool) -> Job {
        for _ in 0..6_000 {
            let job = self.scheduler.get(job).unwrap();
            if so(&job) {
                return job;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never comes to that: {:?}", self.scheduler.get(job));
    }
}

fn name(id: &str) -> JobName {
    JobName::parse("", &format!("projects/demo/locations/here/jobs/{id}")).unwrap()
}

fn job(id: &str, schedule: &str, clock: &dyn Clock) -> Job {
    Job {
        name: name(id),
        description: String::new(),
        target: Target::Http {
            uri: "http://worker.example/".to_owned(),
            method: "POST".to_owned(),
            headers: BTreeMap::new(),
            body: Vec::new(),
            identity: None,
        },
        schedule: schedule.to_owned(),
        time_zone: "UTC".to_owned(),
        paused: false,
        retries: Retries::default(),
        deadline: Duration::from_secs(180),
        updated: clock.now(),
        next: None,
        last: None,
        again: 0,
    }
}

/// Half a day from now, so that it does not come by itself while the test runs.
fn daily(clock: &dyn Clock) -> String {
    let then = clock.now() + SignedDuration::from_secs(DAY / 2);
    let minute = then.as_second().rem_euclid(DAY) / 60;
    format!("{} {} * * *", minute % 60, minute / 60)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_forward_makes_up_for_what_it_left_out_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut house = House::open(dir.path(), 0).await;
    let nightly = job("nightly", &daily(&*house.clock), &*house.clock);
    house.scheduler.create(nightly).await.unwrap();
    house.set(3 * DAY).await;
    house.call().await.send(200).unwrap();
    let now = house.clock.now();
    let after = house
        .until(&name("nightly"), |job| job.next > Some(now))
        .await;
    let next = after.next.unwrap().duration_since(now);
    assert!(next <= SignedDuration::from_secs(DAY), "{next:?}");
    house.is_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_leaves_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    // A year ahead by mistake, and corrected.
    let mut house = House::open(dir.path(), 365 * DAY).await;
    let nightly = job("nightly", &daily(&*house.clock), &*house.clock);
    house.scheduler.create(nightly).await.unwrap();
    house.set(-365 * DAY).await;
    let soon = house.clock.now() + SignedDuration::from_secs(DAY);
    house
        .until(&name("nightly"), |job| job.next < Some(soon))
        .await;
    house.is_quiet().await;
    house.set(DAY).await;
    house.call().await.send(200).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_back_while_the_server_was_down_leaves_nothing_out() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |n: &str| dir.path().join(n);
    let house = House::open(dir.path(), 365 * DAY).await;
    let nightly = job("nightly", &daily(&*house.clock), &*house.clock);
    house.scheduler.create(nightly).await.unwrap();
    // What a kill at this moment leaves.
    let copy = tempfile::tempdir().unwrap();
    for file in ["state.db", "state.db-wal"] {
        let _ = std::fs::copy(folder(file), copy.path().join(file));
    }
    let house = House::open(copy.path(), 0).await;
    let soon = house.clock.now() + SignedDuration::from_secs(DAY);
    let next = house.scheduler.get(&name("nightly")).unwrap().next;
    assert!(next.is_some_and(|next| next < soon), "{next:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_asked_for_while_another_is_under_way_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut house = House::open(dir.path(), 0).await;
    let nightly = job("nightly", &daily(&*house.clock), &*house.clock);
    house.scheduler.create(nightly).await.unwrap();
    let name = name("nightly");
    house.scheduler.run_now(&name).await.unwrap();
    let first = house.call().await;
    for _ in 0..2 {
        house.scheduler.run_now(&name).await.unwrap();
    }
    house.is_quiet().await;
    first.send(200).unwrap();
    house.call().await.send(200).unwrap();
    house.call().await.send(200).unwrap();
    let now = house.clock.now();
    house
        .until(&name, |job| job.again == 0 && job.next > Some(now))
        .await;
    house.is_quiet().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_asked_for_does_not_wait_for_the_next_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let mut house = House::open(dir.path(), 0).await;
    let mut nightly = job("nightly", &daily(&*house.clock), &*house.clock);
    nightly.retries.count = 3;
    nightly.retries.backoff.minimum = Duration::from_secs(3_600);
    house.scheduler.create(nightly).await.unwrap();
    let name = name("nightly");
    house.scheduler.run_now(&name).await.unwrap();
    house.call().await.send(503).unwrap();
    house
        .until(&name, |job| {
            job.last.as_ref().is_some_and(|last| last.code != 0)
        })
        .await;
    house.is_quiet().await;
    house.scheduler.run_now(&name).await.unwrap();
    house.call().await.send(200).unwrap();
    house
        .until(&name, |job| {
            job.last.as_ref().is_some_and(|last| last.code == 0)
        })
        .await;
}
