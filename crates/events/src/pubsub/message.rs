//! A message: what publishers give, what is stored, and how large it may be.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use lauf_model::{Code, Status, Violation};
use prost::Message as _;

use crate::log::Position;

/// The most bytes of one message, and of all messages published at once.
pub const MAX_BYTES: usize = 10_000_000;
/// The most messages published at once.
pub const MAX_MESSAGES: usize = 1_000;
/// The most attributes of a message.
pub const MAX_ATTRIBUTES: usize = 100;
const MAX_KEY: usize = 256;
const MAX_VALUE: usize = 1_024;
const MAX_ORDERING_KEY: usize = 1_024;

/// A message as a publisher gives it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// What it says.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    /// What is said about it.
    #[prost(btree_map = "string, string", tag = "2")]
    pub attributes: BTreeMap<String, String>,
    /// Messages with the same key, if it is not empty, are delivered in order to subscriptions that
    /// ask for that.
    #[prost(string, tag = "3")]
    pub ordering_key: String,
}

/// A message that was published.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Where it is in its topic; as text it is the message's id.
    pub position: Position,
    /// When it was published.
    pub time: Timestamp,
    /// What was published.
    pub message: Message,
}

impl Message {
    /// How many bytes it counts for, which is what the limits and flow control are about.
    #[must_use]
    pub fn size(&self) -> usize {
        let attributes = self.attributes.iter().map(|(k, v)| k.len() + v.len());
        self.data.len() + self.ordering_key.len() + attributes.sum::<usize>()
    }

    /// As it is stored.
    pub(crate) fn to_record(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Reads what was stored.
    pub(crate) fn from_record(record: Bytes) -> Result<Self, prost::DecodeError> {
        Self::decode(record)
    }

    fn problem(&self) -> Option<Problem> {
        if self.data.is_empty() && self.attributes.is_empty() {
            return Some(Problem::new(
                "data",
                "The message has neither data nor attributes; give it one of them.".to_owned(),
            ));
        }
        if self.attributes.len() > MAX_ATTRIBUTES {
            return Some(Problem::new(
                "attributes",
                format!(
                    "The message has {} attributes; at most {MAX_ATTRIBUTES} are allowed.",
                    self.attributes.len()
                ),
            ));
        }
        if self.ordering_key.len() > MAX_ORDERING_KEY {
            return Some(Problem::new(
                "ordering_key",
                format!(
                    "The ordering key has {} bytes; at most {MAX_ORDERING_KEY} are allowed.",
                    self.ordering_key.len()
                ),
            ));
        }
        self.attributes
            .iter()
            .find_map(|(key, value)| attribute_problem(key, value))
            .map(|problem| Problem::new("attributes", problem))
    }
}

struct Problem {
    field: &'static str,
    text: String,
}

impl Problem {
    fn new(field: &'static str, text: String) -> Self {
        Self { field, text }
    }
}

fn attribute_problem(key: &str, value: &str) -> Option<String> {
    if key.is_empty() || key.len() > MAX_KEY {
        return Some(format!(
            "The key '{key}' has {} bytes; 1 to {MAX_KEY} are allowed.",
            key.len()
        ));
    }
    if key
        .get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case("goog"))
    {
        return Some(format!(
            "The key '{key}' begins with 'goog', which is reserved."
        ));
    }
    (value.len() > MAX_VALUE).then(|| {
        format!(
            "The value of '{key}' has {} bytes; at most {MAX_VALUE} are allowed.",
            value.len()
        )
    })
}

/// Checks what is published at once. Nothing of it is published if anything is wrong.
///
/// # Errors
/// [`Code::InvalidArgument`], with the field.
pub(crate) fn check(messages: &[Message]) -> Result<(), Status> {
    if messages.is_empty() {
        return Err(Status::invalid(vec![Violation::new(
            "messages",
            "There is no message to publish; give at least one.",
        )]));
    }
    if messages.len() > MAX_MESSAGES {
        return Err(Status::invalid(vec![Violation::new(
            "messages",
            format!(
                "{} messages are too many for one request; at most {MAX_MESSAGES} are allowed.",
                messages.len()
            ),
        )]));
    }
    let mut total = 0;
    for (n, message) in messages.iter().enumerate() {
        let size = message.size();
        total += size;
        if size > MAX_BYTES {
            return Err(too_large("message_size", size));
        }
        if let Some(problem) = message.problem() {
            return Err(Status::invalid(vec![Violation::new(
                format!("messages[{n}].{}", problem.field),
                problem.text,
            )]));
        }
    }
    if total > MAX_BYTES {
        return Err(too_large("request_size", total));
    }
    Ok(())
}

fn too_large(what: &str, size: usize) -> Status {
    Status::new(
        Code::InvalidArgument,
        format!(
            "The value for {what} is too large. You passed {size} in the request, but the maximum \
             value is {MAX_BYTES}."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: usize) -> Message {
        Message {
            data: vec![b'x'; size].into(),
            ..Message::default()
        }
    }

    #[test]
    fn ten_megabytes_are_taken_and_one_byte_more_is_not() {
        assert!(check(&[of(MAX_BYTES)]).is_ok());
        let error = check(&[of(MAX_BYTES + 1)]).unwrap_err();
        assert!(error.message.contains("10000001"), "{error}");
        assert!(check(&[of(MAX_BYTES / 2), of(MAX_BYTES / 2)]).is_ok());
        let error = check(&[of(MAX_BYTES / 2), of(MAX_BYTES / 2 + 1)]).unwrap_err();
        assert!(error.message.contains("request_size"), "{error}");
    }

    #[test]
    fn each_limit_names_its_field() {
        let with = |key: &str, value: &str| Message {
            attributes: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            ..Message::default()
        };
        let many = Message {
            attributes: (0..101).map(|n| (n.to_string(), String::new())).collect(),
            ..Message::default()
        };
        let ordered = Message {
            ordering_key: "k".repeat(1_025),
            ..of(1)
        };
        for (wrong, field) in [
            (Message::default(), "data"),
            (many, "attributes"),
            (ordered, "ordering_key"),
            (with("", "x"), "attributes"),
            (with("googclient", "x"), "attributes"),
            (with(&"k".repeat(257), "x"), "attributes"),
            (with("k", &"v".repeat(1_025)), "attributes"),
        ] {
            let error = check(&[of(1), wrong]).unwrap_err();
            assert_eq!(error.violations[0].field, format!("messages[1].{field}"));
        }
        assert!(check(&[with("k", "")]).is_ok());
        assert!(check(&[]).is_err());
        assert!(check(&vec![of(1); 1_000]).is_ok());
        assert!(check(&vec![of(1); 1_001]).is_err());
    }

    #[test]
    fn a_message_comes_back_from_its_record() {
        let message = Message {
            data: Bytes::from_static(b"hello"),
            attributes: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            ordering_key: "key".to_owned(),
        };
        assert_eq!(Message::from_record(message.to_record()), Ok(message));
    }
}
