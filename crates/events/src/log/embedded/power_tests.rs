//! Loss of power: of the segments only that is certain which was synced before the oldest journal
//! file was begun. Whatever else they held is lost, torn or noise, and must come from the journal.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use lauf_model::SystemClock;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::super::{Limit, MessageLog as _, Position};
use super::files::{Folder, numbered};
use super::frame::Row;
use super::{EmbeddedConfig, EmbeddedLog, recover};

fn open(dir: &Path) -> EmbeddedLog {
    let config = EmbeddedConfig {
        segment_bytes: 2_000,
        journal_bytes: 64 << 10,
        journal_files: 3,
        ..EmbeddedConfig::default()
    };
    EmbeddedLog::open(dir, &config, Arc::new(SystemClock::new())).unwrap()
}

fn body(stream: u32, number: usize) -> Bytes {
    let mut text = format!("{stream} {number} ").into_bytes();
    text.resize(300, b'.');
    Bytes::from(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_of_power_loses_nothing_acknowledged() {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut hurt = 0;
    for round in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        // So much, in some rounds, that journal files are used again.
        for _ in 0..below(&mut random, 300) {
            let stream = random.next_u32() % 3;
            let name = format!("s{stream}");
            let number = counts.entry(stream).or_default();
            if *number == 0 {
                log.create(&name).await.unwrap();
            }
            if below(&mut random, 40) == 0 {
                log.delete(&name).await.unwrap();
                *number = 0;
                continue;
            }
            let count = 1 + below(&mut random, 5);
            let batch = (0..count).map(|n| body(stream, *number + n)).collect();
            log.append(&name, batch).unwrap().await.unwrap();
            *number += count;
        }
        // The writer has nothing to do now: the copy is of one moment.
        let frozen = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), frozen.path());
        log.close().await;
        hurt += lose_power(frozen.path(), &mut random);

        let log = open(frozen.path());
        counts.retain(|_, number| *number > 0);
        let names: Vec<_> = counts.keys().map(|stream| format!("s{stream}")).collect();
        assert_eq!(log.streams().await.unwrap(), names, "round {round}");
        for (stream, number) in counts {
            let limit = Limit {
                records: usize::MAX,
                bytes: usize::MAX,
            };
            let found = log.read(&format!("s{stream}"), Position(0), limit).await;
            let found = found.unwrap().records.into_iter().map(|r| r.body);
            let wanted: Vec<_> = (0..number).map(|n| body(stream, n)).collect();
            assert!(
                found.eq(wanted),
                "round {round}: stream {stream} is another"
            );
        }
        log.close().await;
    }
    assert!(hurt > 100, "only {hurt} segments were hurt");
}

fn below(random: &mut TestRng, end: u32) -> usize {
    usize::try_from(random.next_u32() % end).unwrap()
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            // The syncing thread may just have made it spare.
            let _ = fs::copy(entry.path(), target);
        }
    }
}

/// Does to the segments the worst that can happen. Says how many were hurt.
fn lose_power(dir: &Path, random: &mut TestRng) -> usize {
    let folder = Folder::new(dir);
    let oldest = numbered(&folder.journal_dir(), "journal")
        .unwrap()
        .first()
        .copied();
    let Some(oldest) = oldest else {
        return 0;
    };
    let table = recover::table(&folder, oldest).unwrap().unwrap();
    let certain: HashMap<u64, Row> = table.streams.into_iter().map(|row| (row.id, row)).collect();
    let mut hurt = 0;
    for id in numbered(&folder.streams_dir(), "").unwrap() {
        for base in numbered(&folder.stream_dir(id), "seg").unwrap() {
            let path = folder.segment(id, Position(base));
            let length = fs::metadata(&path).unwrap().len();
            let kept = match certain.get(&id) {
                Some(row) if row.length > 0 && base < row.base => length,
                Some(row) if row.length > 0 && base == row.base => row.length,
                _ => 0,
            };
            if kept == length {
                continue;
            }
            hurt += 1;
            let mut bytes = fs::read(&path).unwrap();
            let kept = usize::try_from(kept).unwrap();
            let at = kept + usize::try_from(random.next_u64() % (length - kept as u64)).unwrap();
            match random.next_u32() % 4 {
                0 if kept == 0 => {
                    fs::remove_file(&path).unwrap();
                    continue;
                }
                0 | 1 => bytes.truncate(at),
                2 => bytes[at..].fill(0),
                _ => random.fill_bytes(&mut bytes[at..]),
            }
            fs::write(&path, bytes).unwrap();
        }
    }
    hurt
}
