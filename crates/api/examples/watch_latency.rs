//! How long a watch takes to tell a write, with a store on disk and services in it.
//!
//! `cargo run --release -p lauf-api --example watch_latency -- [SERVICES]` writes through the
//! Kubernetes face, reads the event on an open watch, and prints the distribution: from the moment
//! the write is sent, and from the moment it is acknowledged.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt as _;
use lauf_model::{Clock, SystemClock};
use lauf_store::Store;
use serde_json::{Value, json};
use support::Platform;
use tower::ServiceExt as _;

const SERVICES: &str =
    "/kubernetes/us-central1/apis/serving.knative.dev/v1/namespaces/demo/services";
const ROUNDS: usize = 300;

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"template": {"spec": {"containers": [{"image": "hello"}]}}},
    })
}

fn request(p: &Platform, method: &str, path: &str, kind: &str, body: &Value) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "127.0.0.1")
        .header("content-type", kind)
        .header("authorization", format!("Bearer {}", p.token))
        .body(Body::from(body.to_string()))
        .unwrap()
}

#[tokio::main]
async fn main() {
    let services: usize = std::env::args().nth(1).map_or(1000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let p = Platform::on(Store::open(dir.path().join("store")).unwrap()).await;
    for i in 0..services {
        let made = request(
            &p,
            "POST",
            SERVICES,
            "application/json",
            &service(&format!("s{i}")),
        );
        let reply = p.router.clone().oneshot(made).await.unwrap();
        assert_eq!(reply.status(), 201);
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let version = p.store.version();
    let path = format!("{SERVICES}?watch=true&resourceVersion={version}");
    let watch = request(&p, "GET", &path, "application/json", &Value::Null);
    let mut events = p.router.clone().oneshot(watch).await.unwrap().into_body();
    let seen = {
        let clock = Arc::clone(&clock);
        let (send, seen) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = events.frame().await {
                let lines = frame.into_data().unwrap();
                for _ in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                    send.send(clock.monotonic()).unwrap();
                }
            }
        });
        seen
    };
    let mut seen = seen;
    let (mut sent_to_seen, mut acknowledged_to_seen) = (Vec::new(), Vec::new());
    for i in 0..ROUNDS {
        let change = json!({"metadata": {"labels": {"round": i.to_string()}}});
        let kind = "application/merge-patch+json";
        let path = format!("{SERVICES}/s{}", i % services);
        let write = request(&p, "PATCH", &path, kind, &change);
        let sent = clock.monotonic();
        let reply = p.router.clone().oneshot(write).await.unwrap();
        let acknowledged = clock.monotonic();
        assert_eq!(reply.status(), 200);
        let seen = seen.recv().await.unwrap();
        sent_to_seen.push(seen.saturating_sub(sent));
        acknowledged_to_seen.push(seen.saturating_sub(acknowledged));
    }
    print("write sent to event read", &mut sent_to_seen);
    print(
        "write acknowledged to event read",
        &mut acknowledged_to_seen,
    );
}

fn print(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms of {}",
        at(50),
        at(99),
        at(100),
        times.len()
    );
}
