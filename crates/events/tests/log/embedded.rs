//! The embedded log keeps the laws, and does what a plain list does, whatever is asked of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use lauf_events::log::{
    EmbeddedConfig, EmbeddedLog, Limit, LogError, MessageLog, OpenError, Position,
};
use lauf_model::{SystemClock, VirtualClock};
use proptest::prelude::*;

use crate::laws::{self, Place, bodies, read_all};

/// Segments and journal files so small that every test goes over many of them.
pub(crate) fn small() -> EmbeddedConfig {
    EmbeddedConfig {
        segment_bytes: 2_000,
        journal_bytes: 64 << 10,
        journal_files: 3,
        ..EmbeddedConfig::default()
    }
}

pub(crate) fn open(dir: &Path, config: &EmbeddedConfig) -> EmbeddedLog {
    let mut tries = 1_000;
    loop {
        match EmbeddedLog::open(dir, config, Arc::new(SystemClock::new())) {
            // A child that another test starts has the lock too, between its fork and its exec.
            Err(OpenError::InUse(_)) if tries > 0 => {
                tries -= 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            other => return other.unwrap(),
        }
    }
}

struct Folder {
    dir: tempfile::TempDir,
    log: Option<EmbeddedLog>,
    config: EmbeddedConfig,
}

#[async_trait]
impl Place for Folder {
    async fn open(&mut self) -> Arc<dyn MessageLog> {
        if let Some(log) = self.log.take() {
            log.close().await;
        }
        let log = open(self.dir.path(), &self.config);
        self.log = Some(log.clone());
        Arc::new(log)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_laws_hold() {
    let config = EmbeddedConfig {
        segment_bytes: 20_000,
        ..EmbeddedConfig::default()
    };
    let mut place = Folder {
        dir: tempfile::tempdir().unwrap(),
        log: None,
        config,
    };
    laws::all(&mut place).await;
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    let second = EmbeddedLog::open(dir.path(), &small(), Arc::new(SystemClock::new()));
    assert!(matches!(second, Err(OpenError::InUse(_))));
    log.close().await;
    assert_eq!(log.create("x").await, Err(LogError::Closed));
    open(dir.path(), &small()).close().await;
}

#[tokio::test]
async fn a_clock_that_goes_back_takes_no_time_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    log.create("s").await.unwrap();
    let real = log.append("s", bodies(&["x"])).unwrap().await.unwrap();
    log.close().await;
    // A virtual clock stands at 1970.
    let clock = Arc::new(VirtualClock::new());
    let log = EmbeddedLog::open(dir.path(), &small(), clock).unwrap();
    let early = log.append("s", bodies(&["y"])).unwrap().await.unwrap();
    assert_eq!(early.time, real.time);
    log.close().await;
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig {
        queue_bytes: 1 << 20,
        ..EmbeddedConfig::default()
    };
    let log = open(dir.path(), &config);
    log.create("s").await.unwrap();
    let body = Bytes::from(vec![0; 400_000]);
    let mut receipts = Vec::new();
    let refused = loop {
        match log.append("s", vec![body.clone()]) {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, LogError::Full);
    for receipt in receipts {
        receipt.await.unwrap();
    }
    log.append("s", vec![body]).unwrap().await.unwrap();
    log.close().await;
}

#[tokio::test]
async fn a_damaged_record_is_an_error_and_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), &small());
    log.create("s").await.unwrap();
    log.append("s", bodies(&["one", "two"]))
        .unwrap()
        .await
        .unwrap();
    log.close().await;
    let streams = dir.path().join("streams");
    let stream = std::fs::read_dir(&streams)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    let segment = std::fs::read_dir(stream.path()).unwrap().next().unwrap();
    let segment = segment.unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&segment, bytes).unwrap();

    let log = open(dir.path(), &small());
    let limit = Limit {
        records: 10,
        bytes: 100,
    };
    let read = log.read("s", Position(0), limit).await;
    assert!(matches!(read, Err(LogError::Failed(text)) if text.contains("damaged")));
    log.close().await;
}

#[derive(Clone, Debug)]
enum Act {
    Create(u8),
    Delete(u8),
    Append(u8, Vec<usize>),
    Trim(u8, prop::sample::Index),
    Read(u8, prop::sample::Index, usize, usize),
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let stream = 0..3_u8;
    let act = prop_oneof![
        1 => stream.clone().prop_map(Act::Create),
        1 => stream.clone().prop_map(Act::Delete),
        12 => (stream.clone(), prop::collection::vec(0..900_usize, 1..9))
            .prop_map(|(s, sizes)| Act::Append(s, sizes)),
        2 => (stream.clone(), any::<prop::sample::Index>()).prop_map(|(s, at)| Act::Trim(s, at)),
        4 => (stream, any::<prop::sample::Index>(), 1..9_usize, 0..3_000_usize)
            .prop_map(|(s, at, records, bytes)| Act::Read(s, at, records, bytes)),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn it_does_what_lists_do(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(compare(acts));
    }
}

/// Does the same to a log and to plain lists.
async fn compare(acts: Vec<Act>) {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), &small());
    let mut lists: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
    let mut trimmed: BTreeMap<String, Position> = BTreeMap::new();
    let mut counter = 0_u32;
    for act in acts {
        match act {
            Act::Create(s) => {
                log.create(&format!("s{s}")).await.unwrap();
                lists.entry(format!("s{s}")).or_default();
            }
            Act::Delete(s) => {
                log.delete(&format!("s{s}")).await.unwrap();
                lists.remove(&format!("s{s}"));
                trimmed.remove(&format!("s{s}"));
            }
            Act::Append(s, sizes) => {
                let name = format!("s{s}");
                let records: Vec<Bytes> = sizes
                    .into_iter()
                    .map(|size| {
                        counter += 1;
                        Bytes::from(counter.to_string().repeat(1 + size / 4))
                    })
                    .collect();
                let receipt = log.append(&name, records.clone());
                let Some(list) = lists.get_mut(&name) else {
                    assert_eq!(receipt.map(drop), Err(LogError::NoStream(name)));
                    continue;
                };
                let appended = receipt.unwrap().await.unwrap();
                assert_eq!(appended.first, Position(list.len() as u64));
                list.extend(records);
            }
            Act::Trim(s, at) => {
                let name = format!("s{s}");
                if let Some(list) = lists.get(&name) {
                    let before = Position(at.index(list.len() + 1) as u64);
                    log.trim(&name, before).await.unwrap();
                    // The furthest that was ever allowed counts.
                    let furthest = trimmed.entry(name.clone()).or_default();
                    *furthest = before.max(*furthest);
                    assert!(log.extent(&name).await.unwrap().first <= *furthest);
                }
            }
            Act::Read(s, at, records, bytes) => {
                let name = format!("s{s}");
                let Some(list) = lists.get(&name) else {
                    continue;
                };
                let from = Position(at.index(list.len() + 1) as u64);
                let from = from.max(log.extent(&name).await.unwrap().first);
                let limit = Limit { records, bytes };
                let chunk = log.read(&name, from, limit).await.unwrap();
                let begin = usize::try_from(from.0).unwrap();
                let found: Vec<_> = chunk.records.into_iter().map(|r| r.body).collect();
                assert_eq!(found, list[begin..begin + found.len()]);
                assert_eq!(chunk.next, from.plus(found.len() as u64));
                let size: usize = found.iter().map(Bytes::len).sum();
                assert!(found.len() <= records && (size <= bytes || found.len() == 1));
                assert_eq!(found.is_empty(), begin == list.len());
            }
            Act::Reopen => {
                log.close().await;
                log = open(dir.path(), &small());
            }
        }
    }
    assert!(log.streams().await.unwrap().iter().eq(lists.keys()));
    for (name, list) in &lists {
        let found = read_all(&log, name, Position(0)).await;
        assert!(found.windows(2).all(|pair| pair[0].time <= pair[1].time));
        let first = log.extent(name).await.unwrap().first;
        let first = usize::try_from(first.0).unwrap();
        let found: Vec<_> = found.into_iter().map(|r| r.body).collect();
        assert_eq!(found, list[first..]);
    }
    log.close().await;
}
