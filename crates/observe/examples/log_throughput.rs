//! How fast the log is here: `cargo run --release -p lauf-observe --example log_throughput [MIB]`.
//!
//! Fills the log (1,024 MiB unless told otherwise) with entries of 200 services, a quiet one and a
//! busy one among them, then asks what `gcloud run services logs read` asks.
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures the real clock"
)]

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use lauf_observe::{
    Filter, LogConfig, LogEntry, LogStore, Order, Payload, Query, Resource, parse_container_line,
};

fn entry(service: &str, at: Timestamp, line: &str) -> LogEntry {
    let labels = [
        ("project_id", "bench"),
        ("location", "europe-west1"),
        ("service_name", service),
        ("revision_name", "rev-00001-abc"),
        ("configuration_name", service),
    ];
    let labels = labels
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
    let mut entry = LogEntry::new(
        "projects/bench/logs/run.googleapis.com%2Fstdout".to_owned(),
        Resource {
            kind: "cloud_run_revision".to_owned(),
            labels,
        },
        at,
        Payload::Text(String::new()),
    );
    parse_container_line(line.as_bytes(), at).fill(&mut entry);
    entry
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mib: usize = std::env::args()
        .nth(1)
        .map_or(1_024, |text| text.parse().expect("a number of MiB"));
    let folder = tempfile::tempdir().expect("a folder to write in");
    let config = LogConfig {
        max_bytes: 4 << 30,
        ..LogConfig::default()
    };
    let store = LogStore::open(folder.path(), &config).expect("the log opens");
    let sink = store.sink();
    let start: Timestamp = "2026-11-23T00:00:00Z".parse().expect("a time");
    let entries = mib * 2_048;

    let clock = Instant::now();
    for n in 0..entries {
        let service = match n {
            _ if n % 100_000 == 5 => "quiet".to_owned(),
            _ if n % 2 == 0 => "busy".to_owned(),
            _ => format!("service-{}", n % 199),
        };
        let at = start + SignedDuration::from_millis(i64::try_from(n).unwrap_or(0));
        let line =
            format!(r#"{{"message":"request {n} was served","severity":"INFO","user":{n}}}"#);
        sink.push(entry(&service, at, &line));
        // The sink would drop; this measures how fast the log can follow.
        if n % 4_096 == 0 {
            store.flush().await.expect("open");
        }
    }
    store.flush().await.expect("open");
    let seconds = clock.elapsed().as_secs_f64();
    let bytes: u64 = std::fs::read_dir(folder.path())
        .expect("readable")
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum();
    println!(
        "append (parse, push, write)  {:>9.0} entries/s, {:.0} MiB/s ({entries} entries, {} MiB)",
        entries as f64 / seconds,
        bytes as f64 / seconds / 1_048_576.0,
        bytes >> 20
    );

    for (what, filter) in [
        (
            "busy service, newest 100",
            "resource.type = cloud_run_revision \n AND resource.labels.service_name = busy \n AND resource.labels.location = europe-west1 \n AND severity >= DEFAULT",
        ),
        (
            "quiet service, newest 100",
            "resource.type = cloud_run_revision \n AND resource.labels.service_name = quiet \n AND resource.labels.location = europe-west1 \n AND severity >= DEFAULT",
        ),
        ("no such service", "resource.labels.service_name = none"),
        ("errors, of which none", "severity>=ERROR"),
        (
            "text that is nowhere",
            "jsonPayload.message:\"nowhere to be found\"",
        ),
    ] {
        let clock = Instant::now();
        let mut query = Query {
            filter: Filter::parse(filter).expect("a filter"),
            order: Order::Desc,
            page_size: 100,
            page_token: None,
            resource_names: vec!["projects/bench".to_owned()],
        };
        let (mut found, mut pages) = (0, 0);
        loop {
            let page = store.query(query.clone()).await.expect("read");
            found += page.entries.len();
            pages += 1;
            query.page_token = page.next_page_token;
            if query.page_token.is_none() || found >= 100 {
                break;
            }
        }
        println!(
            "{what:<28} {:>9.2} ms ({found} entries, {pages} pages)",
            clock.elapsed().as_secs_f64() * 1_000.0
        );
    }
    store.close().await;
    drop(store);
    drop(sink);
    let clock = Instant::now();
    LogStore::open(folder.path(), &config).expect("the log opens");
    println!(
        "open                         {:>9.2} ms",
        clock.elapsed().as_secs_f64() * 1_000.0
    );
}
