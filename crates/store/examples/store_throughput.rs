//! How fast the store is here: `cargo run --release -p lauf-store --example store_throughput [FOLDER]`.
//!
//! Ten thousand objects of 2 KiB, then reads, durable writes (each on another object, from 64
//! callers), a list of 1,000, and the time from the start of a write to a watcher having it.
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures the real clock"
)]

use std::time::{Duration, Instant};

use lauf_store::{Key, ListQuery, Scope, Store, Txn, WatchQuery};

const OBJECTS: usize = 10_000;
const BODY: usize = 2_048;
const CALLERS: usize = 64;

fn key(n: usize) -> Key {
    Key::new(
        "Service",
        "bench/europe-west1",
        format!("service-{:05}", n % OBJECTS),
    )
}

async fn rate<F, Fut>(what: &str, callers: usize, each: usize, work: F)
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let start = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let work = work.clone();
            tokio::spawn(async move {
                for n in 0..each {
                    work(caller * 7_919 + n * callers).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the work is done");
    }
    let seconds = start.elapsed().as_secs_f64();
    let count = callers * each;
    println!(
        "{what:<28} {:>10.0} /s   ({count} in {seconds:.2} s, {callers} callers)",
        count as f64 / seconds
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .expect("a folder to write in");
    let store = Store::open(folder.path().join("state.db")).expect("the store opens");

    let fill = store.clone();
    rate("create (durable)", CALLERS, OBJECTS / CALLERS, move |n| {
        let store = fill.clone();
        async move {
            store
                .write(Txn::new().put(key(n), vec![b'x'; BODY]))
                .await
                .expect("written");
        }
    })
    .await;
    for n in 0..OBJECTS {
        // The strides above leave gaps; a page of a hundred keys a transaction closes them.
        if n % 100 == 0 {
            let txn = (n..n + 100).fold(Txn::new(), |txn, n| txn.put(key(n), vec![b'x'; BODY]));
            store.write(txn).await.expect("written");
        }
    }

    for callers in [1, CALLERS] {
        let read = store.clone();
        rate("get", callers, 100_000 / callers, move |n| {
            let store = read.clone();
            async move {
                store.get(&key(n)).await.expect("read").expect("there");
            }
        })
        .await;
    }
    for callers in [1, 16, CALLERS] {
        let write = store.clone();
        rate(
            "replace (durable)",
            callers,
            (500 * callers).min(20_000) / callers,
            move |n| {
                let store = write.clone();
                async move {
                    store
                        .write(Txn::new().put(key(n), vec![b'y'; BODY]))
                        .await
                        .expect("written");
                }
            },
        )
        .await;
    }

    let start = Instant::now();
    let query = ListQuery {
        scope: Scope::Prefix("bench/".to_owned()),
        ..ListQuery::all("Service")
    };
    let page = store.list(&query).await.expect("listed");
    println!(
        "list of {:<20} {:>10.2} ms",
        page.objects.len(),
        ms(start.elapsed())
    );

    let mut watch = store.watch(WatchQuery::kind("Service"), store.version());
    let mut latencies = Vec::new();
    for n in 0..500 {
        let start = Instant::now();
        let (written, seen) = tokio::join!(
            store.write(Txn::new().put(key(n), vec![b'z'; BODY])),
            watch.next()
        );
        written.expect("written");
        seen.expect("open").expect("seen");
        latencies.push(start.elapsed());
    }
    latencies.sort_unstable();
    println!(
        "write to watcher            p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        ms(latencies[250]),
        ms(latencies[495]),
        ms(latencies[499])
    );
    store.close().await;
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
