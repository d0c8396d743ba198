//! Whatever a log holds, reading it ends, in order, and says what it could not read.
#![allow(missing_docs)]

use lauf_simulate::*;
use proptest::prelude::*;

fn read(bytes: &[u8], format: Option<Format>) -> (Vec<Arrival>, InputSummary) {
    let options = InputOptions {
        format,
        window: 3,
        ..InputOptions::default()
    };
    let mut input = Input::new(bytes, options);
    let mut all = Vec::new();
    while let Some(arrival) = input.next_arrival().unwrap() {
        all.push(arrival);
    }
    (all, input.summary().clone())
}

fn a_line() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        Just(
            r#"{"timestamp":"2026-01-31T10:00:00Z","httpRequest":{"status":200,"latency":"0.1s"}}"#
        ),
        Just(r#"::1 - - [31/Jan/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 17 "-" "curl" 0.25"#),
        Just("t,duration"),
        Just("12.5,0.25"),
        Just("["),
        Just("]"),
    ];
    let broken = (known.clone(), any::<proptest::sample::Index>(), any::<u8>()).prop_map(
        |(line, at, byte)| {
            let mut line = line.as_bytes().to_vec();
            let at = at.index(line.len());
            line[at] = byte;
            line
        },
    );
    prop_oneof![
        known.prop_map(|line| line.as_bytes().to_vec()),
        broken,
        proptest::collection::vec(any::<u8>(), 0..80),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end(
        lines in proptest::collection::vec(a_line(), 0..40),
        format in proptest::option::of(prop_oneof![Just(Format::Json), Just(Format::Combined), Just(Format::Csv)]),
    ) {
        let bytes = lines.join(&b'\n');
        let (all, summary) = read(&bytes, format);
        prop_assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
        prop_assert_eq!(summary.requests, u64::try_from(all.len()).unwrap());
        prop_assert!(summary.requests + summary.bad + summary.others <= summary.lines + 1);
        prop_assert!(summary.first_bad.len() <= 10);
    }
}

#[test]
fn an_export_of_gcloud_is_one_array() {
    let text = r#"[
  {
    "httpRequest": {"latency": "0.200s", "status": 200},
    "timestamp": "2026-01-31T10:00:01Z"
  },
  {"textPayload": "not a request", "timestamp": "2026-01-31T10:00:00Z"},
  {"httpRequest": {"status": 200}, "timestamp": "yesterday"},
  {
    "httpRequest": {"latency": "0.100s", "status": 200},
    "timestamp": "2026-01-31T10:00:00Z"
  }
]"#;
    let (all, summary) = read(text.as_bytes(), None);
    assert_eq!(all.len(), 2);
    assert!(all[0].at < all[1].at, "in the order of arrival");
    assert_eq!((summary.others, summary.bad), (1, 1));
    assert_eq!(summary.first_bad[0].line, 7);
    assert!(
        summary.first_bad[0]
            .why
            .contains("'yesterday' is not a time")
    );
}
