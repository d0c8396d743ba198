//! Entries go in, and come back as asked for.

use std::{collections::BTreeMap, fs, io::Write as _, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use lauf_observe::{
    Filter, HttpRequest, LogConfig, LogEntry, LogError, LogStore, Order, Page, Payload, Query,
    Resource, Severity, TailEvent,
};
use proptest::prelude::*;
use serde_json::json;

fn at(millis: i64) -> Timestamp {
    let start: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    start + SignedDuration::from_millis(millis)
}

fn entry(service: &str, millis: i64, text: &str) -> LogEntry {
    let labels = [
        ("project_id", "p"),
        ("location", "us-central1"),
        ("service_name", service),
    ];
    let labels: BTreeMap<_, _> = labels
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    LogEntry::new(
        "projects/p/logs/run.googleapis.com%2Fstdout".to_owned(),
        Resource {
            kind: "cloud_run_revision".to_owned(),
            labels,
        },
        at(millis),
        Payload::Text(text.to_owned()),
    )
}

fn query(filter: &str, order: Order, page_size: usize) -> Query {
    Query {
        filter: Filter::parse(filter).unwrap(),
        order,
        page_size,
        page_token: None,
        resource_names: vec!["projects/p".to_owned()],
    }
}

fn texts(page: &Page) -> Vec<String> {
    let text = |entry: &LogEntry| match &entry.payload {
        Payload::Text(text) => text.clone(),
        Payload::Json(fields) | Payload::Proto(fields) => format!("{fields:?}"),
    };
    page.entries.iter().map(text).collect()
}

/// All pages.
async fn all(store: &LogStore, mut query: Query) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page = store.query(query.clone()).await.unwrap();
        assert!(page.entries.len() <= query.page_size);
        found.extend(texts(&page));
        query.page_token = page.next_page_token;
        if query.page_token.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn the_newest_of_a_service_and_then_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), &LogConfig::default()).unwrap();
    let sink = store.sink();
    for n in 0..3_000 {
        sink.push(entry(
            if n % 3 == 0 { "hello" } else { "noise" },
            n,
            &n.to_string(),
        ));
    }
    store.flush().await.unwrap();
    let filter = "resource.type = cloud_run_revision \n AND resource.labels.service_name = hello \
                  \n AND resource.labels.location = us-central1 \n AND severity >= DEFAULT";
    let page = store.query(query(filter, Order::Desc, 3)).await.unwrap();
    assert_eq!(texts(&page), ["2997", "2994", "2991"]);
    let expected: Vec<_> = (0..1_000).map(|n| (3 * n).to_string()).collect();
    assert_eq!(all(&store, query(filter, Order::Asc, 77)).await, expected);
    let down: Vec<_> = expected.iter().rev().cloned().collect();
    assert_eq!(all(&store, query(filter, Order::Desc, 1_000)).await, down);

    let since = format!("timestamp>=\"{}\" AND timestamp<\"{}\"", at(100), at(103));
    assert_eq!(
        all(&store, query(&since, Order::Asc, 10)).await,
        ["100", "101", "102"]
    );

    // Another project has none of it, and a token is good for its query only.
    let other = Query {
        resource_names: vec!["projects/q".to_owned()],
        ..query("", Order::Asc, 9)
    };
    assert_eq!(all(&store, other).await, [""; 0]);
    for token in [page.next_page_token.unwrap().as_str(), "x", "0.0.0", "...."] {
        let foreign = Query {
            page_token: Some(token.to_owned()),
            ..query("", Order::Asc, 9)
        };
        assert!(
            matches!(store.query(foreign).await, Err(LogError::PageToken)),
            "{token}"
        );
    }
}

#[tokio::test]
async fn an_entry_reads_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), &LogConfig::default()).unwrap();
    let mut full = entry("hello", 5, "");
    full.payload = Payload::Json(json!({"a": {"b": [1, "ä\n"]}}).as_object().unwrap().clone());
    full.severity = Severity::Error;
    full.insert_id = "mine".to_owned();
    full.labels.insert("instanceId".to_owned(), "i".to_owned());
    full.trace = Some("projects/p/traces/t".to_owned());
    full.span_id = Some("1".to_owned());
    full.trace_sampled = true;
    full.http_request = Some(HttpRequest {
        request_method: Some("GET".to_owned()),
        status: Some(200),
        response_size: Some(5_000_000_000),
        latency: Some(std::time::Duration::from_micros(123_400)),
        ..HttpRequest::default()
    });
    store.sink().push(full.clone());
    store.flush().await.unwrap();
    let page = store
        .query(query("severity>=ERROR", Order::Asc, 5))
        .await
        .unwrap();
    assert_eq!(page.entries, [full.clone()]);
    let wire = full.to_json();
    assert_eq!(wire["severity"], "ERROR");
    assert_eq!(wire["timestamp"], "2026-11-23T10:00:00.005Z");
    assert_eq!(
        wire["httpRequest"],
        json!({"requestMethod": "GET", "status": 200, "responseSize": "5000000000", "latency": "0.123400s"})
    );
    assert_eq!(wire["jsonPayload"]["a"]["b"][1], "ä\n");
    assert_eq!(wire.get("textPayload"), None);
}

#[tokio::test]
async fn ids_are_given_and_what_is_too_long_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), &LogConfig::default()).unwrap();
    store
        .sink()
        .push(entry("hello", 1, &"ä\u{1}".repeat(200_000)));
    let mut json = entry("hello", 2, "");
    json.payload = Payload::Json(
        json!({"x": vec!["y"; 100_000]})
            .as_object()
            .unwrap()
            .clone(),
    );
    store.sink().push(json);
    let mut wordy = entry("hello", 3, "");
    wordy.labels = (0..100)
        .map(|n| (n.to_string(), "l".repeat(1_000)))
        .collect();
    wordy.trace = Some("ä".repeat(100_000));
    wordy.http_request = Some(HttpRequest {
        request_url: Some("u".repeat(100_000)),
        ..HttpRequest::default()
    });
    store.sink().push(wordy);
    store.flush().await.unwrap();
    let page = store.query(query("", Order::Asc, 5)).await.unwrap();
    let [first, second, third] = page.entries.as_slice() else {
        panic!()
    };
    assert!(!first.insert_id.is_empty() && first.insert_id < second.insert_id);
    for entry in [first, second, third] {
        assert_eq!(entry.labels["lauf.dev/truncated"], "true");
        assert!(entry.to_json().to_string().len() <= lauf_observe::MAX_ENTRY);
    }
}

#[tokio::test]
async fn a_restart_and_a_torn_end_lose_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        segment_bytes: 64 << 10,
        ..LogConfig::default()
    };
    let mut expected = Vec::new();
    for round in 0..4 {
        let store = LogStore::open(dir.path(), &config).unwrap();
        for n in 0..300 {
            let text = format!("{round}-{n}");
            store.sink().push(entry("hello", round * 1_000 + n, &text));
            expected.push(text);
            // Small batches, so that segments fill and turn.
            if n % 50 == 0 {
                store.flush().await.unwrap();
            }
        }
        store.flush().await.unwrap();
        if round % 2 == 0 {
            store.close().await;
            store.sink().push(entry("hello", 0, "after the end"));
        }
        drop(store);
        // Its writer still ends the segment; a crash comes when it stands still.
        let folder = fs::File::open(dir.path()).unwrap();
        folder.lock().unwrap();
        drop(folder);
        // As a crash in the middle of a line, and a damaged line before it, leave it.
        let last = segments(dir.path()).pop().unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(last).unwrap();
        file.write_all(b"{\"insertId\": damaged}\n{\"insertId\":\"torn")
            .unwrap();
    }
    // An index that is gone, and one that is nonsense.
    let paths = segments(dir.path());
    assert!(paths.len() > 3);
    let _ = fs::remove_file(paths[0].with_extension("idx"));
    fs::write(paths[1].with_extension("idx"), "nonsense").unwrap();
    let store = LogStore::open(dir.path(), &config).unwrap();
    assert_eq!(all(&store, query("", Order::Asc, 100)).await, expected);
}

fn segments(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn the_oldest_go_when_there_is_too_much_or_they_are_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        max_bytes: 1 << 20,
        ..LogConfig::default()
    };
    let store = LogStore::open(dir.path(), &config).unwrap();
    for n in 0..12_000 {
        store.sink().push(entry("hello", n, &n.to_string()));
        if n % 100 == 0 {
            store.flush().await.unwrap();
        }
    }
    store.flush().await.unwrap();
    let size: u64 = segments(dir.path())
        .iter()
        .map(|p| fs::metadata(p).unwrap().len())
        .sum();
    assert!(((512 << 10)..=(1 << 20)).contains(&size), "{size}");
    let kept = all(&store, query("", Order::Asc, 1_000)).await;
    let first: usize = kept[0].parse().unwrap();
    assert_eq!(
        kept,
        (first..12_000).map(|n| n.to_string()).collect::<Vec<_>>()
    );

    // A month later, all but the new is gone once the segment turns.
    let month = 31 * 24 * 60 * 60 * 1_000;
    for n in 0..1_000 {
        store.sink().push(entry("hello", month + n, "new"));
        if n % 100 == 0 {
            store.flush().await.unwrap();
        }
    }
    store.flush().await.unwrap();
    let oldest = store.query(query("", Order::Asc, 1)).await.unwrap();
    assert!(oldest.entries[0].timestamp > at(10_000));
}

#[tokio::test]
async fn what_is_dropped_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig {
        queue_bytes: 20_000,
        ..LogConfig::default()
    };
    let store = LogStore::open(dir.path(), &config).unwrap();
    // No single one of these fits, so how fast the writer is makes no difference.
    for n in 0..5 {
        store.sink().push(entry("loud", n, &"x".repeat(30_000)));
    }
    store.sink().push(entry("loud", 9, "small"));
    store.flush().await.unwrap();
    let page = store
        .query(query("resource.labels.service_name=loud", Order::Asc, 9))
        .await
        .unwrap();
    let mut found = texts(&page);
    found.sort();
    assert_eq!(
        found,
        [
            "5 log entries were dropped because they came faster than they could be written.",
            "small"
        ]
    );
    let told = page
        .entries
        .iter()
        .find(|entry| entry.severity == Severity::Warning)
        .unwrap();
    assert_eq!(told.log_id(), "run.googleapis.com/varlog/system");
}

#[tokio::test]
async fn followers_get_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), &LogConfig::default()).unwrap();
    store.sink().push(entry("hello", 0, "old"));
    store.flush().await.unwrap();
    let filter = Filter::parse("resource.labels.service_name=hello").unwrap();
    let mut tail = store
        .tail(filter.clone(), vec!["projects/p".to_owned()])
        .unwrap();
    store.sink().push(entry("noise", 1, "no"));
    store.sink().push(entry("hello", 2, "yes"));
    let events = tail.next().await.unwrap();
    let [TailEvent::Entry(got)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!(got.payload, Payload::Text("yes".to_owned()));

    // One that does not read is told how much it missed, and holds nobody up.
    let mut expected = 0;
    for n in 0..6_000 {
        store.sink().push(entry("hello", n, "more"));
        expected += 1;
        if n % 500 == 0 {
            store.flush().await.unwrap();
        }
    }
    store.flush().await.unwrap();
    store.close().await;
    let mut got = 0;
    let mut missed = 0;
    while let Some(events) = tail.next().await {
        for event in events {
            match event {
                TailEvent::Entry(_) => got += 1,
                TailEvent::Lagged(count) => missed += count,
            }
        }
    }
    assert!(missed > 0);
    assert_eq!(got + missed, expected);

    let tails: Vec<_> = (0..100)
        .map_while(|_| store.tail(filter.clone(), Vec::new()).ok())
        .collect();
    assert!(tails.len() < 100);
    assert!(matches!(store.flush().await, Err(LogError::Closed)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// However times are mixed, pages put together are what sorting gives.
    #[test]
    fn pages_are_in_order_and_complete(
        times in proptest::collection::vec((0..50_i64, 0..3_u8, 1..2_000_usize), 1..200),
        page_size in 1..40_usize,
        descending in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let config = LogConfig { segment_bytes: 1, ..LogConfig::default() };
            let store = Arc::new(LogStore::open(dir.path(), &config).unwrap());
            let mut expected = Vec::new();
            for (n, (time, service, length)) in times.into_iter().enumerate() {
                let text = format!("{n}-{}", "x".repeat(length));
                store.sink().push(entry(&format!("s{service}"), time, &text));
                if n % 16 == 0 { store.flush().await.unwrap() }
                if service != 1 { expected.push((time, n, text)) }
            }
            store.flush().await.unwrap();
            expected.sort();
            if descending { expected.reverse() }
            let expected: Vec<_> = expected.into_iter().map(|(.., text)| text).collect();
            let order = if descending { Order::Desc } else { Order::Asc };
            let filter = "resource.labels.service_name=(s0 OR s2)";
            prop_assert_eq!(all(&store, query(filter, order, page_size)).await, expected);
            Ok(())
        })?;
    }
}
