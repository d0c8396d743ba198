//! `lauf logs`: what instances wrote and which requests they served.

use std::collections::HashSet;

use ::http::Method;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use super::http::{Api, Face};
use super::output::{Format, Out};
use super::service::{self, text};

/// The longest line of a followed log, in bytes: an entry has at most 256 KiB.
const MAX_LINE: usize = 1 << 20;
/// Entries asked for at once.
const PAGE: usize = 1000;

const EXAMPLES: &str = "\
Examples:
  lauf logs hello                          the last 100 lines
  lauf logs hello -f                       and those that come
  lauf logs hello --severity ERROR         errors and worse
  lauf logs hello --revision hello-00002-xyz --limit 1000";

/// Arguments of `lauf logs`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogsArgs {
    /// The service's name
    name: String,
    /// Only of this revision
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    #[command(flatten)]
    how: How,
}

// How much of a log is shown, and how. (No doc comment: clap would print it as the command's own.)
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Go on printing what is written
    #[arg(long, short)]
    follow: bool,
    /// Lines at most, the newest
    #[arg(long, short = 'n', default_value_t = 100, value_name = "NUMBER")]
    limit: usize,
    /// Only this bad or worse: DEBUG, INFO, NOTICE, WARNING, ERROR, CRITICAL, ALERT, EMERGENCY
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    severity: Option<String>,
}

fn severity(text: &str) -> Result<String, String> {
    const ALL: [&str; 9] = [
        "DEFAULT",
        "DEBUG",
        "INFO",
        "NOTICE",
        "WARNING",
        "ERROR",
        "CRITICAL",
        "ALERT",
        "EMERGENCY",
    ];
    let word = text.to_ascii_uppercase();
    if ALL.contains(&word.as_str()) {
        Ok(word)
    } else {
        Err(format!("it must be one of {}", ALL.join(", ")))
    }
}

/// Runs `lauf logs`.
pub(crate) async fn run(api: &Api, out: &Out, args: &LogsArgs) -> Result<()> {
    // A name that does not exist has no log either, and an empty screen would not say why.
    service::read(api, &args.name).await?;
    let filter = filter(api, &args.name, args.revision.as_deref(), None);
    show(api, out, &filter, &args.how).await
}

/// Shows the entries that match, and goes on with those that come if asked to.
pub(crate) async fn show(api: &Api, out: &Out, filter: &str, how: &How) -> Result<()> {
    let severity = how.severity.as_ref();
    let filter = match severity {
        Some(severity) => format!("{filter} AND severity >= {severity}"),
        None => filter.to_owned(),
    };
    // Following begins before the past is read, so that nothing falls between.
    let tail = if how.follow {
        Some(tail(api, &filter).await?)
    } else {
        None
    };
    let entries = last(api, &filter, how.limit).await?;
    let coloured = out.tint("x", super::output::Tint::Dim) != "x";
    let Some(mut tail) = tail else {
        if out.structured(&Value::from(entries.clone()))? {
            return Ok(());
        }
        if entries.is_empty() {
            out.note("Nothing was logged that matches.");
        }
        for entry in &entries {
            out.line(&line(entry, coloured))?;
        }
        return Ok(());
    };
    let print = |entry: &Value| match out.format {
        // A stream has no end, so each entry stands alone.
        Format::Json => out.line(&entry.to_string()),
        Format::Yaml => out.raw(format!("---\n{}", super::output::yaml(entry)?).as_bytes()),
        Format::Table => out.line(&line(entry, coloured)),
    };
    let mut seen: HashSet<String> = HashSet::new();
    for entry in &entries {
        seen.insert(text(entry, "/insertId").to_owned());
        print(entry)?;
    }
    while let Some(entry) = tail.next().await? {
        // Only what was written while the past was read can come twice.
        if !seen.remove(text(&entry, "/insertId")) {
            print(&entry)?;
        }
    }
    bail!("The server ended the log. Is it being stopped?");
}

/// A filter of Cloud Logging for a service's entries.
pub(crate) fn filter(
    api: &Api,
    service: &str,
    revision: Option<&str>,
    severity: Option<&str>,
) -> String {
    let mut terms = vec![
        "resource.type = \"cloud_run_revision\"".to_owned(),
        format!("resource.labels.service_name = {}", quoted(service)),
        format!("resource.labels.location = {}", quoted(&api.region)),
    ];
    terms.extend(revision.map(|r| format!("resource.labels.revision_name = {}", quoted(r))));
    terms.extend(severity.map(|s| format!("severity >= {s}")));
    terms.join(" AND ")
}

/// A text in a filter.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The newest entries that match, oldest first.
pub(crate) async fn last(api: &Api, filter: &str, limit: usize) -> Result<Vec<Value>> {
    let mut entries: Vec<Value> = Vec::new();
    let mut token = String::new();
    while entries.len() < limit {
        let body = json!({
            "resourceNames": [format!("projects/{}", api.project)],
            "filter": filter,
            "orderBy": "timestamp desc",
            "pageSize": (limit - entries.len()).min(PAGE),
            "pageToken": token,
        });
        let path = ["v2", "entries:list"];
        let page = api.call(Method::POST, Face::Logging, &path, &[], Some(&body));
        let page = page.await?;
        entries.extend(page["entries"].as_array().cloned().unwrap_or_default());
        token = text(&page, "/nextPageToken").to_owned();
        if token.is_empty() {
            break;
        }
    }
    entries.truncate(limit);
    entries.reverse();
    Ok(entries)
}

/// Entries as they are written.
pub(crate) struct Tail {
    reply: reqwest::Response,
    buffer: Vec<u8>,
}

/// Entries that match, from now on.
pub(crate) async fn tail(api: &Api, filter: &str) -> Result<Tail> {
    let path = ["lauf", "v1", "logs:tail"];
    let query = [("filter", filter)];
    let reply = api.open(
        Method::GET,
        Face::Native,
        &path,
        &query,
        "application/jsonl",
    );
    Ok(Tail {
        reply: reply.await?,
        buffer: Vec::new(),
    })
}

impl Tail {
    /// The next entry; `None` when the server ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Value>> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=searched + end).collect();
                searched = 0;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let entry = serde_json::from_slice(&line);
                return Ok(Some(
                    entry.context("the server sent a line that is no entry")?,
                ));
            }
            searched = self.buffer.len();
            if searched > MAX_LINE {
                bail!("The server sent a log line of more than {MAX_LINE} bytes.");
            }
            match self.reply.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Ok(None),
                Err(error) => bail!(
                    "The connection to the log broke: {}",
                    super::http::innermost(&error)
                ),
            }
        }
    }
}

/// An entry as one line (or more, if its text has more).
pub(crate) fn line(entry: &Value, coloured: bool) -> String {
    let time = match text(entry, "/timestamp").parse::<Timestamp>() {
        Ok(time) => time
            .to_zoned(TimeZone::system())
            .strftime("%m-%d %H:%M:%S%.3f")
            .to_string(),
        Err(_) => text(entry, "/timestamp").to_owned(),
    };
    let severity = text(entry, "/severity");
    let word = match severity {
        "" | "DEFAULT" => "",
        other => other,
    };
    let revision = source(entry);
    let said = said(entry);
    if !coloured {
        let line = format!("{time} {word:<8} {revision}  {said}");
        return line.trim_end().to_owned();
    }
    let colour = match severity {
        "ERROR" | "CRITICAL" | "ALERT" | "EMERGENCY" => "31",
        "WARNING" => "33",
        "DEBUG" => "2",
        _ => "0",
    };
    format!("\u{1b}[2m{time} {word:<8} {revision}\u{1b}[0m  \u{1b}[{colour}m{said}\u{1b}[0m")
}

/// What wrote an entry: a revision, or a task of an execution.
fn source(entry: &Value) -> String {
    let label = |name: &str| entry["labels"][name].as_str();
    match (
        label("run.googleapis.com/execution_name"),
        label("run.googleapis.com/task_index"),
    ) {
        (Some(execution), Some(index)) => format!("{execution}/{index}"),
        _ => text(entry, "/resource/labels/revision_name").to_owned(),
    }
}

/// What an entry says: its text, its message, or the request it is about. Characters that would
/// command the terminal are shown, not obeyed.
fn said(entry: &Value) -> String {
    let mut parts = Vec::new();
    let request = &entry["httpRequest"];
    if request.is_object() {
        let status = match &request["status"] {
            Value::Null => String::new(),
            status => status.to_string(),
        };
        let latency = latency(text(request, "/latency"));
        let about = [
            text(request, "/requestMethod"),
            &status,
            &latency,
            text(request, "/requestUrl"),
        ];
        let about: Vec<&str> = about.into_iter().filter(|part| !part.is_empty()).collect();
        parts.push(about.join(" "));
    }
    if let Some(text) = entry["textPayload"].as_str().filter(|t| !t.is_empty()) {
        parts.push(text.to_owned());
    }
    if let Some(object) = entry["jsonPayload"].as_object() {
        match object.get("message").and_then(Value::as_str) {
            Some(message) if object.len() == 1 => parts.push(message.to_owned()),
            Some(message) => {
                let mut rest = object.clone();
                rest.remove("message");
                parts.push(format!("{message} {}", Value::Object(rest)));
            }
            None => parts.push(entry["jsonPayload"].to_string()),
        }
    }
    let said = parts.join(" ");
    said.trim_end_matches('\n')
        .chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// `0.000408500s` as people say it: `0.4ms`, two or three digits that say something.
fn latency(text: &str) -> String {
    let seconds = text.strip_suffix('s').and_then(|t| t.parse::<f64>().ok());
    match seconds {
        // The limits are those at which rounding adds a digit.
        Some(seconds) if seconds < 0.009_95 => format!("{:.1}ms", seconds * 1000.0),
        Some(seconds) if seconds < 0.999_5 => format!("{:.0}ms", seconds * 1000.0),
        Some(seconds) => format!("{seconds:.2}s"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_lines() {
        let entry = json!({"timestamp": "2026-11-23T10:00:00.123456Z", "severity": "ERROR",
            "resource": {"labels": {"revision_name": "r-1"}}, "textPayload": "bad \u{1b}[2J\n"});
        let line = line(&entry, false);
        assert!(line.ends_with("ERROR    r-1  bad \u{fffd}[2J"), "{line}");
        let request = json!({"httpRequest": {"requestMethod": "GET", "status": 200,
            "latency": "0.012s", "requestUrl": "http://x/"}});
        assert_eq!(said(&request), "GET 200 12ms http://x/");
        assert_eq!(said(&json!({"jsonPayload": {"message": "m"}})), "m");
        assert_eq!(
            said(&json!({"jsonPayload": {"message": "m", "a": 1}})),
            "m {\"a\":1}"
        );
    }

    #[test]
    fn latencies_are_short() {
        for (written, shown) in [
            ("0.000408500s", "0.4ms"),
            ("0.009949999s", "9.9ms"),
            ("0.009960s", "10ms"),
            ("0.2504s", "250ms"),
            ("0.999600s", "1.00s"),
            ("61.5s", "61.50s"),
            ("3600s", "3600.00s"),
            ("", ""),
        ] {
            assert_eq!(latency(written), shown, "{written}");
        }
    }

    #[test]
    fn a_line_without_words_ends_with_what_is_known() {
        let entry = json!({"timestamp": "x", "textPayload": "",
            "resource": {"labels": {"revision_name": "r-1"}}});
        assert_eq!(line(&entry, false), "x          r-1");
        let nothing = json!({"timestamp": "x", "textPayload": ""});
        assert_eq!(line(&nothing, false), "x");
    }

    #[test]
    fn severities_are_checked() {
        assert_eq!(severity("error"), Ok("ERROR".to_owned()));
        assert!(severity("bad").is_err());
    }
}
