//! What a container writes and what the log shows of it.

use jiff::Timestamp;
use lauf_observe::{Payload, Severity, parse_container_line};
use proptest::prelude::*;
use serde_json::json;

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

fn text(line: &[u8]) -> String {
    match parse_container_line(line, now()).payload {
        Payload::Text(text) => text,
        Payload::Json(fields) | Payload::Proto(fields) => panic!("{fields:?}"),
    }
}

#[test]
fn a_plain_line_is_text() {
    let line = parse_container_line(b"hello\r\n", now());
    assert_eq!(line.payload, Payload::Text("hello".to_owned()));
    assert_eq!((line.severity, line.timestamp), (Severity::Default, now()));
    assert_eq!(text(b""), "");
    assert_eq!(text("grün ✓".as_bytes()), "grün ✓");
    assert_eq!(text(b"a\xff\xfeb"), "a\\xff\\xfeb");
    for not_an_object in ["[1,2]", "\"x\"", "12", "{broken", "{} trailing"] {
        assert_eq!(text(not_an_object.as_bytes()), not_an_object);
    }
    assert_eq!(text(&b"{\"a\":".repeat(500)), "{\"a\":".repeat(500));
}

#[test]
fn a_lone_message_is_text() {
    let line = br#"{"message":"hi","severity":"warn","time":"2026-11-23T09:59:59.5Z"}"#;
    let line = parse_container_line(line, now());
    assert_eq!(line.payload, Payload::Text("hi".to_owned()));
    assert_eq!(line.severity, Severity::Warning);
    assert_eq!(line.timestamp, "2026-11-23T09:59:59.5Z".parse().unwrap());
}

#[test]
fn special_fields_go_where_they_belong() {
    let line = json!({
        "message": "done", "user": 7, "severity": "ERROR",
        "timestamp": {"seconds": 1_795_428_000_i64, "nanos": 5},
        "httpRequest": {"requestMethod": "GET", "status": 200, "latency": "0.25s", "requestSize": 10},
        "logging.googleapis.com/insertId": "my-id",
        "logging.googleapis.com/labels": {"a": "b"},
        "logging.googleapis.com/operation": {"id": "o", "first": true},
        "logging.googleapis.com/sourceLocation": {"file": "a.rs", "line": "3", "function": "f"},
        "logging.googleapis.com/spanId": "00f067aa0ba902b7",
        "logging.googleapis.com/trace": "projects/p/traces/t",
        "logging.googleapis.com/trace_sampled": true,
    });
    let line = parse_container_line(line.to_string().as_bytes(), now());
    let expected = json!({"message": "done", "user": 7});
    assert_eq!(
        line.payload,
        Payload::Json(expected.as_object().unwrap().clone())
    );
    assert_eq!(line.severity, Severity::Error);
    assert_eq!(line.timestamp.subsec_nanosecond(), 5);
    let request = line.http_request.unwrap();
    assert_eq!(
        (request.status, request.request_size),
        (Some(200), Some(10))
    );
    assert_eq!(request.latency, Some(std::time::Duration::from_millis(250)));
    assert_eq!(line.insert_id, "my-id");
    assert_eq!(line.labels["a"], "b");
    assert!(line.operation.unwrap().first);
    assert_eq!(line.source_location.unwrap().line, Some(3));
    assert_eq!(line.span_id.as_deref(), Some("00f067aa0ba902b7"));
    assert_eq!(line.trace.as_deref(), Some("projects/p/traces/t"));
    assert!(line.trace_sampled);
}

#[test]
fn a_special_field_of_the_wrong_form_stays() {
    for field in [
        json!({"severity": "LOUD"}),
        json!({"severity": ["x"]}),
        json!({"time": "soon"}),
        json!({"timestamp": {"seconds": "x"}}),
        json!({"timestampSeconds": 1, "timestampNanos": 1e30}),
        json!({"httpRequest": "GET /"}),
        json!({"logging.googleapis.com/labels": {"a": 1}}),
        json!({"logging.googleapis.com/trace_sampled": "yes"}),
    ] {
        let line = parse_container_line(field.to_string().as_bytes(), now());
        assert_eq!(
            line.payload,
            Payload::Json(field.as_object().unwrap().clone())
        );
        assert_eq!((line.severity, line.timestamp), (Severity::Default, now()));
    }
    // A time that the log would not take is not believed.
    for far in ["1999-01-01T00:00:00Z", "2199-01-01T00:00:00Z"] {
        let line = json!({"message": "m", "time": far}).to_string();
        assert_eq!(
            parse_container_line(line.as_bytes(), now()).timestamp,
            now()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_container_line(&bytes, now());
    }
}
