//! What events there are.

use lauf_events::eventarc::{AUDIT_LOG_WRITTEN, MESSAGE_PUBLISHED};
use lauf_wire::google::cloud::eventarc::v1 as wire;

/// Who has events: their ids and names. All of them have those of the audit log.
const ALL: [(&str, &str); 5] = [
    ("cloudscheduler.googleapis.com", "Cloud Scheduler"),
    ("cloudtasks.googleapis.com", "Cloud Tasks"),
    ("eventarc.googleapis.com", "Eventarc"),
    (PUBSUB, "Cloud Pub/Sub"),
    ("run.googleapis.com", "Cloud Run"),
];
/// The one that has events of its own, too.
const PUBSUB: &str = "pubsub.googleapis.com";

/// All providers.
pub(super) fn all(parent: &str) -> Vec<wire::Provider> {
    ALL.iter().filter_map(|(id, _)| show(parent, id)).collect()
}

/// The provider of that id, if there is one.
pub(super) fn show(parent: &str, id: &str) -> Option<wire::Provider> {
    let (id, name) = ALL.iter().find(|(known, _)| *known == id)?;
    let mut event_types = Vec::new();
    if *id == PUBSUB {
        event_types.push(wire::EventType {
            r#type: MESSAGE_PUBLISHED.to_owned(),
            description: "A message is published to the trigger's topic.".to_owned(),
            filtering_attributes: vec![attribute("type", "The type of the event.", true)],
            ..wire::EventType::default()
        });
    }
    let mut resource = attribute("resourceName", "The resource that it was done to.", false);
    resource.path_pattern_supported = true;
    event_types.push(wire::EventType {
        r#type: AUDIT_LOG_WRITTEN.to_owned(),
        description: "Something is done that the audit log tells of.".to_owned(),
        filtering_attributes: vec![
            attribute("type", "The type of the event.", true),
            attribute("serviceName", "The API that did it.", true),
            attribute("methodName", "What was done.", true),
            resource,
        ],
        ..wire::EventType::default()
    });
    Some(wire::Provider {
        name: format!("{parent}/providers/{id}"),
        display_name: (*name).to_owned(),
        event_types,
    })
}

fn attribute(name: &str, description: &str, required: bool) -> wire::FilteringAttribute {
    wire::FilteringAttribute {
        attribute: name.to_owned(),
        description: description.to_owned(),
        required,
        path_pattern_supported: false,
    }
}
