//! Topics, both ways.

use lauf_events::pubsub::{Encoding, SchemaName, SchemaSettings, Topic, TopicName};
use lauf_model::Status;
use lauf_wire::google::pubsub::v1 as wire;

use super::{duration, read_duration, refuse_all, wrong};

/// The schema that a topic says it has when its own has been deleted.
const DELETED_SCHEMA: &str = "_deleted-schema_";

/// Reads a topic whose name has been read. Its schema's name may hold the project's number.
pub(super) fn read(
    name: TopicName,
    schema: Option<SchemaName>,
    sent: wire::Topic,
) -> Result<Topic, Status> {
    refuse_all(&[
        ("kms_key_name", !sent.kms_key_name.is_empty()),
        (
            "ingestion_data_source_settings",
            sent.ingestion_data_source_settings
                .as_ref()
                .is_some_and(|settings| settings.source.is_some()),
        ),
        ("message_transforms", !sent.message_transforms.is_empty()),
        ("tags", !sent.tags.is_empty()),
    ])?;
    let retention = sent
        .message_retention_duration
        .map(|sent| read_duration("message_retention_duration", &sent))
        .transpose()?;
    let settings = sent
        .schema_settings
        .map(|sent| read_settings(schema, &sent))
        .transpose()?;
    Ok(Topic {
        name,
        uid: String::new(),
        labels: sent.labels,
        retention,
        schema: settings,
        storage_regions: sent
            .message_storage_policy
            .map(|policy| policy.allowed_persistence_regions)
            .unwrap_or_default(),
    })
}

fn read_settings(
    schema: Option<SchemaName>,
    sent: &wire::SchemaSettings,
) -> Result<SchemaSettings, Status> {
    Ok(SchemaSettings {
        schema,
        encoding: read_encoding("schema_settings.encoding", sent.encoding)?,
        first_revision: sent.first_revision_id.clone(),
        last_revision: sent.last_revision_id.clone(),
    })
}

pub(super) fn read_encoding(field: &str, sent: i32) -> Result<Encoding, Status> {
    match wire::Encoding::try_from(sent) {
        Ok(wire::Encoding::Json) => Ok(Encoding::Json),
        Ok(wire::Encoding::Binary) => Ok(Encoding::Binary),
        _ => Err(wrong(field, "It must be JSON or BINARY.")),
    }
}

pub(super) fn show(topic: &Topic) -> wire::Topic {
    wire::Topic {
        name: topic.name.to_string(),
        labels: topic.labels.clone(),
        message_storage_policy: (!topic.storage_regions.is_empty()).then(|| {
            wire::MessageStoragePolicy {
                allowed_persistence_regions: topic.storage_regions.clone(),
                ..Default::default()
            }
        }),
        schema_settings: topic.schema.as_ref().map(|settings| wire::SchemaSettings {
            schema: settings
                .schema
                .as_ref()
                .map_or_else(|| DELETED_SCHEMA.to_owned(), ToString::to_string),
            encoding: match settings.encoding {
                Encoding::Json => wire::Encoding::Json,
                Encoding::Binary => wire::Encoding::Binary,
            }
            .into(),
            first_revision_id: settings.first_revision.clone(),
            last_revision_id: settings.last_revision.clone(),
        }),
        message_retention_duration: topic.retention.map(duration),
        state: wire::topic::State::Active.into(),
        ..Default::default()
    }
}
