//! `io.cloudevents.v1.CloudEvent`, which Eventarc's publishers put into an `Any`.
//!
//! The CloudEvents project's own message is in none of the crates that messages come from.
//! `google.cloud.eventarc.publishing.v1.CloudEvent` has the same fields with the same numbers, so it stands
//! for it under both names (CloudEvents, "Protobuf Event Format", 2.1).

use prost::Message as _;
use prost_reflect::{DescriptorError, DescriptorPool};
use prost_types::{DescriptorProto, FileDescriptorProto};

use crate::google::cloud::eventarc::publishing::v1::CloudEvent;
use crate::{Any, Named};

/// The name that clients use.
pub const NAME: &str = "io.cloudevents.v1.CloudEvent";
const PACKAGE: &str = "io.cloudevents.v1";

/// Gives the message its second name.
pub(crate) fn add(pool: &mut DescriptorPool) -> Result<(), DescriptorError> {
    let Some(same) = pool.get_message_by_name(CloudEvent::NAME) else {
        return Ok(());
    };
    let mut message = same.descriptor_proto().clone();
    rename(&mut message, same.package_name());
    pool.add_file_descriptor_proto(FileDescriptorProto {
        name: Some("io/cloudevents/v1/cloudevents.proto".to_owned()),
        package: Some(PACKAGE.to_owned()),
        dependency: same
            .parent_file()
            .dependencies()
            .map(|file| file.name().to_owned())
            .collect(),
        message_type: vec![message],
        syntax: Some("proto3".to_owned()),
        ..FileDescriptorProto::default()
    })
}

/// Lets its fields name the messages within it where they are now.
fn rename(message: &mut DescriptorProto, package: &str) {
    let old = format!(".{package}.");
    for field in &mut message.field {
        if let Some(inner) = field.type_name().strip_prefix(&*old) {
            field.type_name = Some(format!(".{PACKAGE}.{inner}"));
        }
    }
    for nested in &mut message.nested_type {
        rename(nested, package);
    }
}

/// The event that an `Any` holds, if it holds one, under either name.
pub fn unpack(any: &Any) -> Option<CloudEvent> {
    let (_, name) = any.type_url.rsplit_once('/')?;
    if name != NAME && name != CloudEvent::NAME {
        return None;
    }
    CloudEvent::decode(&*any.value).ok()
}

#[cfg(test)]
mod tests {
    use prost_reflect::DynamicMessage;

    use super::*;
    use crate::google::cloud::eventarc::publishing::v1::cloud_event::Data;
    use crate::google::cloud::eventarc::publishing::v1::{PublishEventsRequest, cloud_event};
    use crate::pool;

    #[test]
    fn what_gcloud_sends_is_understood() {
        let sent = serde_json::json!({
            "channel": "projects/demo/locations/here/channels/orders",
            "events": [{
                "@type": "type.googleapis.com/io.cloudevents.v1.CloudEvent",
                "id": "7", "source": "//shop", "specVersion": "1.0", "type": "order.placed",
                "attributes": {"datacontenttype": {"ceString": "application/json"}, "count": {"ceInteger": 3}},
                "textData": "{}",
            }],
        });
        let request = pool()
            .get_message_by_name(PublishEventsRequest::NAME)
            .unwrap();
        let request = DynamicMessage::deserialize(request, sent).unwrap();
        let request = PublishEventsRequest::decode(&*request.encode_to_vec()).unwrap();
        let event = unpack(&request.events[0]).unwrap();
        assert_eq!((&*event.id, &*event.r#type), ("7", "order.placed"));
        assert_eq!(event.data, Some(Data::TextData("{}".to_owned())));
        let count = event.attributes["count"].attr.clone();
        use cloud_event::cloud_event_attribute_value::Attr;
        assert_eq!(count, Some(Attr::CeInteger(3)));
    }
}
