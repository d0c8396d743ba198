//! `kill -9` while messages are published, pulled and acknowledged: nothing that was acknowledged to a
//! publisher is lost, nothing that was acknowledged by a subscriber comes again, order holds.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use lauf_events::pubsub::{Deps, Message, PubSub, Subscription};
use lauf_events::{CallError, Caller, Identity};
use lauf_model::{Clock, Code, SystemClock};
use lauf_store::Store;

use crate::support::{a_subscription, a_topic, open_log, text};

const DIR: &str = "LAUF_PUBSUB_CRASH_TEST_DIR";
const KEYS: u32 = 3;
const ROUNDS: i64 = 10;

struct Nobody;

#[async_trait]
impl Caller for Nobody {
    async fn call(
        &self,
        _: Request<Bytes>,
        _: Option<Identity>,
        _: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        Err(CallError::Unreachable("nobody".to_owned()))
    }
}

async fn open(dir: &Path, hours: i64) -> PubSub {
    let ahead = jiff::SignedDuration::from_hours(hours);
    let clock: Arc<dyn Clock> = Arc::new(Ahead(SystemClock::new(), ahead));
    let deps = Deps {
        log: Arc::new(open_log(dir, Arc::clone(&clock))),
        store: Store::open(dir.join("state.db")).unwrap(),
        clock,
        caller: Arc::new(Nobody),
    };
    PubSub::start(deps).await.unwrap()
}

fn subscription(topic: &lauf_events::pubsub::TopicName) -> Subscription {
    let mut spec = a_subscription("work", topic);
    spec.exactly_once = true;
    spec.ordered = true;
    spec
}

/// Not a test of its own: the process that is killed below. One task publishes numbered messages of
/// some keys; another takes them from a stream and acknowledges them, one in seven only after having
/// given it back once. Each says what it has been told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as the child of kill_9_neither_loses_nor_repeats"]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let round = std::env::var("ROUND").unwrap().parse().unwrap();
    let pubsub = open(Path::new(&dir), round).await;
    let topic = a_topic("orders").name;
    match pubsub.create_topic(a_topic("orders")).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.code, Code::AlreadyExists),
    }
    let spec = subscription(&topic);
    let name = spec.name.clone();
    match pubsub.create_subscription(spec).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.code, Code::AlreadyExists),
    }
    let publisher = {
        let pubsub = pubsub.clone();
        let begin = std::env::var("BEGIN").unwrap().parse::<u64>().unwrap();
        tokio::spawn(async move {
            for number in begin.. {
                let messages: Vec<Message> = (0..KEYS)
                    .map(|key| Message {
                        ordering_key: key.to_string(),
                        ..text(&format!("{key} {number}"))
                    })
                    .collect();
                pubsub.publish(&topic, messages).await.unwrap();
                println!("published {number}");
            }
        })
    };
    let deadline = Duration::from_secs(600);
    let mut stream = pubsub.subscribe(&name, 50, 0, deadline).await.unwrap();
    let mut given_back = BTreeSet::new();
    while let Some(Ok(messages)) = stream.next().await {
        for one in messages {
            let words = String::from_utf8(one.message.message.data.to_vec()).unwrap();
            let number: u64 = words.split_once(' ').unwrap().1.parse().unwrap();
            println!("got {words}");
            let ids = [one.ack_id.clone()];
            if number % 7 == 3 && given_back.insert(words.clone()) {
                let zero = [Duration::ZERO];
                pubsub
                    .modify_ack_deadline(&name, &ids, &zero)
                    .await
                    .unwrap();
                continue;
            }
            println!("acking {words}");
            let refused = pubsub.acknowledge(&name, &ids).await.unwrap();
            if refused.is_empty() {
                println!("acked {words}");
            }
        }
    }
    publisher.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_neither_loses_nor_repeats() {
    let dir = tempfile::tempdir().unwrap();
    let mut begin = 0;
    let mut published: BTreeSet<u64> = BTreeSet::new();
    let mut acked: BTreeSet<String> = BTreeSet::new();
    // Acknowledged, perhaps: the answer was not seen.
    let mut uncertain: BTreeSet<String> = BTreeSet::new();
    let mut last_acked: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env("BEGIN", begin.to_string())
            .env("ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        let mut killed = false;
        while let Some(Ok(line)) = lines.next() {
            let Some((word, rest)) = line.split_once(' ') else {
                continue;
            };
            match word {
                "published" => _ = published.insert(rest.parse().unwrap()),
                "got" => assert!(!acked.contains(rest), "round {round}: {rest} came again"),
                "acking" => _ = uncertain.insert(rest.to_owned()),
                "acked" => {
                    uncertain.remove(rest);
                    acked.insert(rest.to_owned());
                    let (key, number) = rest.split_once(' ').unwrap();
                    let number = number.parse().unwrap();
                    let before = last_acked.insert(key.to_owned(), number);
                    assert!(
                        before < Some(number),
                        "round {round}: {rest} after {before:?}"
                    );
                    seen += 1;
                }
                _ => {}
            }
            if seen > 10 + 31 * round && !killed {
                killed = true;
                // SIGKILL. What it still said before it died counts as well.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        // A publish that was not acknowledged may have happened: its number is not used again.
        begin = published.last().map_or(0, |last| last + 2);
    }

    // Everything that was published and not acknowledged is still there, in order of its key.
    let pubsub = open(dir.path(), ROUNDS).await;
    let name = subscription(&a_topic("orders").name).name;
    let mut left: BTreeSet<String> = published
        .iter()
        .flat_map(|number| (0..KEYS).map(move |key| format!("{key} {number}")))
        .filter(|words| !acked.contains(words) && !uncertain.contains(words))
        .collect();
    while !left.is_empty() {
        let got = pubsub.pull(&name, 1_000, true).await.unwrap();
        assert!(
            !got.is_empty(),
            "{} messages are lost, such as {:?}",
            left.len(),
            left.first()
        );
        for one in got {
            let words = String::from_utf8(one.message.message.data.to_vec()).unwrap();
            assert!(!acked.contains(&words), "{words} came again");
            let (key, number) = words.split_once(' ').unwrap();
            let number = number.parse().unwrap();
            let before = last_acked.insert(key.to_owned(), number);
            assert!(before < Some(number), "{words} after {before:?}");
            let refused = pubsub.acknowledge(&name, &[one.ack_id]).await.unwrap();
            assert!(refused.is_empty());
            left.remove(&words);
        }
    }
}

/// The machine's clock, some hours ahead: the leases of a process that was killed are in force until
/// their deadline, which the clock of the next one is past.
struct Ahead(SystemClock, jiff::SignedDuration);

impl Clock for Ahead {
    fn now(&self) -> jiff::Timestamp {
        self.0.now() + self.1
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}
