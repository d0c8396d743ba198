//! Messages, both ways.

use std::collections::BTreeMap;

use lauf_events::pubsub::{Delivered, Message};
use lauf_wire::google::pubsub::v1 as wire;

use super::time;

/// What a publisher sends. The id and the time are given by the topic, whatever is sent.
pub(super) fn read(sent: wire::PubsubMessage) -> Message {
    Message {
        data: sent.data,
        attributes: sent.attributes,
        ordering_key: sent.ordering_key,
    }
}

/// What a subscriber gets.
pub(super) fn show(delivered: Delivered) -> wire::ReceivedMessage {
    let Delivered {
        ack_id,
        message: published,
        attempt,
    } = delivered;
    wire::ReceivedMessage {
        ack_id,
        message: Some(wire::PubsubMessage {
            data: published.message.data,
            attributes: published.message.attributes,
            message_id: published.position.to_string(),
            publish_time: Some(time(published.time)),
            ordering_key: published.message.ordering_key,
        }),
        delivery_attempt: attempt
            .and_then(|attempt| i32::try_from(attempt).ok())
            .unwrap_or(0),
    }
}

/// What an error says of each acknowledgement id, as clients look for it.
pub(super) fn failures(
    refused: &[(String, lauf_events::pubsub::Refused)],
) -> BTreeMap<String, String> {
    let word = |why| match why {
        lauf_events::pubsub::Refused::Stale => "PERMANENT_FAILURE_INVALID_ACK_ID",
        lauf_events::pubsub::Refused::Unwritten => "TRANSIENT_FAILURE_SERVICE_UNAVAILABLE",
    };
    refused
        .iter()
        .map(|(id, why)| (id.clone(), word(*why).to_owned()))
        .collect()
}
