//! Topics, subscriptions and snapshots as they are stored, and what is allowed in them.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use lauf_model::{Code, Status, Violation};
use lauf_store::{Key, Kind, Resource};
use serde::{Deserialize, Serialize};

use super::filter::Filter;
use super::names::{DELETED_TOPIC, SchemaName, SnapshotName, SubscriptionName, TopicName};

/// A key and value that a user hangs on a resource.
pub type Labels = BTreeMap<String, String>;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// How long a subscriber may take that says nothing about it.
const DEFAULT_ACK_DEADLINE: Duration = Duration::from_secs(10);
/// How long messages are kept for a subscription that says nothing about it.
pub const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3_600);
/// After how long without use a subscription goes that says nothing about it.
pub const DEFAULT_EXPIRATION: Duration = Duration::from_secs(31 * 24 * 3_600);
/// How long a snapshot is kept.
pub(crate) const SNAPSHOT_LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Where messages are published.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// What its messages are kept under. Another topic that is later given the same name has another.
    pub uid: String,
    /// What users hang on it.
    pub labels: Labels,
    /// For how long messages are kept whether or not a subscription needs them.
    pub retention: Option<Duration>,
    /// What messages must look like.
    pub schema: Option<SchemaSettings>,
    /// Where messages may be stored. Kept as sent: all is stored here.
    pub storage_regions: Vec<String>,
}

impl Topic {
    /// A topic that says nothing but its name.
    #[must_use]
    pub fn new(name: TopicName) -> Self {
        Self {
            name,
            uid: String::new(),
            labels: Labels::new(),
            retention: None,
            schema: None,
            storage_regions: Vec::new(),
        }
    }
}

/// What messages of a topic must look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SchemaSettings {
    /// The schema; `None` when it has been deleted.
    pub schema: Option<SchemaName>,
    /// How messages are written.
    pub encoding: Encoding,
    /// The oldest revision that is good enough; empty for any.
    pub first_revision: String,
    /// The newest that is; empty for any.
    pub last_revision: String,
}

/// How messages that follow a schema are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// As JSON.
    Json,
    /// In the schema language's own binary form.
    Binary,
}

/// Who gets the messages of a topic, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its name.
    pub name: SubscriptionName,
    /// What its journal is kept under.
    pub uid: String,
    /// The topic's name.
    pub topic: TopicName,
    /// What the topic's messages are kept under.
    pub topic_uid: String,
    /// Whether the topic has been deleted since.
    pub topic_deleted: bool,
    /// What users hang on it.
    pub labels: Labels,
    /// Where messages are sent; without, they are fetched.
    pub push: Option<Push>,
    /// How long a subscriber may take.
    pub ack_deadline: Duration,
    /// Whether acknowledged messages are kept, so that one can go back to them.
    pub retain_acked: bool,
    /// How long messages are kept for it.
    pub retention: Duration,
    /// Whether messages with an ordering key come in order.
    pub ordered: bool,
    /// After how long without use it goes; `None` for never.
    pub expiration: Option<Duration>,
    /// Which messages it gets; empty for all.
    pub filter: String,
    /// Where messages go that fail again and again.
    pub dead_letter: Option<DeadLetter>,
    /// How long a message that failed waits.
    pub retry: Option<Retry>,
    /// Whether it has been cut off from its topic.
    pub detached: bool,
    /// Whether an acknowledgement counts only from whoever has the message.
    pub exactly_once: bool,
    /// When it was last used, to the day or so.
    pub used: Timestamp,
}

impl Subscription {
    /// A subscription of a topic that says nothing else: as `google.pubsub.v1.Subscription` fills it.
    #[must_use]
    pub fn new(name: SubscriptionName, topic: TopicName) -> Self {
        Self {
            name,
            uid: String::new(),
            topic,
            topic_uid: String::new(),
            topic_deleted: false,
            labels: Labels::new(),
            push: None,
            ack_deadline: DEFAULT_ACK_DEADLINE,
            retain_acked: false,
            retention: DEFAULT_RETENTION,
            ordered: false,
            expiration: Some(DEFAULT_EXPIRATION),
            filter: String::new(),
            dead_letter: None,
            retry: None,
            detached: false,
            exactly_once: false,
            used: Timestamp::UNIX_EPOCH,
        }
    }
}

/// How messages are sent to an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// The URL.
    pub endpoint: String,
    /// Settings of the endpoint. Pub/Sub knows `x-goog-version`.
    pub attributes: BTreeMap<String, String>,
    /// The identity that is sent along.
    pub oidc: Option<Oidc>,
    /// Whether the data is sent alone, without what is said around it; and if so, whether that is
    /// sent as headers.
    pub unwrapped: Option<Unwrapped>,
    /// What messages are sent for as events, in the binary mode of CloudEvents, if they are. Not a
    /// setting of Pub/Sub's own: Eventarc's subscriptions have it.
    #[serde(default)]
    pub event_source: Option<String>,
    /// Whether each message is an event already, in the Pub/Sub binding of CloudEvents, and is sent in
    /// their binary mode. Eventarc's subscriptions have it, too.
    #[serde(default)]
    pub events: bool,
}

impl Push {
    /// Messages are sent there as Pub/Sub wraps them, without an identity.
    #[must_use]
    pub fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            attributes: BTreeMap::new(),
            oidc: None,
            unwrapped: None,
            event_source: None,
            events: false,
        }
    }
}

/// The identity that requests are sent with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oidc {
    /// Whose.
    pub service_account: String,
    /// For whom; the URL where it is empty.
    pub audience: String,
}

/// How data is sent alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwrapped {
    /// Whether attributes and the rest are sent as headers.
    pub write_metadata: bool,
}

/// Where messages go that fail again and again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// To this topic.
    pub topic: TopicName,
    /// After so many attempts, 5 to 100.
    pub max_attempts: u32,
}

/// How long a message that failed waits, doubling each time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    /// At first.
    pub minimum: Duration,
    /// At most.
    pub maximum: Duration,
}

/// What a subscription had done at some time, to go back to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// What it is kept under.
    pub uid: String,
    /// The topic's name.
    pub topic: TopicName,
    /// What the topic's messages are kept under.
    pub topic_uid: String,
    /// When it goes.
    pub expires: Timestamp,
    /// What users hang on it.
    pub labels: Labels,
    /// Its oldest message that was not acknowledged; older ones are not kept for it.
    pub done_before: u64,
}

impl Subscription {
    /// The topic's name as it is told to users.
    #[must_use]
    pub fn topic_name(&self) -> String {
        if self.topic_deleted {
            DELETED_TOPIC.to_owned()
        } else {
            self.topic.to_string()
        }
    }
}

macro_rules! resource {
    ($type:ty, $name:ty, $kind:literal) => {
        impl Resource for $type {
            const KIND: Kind = Kind::new($kind);
            type Name = $name;

            fn at(name: &$name) -> Key {
                Key::new(Self::KIND, &*name.project, &*name.id)
            }
        }
    };
}

resource!(Topic, TopicName, "PubsubTopic");
resource!(Subscription, SubscriptionName, "PubsubSubscription");
resource!(Snapshot, SnapshotName, "PubsubSnapshot");

/// Collects what is wrong with a resource.
#[derive(Default)]
struct Wrong(Vec<Violation>);

impl Wrong {
    fn add(&mut self, field: &str, text: String) {
        self.0.push(Violation::new(field, text));
    }

    fn between(&mut self, field: &str, value: Duration, least: Duration, most: Duration) {
        if value < least || value > most {
            let text = format!(
                "{} s is out of range: {} s to {} s are allowed.",
                value.as_secs_f64(),
                least.as_secs(),
                most.as_secs()
            );
            self.add(field, text);
        }
    }

    fn labels(&mut self, labels: &Labels) {
        if labels.len() > 64 {
            let text = format!(
                "{} labels are too many; at most 64 are allowed.",
                labels.len()
            );
            self.add("labels", text);
        }
        let fits = |text: &str| {
            text.chars().count() <= 63
                && text.chars().all(|c| {
                    c == '_'
                        || c == '-'
                        || c.is_numeric()
                        || (c.is_alphabetic() && !c.is_uppercase())
                })
        };
        for (key, value) in labels {
            let begins = key.chars().next().is_some_and(char::is_alphabetic);
            if !begins || !fits(key) || !fits(value) {
                let text = format!(
                    "'{key}={value}' is no label: keys and values are at most 63 lowercase letters, \
                     digits, _ and -, and keys begin with a letter."
                );
                self.add("labels", text);
            }
        }
    }

    fn end(self) -> Result<(), Status> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid(self.0))
        }
    }
}

impl Topic {
    /// Everything that is wrong with it.
    pub(crate) fn check(&self) -> Result<(), Status> {
        let mut wrong = Wrong::default();
        wrong.labels(&self.labels);
        if let Some(retention) = self.retention {
            wrong.between(
                "message_retention_duration",
                retention,
                10 * MINUTE,
                31 * DAY,
            );
        }
        wrong.end()
    }
}

impl Subscription {
    /// Everything that is wrong with it.
    pub(crate) fn check(&self) -> Result<(), Status> {
        let mut wrong = Wrong::default();
        wrong.labels(&self.labels);
        let second = Duration::from_secs(1);
        wrong.between(
            "ack_deadline_seconds",
            self.ack_deadline,
            10 * second,
            600 * second,
        );
        wrong.between(
            "message_retention_duration",
            self.retention,
            10 * MINUTE,
            31 * DAY,
        );
        if let Some(ttl) = self.expiration {
            if ttl < DAY {
                let text = format!(
                    "{} s is too short; at least one day is allowed.",
                    ttl.as_secs()
                );
                wrong.add("expiration_policy.ttl", text);
            }
            if ttl < self.retention {
                let text = "It is shorter than message_retention_duration, so that messages would \
                            outlive the subscription; make it longer.";
                wrong.add("expiration_policy.ttl", text.to_owned());
            }
        }
        if !self.filter.is_empty()
            && let Err(error) = Filter::parse(&self.filter)
        {
            wrong.add("filter", format!("The filter is not understood {error}."));
        }
        if let Some(retry) = self.retry {
            let zero = Duration::ZERO;
            wrong.between(
                "retry_policy.minimum_backoff",
                retry.minimum,
                zero,
                10 * MINUTE,
            );
            wrong.between(
                "retry_policy.maximum_backoff",
                retry.maximum,
                zero,
                10 * MINUTE,
            );
            if retry.minimum > retry.maximum {
                let text = "It is longer than maximum_backoff; make it at most as long.";
                wrong.add("retry_policy.minimum_backoff", text.to_owned());
            }
        }
        if let Some(dead) = &self.dead_letter
            && !(5..=100).contains(&dead.max_attempts)
        {
            let text = format!(
                "{} is out of range: 5 to 100 are allowed.",
                dead.max_attempts
            );
            wrong.add("dead_letter_policy.max_delivery_attempts", text);
        }
        if let Some(push) = &self.push {
            push.check(&mut wrong);
            if self.exactly_once {
                let text =
                    "Exactly-once delivery is for pull subscriptions only; remove push_config.";
                wrong.add("enable_exactly_once_delivery", text.to_owned());
            }
        }
        wrong.end()
    }
}

impl Push {
    fn check(&self, wrong: &mut Wrong) {
        let uri = self.endpoint.parse::<http::Uri>().ok();
        let scheme = uri.as_ref().and_then(http::Uri::scheme_str);
        let host = uri.as_ref().and_then(http::Uri::host);
        if !matches!(scheme, Some("http" | "https")) || host.is_none_or(str::is_empty) {
            let text = format!(
                "'{}' is not a URL of the form http(s)://HOST/PATH.",
                self.endpoint
            );
            wrong.add("push_config.push_endpoint", text);
        }
        for (key, value) in &self.attributes {
            if key != "x-goog-version" || !matches!(&**value, "v1" | "v1beta2" | "v1beta1") {
                let text =
                    format!("'{key}={value}' is not known; x-goog-version with v1 or v1beta2 is.");
                wrong.add("push_config.attributes", text);
            }
        }
        if let Some(oidc) = &self.oidc
            && !oidc.service_account.contains('@')
        {
            let text = format!(
                "'{}' is not the email address of a service account.",
                oidc.service_account
            );
            wrong.add("push_config.oidc_token.service_account_email", text);
        }
    }
}

impl Snapshot {
    /// Everything that is wrong with it.
    pub(crate) fn check(&self) -> Result<(), Status> {
        let mut wrong = Wrong::default();
        wrong.labels(&self.labels);
        wrong.end()
    }
}

/// The answer about a resource that is not there.
pub(crate) fn not_found(name: impl std::fmt::Display) -> Status {
    let name = name.to_string();
    let id = name.rsplit('/').next().unwrap_or_default();
    Status::new(
        Code::NotFound,
        format!("Resource not found (resource={id}): {name} does not exist."),
    )
}

/// The answer about a name that is taken.
pub(crate) fn exists(name: impl std::fmt::Display) -> Status {
    let name = name.to_string();
    let id = name.rsplit('/').next().unwrap_or_default();
    Status::new(
        Code::AlreadyExists,
        format!("Resource already exists in the project (resource={id}): {name}."),
    )
}
