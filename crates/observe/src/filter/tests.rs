#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::json;

use super::{
    Filter,
    ast::{Compare, Expr, Op, Path},
};
use crate::LogEntry;

fn entry() -> LogEntry {
    serde_json::from_value(json!({
        "insertId": "id1",
        "jsonPayload": {
            "message": "Order Placed", "count": 12, "ok": true, "none": null,
            "user": {"name": "Ada", "tags": ["vip", "Früh"]}, "with space": "x",
        },
        "httpRequest": {
            "requestMethod": "GET", "requestUrl": "https://hello.example/a?b=c", "status": 503,
            "responseSize": "2048", "latency": "0.750s",
        },
        "resource": {"type": "cloud_run_revision", "labels": {
            "project_id": "p", "location": "us-central1", "service_name": "hello",
        }},
        "timestamp": "2026-11-23T10:00:00.5Z",
        "receiveTimestamp": "2026-11-23T10:00:01Z",
        "severity": "WARNING",
        "labels": {"instanceId": "i-1", "run.googleapis.com/x": "y"},
        "logName": "projects/p/logs/run.googleapis.com%2Fstdout",
        "trace": "projects/p/traces/abc",
    }))
    .unwrap()
}

#[test]
fn what_passes_and_what_does_not() {
    let entry = entry();
    let table = [
        ("", true),
        ("-- nothing but a remark", true),
        // As gcloud writes them.
        (
            "resource.type = cloud_run_revision \n AND resource.labels.service_name = hello \n AND \
             resource.labels.location = us-central1 \n AND severity >= DEFAULT",
            true,
        ),
        (
            "resource.type = cloud_run_revision \n AND resource.labels.service_name = other \n AND \
             severity >= DEFAULT",
            false,
        ),
        (
            "resource.type = cloud_run_job \n AND resource.labels.job_name = j",
            false,
        ),
        (r#"timestamp>="2026-11-23T10:00:00Z""#, true),
        (
            r#"timestamp>="2026-11-23T11:00:00+01:00" timestamp<"2026-11-24""#,
            true,
        ),
        (r#"timestamp>="2026-11-24""#, false),
        ("timestamp<=2026-11-23T10:00:00.5Z", true),
        // Severity.
        ("severity=WARNING", true),
        ("severity>=error", false),
        ("severity>200 severity<500", true),
        ("severity=(ERROR OR WARNING)", true),
        // NOT binds tighter than OR, OR tighter than AND.
        (
            "severity=WARNING OR severity=ERROR AND labels.instanceId=none",
            false,
        ),
        (
            "severity=WARNING OR (severity=ERROR AND labels.instanceId=none)",
            true,
        ),
        ("NOT severity=ERROR OR severity=INFO", true),
        ("-severity=ERROR", true),
        ("NOT NOT severity=WARNING", true),
        // Text.
        ("jsonPayload.message=\"order placed\"", true),
        ("jsonPayload.message=order", false),
        ("jsonPayload.message:PLACE", true),
        ("jsonPayload.message=~\"^Order .l\"", true),
        ("jsonPayload.message=~\"^order\"", false),
        ("jsonPayload.message!~\"^order\"", true),
        (r#"httpRequest.requestUrl=~"hello\.example/\w""#, true),
        ("jsonPayload.user.tags=früh", true),
        ("jsonPayload.user.tags=none", false),
        ("jsonPayload.user:ada", true),
        (r#"jsonPayload."with space"=x"#, true),
        // Numbers, flags, null, durations.
        ("jsonPayload.count>=12 AND jsonPayload.count<12.5", true),
        ("jsonPayload.count=9", false),
        ("jsonPayload.count>9", true),
        ("jsonPayload.ok=true", true),
        ("jsonPayload.none=NULL_VALUE", true),
        ("httpRequest.status>=500", true),
        ("httpRequest.status=(200 OR 204)", false),
        ("httpRequest.responseSize>1000", true),
        ("httpRequest.latency>0.5s httpRequest.latency<\"1s\"", true),
        // Fields that are not there.
        ("jsonPayload.missing!=x", false),
        ("NOT jsonPayload.missing=x", true),
        ("jsonPayload.missing:*", false),
        ("jsonPayload.user:*", true),
        ("httpRequest:*", true),
        ("operation:*", false),
        ("textPayload:*", false),
        // Labels and names.
        (r#"labels."run.googleapis.com/x"=y"#, true),
        ("labels.run.googleapis.com/x=y", true),
        ("log_name=projects/p/logs/run.googleapis.com%2Fstdout", true),
        ("log_id(\"run.googleapis.com/stdout\")", true),
        ("log_id(run.googleapis.com/stderr)", false),
        ("logName:stdout", true),
        // Anywhere.
        ("ada", true),
        ("\"order placed\"", true),
        ("order AND hello -nobody", true),
        ("503", true),
        ("nobody", false),
        ("us-central1", true),
        ("(ada OR nobody) (order)", true),
    ];
    for (text, expected) in table {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.matches(&entry), expected, "{text}");
    }
}

#[test]
fn mistakes_are_named_with_their_place() {
    let table = [
        ("severity>=", 10, "a value is expected"),
        ("severity=LOUD", 9, "not a severity"),
        ("timestamp>yesterday", 10, "not a time"),
        ("foo=bar", 0, "there is no field foo"),
        ("ok AND bär=1", 7, "there is no field bär"),
        ("(a", 2, "')' is missing"),
        ("a)", 1, "')'"),
        ("AND a", 0, "AND needs something"),
        ("a AND", 5, "the filter ends"),
        ("a OR OR b", 5, "OR needs something"),
        ("textPayload=\"open", 12, "no closing"),
        ("textPayload=~\"(\"", 13, "not a regular expression"),
        ("SEARCH(\"x\")", 0, "SEARCH is not supported"),
        ("sample(insertId, 0.5)", 0, "sample is not supported"),
        ("\"a\"=b", 0, "field name is expected"),
        ("=b", 0, "'=' is not expected"),
    ];
    for (text, position, says) in table {
        let error = Filter::parse(text).unwrap_err();
        assert!(error.message.contains(says), "{text}: {error}");
        assert_eq!(error.position, position, "{text}: {error}");
    }
    for deep in [
        "(".repeat(10_000),
        "NOT ".repeat(4_900) + "a",
        "-(".repeat(9_000),
    ] {
        assert!(Filter::parse(&deep).unwrap_err().message.contains("levels"));
    }
    assert!(
        Filter::parse(&"a ".repeat(10_001))
            .unwrap_err()
            .message
            .contains("at most 20000")
    );
    let many = "textPayload=~a ".repeat(33);
    assert!(
        Filter::parse(&many)
            .unwrap_err()
            .message
            .contains("regular expressions")
    );
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("AND".to_owned()),
        Just("*".to_owned()),
        "[a-zA-Z0-9.:/_-]{0,8}",
        "\\PC{0,6}",
        "[\"'\\\\\n\t ()]{0,5}"
    ]
}

fn leaf() -> impl Strategy<Value = Expr> {
    let first = prop_oneof![Just("jsonPayload"), Just("labels"), Just("textPayload")];
    let path = (first, proptest::collection::vec(text(), 0..3))
        .prop_map(|(first, rest)| Path {
            parts: std::iter::once(first.to_owned()).chain(rest).collect(),
            at: 0,
        })
        .boxed();
    let op = prop_oneof![
        Just(Op::Eq),
        Just(Op::Ne),
        Just(Op::Lt),
        Just(Op::Le),
        Just(Op::Gt),
        Just(Op::Ge),
        Just(Op::Has)
    ];
    prop_oneof![
        text().prop_map(Expr::Global),
        text().prop_map(Expr::LogId),
        path.clone().prop_map(Expr::Exists),
        (path, op, text()).prop_map(|(path, op, value)| Expr::Compare(Compare {
            path,
            op,
            value,
            at: 0
        })),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    leaf().prop_recursive(4, 24, 3, |inner| {
        let many = proptest::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            many.clone().prop_map(Expr::And),
            many.prop_map(Expr::Or),
            inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back(expr in expr()) {
        let text = expr.to_string();
        let filter = Filter::parse(&text).map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert_eq!(filter.expr.as_ref(), Some(&expr), "{}", text);
    }

    #[test]
    fn any_text_is_a_filter_or_an_error(text in "\\PC{0,60}") {
        if let Ok(filter) = Filter::parse(&text) {
            let _ = filter.matches(&entry());
        }
    }

    #[test]
    fn any_pieces_are_a_filter_or_an_error(
        pieces in proptest::collection::vec(prop_oneof![
            Just("("), Just(")"), Just("AND"), Just("OR"), Just("NOT"), Just("-"), Just(" "), Just("\""),
            Just("'"), Just("\\"), Just("\\u00"), Just("="), Just("=~"), Just("!~"), Just(":"), Just("*"),
            Just("severity"), Just("jsonPayload"), Just("."), Just("log_id"), Just(","), Just("--"),
            Just("\n"), Just("ä"), Just("1s"), Just("500"),
        ], 0..30),
    ) {
        if let Ok(filter) = Filter::parse(&pieces.concat()) {
            let _ = filter.matches(&entry());
            let again = Filter::parse(&filter.to_string());
            prop_assert_eq!(again.as_ref(), Ok(&filter), "{}", filter);
        }
    }

    #[test]
    fn hints_never_hide_what_passes(expr in expr()) {
        let filter = Filter::parse(&expr.to_string()).unwrap();
        if filter.matches(&entry()) {
            let mut terms = Vec::new();
            super::entry_terms(&entry(), &mut terms);
            for any_of in &filter.hints().terms {
                prop_assert!(any_of.iter().any(|term| terms.contains(term)));
            }
        }
    }
}
