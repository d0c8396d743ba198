//! Schemas: what messages of a topic must look like, in Avro or protocol buffers.

mod avro;
mod avro_binary;
mod proto;

use std::sync::Arc;

use jiff::Timestamp;
use lauf_model::{Code, Status, Violation};
use lauf_store::{Key, Kind, Resource};
use serde::{Deserialize, Serialize};

use super::message::Message;
use super::names::SchemaName;
use super::resource::Encoding;

/// The longest definition, in bytes.
pub const MAX_DEFINITION: usize = 300 << 10;
/// The most revisions of a schema.
pub const MAX_REVISIONS: usize = 20;

/// The language of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Language {
    /// Avro, as JSON.
    Avro,
    /// Protocol buffers: one file with one message at its top.
    Proto,
}

/// A schema as it was at some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Whose revision it is.
    pub schema: SchemaName,
    /// Its own name: eight digits and letters.
    pub id: String,
    /// The language of the definition.
    pub language: Language,
    /// What messages must look like.
    pub definition: String,
    /// When it was made.
    pub created: Timestamp,
}

impl Resource for Revision {
    const KIND: Kind = Kind::new("PubsubSchemaRevision");
    type Name = (SchemaName, String);

    fn at((schema, id): &(SchemaName, String)) -> Key {
        Key::new(Self::KIND, &*schema.project, format!("{}@{id}", schema.id))
    }
}

/// A schema: its revisions, the oldest first. There is always one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schema {
    pub(super) name: SchemaName,
    pub(super) revisions: Vec<Arc<Revision>>,
}

/// A definition that was understood.
pub(super) enum Compiled {
    Avro(Box<apache_avro::Schema>),
    Proto(prost_reflect::MessageDescriptor),
}

impl Compiled {
    /// Understands a definition.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn new(language: Language, definition: &str) -> Result<Self, Status> {
        let wrong =
            |problem: String| Status::invalid(vec![Violation::new("schema.definition", problem)]);
        if definition.is_empty() || definition.len() > MAX_DEFINITION {
            return Err(wrong(format!(
                "The definition has {} bytes; 1 to {MAX_DEFINITION} are allowed.",
                definition.len()
            )));
        }
        match language {
            Language::Avro => avro::compile(definition).map(|schema| Self::Avro(Box::new(schema))),
            Language::Proto => proto::compile(definition).map(Self::Proto),
        }
        .map_err(wrong)
    }

    /// Whether a message is what the definition says; if not, why.
    pub(super) fn check(&self, encoding: Encoding, data: &[u8]) -> Result<(), String> {
        match (self, encoding) {
            (Self::Avro(schema), Encoding::Json) => avro::check_json(schema, data),
            (Self::Avro(schema), Encoding::Binary) => avro_binary::check(schema, data),
            (Self::Proto(message), Encoding::Json) => proto::check_json(message, data),
            (Self::Proto(message), Encoding::Binary) => proto::check_binary(message, data),
        }
    }
}

/// What a topic's messages are held against.
pub(super) struct Checker {
    /// `None` when the schema has been deleted: nothing passes.
    pub(super) schema: Option<SchemaName>,
    pub(super) encoding: Encoding,
    /// The newest first. One that fits is enough.
    pub(super) revisions: Vec<(String, Compiled)>,
}

impl Checker {
    /// Holds messages against the schema, and notes on each which revision it fits.
    pub(super) fn check(&self, messages: &mut [Message]) -> Result<(), Status> {
        let Some(schema) = &self.schema else {
            return Err(Status::new(
                Code::NotFound,
                "The schema of this topic has been deleted; give the topic another one or none.",
            ));
        };
        for (n, message) in messages.iter_mut().enumerate() {
            let mut why = "no revision of it is allowed by the topic's settings".to_owned();
            let fits = self.revisions.iter().find(|(_, compiled)| {
                let checked = compiled.check(self.encoding, &message.data);
                checked.map_err(|problem| why = problem).is_ok()
            });
            let Some((revision, _)) = fits else {
                return Err(Status::new(
                    Code::InvalidArgument,
                    format!(
                        "Invalid data in message: Message failed schema validation: messages[{n}] \
                         does not fit {schema}: {why}."
                    ),
                ));
            };
            let encoding = match self.encoding {
                Encoding::Json => "JSON",
                Encoding::Binary => "BINARY",
            };
            for (key, value) in [
                ("googclient_schemaname", schema.to_string()),
                ("googclient_schemaencoding", encoding.to_owned()),
                ("googclient_schemarevisionid", revision.clone()),
            ] {
                message.attributes.insert(key.to_owned(), value);
            }
        }
        Ok(())
    }
}
