//! Who has messages in the log.

use lauf_store::{ListQuery, ReadError, Resource as _, Store};

use crate::pubsub::{Snapshot, Subscription, Topic};
use crate::tasks::Queue;

/// A topic, subscription, snapshot or queue, if there is one in the store: its kind, project and name. As
/// long as there is any, the log cannot be exchanged for another without losing messages.
///
/// # Errors
/// When the store cannot be read.
pub async fn holder_of_messages(store: &Store) -> Result<Option<String>, ReadError> {
    for (kind, what) in [
        (Topic::KIND, "topic"),
        (Subscription::KIND, "subscription"),
        (Snapshot::KIND, "snapshot"),
        (Queue::KIND, "queue"),
    ] {
        let mut query = ListQuery::all(kind);
        query.limit = 1;
        if let Some(object) = store.list(&query).await?.objects.first() {
            let key = &object.key;
            return Ok(Some(format!("{what} '{}/{}'", key.scope, key.name)));
        }
    }
    Ok(None)
}
