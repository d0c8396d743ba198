//! The process that is killed: Pub/Sub, Tasks and Scheduler on a log and a store, and those who use
//! them, who say what they do in lines that [`history`](crate::history) reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use jiff::{SignedDuration, Timestamp};
use lauf_events::log::{EmbeddedConfig, EmbeddedLog, JetStreamConfig, JetStreamLog, MessageLog};
use lauf_events::pubsub::{
    Delivered, Message, PubSub, Push, Subscription, SubscriptionName, Topic, TopicName,
};
use lauf_events::scheduler::{Job, JobName, Retries, Scheduler, Target};
use lauf_events::tasks::{HttpRequest, Limits, Queue, QueueName, Task, Tasks};
use lauf_events::{Backoff, CallError, Caller, Identity, pubsub, scheduler, tasks};
use lauf_model::{Clock, Code, Status, SystemClock};
use lauf_store::Store;
use oorandom::Rand32;
use tokio::sync::Semaphore;

/// The folder that it works in.
pub(crate) const DIR: &str = "LAUF_FAULTS_DIR";
/// The NATS server that its messages are on, if they are not in the folder.
pub(crate) const NATS: &str = "LAUF_FAULTS_NATS";
/// How many processes there were before it, its first number, its seed, and whether it adds anything.
pub(crate) const ROUND: &str = "LAUF_FAULTS_ROUND";
pub(crate) const BEGIN: &str = "LAUF_FAULTS_BEGIN";
pub(crate) const SEED: &str = "LAUF_FAULTS_CHILD_SEED";
pub(crate) const IDLE: &str = "LAUF_FAULTS_IDLE";
/// Before each line of the history; the test harness says things as well.
pub(crate) const MARK: &str = "| ";

/// No lease ends by itself while a process lives; the clock of the next one is past all of them.
const LEASE: Duration = Duration::from_secs(600);
const APART: i64 = 601;
const KEYS: u32 = 5;
/// What may be under way.
const CREDIT: usize = 12;
/// In one of so many cases a message is given back, and an endpoint answers 503.
const REFUSE: u32 = 8;
/// So that the stream of tasks is written anew every some hundred of them.
const TASK_BYTES: usize = 8 << 10;
const JOBS: [&str; 3] = ["minutely-1", "minutely-2", "minutely-3"];
/// A hundredth of a second is too long for a process that lives for ten of them.
const BACKOFF: Backoff = Backoff {
    minimum: Duration::from_millis(1),
    maximum: Duration::from_millis(5),
    doublings: 3,
};

macro_rules! say {
    ($($part:tt)*) => { println!("{MARK}{}", format_args!($($part)*)) };
}

/// The machine's clock, some time ahead.
struct Ahead(SystemClock, SignedDuration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.0.now() + self.1
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

/// Chance, from a seed.
struct Chance(Mutex<Rand32>);

impl Chance {
    fn below(&self, end: u32) -> u32 {
        let mut rand = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rand.rand_range(0..end)
    }

    fn one_in(&self, cases: u32) -> bool {
        self.below(cases) == 0
    }
}

/// Whoever is called: the endpoint of pushes, tasks and jobs. Some calls it refuses.
struct Endpoint {
    chance: Arc<Chance>,
    /// One for each task that is done.
    credit: Arc<Semaphore>,
}

#[async_trait]
impl Caller for Endpoint {
    async fn call(
        &self,
        request: Request<Bytes>,
        _: Option<Identity>,
        _: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        let refuse = self.chance.one_in(REFUSE);
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let (said, well) = match request.uri().path() {
            "/push" => {
                let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
                let data = body["message"]["data"].as_str().unwrap();
                let data = base64::engine::general_purpose::STANDARD.decode(data);
                let words = String::from_utf8(data.unwrap()).unwrap();
                (format!("push {words}"), "acking")
            }
            "/task" => {
                let name = header("x-cloudtasks-taskname");
                (format!("queue {}", name.replace('-', " ")), "acking")
            }
            _ => {
                let time: Timestamp = header("x-cloudscheduler-scheduletime").parse().unwrap();
                let job = header("x-cloudscheduler-jobname");
                say!("ran {job} {}", time.as_microsecond());
                (format!("{job} {}", time.as_microsecond()), "did")
            }
        };
        if well == "acking" {
            say!("got {said}");
        }
        if self.chance.one_in(3) {
            tokio::task::yield_now().await;
        }
        if refuse {
            if well == "acking" {
                say!("nack {said}");
            }
            return Ok(Response::builder().status(503).body(Bytes::new()).unwrap());
        }
        say!("{well} {said}");
        if said.starts_with("queue ") {
            self.credit.add_permits(1);
        }
        Ok(Response::new(Bytes::new()))
    }
}

#[derive(Clone)]
struct House {
    pubsub: PubSub,
    tasks: Tasks,
    scheduler: Scheduler,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
    topic: TopicName,
    queue: QueueName,
    /// One for each message that may be published, and each task that may be added.
    messages: Arc<Semaphore>,
    added: Arc<Semaphore>,
}

async fn open_log(dir: &Path, clock: &Arc<dyn Clock>) -> Arc<dyn MessageLog> {
    let clock = Arc::clone(clock);
    if let Ok(url) = std::env::var(NATS) {
        let config = JetStreamConfig::new(url, "faults");
        return Arc::new(JetStreamLog::connect(&config, clock).await.unwrap());
    }
    let config = EmbeddedConfig {
        segment_bytes: 64 << 10,
        ..EmbeddedConfig::default()
    };
    Arc::new(EmbeddedLog::open(dir.join("events"), &config, clock).unwrap())
}

async fn open(dir: &Path, round: i64, chance: Arc<Chance>) -> House {
    let ahead = SignedDuration::from_secs(round * APART);
    let clock: Arc<dyn Clock> = Arc::new(Ahead(SystemClock::new(), ahead));
    let log = open_log(dir, &clock).await;
    let store = Store::open(dir.join("state.db")).unwrap();
    let added = Arc::new(Semaphore::new(CREDIT));
    let caller = Arc::new(Endpoint {
        chance: Arc::clone(&chance),
        credit: Arc::clone(&added),
    });
    let pubsub = PubSub::start(pubsub::Deps {
        log: Arc::clone(&log),
        store: store.clone(),
        clock: Arc::clone(&clock),
        caller: Arc::clone(&caller) as _,
    });
    let pubsub = pubsub.await.unwrap();
    let tasks = Tasks::start(tasks::Deps {
        log,
        store: store.clone(),
        clock: Arc::clone(&clock),
        caller: Arc::clone(&caller) as _,
    });
    let scheduler = Scheduler::start(scheduler::Deps {
        store,
        clock: Arc::clone(&clock),
        caller,
        pubsub: pubsub.clone(),
    });
    House {
        tasks: tasks.await.unwrap(),
        scheduler: scheduler.await.unwrap(),
        pubsub,
        clock,
        chance,
        topic: TopicName::parse("", "projects/demo/topics/orders").unwrap(),
        queue: QueueName::parse("", "projects/demo/locations/here/queues/work").unwrap(),
        messages: Arc::new(Semaphore::new(CREDIT)),
        added,
    }
}

/// It may be there since an earlier process, whether that one was told so or not.
fn made<T>(result: Result<T, Status>) {
    if let Err(error) = result {
        assert_eq!(error.code, Code::AlreadyExists, "{error}");
    }
}

/// The process. Not a test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as the child of the tests in kills.rs"]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u64>().unwrap();
    let seeded = Rand32::new(number(SEED));
    let chance = Arc::new(Chance(Mutex::new(seeded)));
    println!();
    say!("start");
    let round = i64::try_from(number(ROUND)).unwrap();
    let house = open(Path::new(&dir), round, chance).await;
    house.set_up().await;
    let mut users = tokio::task::JoinSet::new();
    if std::env::var_os(IDLE).is_none() {
        let begin = number(BEGIN);
        users.spawn(house.clone().publish(begin));
        users.spawn(house.clone().add_tasks(begin));
        users.spawn(house.clone().run_jobs(begin));
    }
    for name in ["exact", "plain"] {
        users.spawn(house.clone().pull(name));
    }
    users.spawn(house.clone().stream());
    // None of them ends, unless it fails.
    users.join_next().await.unwrap().unwrap();
}

impl House {
    async fn set_up(&self) {
        let topic = Topic::new(self.topic.clone());
        made(self.pubsub.create_topic(topic).await);
        for (name, rules) in [
            ("exact", "exactly-once ordered"),
            ("stream", "exactly-once"),
            ("plain", ""),
            ("push", "ordered"),
        ] {
            let mut spec = self.subscription(name);
            spec.exactly_once = rules.contains("exactly-once");
            spec.ordered = rules.contains("ordered");
            made(self.pubsub.create_subscription(spec).await);
            say!("{}", format!("rules {name} orders {rules}").trim_end());
        }
        let queue = Queue {
            name: self.queue.clone(),
            uid: String::new(),
            limits: Limits {
                max_attempts: None,
                backoff: BACKOFF,
                ..Limits::default()
            },
            paused: false,
            purged: None,
        };
        made(self.tasks.create_queue(queue).await);
        say!("rules queue tasks exactly-once");
        for name in JOBS {
            self.make_job(name, "* * * * *").await;
        }
    }

    fn subscription(&self, id: &str) -> Subscription {
        Subscription {
            push: (id == "push").then(|| Push::new("http://endpoint/push".to_owned())),
            ack_deadline: LEASE,
            expiration: None,
            ..Subscription::new(subscription_name(id), self.topic.clone())
        }
    }

    async fn make_job(&self, id: &str, schedule: &str) -> JobName {
        let name = format!("projects/demo/locations/here/jobs/{id}");
        let name = JobName::parse("", &name).unwrap();
        if self.scheduler.get(&name).is_ok() {
            // The process that asked for it may not have been told.
            say!("made {id}");
            return name;
        }
        let job = Job {
            name: name.clone(),
            description: String::new(),
            target: Target::Http {
                uri: "http://endpoint/job".to_owned(),
                method: "POST".to_owned(),
                headers: BTreeMap::new(),
                body: Vec::new(),
                identity: None,
            },
            schedule: schedule.to_owned(),
            time_zone: "UTC".to_owned(),
            paused: false,
            retries: Retries {
                count: 5,
                duration: Duration::ZERO,
                backoff: BACKOFF,
            },
            deadline: scheduler::DEFAULT_DEADLINE,
            updated: Timestamp::UNIX_EPOCH,
            next: None,
            last: None,
            again: 0,
        };
        say!("job {id}");
        self.scheduler.create(job).await.unwrap();
        say!("made {id}");
        name
    }

    /// Publishes numbered messages, some keys mixed, as fast as `exact` is done with them.
    async fn publish(self, begin: u64) {
        let mut next = begin;
        loop {
            let count = 1 + self.chance.below(5);
            self.messages.acquire_many(count).await.unwrap().forget();
            let mut words = Vec::new();
            for _ in 0..count {
                words.push((self.chance.below(KEYS).to_string(), next));
                next += 1;
            }
            let mut messages = Vec::new();
            for (key, number) in &words {
                say!("send orders {key} {number}");
                messages.push(Message {
                    data: format!("{key} {number}").into(),
                    ordering_key: key.clone(),
                    attributes: BTreeMap::new(),
                });
            }
            self.pubsub.publish(&self.topic, messages).await.unwrap();
            for (key, number) in words {
                say!("sent orders {key} {number}");
            }
        }
    }

    /// Adds tasks. Some are for later, when there will be another process; of those most are deleted.
    async fn add_tasks(self, begin: u64) {
        for number in begin.. {
            self.added.acquire().await.unwrap().forget();
            let later = self.chance.one_in(4);
            let now = self.clock.now();
            let wait = SignedDuration::from_secs(if later { APART / 2 } else { 0 });
            say!("send tasks t {number}");
            let task = self.tasks.add(&self.queue, a_task(number, now + wait));
            let task = task.await.unwrap();
            say!("sent tasks t {number}");
            if !later {
                continue;
            }
            self.added.add_permits(1);
            if !self.chance.one_in(3) {
                let name = tasks::TaskName {
                    queue: self.queue.clone(),
                    id: task.id,
                };
                say!("acking queue t {number}");
                self.tasks.delete(&name).await.unwrap();
                say!("acked queue t {number}");
            }
        }
    }

    /// Asks for one run of a job that has no other for a long time.
    async fn run_jobs(self, begin: u64) {
        let id = format!("once-{begin}");
        if self.chance.one_in(3) {
            let name = self.make_job(&id, "0 0 29 2 *").await;
            say!("ask {id}");
            self.scheduler.run_now(&name).await.unwrap();
            say!("asked {id}");
        }
        std::future::pending::<()>().await;
    }

    /// Pulls, and says for some messages at a time that they are done.
    async fn pull(self, id: &'static str) {
        let name = subscription_name(id);
        loop {
            let got = self.pubsub.pull(&name, 20, true).await.unwrap();
            for one in &got {
                say!("got {id} {}", words(one));
            }
            let mut given_back = BTreeSet::new();
            let mut done = Vec::new();
            for one in got {
                // Those after one that is given back are taken back with it, where there is an order.
                if given_back.contains(&one.message.message.ordering_key) {
                    continue;
                }
                if self.chance.one_in(REFUSE) {
                    say!("nack {id} {}", words(&one));
                    let zero = [Duration::ZERO];
                    let ids = [one.ack_id.clone()];
                    let refused = self.pubsub.modify_ack_deadline(&name, &ids, &zero).await;
                    assert_eq!(refused.unwrap(), [], "{id}");
                    if id == "exact" {
                        // What is done is done, and what is with us and after it is not.
                        given_back.insert(one.message.message.ordering_key.clone());
                    }
                    continue;
                }
                done.push(one);
                if self.chance.one_in(3) {
                    self.done(id, &name, &mut done).await;
                }
            }
            self.done(id, &name, &mut done).await;
        }
    }

    async fn done(&self, id: &str, name: &SubscriptionName, done: &mut Vec<Delivered>) {
        if done.is_empty() {
            return;
        }
        for one in &*done {
            say!("acking {id} {}", words(one));
        }
        let ids: Vec<String> = done.iter().map(|one| one.ack_id.clone()).collect();
        let refused = self.pubsub.acknowledge(name, &ids).await;
        // No lease ends while this process lives, and no other one has it.
        assert_eq!(refused.unwrap(), [], "{id}");
        for one in done.drain(..) {
            say!("acked {id} {}", words(&one));
            if id == "exact" {
                self.messages.add_permits(1);
            }
        }
    }

    /// Takes messages as they come, each by itself.
    async fn stream(self) {
        let name = subscription_name("stream");
        let stream = self.pubsub.subscribe(&name, 50, 0, LEASE).await;
        let mut stream = stream.unwrap();
        while let Some(messages) = stream.next().await {
            for one in messages.unwrap() {
                let words = words(&one);
                say!("got stream {words}");
                if self.chance.one_in(REFUSE) {
                    say!("nack stream {words}");
                    let zero = [Duration::ZERO];
                    let ids = [one.ack_id];
                    let refused = self.pubsub.modify_ack_deadline(&name, &ids, &zero).await;
                    assert_eq!(refused.unwrap(), [], "stream");
                } else {
                    self.done("stream", &name, &mut vec![one]).await;
                }
            }
        }
    }
}

fn subscription_name(id: &str) -> SubscriptionName {
    SubscriptionName::parse("", &format!("projects/demo/subscriptions/{id}")).unwrap()
}

fn words(one: &Delivered) -> &str {
    std::str::from_utf8(&one.message.message.data).unwrap()
}

fn a_task(number: u64, schedule: Timestamp) -> Task {
    Task {
        id: format!("t-{number}"),
        request: HttpRequest {
            uri: "http://endpoint/task".to_owned(),
            method: "POST".to_owned(),
            headers: BTreeMap::new(),
            body: Bytes::from(vec![0; TASK_BYTES]),
            identity: None,
        },
        schedule,
        created: Timestamp::UNIX_EPOCH,
        deadline: Duration::from_secs(600),
        dispatched: 0,
        answered: 0,
        first: None,
        last: None,
    }
}
