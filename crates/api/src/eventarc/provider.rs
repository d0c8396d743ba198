//! What events there are.

use lauf_events::eventarc::MESSAGE_PUBLISHED;
use lauf_wire::google::cloud::eventarc::v1 as wire;

/// The one provider that there is.
pub(super) const ID: &str = "pubsub.googleapis.com";

pub(super) fn show(parent: &str) -> wire::Provider {
    wire::Provider {
        name: format!("{parent}/providers/{ID}"),
        display_name: "Cloud Pub/Sub".to_owned(),
        event_types: vec![wire::EventType {
            r#type: MESSAGE_PUBLISHED.to_owned(),
            description: "A message is published to the trigger's topic.".to_owned(),
            filtering_attributes: vec![wire::FilteringAttribute {
                attribute: "type".to_owned(),
                description: "The type of the event.".to_owned(),
                required: true,
                path_pattern_supported: false,
            }],
            ..wire::EventType::default()
        }],
    }
}
