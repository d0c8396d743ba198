//! Snapshots, out.

use lauf_events::pubsub::Snapshot;
use lauf_wire::google::pubsub::v1 as wire;

use super::time;

pub(super) fn show(snapshot: &Snapshot) -> wire::Snapshot {
    wire::Snapshot {
        name: snapshot.name.to_string(),
        topic: snapshot.topic.to_string(),
        expire_time: Some(time(snapshot.expires)),
        labels: snapshot.labels.clone(),
    }
}
