//! Events that programs publish: CloudEvents 1.0 (section 3, "Context Attributes"), and how they travel.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lauf_model::{Status, Violation};
use serde_json::{Map, Value};

use super::name::ChannelName;
use super::pattern;
use super::trigger::{Filter, MATCH_PATH, Trigger};
use crate::pubsub::Message;

/// The only version of the specification.
const VERSION: &str = "1.0";
/// The largest event, in bytes: Eventarc's limit.
const MAX_EVENT: usize = 512 << 10;
/// What has a field of its own, and so cannot be an attribute besides.
const OWN: [&str; 6] = ["id", "source", "type", "specversion", "data", "data_base64"];

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudEvent {
    /// Tells the events of one source apart.
    pub id: String,
    /// Where it happened.
    pub source: String,
    /// What happened.
    pub kind: String,
    /// The version of the specification.
    pub version: String,
    /// Everything else that is said of it, as text; `datacontenttype` among it.
    pub attributes: BTreeMap<String, String>,
    /// What it carries.
    pub data: Bytes,
}

impl CloudEvent {
    /// Reads the JSON form (CloudEvents JSON Event Format 1.0, section 3).
    ///
    /// # Errors
    /// When the text, which is that of this field, is not that.
    pub fn from_json(field: &str, text: &str) -> Result<Self, Status> {
        let wrong = |what: String| Status::invalid(vec![Violation::new(field, what)]);
        let object: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| wrong(format!("It is not a JSON object: {error}.")))?;
        let mut event = Self::default();
        for (name, value) in object {
            match (&*name, value) {
                ("id", Value::String(id)) => event.id = id,
                ("source", Value::String(source)) => event.source = source,
                ("type", Value::String(kind)) => event.kind = kind,
                ("specversion", Value::String(version)) => event.version = version,
                ("data_base64", Value::String(data)) => {
                    let data = STANDARD.decode(data);
                    let data = data.map_err(|error| {
                        wrong(format!("Its data_base64 is not base64: {error}."))
                    })?;
                    event.data = Bytes::from(data);
                }
                // A text is the data itself where it is not said to be JSON.
                ("data", Value::String(data)) => event.data = Bytes::from(data),
                ("data", data) => {
                    event.data = Bytes::from(data.to_string());
                    let json = "application/json".to_owned();
                    let kind = event.attributes.entry("datacontenttype".to_owned());
                    kind.or_insert(json);
                }
                (_, Value::Null) => {}
                (_, Value::String(value)) => {
                    event.attributes.insert(name, value);
                }
                (_, value @ (Value::Bool(_) | Value::Number(_))) => {
                    event.attributes.insert(name, value.to_string());
                }
                _ => {
                    return Err(wrong(format!(
                        "Its attribute '{name}' is neither text, number nor truth value."
                    )));
                }
            }
        }
        Ok(event)
    }

    /// What is wrong with the event in this field.
    pub(super) fn check(&self, field: &str) -> Result<(), Status> {
        let mut wrong = Vec::new();
        let mut add = |name: &str, what: String| {
            wrong.push(Violation::new(format!("{field}.{name}"), what));
        };
        for (name, value) in [
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.kind),
        ] {
            if value.is_empty() {
                add(name, "It is required and empty.".to_owned());
            }
        }
        if self.version != VERSION {
            add(
                "spec_version",
                format!("'{}' is not the version {VERSION}.", self.version),
            );
        }
        for name in self.attributes.keys() {
            let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            if name.is_empty() || !name.bytes().all(letters) || OWN.contains(&&**name) {
                add(
                    "attributes",
                    format!(
                        "'{name}' is no name of an attribute: lowercase letters and digits, and none that is a field."
                    ),
                );
            }
        }
        let texts = self
            .attributes
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let size = self.data.len() + texts.sum::<usize>();
        if size > MAX_EVENT {
            add(
                "data",
                format!("It has {size} bytes, and at most {MAX_EVENT} are allowed."),
            );
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid(wrong))
        }
    }

    /// Whether a trigger wants it.
    pub(super) fn is_for(&self, trigger: &Trigger, channel: &ChannelName) -> bool {
        let spec = &trigger.spec;
        spec.channel.as_ref() == Some(channel)
            && spec.filters.iter().all(|filter| self.passes(filter))
    }

    fn passes(&self, filter: &Filter) -> bool {
        let value = match &*filter.attribute {
            "type" => &self.kind,
            "source" => &self.source,
            "id" => &self.id,
            other => match self.attributes.get(other) {
                Some(value) => value,
                None => return false,
            },
        };
        if filter.operator == MATCH_PATH {
            pattern::matches(&filter.value, value)
        } else {
            filter.value == *value
        }
    }

    /// The message that carries it (Pub/Sub binding of CloudEvents 1.0, binary mode).
    pub(super) fn message(&self) -> Message {
        let mut attributes: BTreeMap<String, String> = self
            .attributes
            .iter()
            .map(|(name, value)| match &**name {
                "datacontenttype" => ("content-type".to_owned(), value.clone()),
                name => (format!("ce-{name}"), value.clone()),
            })
            .collect();
        for (name, value) in [
            ("ce-id", &self.id),
            ("ce-source", &self.source),
            ("ce-type", &self.kind),
            ("ce-specversion", &self.version),
        ] {
            attributes.insert(name.to_owned(), value.clone());
        }
        Message {
            data: self.data.clone(),
            attributes,
            ordering_key: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> CloudEvent {
        CloudEvent::from_json("text_events[0]", text).unwrap()
    }

    #[test]
    fn json_is_read_as_the_specification_has_it() {
        let one = event(
            r#"{"specversion": "1.0", "id": "7", "source": "//shop", "type": "order.placed", "subject": "orders/7",
                "count": 3, "paid": true, "nothing": null, "data": {"sum": 12}}"#,
        );
        one.check("events[0]").unwrap();
        assert_eq!(one.data, r#"{"sum":12}"#);
        let message = one.message();
        let said: Vec<_> = message
            .attributes
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            said,
            [
                "ce-count=3",
                "ce-id=7",
                "ce-paid=true",
                "ce-source=//shop",
                "ce-specversion=1.0",
                "ce-subject=orders/7",
                "ce-type=order.placed",
                "content-type=application/json"
            ]
        );
        let text = event(r#"{"datacontenttype": "text/plain", "data": "hello"}"#);
        assert_eq!(
            (&*text.data, &*text.attributes["datacontenttype"]),
            (&b"hello"[..], "text/plain")
        );
        assert_eq!(event(r#"{"data_base64": "AAH/"}"#).data, &[0, 1, 255][..]);
    }

    #[test]
    fn what_is_no_event_is_refused_and_says_why() {
        for (text, why) in [
            ("[]", "not a JSON object"),
            (r#"{"data_base64": "?"}"#, "not base64"),
            (r#"{"list": [1]}"#, "'list' is neither"),
        ] {
            let refused = CloudEvent::from_json("text_events[0]", text).unwrap_err();
            assert!(format!("{refused:?}").contains(why), "{refused:?}");
        }
        let full = r#"{"specversion": "1.0", "id": "7", "source": "s", "type": "t"}"#;
        event(full).check("events[0]").unwrap();
        for (text, why) in [
            (full.replace("\"7\"", "\"\""), "events[0].id"),
            (full.replace("1.0", "0.3"), "'0.3' is not the version"),
            (
                full.replace("\"id\"", "\"Two Words\""),
                "'Two Words' is no name",
            ),
        ] {
            let refused = event(&text).check("events[0]").unwrap_err();
            assert!(format!("{refused:?}").contains(why), "{refused:?}");
        }
        let large = CloudEvent {
            data: Bytes::from(vec![0; MAX_EVENT + 1]),
            ..event(full)
        };
        assert!(format!("{:?}", large.check("events[0]")).contains("524289 bytes"));
    }
}
