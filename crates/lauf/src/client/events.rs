//! `lauf events tail`: the messages that are published from now on, as they come.

use ::http::Method;
use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{Args, Subcommand};
use futures_util::future::select_all;
use serde_json::{Value, json};

use super::deploy::nonce;
use super::http::{Api, Face};
use super::list::time;
use super::output::{Format, Out, Tint};
use super::service::text;

/// Messages asked for at once.
const BATCH: u32 = 100;
/// Topics whose messages are shown at the same time: one request waits for each.
const MOST: usize = 50;

/// What can be seen of events.
#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Print the messages that are published to topics, as they come
    Tail(TailArgs),
}

const EXAMPLES: &str = "\
Examples:
  lauf events tail                         of all topics
  lauf events tail images -n 1             the next one of a topic
  lauf events tail --format json | jq .message.attributes";

/// Arguments of `lauf events tail`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TailArgs {
    /// Topics; all of the project where none is named
    topics: Vec<String>,
    /// End after this many messages
    #[arg(long, short = 'n', value_name = "NUMBER")]
    limit: Option<u64>,
}

/// Runs `lauf events`.
pub(crate) async fn run(api: &Api, out: &Out, command: EventsCommand) -> Result<()> {
    match command {
        EventsCommand::Tail(args) => tail(api, out, &args).await,
    }
}

async fn tail(api: &Api, out: &Out, args: &TailArgs) -> Result<()> {
    let topics = match args.topics.as_slice() {
        [] => topics(api).await?,
        named => named.to_vec(),
    };
    if topics.is_empty() {
        out.note(&format!(
            "There are no topics in project {}. Make one: gcloud pubsub topics create NAME",
            api.project
        ));
        return Ok(());
    }
    if topics.len() > MOST {
        bail!(
            "There are {} topics, and {MOST} can be shown at the same time: name some.",
            topics.len()
        );
    }
    let mut taps = Vec::new();
    let shown = async {
        for topic in &topics {
            taps.push(Tap::open(api, topic).await?);
        }
        out.note(&format!(
            "Waiting for messages of {}. Ctrl-C ends it.",
            topics.join(", ")
        ));
        show(api, out, &taps, args.limit.unwrap_or(u64::MAX)).await
    };
    let result = tokio::select! {
        result = shown => result,
        ended = tokio::signal::ctrl_c() => ended.map_err(Into::into),
    };
    for tap in &taps {
        // One that is left over because the server is gone ends by itself in a day.
        let _ = tap.close(api).await;
    }
    result
}

/// The names of all topics of the project.
async fn topics(api: &Api) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut page = String::new();
    loop {
        let path = ["v1", "projects", &api.project, "topics"];
        let query = [("pageToken", page.as_str())];
        let answer = api.get(Face::PubSub, &path, &query).await?;
        let topics = answer["topics"].as_array().cloned().unwrap_or_default();
        names.extend(topics.iter().map(|topic| {
            let name = text(topic, "/name");
            name.rsplit('/').next().unwrap_or(name).to_owned()
        }));
        text(&answer, "/nextPageToken").clone_into(&mut page);
        if page.is_empty() {
            return Ok(names);
        }
    }
}

async fn show(api: &Api, out: &Out, taps: &[Tap], limit: u64) -> Result<()> {
    let mut left = limit;
    let mut waiting: Vec<_> = taps.iter().map(|tap| Box::pin(tap.next(api))).collect();
    while left > 0 {
        let ((tap, messages), _, others) = select_all(waiting).await;
        waiting = others;
        for message in messages? {
            if left == 0 {
                break;
            }
            left -= 1;
            print(out, &tap.topic, &message)?;
        }
        waiting.push(Box::pin(tap.next(api)));
    }
    Ok(())
}

fn print(out: &Out, topic: &str, message: &Value) -> Result<()> {
    let whole = || json!({"topic": topic, "message": message});
    match out.format {
        // A stream has no end, so each message stands alone.
        Format::Json => out.line(&whole().to_string()),
        Format::Yaml => out.raw(format!("---\n{}", super::output::yaml(&whole())?).as_bytes()),
        Format::Table => {
            let when = time(text(message, "/publishTime"));
            let head = out.tint(&format!("{when} {topic}"), Tint::Dim);
            out.line(&format!("{head}  {}", said(message)))
        }
    }
}

/// A message in a line: its attributes, then its data as text where it is text.
fn said(message: &Value) -> String {
    let mut words: Vec<String> = Vec::new();
    for (name, value) in message["attributes"].as_object().into_iter().flatten() {
        words.push(format!("{name}={}", value.as_str().unwrap_or_default()));
    }
    let data = BASE64.decode(text(message, "/data")).unwrap_or_default();
    words.push(match String::from_utf8(data) {
        Ok(data) => data,
        Err(error) => format!("({} bytes)", error.as_bytes().len()),
    });
    // What somebody publishes must not move the cursor.
    let line = words.join(" ").replace(char::is_control, " ");
    line.trim_end().to_owned()
}

/// A subscription of this command alone.
struct Tap {
    topic: String,
    name: String,
}

impl Tap {
    async fn open(api: &Api, topic: &str) -> Result<Self> {
        let tap = Self {
            topic: topic.to_owned(),
            name: format!("lauf-tail-{}", nonce()?),
        };
        let body = json!({
            "topic": format!("projects/{}/topics/{topic}", api.project),
            "expirationPolicy": {"ttl": "86400s"},
            "messageRetentionDuration": "600s",
        });
        tap.call(api, Method::PUT, "", Some(&body)).await?;
        Ok(tap)
    }

    /// The next messages, and whose they are. They are acknowledged.
    async fn next<'a>(&'a self, api: &Api) -> (&'a Self, Result<Vec<Value>>) {
        let next = async {
            let body = json!({"maxMessages": BATCH});
            let mut answer = self.call(api, Method::POST, ":pull", Some(&body)).await?;
            let received = answer["receivedMessages"].take();
            let received = received.as_array().cloned().unwrap_or_default();
            if !received.is_empty() {
                let ids: Vec<&str> = received.iter().map(|m| text(m, "/ackId")).collect();
                let body = json!({"ackIds": ids});
                self.call(api, Method::POST, ":acknowledge", Some(&body))
                    .await?;
            }
            Ok(received
                .into_iter()
                .map(|mut received| received["message"].take())
                .collect())
        };
        (self, next.await)
    }

    async fn close(&self, api: &Api) -> Result<()> {
        self.call(api, Method::DELETE, "", None).await?;
        Ok(())
    }

    async fn call(
        &self,
        api: &Api,
        method: Method,
        verb: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let name = format!("{}{verb}", self.name);
        let path = ["v1", "projects", &api.project, "subscriptions", &name];
        api.call(method, Face::PubSub, &path, &[], body).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        let message =
            |data: &[u8]| json!({"attributes": {"kind": "ne\tw"}, "data": BASE64.encode(data)});
        assert_eq!(
            said(&message(b"hello\nthere\x1b[2J")),
            "kind=ne w hello there [2J"
        );
        assert_eq!(said(&message(&[0xff, 0xfe, 0xfd])), "kind=ne w (3 bytes)");
        assert_eq!(said(&json!({})), "");
    }
}
