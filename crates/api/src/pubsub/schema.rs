//! Schemas, both ways.

use lauf_events::pubsub::{Language, Revision};
use lauf_model::Status;
use lauf_wire::google::pubsub::v1 as wire;

use super::{time, wrong};

pub(super) fn read_language(field: &str, sent: i32) -> Result<Language, Status> {
    match wire::schema::Type::try_from(sent) {
        Ok(wire::schema::Type::Avro) => Ok(Language::Avro),
        Ok(wire::schema::Type::ProtocolBuffer) => Ok(Language::Proto),
        _ => Err(wrong(field, "It must be AVRO or PROTOCOL_BUFFER.")),
    }
}

/// Shows a revision, with its definition if `full`.
pub(super) fn show(revision: &Revision, full: bool) -> wire::Schema {
    wire::Schema {
        name: revision.schema.to_string(),
        r#type: match revision.language {
            Language::Avro => wire::schema::Type::Avro,
            Language::Proto => wire::schema::Type::ProtocolBuffer,
        }
        .into(),
        definition: if full {
            revision.definition.clone()
        } else {
            String::new()
        },
        revision_id: revision.id.clone(),
        revision_create_time: Some(time(revision.created)),
    }
}
