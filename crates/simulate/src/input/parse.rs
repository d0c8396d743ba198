//! One line of a log to one request.

use std::borrow::Cow;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::csv::Columns;
use super::{Arrival, Format, InputOptions};
use crate::scenario::parse_duration;

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A request, and how exact its time is.
    Arrival(Arrival, Duration),
    /// Something else, or of somebody else.
    Other,
    /// An empty line, or a header.
    Nothing,
}

/// Reads the lines of one format.
#[derive(Debug, Clone)]
pub(super) enum Parser {
    Json,
    Combined,
    Csv(Columns),
}

/// Seconds are as exact as combined logs are.
const SECOND: Duration = Duration::from_secs(1);
/// The label under which Lauf says how long a request waited for an instance.
const WAITED: &str = "lauf.dev/waited";

impl Parser {
    /// The parser for a log with this first line, and whether that is a line like the others.
    pub(super) fn of(first: &str, options: &InputOptions) -> Result<(Self, bool), String> {
        let guess = if first.starts_with('{') {
            Format::Json
        } else if combined(first).is_ok() {
            Format::Combined
        } else {
            Format::Csv
        };
        match options.format.unwrap_or(guess) {
            Format::Json => Ok((Self::Json, true)),
            Format::Combined => Ok((Self::Combined, true)),
            Format::Csv => Ok((Self::Csv(Columns::of(first)?), false)),
        }
    }

    pub(super) fn format(&self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Combined => Format::Combined,
            Self::Csv(_) => Format::Csv,
        }
    }

    pub(super) fn parse(&self, line: &str, options: &InputOptions) -> Result<Parsed, String> {
        match self {
            Self::Json => json(line, options),
            Self::Combined => {
                let (arrival, precision) = combined(line)?;
                Ok(Parsed::Arrival(arrival, precision))
            }
            Self::Csv(columns) => {
                let (arrival, precision) = columns.row(line)?;
                Ok(Parsed::Arrival(arrival, precision))
            }
        }
    }
}

pub(super) fn since_epoch(time: Timestamp) -> Option<Duration> {
    u64::try_from(time.as_nanosecond())
        .ok()
        .map(Duration::from_nanos)
}

/// As much of a log entry as matters here (Cloud Logging, `LogEntry`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow)]
    http_request: Option<HttpRequest<'a>>,
    #[serde(borrow, default)]
    resource: Resource<'a>,
    #[serde(borrow, default)]
    labels: Labels<'a>,
}

#[derive(Deserialize)]
struct HttpRequest<'a> {
    status: Option<u16>,
    #[serde(borrow)]
    latency: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Default)]
struct Resource<'a> {
    #[serde(borrow, default)]
    labels: ResourceLabels<'a>,
}

#[derive(Deserialize, Default)]
struct ResourceLabels<'a> {
    #[serde(borrow)]
    service_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    revision_name: Option<Cow<'a, str>>,
}

#[derive(Deserialize, Default)]
struct Labels<'a> {
    #[serde(borrow, rename = "lauf.dev/waited")]
    waited: Option<Cow<'a, str>>,
}

fn json(line: &str, options: &InputOptions) -> Result<Parsed, String> {
    let entry: Entry<'_> =
        serde_json::from_str(line).map_err(|e| format!("is no log entry: {e}"))?;
    let Some(request) = entry.http_request else {
        return Ok(Parsed::Other);
    };
    let labels = entry.resource.labels;
    let is = |wanted: &Option<String>, name: Option<Cow<'_, str>>| {
        wanted.is_none() || wanted.as_deref() == name.as_deref()
    };
    if !is(&options.service, labels.service_name) || !is(&options.revision, labels.revision_name) {
        return Ok(Parsed::Other);
    }
    let time = entry.timestamp.ok_or("has no timestamp")?;
    let at = time
        .parse()
        .ok()
        .and_then(since_epoch)
        .ok_or_else(|| format!("'{time}' is not a time"))?;
    let duration = |text: Cow<'_, str>, what: &str| {
        parse_duration(&text).ok_or_else(|| format!("'{text}' is not a {what}"))
    };
    let latency = request
        .latency
        .map(|l| duration(l, "latency"))
        .transpose()?;
    let waited = entry
        .labels
        .waited
        .map(|w| duration(w, WAITED))
        .transpose()?;
    // What is answered without an instance says nothing of how long one works.
    let served = !matches!(request.status, Some(429 | 503 | 504));
    let arrival = Arrival {
        at,
        service_time: latency
            .filter(|_| served)
            .map(|latency| latency.saturating_sub(waited.unwrap_or_default())),
    };
    Ok(Parsed::Arrival(arrival, Duration::ZERO))
}

/// `HOST IDENT USER [TIME] "REQUEST" STATUS BYTES "REFERER" "AGENT" SECONDS`, the last three or one left
/// out.
fn combined(line: &str) -> Result<(Arrival, Duration), String> {
    let wrong =
        || "is no line of a combined log: HOST - - [10/Oct/2000:13:55:36 -0700] \"GET /\" 200 12";
    let (_, rest) = line.split_once(" [").ok_or_else(wrong)?;
    let (time, rest) = rest.split_once("] \"").ok_or_else(wrong)?;
    let at = Timestamp::strptime("%d/%b/%Y:%H:%M:%S %z", time)
        .ok()
        .and_then(since_epoch)
        .ok_or_else(|| format!("'{time}' is not a time such as 10/Oct/2000:13:55:36 -0700"))?;
    let mut parts = fields(unquoted(rest).ok_or_else(wrong)?);
    let status: u16 = parts
        .next()
        .and_then(|status| status.parse().ok())
        .ok_or_else(wrong)?;
    let _bytes = parts.next().ok_or_else(wrong)?;
    // What follows the agent, where the log was set up so.
    let (_referer, _agent) = (parts.next(), parts.next());
    let service_time = parts
        .last()
        .and_then(|last| last.rsplit('=').next()?.parse().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let served = !matches!(status, 429 | 503 | 504);
    let arrival = Arrival {
        at,
        service_time: service_time.filter(|_| served),
    };
    Ok((arrival, SECOND))
}

/// The fields of a line: words, and texts in quotes without them.
fn fields(mut rest: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        if let Some(text) = rest.strip_prefix('"') {
            rest = unquoted(text)?;
            return text.get(..text.len() - rest.len() - 1);
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace());
        let word;
        (word, rest) = rest.split_at(end.unwrap_or(rest.len()));
        (!word.is_empty()).then_some(word)
    })
}

/// What follows the quote that ends a text; quotes after backslashes do not.
fn unquoted(text: &str) -> Option<&str> {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    })?;
    text.get(end.0 + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Parsed, String> {
        let options = InputOptions {
            service: Some("hello".into()),
            ..InputOptions::default()
        };
        let (parser, _) = Parser::of(line, &options)?;
        parser.parse(line, &options)
    }

    fn entry(service: &str, status: u16, labels: &str) -> String {
        format!(
            "{{\"timestamp\":\"1970-01-01T00:00:05.5Z\",\"resource\":{{\"type\":\"cloud_run_revision\",\
             \"labels\":{{\"service_name\":\"{service}\"}}}},\"labels\":{{{labels}}},\
             \"httpRequest\":{{\"status\":{status},\"latency\":\"1.250s\",\"requestUrl\":\"\\\"\"}}}}"
        )
    }

    #[test]
    fn entries_of_cloud_logging() {
        let at = Duration::from_millis(5500);
        let is = |service_time: Option<u64>| {
            let service_time = service_time.map(Duration::from_millis);
            Ok(Parsed::Arrival(
                Arrival { at, service_time },
                Duration::ZERO,
            ))
        };
        assert_eq!(read(&entry("hello", 200, "")), is(Some(1250)));
        let waited = "\"lauf.dev/waited\":\"1.2s\"";
        assert_eq!(read(&entry("hello", 200, waited)), is(Some(50)));
        assert_eq!(read(&entry("hello", 429, "")), is(None));
        assert_eq!(read(&entry("other", 200, "")), Ok(Parsed::Other));
        assert_eq!(read("{\"textPayload\":\"x\"}"), Ok(Parsed::Other));
        assert!(
            read("{\"httpRequest\":{}")
                .unwrap_err()
                .contains("no log entry")
        );
    }

    #[test]
    fn combined_logs() {
        let line = |end: &str| {
            format!("::1 - - [01/Jan/1970:01:00:05 +0100] \"GET /a\\\" b HTTP/1.1\" 200 17{end}")
        };
        let is = |service_time| {
            let at = Duration::from_secs(5);
            Ok(Parsed::Arrival(Arrival { at, service_time }, SECOND))
        };
        assert_eq!(read(&line("")), is(None));
        assert_eq!(read(&line(" \"-\" \"curl/8.0 1\"")), is(None));
        let quarter = Some(Duration::from_millis(250));
        assert_eq!(read(&line(" \"-\" \"curl\" 0.250")), is(quarter));
        assert_eq!(read(&line(" \"-\" \"curl\" rt=0.250")), is(quarter));
        assert!(combined("nothing").is_err());
    }
}
