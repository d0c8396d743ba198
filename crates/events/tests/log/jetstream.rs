//! The log on NATS JetStream keeps the laws, whoever dies: the server, or a process that writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lauf_events::log::{
    ConnectError, JetStreamConfig, JetStreamLog, LogError, MAX_APPEND_BYTES, MessageLog, Position,
};
use lauf_model::SystemClock;

use crate::laws::{self, Place, bodies, read_all};
use crate::nats::Nats;

pub(crate) async fn connect(config: &JetStreamConfig) -> JetStreamLog {
    let clock = Arc::new(SystemClock::new());
    JetStreamLog::connect(config, clock).await.unwrap()
}

fn of(nats: &Nats, owner: &str) -> JetStreamConfig {
    JetStreamConfig::new(nats.url(), owner)
}

struct Owned {
    config: JetStreamConfig,
    log: Option<JetStreamLog>,
}

#[async_trait]
impl Place for Owned {
    async fn open(&mut self) -> Arc<dyn MessageLog> {
        if let Some(log) = self.log.take() {
            log.close().await;
            let closed = log.append("order", bodies(&["x"]));
            assert!(matches!(closed, Err(LogError::Closed)));
        }
        let log = connect(&self.config).await;
        self.log = Some(log.clone());
        Arc::new(log)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_laws_hold() {
    let Some(nats) = Nats::start() else { return };
    let mut place = Owned {
        config: of(&nats, "laws"),
        log: None,
    };
    laws::all(&mut place).await;
}

/// The server dies again and again while four writers go on. Nobody but the server is disturbed: each
/// append is answered, and is there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_loses_and_doubles_nothing() {
    let Some(mut nats) = Nats::start() else {
        return;
    };
    let config = JetStreamConfig {
        patience: Duration::from_secs(120),
        ..of(&nats, "server")
    };
    let log = Arc::new(connect(&config).await);
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (log, done) = (Arc::clone(&log), Arc::clone(&done));
            tokio::spawn(async move {
                let stream = format!("writer-{writer}");
                log.create(&stream).await.unwrap();
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    // Some wait at the same time, one of them too large for one message.
                    let receipts: Vec<_> = (0..3)
                        .map(|_| {
                            let size = if number % 50 == 49 { 2_500_000 } else { 100 };
                            let mut body = format!("{number} ").into_bytes();
                            body.resize(size, b'.');
                            number += 1;
                            log.append(&stream, vec![Bytes::from(body)]).unwrap()
                        })
                        .collect();
                    for receipt in receipts {
                        receipt.await.unwrap();
                    }
                }
                number
            })
        })
        .collect();
    for pause in [120, 340, 80, 510, 230] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        nats.kill();
        nats.run();
    }
    done.store(true, Ordering::Relaxed);
    for (writer, numbers) in writers.into_iter().enumerate() {
        let numbers = numbers.await.unwrap();
        let found = read_all(&*log, &format!("writer-{writer}"), Position(0)).await;
        let said: Vec<usize> = found
            .iter()
            .map(|record| {
                let text = record.body.split(|byte| *byte == b' ').next().unwrap();
                String::from_utf8_lossy(text).parse().unwrap()
            })
            .collect();
        assert!(
            said == (0..numbers).collect::<Vec<_>>(),
            "writer {writer}: {numbers} were appended, and there are {said:?}"
        );
        assert!(found.windows(2).all(|pair| pair[0].time <= pair[1].time));
    }
    log.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_away_is_told_of_and_later_all_goes_on() {
    let Some(mut nats) = Nats::start() else {
        return;
    };
    let config = JetStreamConfig {
        patience: Duration::from_millis(600),
        ..of(&nats, "away")
    };
    let log = connect(&config).await;
    log.create("s").await.unwrap();
    log.append("s", bodies(&["before"])).unwrap().await.unwrap();
    nats.kill();
    let lost = log.append("s", bodies(&["lost"])).unwrap().await;
    assert!(matches!(lost, Err(LogError::Failed(_))), "{lost:?}");

    nats.run();
    let mut tries = 200;
    while let Err(error) = log.append("s", bodies(&["after"])).unwrap().await {
        assert!(matches!(error, LogError::Failed(_)), "{error}");
        tries -= 1;
        assert!(tries > 0, "it never goes on: {error}");
    }
    let found = read_all(&log, "s", Position(0)).await;
    assert_eq!(found.first().unwrap().body, "before");
    assert_eq!(found.last().unwrap().body, "after");

    nats.kill();
    let clock = Arc::new(SystemClock::new());
    let refused = JetStreamLog::connect(&config, clock).await.map(drop);
    assert!(matches!(&refused, Err(ConnectError::Unreachable(_))));
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("127.0.0.1:"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_write_the_first_is_told() {
    let Some(nats) = Nats::start() else { return };
    let config = of(&nats, "twice");
    let first = connect(&config).await;
    first.create("s").await.unwrap();
    first.append("s", bodies(&["a"])).unwrap().await.unwrap();
    let second = connect(&config).await;
    second.append("s", bodies(&["b"])).unwrap().await.unwrap();
    let refused = first.append("s", bodies(&["c"])).unwrap().await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("another Lauf writes"), "{said}");
    second.append("s", bodies(&["d"])).unwrap().await.unwrap();
    let found = read_all(&second, "s", Position(0)).await;
    let found: Vec<_> = found.into_iter().map(|record| record.body).collect();
    assert_eq!(found, bodies(&["a", "b", "d"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_share_a_server_and_see_only_their_own() {
    let Some(nats) = Nats::start() else { return };
    let left = connect(&of(&nats, "left")).await;
    let right = connect(&of(&nats, "right")).await;
    left.create("s").await.unwrap();
    right.create("s").await.unwrap();
    right.create("t").await.unwrap();
    left.append("s", bodies(&["left"])).unwrap().await.unwrap();
    assert_eq!(left.streams().await.unwrap(), ["s"]);
    assert_eq!(
        connect(&of(&nats, "right")).await.streams().await.unwrap(),
        ["s", "t"]
    );
    assert!(read_all(&right, "s", Position(0)).await.is_empty());
    right.delete("s").await.unwrap();
    assert_eq!(read_all(&left, "s", Position(0)).await.len(), 1);

    let clock = Arc::new(SystemClock::new());
    let refused = JetStreamLog::connect(&of(&nats, "a.*"), clock).await;
    assert!(matches!(refused.map(drop), Err(ConnectError::Invalid(_))));
}

/// What waits is bounded: beyond it an append is refused at once, and there is room again later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_so() {
    let Some(mut nats) = Nats::start() else {
        return;
    };
    let config = JetStreamConfig {
        queue_bytes: 4 << 20,
        patience: Duration::from_secs(120),
        ..of(&nats, "full")
    };
    let log = connect(&config).await;
    log.create("s").await.unwrap();
    nats.kill();
    let megabyte = vec![Bytes::from(vec![b'x'; 1 << 20])];
    let mut waiting = Vec::new();
    let full = loop {
        match log.append("s", megabyte.clone()) {
            Ok(receipt) => waiting.push(receipt),
            Err(error) => break error,
        }
    };
    assert_eq!((full, waiting.len()), (LogError::Full, 3));
    nats.run();
    for receipt in waiting {
        receipt.await.unwrap();
    }
    // One that is larger than the queue gets its turn when it is alone.
    let large = vec![Bytes::from(vec![b'y'; MAX_APPEND_BYTES])];
    log.append("s", large).unwrap().await.unwrap();
    assert_eq!(read_all(&log, "s", Position(0)).await.len(), 4);
}
