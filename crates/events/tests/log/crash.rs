//! What was acknowledged is there after `kill -9`, and nothing is there that was not appended. Loss of
//! power is in `src/log/embedded/power_tests.rs`, which has to know what the disk holds for certain.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use lauf_events::log::{MessageLog, Position};

use crate::embedded::{open, small};
use crate::laws::read_all;

const DIR: &str = "LAUF_EVENTS_CRASH_TEST_DIR";
/// Bodies go on for this long after their number, so that segments and journal files fill up.
const PADDING: usize = 300;

fn body(writer: u32, number: u64) -> Bytes {
    let mut text = format!("{writer} {number} ").into_bytes();
    text.resize(PADDING, b'.');
    Bytes::from(text)
}

/// Reads the numbers of a stream's records; they must count up from 0.
async fn count(log: &dyn MessageLog, writer: u32) -> u64 {
    let stream = format!("writer-{writer}");
    let records = read_all(log, &stream, Position(0)).await;
    for (number, record) in (0..).zip(&records) {
        let wanted = body(writer, number);
        assert!(
            record.body == wanted,
            "{stream}: record {number} is another"
        );
    }
    records.len() as u64
}

/// Not a test of its own: the process that is killed below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as the child of kill_9_loses_nothing_acknowledged"]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let log = Arc::new(open(Path::new(&dir), &small()));
    let writers: Vec<_> = (0..4_u32)
        .map(|writer| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let stream = format!("writer-{writer}");
                log.create(&stream).await.unwrap();
                let mut number = log.extent(&stream).await.unwrap().next.0;
                loop {
                    let batch: Vec<_> = (0..3).map(|n| body(writer, number + n)).collect();
                    log.append(&stream, batch).unwrap().await.unwrap();
                    number += 3;
                    println!("acknowledged {writer} {number}");
                }
            })
        })
        .collect();
    futures_util::future::join_all(writers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: HashMap<u32, u64> = HashMap::new();
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: &str| {
            let mut words = line.strip_prefix("acknowledged ")?.split(' ');
            let writer = words.next()?.parse().ok()?;
            let number = words.next()?.parse().ok()?;
            acknowledged.insert(writer, number);
            Some(())
        };
        let mut seen = 0;
        while seen < 5 + 37 * round {
            let line = lines.next().unwrap().unwrap();
            seen += usize::from(note(&line).is_some());
        }
        // SIGKILL. What it still said before it died counts as well.
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            note(&line);
        }
        child.wait().unwrap();

        let log = open(dir.path(), &small());
        for (writer, number) in &acknowledged {
            let found = count(&log, *writer).await;
            assert!(
                found >= *number,
                "round {round}: {found} of {number} are there"
            );
            assert_eq!(found % 3, 0, "an append was torn apart");
        }
        // Every other time the next process finds what a crash left, not what a close left.
        if round % 2 == 0 {
            log.close().await;
        } else {
            let copy = tempfile::tempdir().unwrap();
            copy_tree(dir.path(), copy.path());
            log.close().await;
            fs::remove_dir_all(dir.path()).unwrap();
            copy_tree(copy.path(), dir.path());
        }
    }
}

/// Copies a folder file by file, as it is at this moment.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let Ok(entries) = fs::read_dir(from) else {
        return;
    };
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            // It may have been renamed or removed meanwhile.
            let _ = fs::copy(entry.path(), target);
        }
    }
}
