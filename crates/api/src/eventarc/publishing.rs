//! Eventarc's publishing API: CloudEvents come in, as messages of protocol buffers or as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use lauf_events::eventarc::{ChannelName, CloudEvent};
use lauf_model::Status;
use lauf_wire::cloud_event;
use lauf_wire::google::cloud::eventarc::publishing::v1 as wire;
use lauf_wire::google::cloud::eventarc::publishing::v1::cloud_event::Data;
use lauf_wire::google::cloud::eventarc::publishing::v1::cloud_event::cloud_event_attribute_value::Attr;
use lauf_wire::google::cloud::eventarc::publishing::v1::publisher_server::Publisher;
use tonic::{Request, async_trait};

use super::Face;
use crate::rpc::{self, Answer, asked, read_time, wrong};

/// The API whose face this is.
pub(crate) const DOMAIN: &str = "eventarcpublishing.googleapis.com";

#[async_trait]
impl Publisher for Face {
    async fn publish_events(
        &self,
        request: Request<wire::PublishEventsRequest>,
    ) -> Answer<wire::PublishEventsResponse> {
        let sent = asked(request)?;
        let published = async {
            let channel = rpc::located(&self.api, "channel", &sent.channel).await?;
            let channel = ChannelName::parse("channel", &channel)?;
            let mut events = Vec::with_capacity(sent.events.len() + sent.text_events.len());
            for (at, any) in sent.events.iter().enumerate() {
                events.push(read(&format!("events[{at}]"), any)?);
            }
            for (at, text) in sent.text_events.iter().enumerate() {
                events.push(CloudEvent::from_json(&format!("text_events[{at}]"), text)?);
            }
            if events.is_empty() {
                return Err(wrong("events", "There is no event in it; add one."));
            }
            self.eventarc.publish_events(&channel, events).await?;
            Ok(wire::PublishEventsResponse {})
        };
        rpc::answer(DOMAIN, published.await)
    }
}

fn read(field: &str, any: &lauf_wire::Any) -> Result<CloudEvent, Status> {
    let Some(sent) = cloud_event::unpack(any) else {
        return Err(wrong(
            field,
            format!("'{}' is not {}.", any.type_url, cloud_event::NAME),
        ));
    };
    let mut event = CloudEvent {
        id: sent.id,
        source: sent.source,
        kind: sent.r#type,
        version: sent.spec_version,
        ..CloudEvent::default()
    };
    for (name, value) in sent.attributes {
        let text = match value.attr {
            Some(Attr::CeBoolean(value)) => value.to_string(),
            Some(Attr::CeInteger(value)) => value.to_string(),
            Some(Attr::CeString(value) | Attr::CeUri(value) | Attr::CeUriRef(value)) => value,
            Some(Attr::CeBytes(value)) => STANDARD.encode(value),
            Some(Attr::CeTimestamp(value)) => {
                read_time(&format!("{field}.attributes.{name}"), &value)?.to_string()
            }
            None => continue,
        };
        event.attributes.insert(name, text);
    }
    event.data = match sent.data {
        Some(Data::BinaryData(data)) => data,
        Some(Data::TextData(data)) => Bytes::from(data),
        Some(Data::ProtoData(data)) => {
            let kind = event.attributes.entry("datacontenttype".to_owned());
            kind.or_insert_with(|| "application/protobuf".to_owned());
            Bytes::from(data.value)
        }
        None => Bytes::new(),
    };
    Ok(event)
}
