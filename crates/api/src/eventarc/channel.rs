//! Channels of Eventarc as they are shown.

use lauf_events::eventarc::Channel;
use lauf_wire::google::cloud::eventarc::v1 as wire;

use crate::rpc::time;

pub(super) fn show(channel: &Channel) -> wire::Channel {
    wire::Channel {
        name: channel.name.to_string(),
        uid: channel.uid.clone(),
        create_time: Some(time(channel.created)),
        update_time: Some(time(channel.updated)),
        // Only one of a provider waits for its activation.
        state: wire::channel::State::Active.into(),
        labels: channel.labels.clone(),
        ..wire::Channel::default()
    }
}

/// The fields that an update may change.
pub(super) fn may_change(field: &str) -> bool {
    field == "labels"
}
