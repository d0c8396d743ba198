//! A job of Cloud Scheduler as it is stored, what is allowed in it, and when it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lauf_model::{Status, Violation};
use lauf_store::{Key, Kind, Resource};
use serde::{Deserialize, Serialize};

use super::cron::Cron;
use crate::call::Identity;
use crate::pubsub::TopicName;
use crate::retry::Backoff;

/// The most bytes of a request's body, and of a message.
pub const MAX_BODY: usize = 1 << 20;
const MAX_RETRIES: u32 = 5;
const MIN_DEADLINE: Duration = Duration::from_secs(15);
const MAX_DEADLINE: Duration = Duration::from_secs(30 * 60);
/// How long an attempt may take if nobody says.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(180);

/// The name of a job: `projects/PROJECT/locations/LOCATION/jobs/ID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobName {
    /// The project's id.
    pub project: String,
    /// The region.
    pub location: String,
    /// Its name there.
    pub id: String,
}

impl JobName {
    /// Reads a name.
    ///
    /// # Errors
    /// When the text has another form, or the id is not one.
    pub fn parse(field: &str, text: &str) -> Result<Self, Status> {
        let words: Vec<&str> = text.split('/').collect();
        let ["projects", project, "locations", location, "jobs", id] = words.as_slice() else {
            return Err(Status::invalid(vec![Violation::new(
                field,
                format!("'{text}' has not the form projects/PROJECT/locations/LOCATION/jobs/JOB."),
            )]));
        };
        let fits = (1..=500).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fits || project.is_empty() || location.is_empty() {
            return Err(Status::invalid(vec![Violation::new(
                field,
                format!("'{id}' is not the id of a job: 1 to 500 letters, digits, - and _."),
            )]));
        }
        Ok(Self {
            project: (*project).to_owned(),
            location: (*location).to_owned(),
            id: (*id).to_owned(),
        })
    }
}

impl std::fmt::Display for JobName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "projects/{}/locations/{}/jobs/{}",
            self.project, self.location, self.id
        )
    }
}

/// What is done at each time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Target {
    /// A request.
    Http {
        /// Where to.
        uri: String,
        /// `GET`, `POST`, ...
        method: String,
        /// Headers.
        headers: BTreeMap<String, String>,
        /// The body, where the method has one.
        body: Vec<u8>,
        /// Who it comes from.
        identity: Option<Identity>,
    },
    /// A message.
    PubSub {
        /// Where to.
        topic: TopicName,
        /// What it says.
        data: Vec<u8>,
        /// What is said about it.
        attributes: BTreeMap<String, String>,
    },
}

/// What happens when an attempt fails.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retries {
    /// How often it is tried again.
    pub count: u32,
    /// For how long it is tried again; zero for no matter how long.
    pub duration: Duration,
    /// How long is waited in between.
    pub backoff: Backoff,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            count: 0,
            duration: Duration::ZERO,
            backoff: Backoff {
                minimum: Duration::from_secs(5),
                maximum: Duration::from_secs(3_600),
                doublings: 5,
            },
        }
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its name.
    pub name: JobName,
    /// What people say about it.
    pub description: String,
    /// What is done.
    pub target: Target,
    /// When, as five fields of cron.
    pub schedule: String,
    /// In which zone, such as `Europe/Berlin`.
    pub time_zone: String,
    /// Whether it is held.
    pub paused: bool,
    /// What happens when an attempt fails.
    pub retries: Retries,
    /// How long an attempt may take.
    pub deadline: Duration,
    /// When somebody last changed it.
    pub updated: Timestamp,
    /// When it is due next. Kept as it is until all that is done then is done, so that a start that
    /// finds it in the past makes up for it, once.
    pub next: Option<Timestamp>,
    /// When it was last tried, and what came of it.
    pub last: Option<Last>,
    /// How often it is run again when the run under way is over, because somebody asked meanwhile.
    #[serde(default)]
    pub again: u32,
}

/// An attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// When.
    pub time: Timestamp,
    /// What came of it: a code of `google.rpc.Code`, 0 for success.
    pub code: i32,
    /// Why it failed.
    pub message: String,
}

impl Resource for Job {
    const KIND: Kind = Kind::new("SchedulerJob");
    type Name = JobName;

    fn at(name: &JobName) -> Key {
        let scope = format!("{}/{}", name.project, name.location);
        Key::new(Self::KIND, scope, &*name.id)
    }
}

impl Job {
    /// Its schedule and zone.
    ///
    /// # Errors
    /// Says what is wrong with either.
    pub(crate) fn when(&self) -> Result<(Cron, TimeZone), Vec<Violation>> {
        let cron = Cron::parse(&self.schedule)
            .map_err(|error| Violation::new("schedule", format!("{error}.")));
        let zone = TimeZone::get(&self.time_zone).map_err(|_| {
            Violation::new(
                "time_zone",
                format!(
                    "'{}' is no time zone of the tz database, such as Europe/Berlin or UTC.",
                    self.time_zone
                ),
            )
        });
        match (cron, zone) {
            (Ok(cron), Ok(zone)) => Ok((cron, zone)),
            (cron, zone) => Err(cron.err().into_iter().chain(zone.err()).collect()),
        }
    }

    /// The first time after `now` that it is due.
    pub(crate) fn due_after(&self, now: Timestamp) -> Option<Timestamp> {
        let (cron, zone) = self.when().ok()?;
        cron.next(now, &zone)
    }

    /// How long to wait before it is tried again that has failed so often since `first`; `None` when
    /// that is enough.
    pub(crate) fn retry(&self, failures: u32, since_first: Duration) -> Option<Duration> {
        let retries = &self.retries;
        let counted = failures <= retries.count;
        let timed = since_first < retries.duration;
        // Both limits have to be reached, as documented; without any there is nothing to try again.
        (counted || timed).then(|| retries.backoff.wait(failures))
    }

    /// Everything that is wrong with it.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), Status> {
        let mut wrong = match self.when() {
            Err(wrong) => wrong,
            Ok(_) if self.due_after(now).is_none() => vec![Violation::new(
                "schedule",
                format!("'{}' never comes; name a day that there is.", self.schedule),
            )],
            Ok(_) => Vec::new(),
        };
        let mut add = |field: &str, text: String| wrong.push(Violation::new(field, text));
        if self.description.len() > 500 {
            add("description", "It has more than 500 characters.".to_owned());
        }
        if !(MIN_DEADLINE..=MAX_DEADLINE).contains(&self.deadline) {
            let text = format!(
                "{} s is out of range: 15 s to 1800 s are allowed.",
                self.deadline.as_secs_f64()
            );
            add("attempt_deadline", text);
        }
        if self.retries.count > MAX_RETRIES {
            let text = format!(
                "{} is out of range: 0 to 5 are allowed.",
                self.retries.count
            );
            add("retry_config.retry_count", text);
        }
        if self.retries.backoff.minimum > self.retries.backoff.maximum {
            let text = "It is longer than max_backoff_duration.".to_owned();
            add("retry_config.min_backoff_duration", text);
        }
        if self.retries.backoff.doublings > 16 {
            let text = "0 to 16 are allowed.".to_owned();
            add("retry_config.max_doublings", text);
        }
        match &self.target {
            Target::Http {
                uri,
                headers,
                body,
                method,
                identity,
            } => {
                check_http(
                    "http_target",
                    uri,
                    method,
                    headers,
                    body,
                    MAX_BODY,
                    &mut wrong,
                );
                check_identity("http_target", uri, identity.as_ref(), &mut wrong);
            }
            Target::PubSub {
                data, attributes, ..
            } => {
                if data.is_empty() && attributes.is_empty() {
                    let text = "There is neither data nor an attribute; give one.".to_owned();
                    wrong.push(Violation::new("pubsub_target", text));
                }
                if data.len() > MAX_BODY {
                    let text = format!(
                        "It has {} bytes; at most {MAX_BODY} are allowed.",
                        data.len()
                    );
                    wrong.push(Violation::new("pubsub_target.data", text));
                }
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid(wrong))
        }
    }
}

/// Everything that is wrong with who a request says it comes from. An access token opens this Lauf's
/// own APIs, so it is sent to nobody else.
pub(crate) fn check_identity(
    field: &str,
    uri: &str,
    identity: Option<&Identity>,
    wrong: &mut Vec<Violation>,
) {
    let (token, email) = match identity {
        None => return,
        Some(Identity::Oidc { email, .. }) => ("oidc_token", email),
        Some(Identity::OAuth { email, .. }) => ("oauth_token", email),
    };
    if !email.contains('@') || email.contains(char::is_whitespace) {
        wrong.push(Violation::new(
            format!("{field}.{token}.service_account_email"),
            format!("'{email}' is not the email address of a service account."),
        ));
    }
    let parsed = uri.parse::<http::Uri>().ok();
    let host = parsed
        .as_ref()
        .and_then(http::Uri::host)
        .unwrap_or_default();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if token == "oauth_token" && !host.ends_with(".googleapis.com") {
        wrong.push(Violation::new(
            format!("{field}.oauth_token"),
            format!(
                "An access token is sent to *.googleapis.com alone, and not to '{host}'; use \
                 oidc_token."
            ),
        ));
    }
}

/// Everything that is wrong with a request that is to be sent. Tasks use it as well.
pub(crate) fn check_http(
    field: &str,
    uri: &str,
    method: &str,
    headers: &BTreeMap<String, String>,
    body: &[u8],
    most: usize,
    wrong: &mut Vec<Violation>,
) {
    let mut add = |part: &str, text: String| {
        wrong.push(Violation::new(format!("{field}.{part}"), text));
    };
    let parsed = uri.parse::<http::Uri>().ok();
    let scheme = parsed.as_ref().and_then(http::Uri::scheme_str);
    if !matches!(scheme, Some("http" | "https")) || uri.len() > 2_083 {
        add(
            "uri",
            format!(
                "'{uri}' is no URL of the form http(s)://HOST/PATH of at most 2083 characters."
            ),
        );
    }
    let has_body = matches!(method, "POST" | "PUT" | "PATCH");
    if !has_body && !matches!(method, "GET" | "HEAD" | "DELETE" | "OPTIONS") {
        add(
            "http_method",
            format!("'{method}' is no method that can be sent."),
        );
    }
    if !body.is_empty() && !has_body {
        add(
            "body",
            format!("A {method} request has none; use POST, PUT or PATCH."),
        );
    }
    if body.len() > most {
        add(
            "body",
            format!("It has {} bytes; at most {most} are allowed.", body.len()),
        );
    }
    for (name, value) in headers {
        let reserved = ["host", "content-length", "transfer-encoding", "connection"];
        let lower = name.to_ascii_lowercase();
        if reserved.contains(&&*lower)
            || lower.starts_with("x-google-")
            || lower.starts_with("x-appengine-")
            || http::HeaderName::try_from(name).is_err()
            || http::HeaderValue::try_from(value).is_err()
        {
            add(
                "headers",
                format!("'{name}: {value}' cannot be sent; leave it out."),
            );
        }
    }
}
