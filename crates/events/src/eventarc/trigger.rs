//! Triggers as they are stored, and what is allowed in them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lauf_model::{Status, Violation};
use lauf_store::{Key, Kind, Resource};
use serde::{Deserialize, Serialize};

use super::audit::AUDIT_LOG_WRITTEN;
use super::name::{ChannelName, TriggerName};
use super::pattern;
use crate::pubsub::{MESSAGE_PUBLISHED, SubscriptionName, TopicName};

/// The operator of a filter whose value is a path pattern.
pub(super) const MATCH_PATH: &str = "match-path-pattern";

/// Which events are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// An attribute of the event.
    pub attribute: String,
    /// What it must be.
    pub value: String,
    /// Empty for equal.
    pub operator: String,
}

/// The service that gets them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Its name.
    pub service: String,
    /// Its region.
    pub region: String,
    /// The path of the requests; empty or beginning with `/`.
    pub path: String,
}

/// What somebody wants a trigger to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: TriggerName,
    /// Which events.
    pub filters: Vec<Filter>,
    /// Where they go.
    pub destination: Destination,
    /// The URL of the service.
    pub service_url: String,
    /// On whose behalf; empty for nobody's.
    pub service_account: String,
    /// The topic whose messages are the events; without, one is made.
    pub topic: Option<TopicName>,
    /// The channel that the events are published to; without, they are Lauf's own.
    #[serde(default)]
    pub channel: Option<ChannelName>,
    /// What users hang on it.
    pub labels: BTreeMap<String, String>,
}

/// A trigger.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// What was wanted.
    pub spec: Spec,
    /// Another trigger that is later given the same name has another.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed, if it was.
    #[serde(default)]
    pub updated: Option<Timestamp>,
    /// The topic whose messages are the events.
    pub topic: TopicName,
    /// The subscription that sends them.
    pub subscription: SubscriptionName,
    /// How far it is.
    pub(crate) state: State,
}

/// How far a trigger is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    /// Its transport is being made.
    Making,
    /// It works.
    Made,
    /// Its transport is being deleted.
    Going,
}

impl Resource for Trigger {
    const KIND: Kind = Kind::new("EventarcTrigger");
    type Name = TriggerName;

    fn at(name: &TriggerName) -> Key {
        let scope = format!("{}/{}", name.project, name.location);
        Key::new(Self::KIND, scope, &*name.id)
    }
}

impl Spec {
    /// Everything that is wrong with it.
    pub(crate) fn check(&self) -> Result<(), Status> {
        let mut wrong = Vec::new();
        let mut add = |field: &str, text: String| wrong.push(Violation::new(field, text));
        match self.kind() {
            None => add(
                "trigger.event_filters",
                format!(
                    "There is no filter of the attribute 'type'; add type={MESSAGE_PUBLISHED} or \
                     type={AUDIT_LOG_WRITTEN}."
                ),
            ),
            Some(_) if self.channel.is_some() => self.check_channel(&mut add),
            Some(MESSAGE_PUBLISHED) => {
                for filter in &self.filters {
                    if filter.attribute != "type" || !filter.operator.is_empty() {
                        add(
                            "trigger.event_filters",
                            format!(
                                "'{}{}={}' is no filter of {MESSAGE_PUBLISHED}, which has only the type.",
                                filter.attribute, filter.operator, filter.value
                            ),
                        );
                    }
                }
            }
            Some(AUDIT_LOG_WRITTEN) => self.check_audit(&mut add),
            Some(kind) => add(
                "trigger.event_filters",
                format!(
                    "Events of the type '{kind}' are not there in this version of Lauf; \
                     {MESSAGE_PUBLISHED} and {AUDIT_LOG_WRITTEN} are, and what is published to a channel \
                     that the trigger names."
                ),
            ),
        }
        let path = &self.destination.path;
        if !path.is_empty() && (!path.starts_with('/') || path.parse::<http::Uri>().is_err()) {
            add(
                "trigger.destination.cloud_run.path",
                format!("'{path}' is no path that begins with '/'."),
            );
        }
        let account = &self.service_account;
        if !account.is_empty() && (!account.contains('@') || account.contains(char::is_whitespace))
        {
            add(
                "trigger.service_account",
                format!("'{account}' is not the email address of a service account."),
            );
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid(wrong))
        }
    }

    /// The type of its events, if it says one.
    pub(super) fn kind(&self) -> Option<&str> {
        let kind = self.filters.iter().find(|f| f.attribute == "type");
        kind.map(|filter| &*filter.value)
    }

    /// What is wrong with filters of events that are published to a channel.
    fn check_channel(&self, add: &mut impl FnMut(&str, String)) {
        const FIELD: &str = "trigger.event_filters";
        for filter in &self.filters {
            let Filter {
                attribute,
                value,
                operator,
            } = filter;
            let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            if attribute.is_empty() || !attribute.bytes().all(letters) {
                add(
                    FIELD,
                    format!(
                        "'{attribute}' is no name of an attribute: lowercase letters and digits."
                    ),
                );
            }
            match &**operator {
                "" => {}
                MATCH_PATH if attribute == "type" => add(
                    FIELD,
                    format!("'type' cannot be compared by '{operator}'; leave the operator out."),
                ),
                MATCH_PATH => {
                    if let Some(problem) = pattern::problem(value) {
                        add(FIELD, format!("'{value}' is no path pattern: {problem}."));
                    }
                }
                _ => add(
                    FIELD,
                    format!("'{operator}' is no operator; leave it out or make it {MATCH_PATH}."),
                ),
            }
        }
        if self.topic.is_some() {
            add(
                "trigger.transport.pubsub.topic",
                "A trigger of a channel has a topic of its own; leave this field out.".to_owned(),
            );
        }
    }

    /// What is wrong with filters of audit log entries.
    fn check_audit(&self, add: &mut impl FnMut(&str, String)) {
        const FIELD: &str = "trigger.event_filters";
        for needed in ["serviceName", "methodName"] {
            if !self.filters.iter().any(|f| f.attribute == needed) {
                add(
                    FIELD,
                    format!("{AUDIT_LOG_WRITTEN} needs a filter of '{needed}'; add one."),
                );
            }
        }
        for (at, filter) in self.filters.iter().enumerate() {
            let Filter {
                attribute,
                value,
                operator,
            } = filter;
            if self.filters[..at].iter().any(|f| f.attribute == *attribute) {
                add(
                    FIELD,
                    format!("There are two filters of '{attribute}'; leave one."),
                );
            }
            match (&**attribute, &**operator) {
                ("type" | "serviceName" | "methodName" | "resourceName", "") => {}
                ("resourceName", MATCH_PATH) => {
                    if let Some(problem) = pattern::problem(value) {
                        add(FIELD, format!("'{value}' is no path pattern: {problem}."));
                    }
                }
                ("type" | "serviceName" | "methodName", _) => add(
                    FIELD,
                    format!(
                        "'{attribute}' cannot be compared by '{operator}'; leave the operator out."
                    ),
                ),
                ("resourceName", _) => add(
                    FIELD,
                    format!("'{operator}' is no operator; leave it out or make it {MATCH_PATH}."),
                ),
                _ => add(
                    FIELD,
                    format!(
                        "'{attribute}' is no attribute of {AUDIT_LOG_WRITTEN}; type, serviceName, \
                         methodName and resourceName are."
                    ),
                ),
            }
        }
        if self.topic.is_some() {
            add(
                "trigger.transport.pubsub.topic",
                format!("{AUDIT_LOG_WRITTEN} has a topic of its own; leave this field out."),
            );
        }
    }
}
