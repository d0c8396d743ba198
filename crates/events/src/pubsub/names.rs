//! Names: `projects/P/topics/T` and its sisters.

use std::fmt;

use lauf_model::{Status, Violation};
use serde::{Deserialize, Serialize};

/// The topic that a subscription says it is attached to when its own has been deleted.
pub const DELETED_TOPIC: &str = "_deleted-topic_";

macro_rules! name {
    ($type:ident, $collection:literal, $what:literal) => {
        #[doc = concat!("The name of a ", $what, ": `projects/PROJECT/", $collection, "/ID`.")]
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $type {
            /// The project's id.
            pub project: String,
            /// Its name in the project.
            pub id: String,
        }

        impl $type {
            /// The word between project and id.
            pub const COLLECTION: &str = $collection;

            /// Reads a name. `field` is where it stands in the request.
            ///
            /// # Errors
            /// When the text has another form, or the id is not one.
            pub fn parse(field: &str, text: &str) -> Result<Self, Status> {
                let (project, id) = parts(field, text, $collection)?;
                check_id(field, id)?;
                Ok(Self {
                    project: project.to_owned(),
                    id: id.to_owned(),
                })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "projects/{}/{}/{}", self.project, $collection, self.id)
            }
        }
    };
}

name!(TopicName, "topics", "topic");
name!(SubscriptionName, "subscriptions", "subscription");
name!(SnapshotName, "snapshots", "snapshot");
name!(SchemaName, "schemas", "schema");

/// Splits `projects/P/COLLECTION/ID`.
fn parts<'a>(field: &str, text: &'a str, collection: &str) -> Result<(&'a str, &'a str), Status> {
    let mut words = text.splitn(4, '/');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("projects"), Some(project), Some(word), Some(id))
            if word == collection && !project.is_empty() && !id.contains('/') =>
        {
            Ok((project, id))
        }
        _ => Err(Status::invalid(vec![Violation::new(
            field,
            format!("'{text}' has not the form projects/PROJECT/{collection}/ID."),
        )])),
    }
}

/// What Pub/Sub allows as the id of a resource.
fn check_id(field: &str, id: &str) -> Result<(), Status> {
    let begins = id.starts_with(|c: char| c.is_ascii_alphabetic());
    let made = id
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._~+%".contains(&b));
    let taken = id
        .get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case("goog"));
    if begins && made && !taken && (3..=255).contains(&id.len()) {
        return Ok(());
    }
    Err(Status::invalid(vec![Violation::new(
        field,
        format!(
            "'{id}' is not an id: 3 to 255 letters, digits and -._~+% that begin with a letter and \
             not with 'goog'."
        ),
    )]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let name = TopicName::parse("name", "projects/demo/topics/orders.v1").unwrap();
        assert_eq!(name.project, "demo");
        assert_eq!(name.to_string(), "projects/demo/topics/orders.v1");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = format!("projects/p/topics/a{}", "b".repeat(255));
        for text in [
            "",
            "orders",
            "projects/p/topics",
            "projects/p/topics/",
            "projects//topics/abc",
            "projects/p/subscriptions/abc",
            "projects/p/topics/ab",
            "projects/p/topics/1abc",
            "projects/p/topics/googly",
            "projects/p/topics/a/b",
            "projects/p/topics/a b c",
            &long,
        ] {
            let error = TopicName::parse("topic", text).unwrap_err();
            assert_eq!(error.violations[0].field, "topic", "{text}");
        }
    }
}
