//! The laws that `lauf_events::log` writes down, as stories on any implementation.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use lauf_events::log::{
    Limit, LogError, MAX_APPEND_BYTES, MAX_APPEND_RECORDS, MessageLog, Position, Record,
};

/// Somewhere a log lives: it can be closed and opened again with what was in it.
#[async_trait]
pub(crate) trait Place: Send {
    /// Opens the log, after closing it if it was open.
    async fn open(&mut self) -> Arc<dyn MessageLog>;
}

/// Every law. An implementation passes when this returns.
pub(crate) async fn all(place: &mut dyn Place) {
    let log = place.open().await;
    what_was_appended_is_read_in_order(&*log).await;
    appends_take_effect_in_the_order_of_calls(&*log).await;
    many_writers_do_not_mix(&log).await;
    reads_are_bounded_but_never_stuck(&*log).await;
    tails_tell_of_what_is_durable(&log).await;
    creating_and_deleting_may_be_repeated(&*log).await;
    what_cannot_be_is_refused(&*log).await;
    time_goes_with_position(&*log).await;
    trimming_keeps_what_is_needed(&*log).await;
    a_message_of_ten_megabytes(&*log).await;
    everything_is_there_after_a_restart(place).await;
}

pub(crate) fn bodies(texts: &[&str]) -> Vec<Bytes> {
    texts
        .iter()
        .map(|t| Bytes::copy_from_slice(t.as_bytes()))
        .collect()
}

/// All records of a stream from a position on.
pub(crate) async fn read_all(log: &dyn MessageLog, stream: &str, from: Position) -> Vec<Record> {
    let mut all = Vec::new();
    let mut next = from;
    loop {
        let limit = Limit {
            records: 1_000,
            bytes: 1 << 20,
        };
        let chunk = log.read(stream, next, limit).await.unwrap();
        if chunk.records.is_empty() {
            return all;
        }
        all.extend(chunk.records);
        next = chunk.next;
    }
}

async fn texts(log: &dyn MessageLog, stream: &str, from: Position) -> Vec<String> {
    let records = read_all(log, stream, from).await;
    let text = |record: &Record| String::from_utf8(record.body.to_vec()).unwrap();
    records.iter().map(text).collect()
}

async fn what_was_appended_is_read_in_order(log: &dyn MessageLog) {
    log.create("order").await.unwrap();
    let empty = log.extent("order").await.unwrap();
    assert_eq!(empty.first, empty.next);
    assert!(texts(log, "order", Position(0)).await.is_empty());

    let first = log.append("order", bodies(&["a", "b"])).unwrap();
    let first = first.await.unwrap();
    let second = log.append("order", bodies(&["c", ""])).unwrap();
    let second = second.await.unwrap();

    let records = read_all(log, "order", Position(0)).await;
    let positions: Vec<_> = records.iter().map(|r| r.position).collect();
    assert_eq!(
        positions,
        [
            first.first,
            first.first.plus(1),
            second.first,
            second.first.plus(1)
        ]
    );
    assert!(first.first.plus(1) < second.first);
    assert_eq!(texts(log, "order", Position(0)).await, ["a", "b", "c", ""]);
    assert_eq!(records[0].time, first.time);
    assert_eq!(records[3].time, second.time);
    // From the middle of an append, and from a place between two appends.
    assert_eq!(texts(log, "order", positions[1]).await, ["b", "c", ""]);
    assert_eq!(texts(log, "order", positions[1].plus(1)).await, ["c", ""]);
    assert_eq!(log.extent("order").await.unwrap().first, first.first);
}

async fn appends_take_effect_in_the_order_of_calls(log: &dyn MessageLog) {
    log.create("calls").await.unwrap();
    let receipts: Vec<_> = (0..500)
        .map(|n| {
            log.append("calls", vec![Bytes::from(n.to_string())])
                .unwrap()
        })
        .collect();
    let mut last = None;
    for receipt in receipts {
        let first = receipt.await.unwrap().first;
        assert!(last < Some(first));
        last = Some(first);
    }
    let wanted: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(texts(log, "calls", Position(0)).await, wanted);
}

async fn many_writers_do_not_mix(log: &Arc<dyn MessageLog>) {
    for stream in ["left", "right"] {
        log.create(stream).await.unwrap();
    }
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let log = Arc::clone(log);
            tokio::spawn(async move {
                let stream = if writer % 2 == 0 { "left" } else { "right" };
                for n in 0..40 {
                    let batch: Vec<_> = (0..3)
                        .map(|part| Bytes::from(format!("{writer} {n} {part}")))
                        .collect();
                    log.append(stream, batch).unwrap().await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for (stream, even) in [("left", 0), ("right", 1)] {
        let found = texts(&**log, stream, Position(0)).await;
        assert_eq!(found.len(), 4 * 40 * 3);
        let mut each: HashMap<String, Vec<String>> = HashMap::new();
        for batch in found.chunks(3) {
            let (writer, rest) = batch[0].split_once(' ').unwrap();
            let n = rest.split_once(' ').unwrap().0;
            let whole: Vec<_> = (0..3).map(|part| format!("{writer} {n} {part}")).collect();
            assert_eq!(batch, whole, "an append was torn apart");
            assert_eq!(writer.parse::<u32>().unwrap() % 2, even);
            each.entry(writer.to_owned())
                .or_default()
                .push(n.to_owned());
        }
        let wanted: Vec<_> = (0..40).map(|n| n.to_string()).collect();
        assert!(each.values().all(|numbers| *numbers == wanted));
    }
}

async fn reads_are_bounded_but_never_stuck(log: &dyn MessageLog) {
    log.create("bounds").await.unwrap();
    let large = Bytes::from(vec![b'x'; 100_000]);
    for _ in 0..4 {
        let receipt = log.append("bounds", vec![large.clone(); 2]).unwrap();
        receipt.await.unwrap();
    }
    let read = |from, records, bytes| log.read("bounds", from, Limit { records, bytes });
    let chunk = read(Position(0), 3, usize::MAX).await.unwrap();
    assert_eq!(chunk.records.len(), 3);
    let chunk = read(chunk.next, 100, 250_000).await.unwrap();
    assert_eq!(chunk.records.len(), 2);
    // One is given even if it is too large, so that a reader gets on.
    let chunk = read(chunk.next, 100, 1).await.unwrap();
    assert_eq!(chunk.records.len(), 1);
    let chunk = read(chunk.next, 100, usize::MAX).await.unwrap();
    assert_eq!(chunk.records.len(), 2);
    let end = read(chunk.next, 100, usize::MAX).await.unwrap();
    assert!(end.records.is_empty());
}

async fn tails_tell_of_what_is_durable(log: &Arc<dyn MessageLog>) {
    log.create("tail").await.unwrap();
    let mut tail = log.tail("tail").await.unwrap();
    let before = *tail.borrow_and_update();
    let reader = {
        let log = Arc::clone(log);
        tokio::spawn(async move {
            while *tail.borrow_and_update() == before {
                tail.changed().await.unwrap();
            }
            let next = *tail.borrow();
            (texts(&*log, "tail", Position(0)).await, next)
        })
    };
    let appended = log.append("tail", bodies(&["x"])).unwrap().await.unwrap();
    let (found, next) = reader.await.unwrap();
    assert_eq!(found, ["x"]);
    assert!(next > appended.first);
    assert_eq!(next, log.extent("tail").await.unwrap().next);
}

async fn creating_and_deleting_may_be_repeated(log: &dyn MessageLog) {
    assert!(!log.streams().await.unwrap().contains(&"again".to_owned()));
    log.delete("again").await.unwrap();
    log.create("again").await.unwrap();
    log.append("again", bodies(&["old"]))
        .unwrap()
        .await
        .unwrap();
    log.create("again").await.unwrap();
    assert_eq!(texts(log, "again", Position(0)).await, ["old"]);
    assert!(log.streams().await.unwrap().contains(&"again".to_owned()));

    let mut tail = log.tail("again").await.unwrap();
    tail.borrow_and_update();
    log.delete("again").await.unwrap();
    log.delete("again").await.unwrap();
    assert!(tail.changed().await.is_err(), "a tail outlives its stream");
    let nothing = Err(LogError::NoStream("again".to_owned()));
    assert_eq!(log.append("again", bodies(&["x"])).map(drop), nothing);
    assert_eq!(log.extent("again").await.map(drop), nothing);

    log.create("again").await.unwrap();
    assert!(texts(log, "again", Position(0)).await.is_empty());
    log.append("again", bodies(&["new"]))
        .unwrap()
        .await
        .unwrap();
    assert_eq!(texts(log, "again", Position(0)).await, ["new"]);
}

async fn what_cannot_be_is_refused(log: &dyn MessageLog) {
    let long = "x".repeat(256);
    for name in ["", "new\nline", &long] {
        let refused = log.create(name).await;
        assert!(matches!(refused, Err(LogError::Invalid(_))), "{name:?}");
    }
    log.create("refusals").await.unwrap();
    let much = Bytes::from(vec![0; MAX_APPEND_BYTES]);
    for records in [
        vec![],
        vec![Bytes::new(); MAX_APPEND_RECORDS + 1],
        vec![much, Bytes::from_static(b"x")],
    ] {
        let refused = log.append("refusals", records);
        assert!(matches!(refused, Err(LogError::Invalid(_))));
    }
    let many = log.append("refusals", vec![Bytes::new(); MAX_APPEND_RECORDS]);
    many.unwrap().await.unwrap();
    let found = read_all(log, "refusals", Position(0)).await;
    assert_eq!(found.len(), MAX_APPEND_RECORDS);
}

async fn time_goes_with_position(log: &dyn MessageLog) {
    log.create("time").await.unwrap();
    let end = |time| log.position_at("time", time);
    assert_eq!(
        end(Timestamp::UNIX_EPOCH).await.unwrap(),
        log.extent("time").await.unwrap().next
    );
    let mut appended = Vec::new();
    for n in 0..50 {
        let batch = bodies(&["x", "y", "z"][..1 + n % 3]);
        appended.push(log.append("time", batch).unwrap().await.unwrap());
    }
    assert!(appended.windows(2).all(|pair| pair[0].time <= pair[1].time));
    for this in &appended {
        // Several appends may have happened within one microsecond.
        let first = appended.iter().find(|other| other.time == this.time);
        assert_eq!(end(this.time).await.unwrap(), first.unwrap().first);
    }
    let long_ago = end(Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(long_ago, appended[0].first);
    let later = appended[49].time + SignedDuration::from_secs(3_600);
    assert_eq!(
        end(later).await.unwrap(),
        log.extent("time").await.unwrap().next
    );
}

async fn trimming_keeps_what_is_needed(log: &dyn MessageLog) {
    log.create("trim").await.unwrap();
    let mut firsts = Vec::new();
    for n in 0..20 {
        let batch = vec![Bytes::from(format!("{n}")), Bytes::from(vec![b'x'; 1_000])];
        firsts.push(log.append("trim", batch).unwrap().await.unwrap().first);
    }
    let end = log.extent("trim").await.unwrap().next;
    log.trim("trim", firsts[10]).await.unwrap();
    let extent = log.extent("trim").await.unwrap();
    assert!(extent.first <= firsts[10]);
    assert_eq!(extent.next, end);
    let left = texts(log, "trim", firsts[10]).await;
    assert_eq!(left.len(), 20);
    assert_eq!(left[0], "10");
    // What lies before may be there or not; a read begins where there is something.
    let all = read_all(log, "trim", Position(0)).await;
    assert!(all[0].position >= extent.first);
    assert_eq!(all.last().unwrap().position, firsts[19].plus(1));
    // All of it: positions go on where they were.
    log.trim("trim", end).await.unwrap();
    let next = log
        .append("trim", bodies(&["next"]))
        .unwrap()
        .await
        .unwrap();
    assert!(next.first >= end);
    assert_eq!(texts(log, "trim", end).await, ["next"]);
}

async fn a_message_of_ten_megabytes(log: &dyn MessageLog) {
    log.create("large").await.unwrap();
    let large = Bytes::from(vec![b'L'; 10_000_000]);
    let records = vec![
        Bytes::from_static(b"a"),
        large.clone(),
        Bytes::from_static(b"b"),
    ];
    log.append("large", records.clone()).unwrap().await.unwrap();
    let found = read_all(log, "large", Position(0)).await;
    let found: Vec<_> = found.into_iter().map(|r| r.body).collect();
    assert!(found == records, "a large message came back differently");
}

async fn everything_is_there_after_a_restart(place: &mut dyn Place) {
    let log = place.open().await;
    let names = log.streams().await.unwrap();
    let mut before = HashMap::new();
    for name in &names {
        let extent = log.extent(name).await.unwrap();
        before.insert(
            name.clone(),
            (extent.next, read_all(&*log, name, extent.first).await),
        );
    }
    let late = log.append("order", bodies(&["last words"])).unwrap();
    let late = late.await.unwrap();
    drop(log);

    let log = place.open().await;
    assert_eq!(log.streams().await.unwrap(), names);
    for (name, (next, records)) in before {
        let found = read_all(&*log, &name, Position(0)).await;
        let from = records.first().map_or(next, |r| r.position);
        let found: Vec<_> = found.into_iter().filter(|r| r.position >= from).collect();
        if name == "order" {
            assert_eq!(found.last().unwrap().position, late.first);
            assert_eq!(found.len(), records.len() + 1);
        } else {
            assert!(
                found == records,
                "stream {name} is another after the restart"
            );
        }
        assert!(log.extent(&name).await.unwrap().next >= next);
    }
    let more = log.append("order", bodies(&["more"])).unwrap();
    let more = more.await.unwrap();
    assert!(more.first > late.first && more.time >= late.time);
}
