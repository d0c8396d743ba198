//! The names of what there is in a region.

use std::fmt;

use lauf_model::{Status, Violation};
use serde::{Deserialize, Serialize};

/// Reads `projects/PROJECT/locations/LOCATION/COLLECTION/ID`; gives the project, the location and the id.
fn parse(
    field: &str,
    text: &str,
    collection: &str,
    what: &str,
) -> Result<(String, String, String), Status> {
    let words: Vec<&str> = text.split('/').collect();
    let wrong = |text: String| Status::invalid(vec![Violation::new(field, text)]);
    let (project, location, id) = match words.as_slice() {
        ["projects", project, "locations", location, found, id] if *found == collection => {
            (*project, *location, *id)
        }
        _ => {
            return Err(wrong(format!(
                "'{text}' has not the form projects/PROJECT/locations/LOCATION/{collection}/{}.",
                what.to_uppercase()
            )));
        }
    };
    let fits = (1..=63).contains(&id.len())
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && !id.ends_with('-')
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits || project.is_empty() || location.is_empty() {
        return Err(wrong(format!(
            "'{id}' is not the id of a {what}: 1 to 63 lowercase letters, digits and -, beginning \
             with a letter and not ending with -."
        )));
    }
    Ok((project.to_owned(), location.to_owned(), id.to_owned()))
}

macro_rules! name {
    ($name:ident, $collection:literal, $what:literal) => {
        #[doc = concat!("The name of a ", $what, ": `projects/PROJECT/locations/LOCATION/", $collection, "/ID`.")]
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name {
            /// The project's id.
            pub project: String,
            /// The region.
            pub location: String,
            /// Its name there.
            pub id: String,
        }

        impl $name {
            /// Reads a name.
            ///
            /// # Errors
            /// When the text has another form, or the id is not one.
            pub fn parse(field: &str, text: &str) -> Result<Self, Status> {
                let (project, location, id) = parse(field, text, $collection, $what)?;
                Ok(Self {
                    project,
                    location,
                    id,
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    concat!("projects/{}/locations/{}/", $collection, "/{}"),
                    self.project, self.location, self.id
                )
            }
        }
    };
}

name!(TriggerName, "triggers", "trigger");
name!(ChannelName, "channels", "channel");
