//! The gateway with real sockets: a client does this, a user sees that.
#![allow(missing_docs, unreachable_pub, clippy::pedantic, clippy::large_futures)]

mod platform;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lauf_engine::{ExitReason, StartError};
use lauf_gateway::{Access, Denied, InvokerCheck, Outcome};
use lauf_model::{Protocol, ServiceKey};
use platform::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Test = tokio::task::JoinHandle<String>;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_at_zero_answers_and_is_recorded() {
    let p = platform(revision(Protocol::Http1, 80, 10));
    let answer = p.get("/").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"),
        "{answer}"
    );
    p.get("/").await;
    assert_eq!(p.app.started.load(Ordering::SeqCst), 1);
    let records = p.records(2).await;
    assert_eq!(records[0].url(), format!("http://{HOST}/"));
    assert_eq!(
        (records[0].status.as_u16(), records[0].response_bytes),
        (200, 5)
    );
    assert!(!records[0].waited.is_zero() && records[1].waited.is_zero());
    assert_eq!(records[1].outcome, Outcome::Complete);
    assert!(records[1].instance.is_some() && records[1].trace != 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_start_as_many_instances_as_they_need() {
    let p = platform(revision(Protocol::Http1, 10, 100));
    p.app.start_gate.acquire().await.unwrap().forget();
    let requests: Vec<Test> = (0..35).map(|_| p.spawn_get("/hold")).collect();
    let fleet = p.gateway.fleet();
    eventually(|| fleet.revision(&p.config.key).queued == 35).await;
    p.app.start_gate.add_permits(1);
    p.arrived(35).await;
    assert_eq!(p.app.started.load(Ordering::SeqCst), 4);
    assert_eq!(fleet.revision(&p.config.key).in_flight, 35);
    p.app.gate.add_permits(35);
    for request in requests {
        assert!(request.await.unwrap().contains("200 OK"));
    }
    assert!(p.app.peak.load(Ordering::SeqCst) <= 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrency_is_never_exceeded_under_load() {
    let p = Arc::new(platform(revision(Protocol::Http1, 3, 4)));
    let clients: Vec<_> = (0..40)
        .map(|_| {
            let p = Arc::clone(&p);
            tokio::spawn(async move {
                for _ in 0..25 {
                    assert!(p.get("/").await.contains("200 OK"));
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert!(p.app.peak.load(Ordering::SeqCst) <= 3);
    assert!(p.app.started.load(Ordering::SeqCst) <= 4);
    let counts = p.gateway.fleet().revision(&p.config.key);
    assert_eq!((counts.in_flight, counts.queued), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_429_and_a_client_that_leaves_frees_its_place() {
    let p = platform(revision(Protocol::Http1, 1, 1));
    p.app.start_gate.acquire().await.unwrap().forget();
    let waiting: Vec<Test> = (0..100).map(|_| p.spawn_get("/")).collect();
    let fleet = p.gateway.fleet();
    eventually(|| fleet.revision(&p.config.key).queued == 100).await;
    let refused = p.get("/").await;
    assert!(
        refused.contains("429 Too Many Requests") && refused.ends_with("Rate exceeded."),
        "{refused}"
    );
    let mut waiting = waiting.into_iter();
    waiting.next().unwrap().abort();
    eventually(|| fleet.revision(&p.config.key).queued == 99).await;
    p.app.start_gate.add_permits(1);
    for request in waiting {
        assert!(request.await.unwrap().contains("200 OK"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_fails_those_who_wait_and_tells_the_deploy() {
    let p = platform(revision(Protocol::Http1, 1, 1));
    let error = StartError::Ended {
        how: "exit code 1".into(),
    };
    *p.app.starts_fail.lock().unwrap() = Some(error.clone());
    let fleet = p.gateway.fleet();
    assert_eq!(fleet.first_instance(&p.config.key).await, Err(error));
    let answer = p.get("/").await;
    assert!(
        answer.contains("503") && answer.contains("could not start"),
        "{answer}"
    );
    *p.app.starts_fail.lock().unwrap() = None;
    assert_eq!(fleet.first_instance(&p.config.key).await, Ok(()));
    assert!(p.get("/").await.contains("200 OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_container_sees_the_client_and_no_hop_by_hop_header() {
    let p = platform(revision(Protocol::Http1, 80, 1));
    let seen = p
        .raw(format!(
            "GET http://{HOST}:8080/headers?q=1 HTTP/1.1\r\nHost: {HOST}:8080\r\nConnection: close, x-a\r\nX-A: 1\r\nProxy-Authorization: x\r\nTE: gzip, trailers\r\nExpect: 100-continue\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n"
        ))
        .await;
    assert!(seen.contains("/headers?q=1 HTTP/1.1\n"), "{seen}");
    assert!(seen.contains(&format!("host: {HOST}:8080\n")));
    assert!(seen.contains("x-forwarded-for: 9.9.9.9, 127.0.0.1\n"));
    assert!(
        seen.contains("x-forwarded-proto: http\n") && seen.contains("for=127.0.0.1;proto=http")
    );
    assert!(seen.contains("traceparent: 00-") && seen.contains("x-cloud-trace-context: "));
    assert!(seen.contains("te: trailers\n"));
    for gone in ["x-a:", "proxy-authorization", "expect", "\nconnection"] {
        assert!(
            !seen.split("\r\n\r\n").nth(1).unwrap().contains(gone),
            "{gone}: {seen}"
        );
    }
    assert!(p.get("/cookie").await.contains("cache-control: private"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_decide_who_answers() {
    let p = platform(revision(Protocol::Http1, 80, 1));
    let ask = |host: &str| {
        p.raw(format!(
            "GET /x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
    };
    assert!(
        ask("run.googleapis.com")
            .await
            .ends_with("face run.googleapis.com http false /x")
    );
    assert!(
        ask("LOCALHOST:80")
            .await
            .ends_with("face localhost http false /x")
    );
    assert!(ask("run.localhost").await.contains("face run.localhost"));
    let unknown = ask("nobody-1.us-central1.run.localhost").await;
    assert!(unknown.contains("404 Not Found") && unknown.contains("was not found on this server"));
    assert!(ask(&HOST.to_uppercase()).await.contains("200 OK"));
    let open = p
        .raw("GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
        .await;
    assert!(open.contains("403 Forbidden"), "{open}");
    let api = p.raw("GET http://run.googleapis.com/v1 HTTP/1.1\r\nHost: run.googleapis.com\r\nConnection: close\r\n\r\n").await;
    assert!(
        api.ends_with("face run.googleapis.com http true /v1"),
        "{api}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_leads_to_tls_and_http2_for_our_names_only() {
    let p = platform(revision(Protocol::Http1, 80, 1));
    assert!(
        p.raw("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
            .await
            .contains("403")
    );
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(p.certs.ca_file()).unwrap();
    use rustls::pki_types::pem::PemObject;
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    for (alpn, version) in [("h2", "2"), ("http/1.1", "1")] {
        let mut stream = p.connect().await;
        stream
            .write_all(b"CONNECT us-central1-run.googleapis.com:443 HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 200"));
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
        config.alpn_protocols = vec![alpn.into()];
        let name = "us-central1-run.googleapis.com".try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        let request = Request::get("https://us-central1-run.googleapis.com/v1")
            .header("host", "us-central1-run.googleapis.com")
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = if version == "2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
                    .await
                    .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
                .await
                .unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(text, "face us-central1-run.googleapis.com https true /v1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_goes_end_to_end_with_trailers() {
    let p = platform(revision(Protocol::H2c, 80, 1));
    let (sender, connection) = hyper::client::conn::http2::handshake(
        TokioExecutor::new(),
        TokioIo::new(p.connect().await),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let calls: Vec<_> = (0..50)
        .map(|i| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let request = Request::post(format!("http://{HOST}/grpc"))
                    .header("te", "trailers")
                    .body(Full::new(Bytes::from(format!("call {i}"))))
                    .unwrap();
                let collected = sender
                    .send_request(request)
                    .await
                    .unwrap()
                    .into_body()
                    .collect()
                    .await
                    .unwrap();
                assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
                assert_eq!(collected.to_bytes(), format!("call {i}"));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    // HTTP/1 clients reach the same container.
    assert!(p.get("/headers").await.contains("HTTP/2.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn websockets_are_joined_with_half_close() {
    let p = platform(revision(Protocol::Http1, 80, 1));
    let mut stream = p.connect().await;
    stream.write_all(format!("GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(
        all.starts_with("HTTP/1.1 101")
            && all.contains("upgrade: websocket")
            && all.ends_with("\r\n\r\nping"),
        "{all}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_not_buffered_and_uploads_are_streamed() {
    let p = platform(revision(Protocol::Http1, 80, 1));
    let mut stream = p.connect().await;
    stream
        .write_all(format!("GET /stream HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains("first") {
        let n = stream.read(&mut buffer).await.unwrap();
        seen += std::str::from_utf8(&buffer[..n]).unwrap();
    }
    assert!(!seen.contains("second"));
    p.app.gate.add_permits(2);
    while !seen.contains("second") {
        let n = stream.read(&mut buffer).await.unwrap();
        seen += std::str::from_utf8(&buffer[..n]).unwrap();
    }
    // Each part of an upload comes back before the next is sent.
    let mut stream = p.connect().await;
    stream.write_all(format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let mut seen = String::new();
    for part in ["100 Continue", "one", "two"] {
        if part.len() == 3 {
            stream
                .write_all(format!("3\r\n{part}\r\n").as_bytes())
                .await
                .unwrap();
        }
        while !seen.contains(part) {
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "{seen}");
            seen += std::str::from_utf8(&buffer[..n]).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_is_504_and_the_instance_lives() {
    let mut config = revision(Protocol::Http1, 80, 1);
    config.spec.timeout = Duration::from_millis(100);
    let p = platform(config);
    let answer = p.get("/never").await;
    assert!(
        answer.contains("504 Gateway Timeout") && answer.ends_with("upstream request timeout"),
        "{answer}"
    );
    p.app.cancelled.acquire().await.unwrap().forget();
    assert!(p.get("/").await.contains("200 OK"));
    assert_eq!(p.app.started.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_noticed_by_the_container() {
    let p = platform(revision(Protocol::Http1, 80, 1));
    let request = p.spawn_get("/never");
    p.arrived(1).await;
    request.abort();
    p.app.cancelled.acquire().await.unwrap().forget();
    let fleet = p.gateway.fleet();
    eventually(|| fleet.revision(&p.config.key).in_flight == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_responses_and_killed_instances_are_told() {
    let p = platform(revision(Protocol::Http1, 80, 2));
    let broken = p.get("/broken").await;
    assert!(
        broken.contains("503") && broken.contains("HTTP response was malformed"),
        "{broken}"
    );
    let held = p.spawn_get("/hold");
    p.arrived(2).await;
    p.app.kill(ExitReason::Own);
    assert!(held.await.unwrap().contains("503"));
    assert!(
        p.get("/").await.contains("200 OK"),
        "the next one gets a new instance"
    );
    let held = p.spawn_get("/hold");
    p.arrived(2).await;
    p.app.kill(ExitReason::OutOfMemory);
    let answer = held.await.unwrap();
    assert!(
        answer.contains("500 Internal") && answer.contains("too much memory"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_invokers_reach_a_restricted_service() {
    struct Check;
    impl InvokerCheck for Check {
        fn check(&self, _: &ServiceKey, _: &str, token: Option<&str>) -> Result<(), Denied> {
            match token {
                None => Err(Denied::Forbidden),
                Some("good") => Ok(()),
                Some(_) => Err(Denied::Unauthenticated),
            }
        }
    }
    let p = platform_with(
        revision(Protocol::Http1, 80, 1),
        Access::Restricted(Arc::new(Check)),
        |_| {},
    );
    let ask = |auth: &str| {
        p.raw(format!(
            "GET /headers HTTP/1.1\r\nHost: {HOST}\r\n{auth}Connection: close\r\n\r\n"
        ))
    };
    let stranger = ask("").await;
    assert!(
        stranger.contains("403 Forbidden")
            && stranger.contains("does not have permission to get URL /headers")
    );
    assert!(
        ask("Authorization: Bearer bad\r\n")
            .await
            .contains("401 Unauthorized")
    );
    let invoker = ask("Authorization: Bearer good\r\n").await;
    assert!(
        invoker.contains("200 OK") && !invoker.contains("good"),
        "{invoker}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_ambiguous_requests_are_refused_and_reach_nobody() {
    let p = platform(revision(Protocol::Http1, 80, 1));
    let corpus = [
        format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"
        ),
        format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
        ),
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: +5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length : 5\r\n\r\nhello"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: evil\r\nConnection: close\r\n\r\n"),
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {HOST}:x\r\nConnection: close\r\n\r\n"),
        format!("GET /\x01 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        "nonsense\r\n\r\n".to_owned(),
        format!("GET / HTTP/9.9\r\nHost: {HOST}\r\n\r\n"),
    ];
    for bytes in corpus {
        let mut stream = p.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{bytes:?} got {answer:?}"
        );
        assert!(
            answer.matches("HTTP/1.1").count() <= 1,
            "{bytes:?} got {answer:?}"
        );
    }
    assert_eq!(p.app.arrived.available_permits(), 0);
    // Both framings at once: refused, or read as chunked, told to nobody else, and the connection closed
    // (RFC 9112, section 6.3).
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        let answer = p
            .raw(format!(
                "POST /headers HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
            ))
            .await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(
            answer.starts_with("HTTP/1.1 4")
                || !answer
                    .to_ascii_lowercase()
                    .contains("\ncontent-length: 5\n"),
            "{answer}"
        );
    }
    let big = "x".repeat(100_000);
    let answer = p
        .raw(format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nX: {big}\r\n\r\n"
        ))
        .await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let many = "X: 1\r\n".repeat(200);
    let answer = p
        .raw(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{many}\r\n"))
        .await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_over_the_limit_are_413_whether_announced_or_not() {
    let p = platform_with(revision(Protocol::Http1, 80, 1), Access::Public, |c| {
        c.limits.http1_request_body = Some(10)
    });
    let announced = p.raw(format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: 11\r\n\r\nhello world")).await;
    assert!(announced.contains("413"), "{announced}");
    let chunked = p.raw(format!("POST /grpc HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n")).await;
    assert!(chunked.contains("413"), "{chunked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_dropped_at_the_deadline() {
    let p = platform_with(revision(Protocol::Http1, 80, 1), Access::Public, |c| {
        c.limits.header_timeout = Duration::from_millis(100)
    });
    for begun in ["", "PRI", "GET / HT", "\x16\x03"] {
        let mut stream = p.connect().await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_revision_drains_and_leaves_nothing() {
    let p = platform(revision(Protocol::Http1, 80, 1));
    let held = p.spawn_get("/hold");
    p.arrived(1).await;
    let fleet = p.gateway.fleet();
    let (key, retiring) = (p.config.key.clone(), fleet.clone());
    let retired = tokio::spawn(async move { retiring.retire(&key).await });
    eventually(|| fleet.pool(&p.config.key).is_none()).await;
    assert!(p.get("/").await.contains("503"));
    p.app.gate.add_permits(1);
    assert!(held.await.unwrap().contains("200 OK"));
    retired.await.unwrap();
    assert_eq!(p.app.running(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_follow_minimum_manual_and_idleness() {
    let mut config = revision(Protocol::Http1, 80, 10);
    config.min = 2;
    let p = platform(config.clone());
    let fleet = p.gateway.fleet();
    eventually(|| fleet.revision(&p.config.key).ready == 2).await;
    p.app.kill(ExitReason::Own);
    eventually(|| {
        p.app.started.load(Ordering::SeqCst) == 3 && fleet.revision(&p.config.key).ready == 2
    })
    .await;
    config.manual = Some(4);
    fleet.ensure(config.clone());
    eventually(|| p.app.running() == 4).await;
    config.manual = None;
    config.min = 0;
    config.idle_timeout = Duration::from_millis(50);
    fleet.ensure(config);
    eventually(|| p.app.running() == 0).await;
    assert!(p.get("/").await.contains("200 OK"));
    eventually(|| p.app.running() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_lets_requests_finish_and_leaves_instances_running() {
    let p = platform(revision(Protocol::Http1, 80, 1));
    let held = p.spawn_get("/hold");
    p.arrived(1).await;
    let app = Arc::clone(&p.app);
    let address = p.address;
    let down = tokio::spawn(p.gateway.shutdown(Duration::from_secs(30)));
    // New connections are refused as soon as it drains.
    loop {
        if tokio::net::TcpStream::connect(address).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    app.gate.add_permits(1);
    assert!(held.await.unwrap().contains("200 OK"));
    down.await.unwrap();
    assert_eq!(app.running(), 1);
}
