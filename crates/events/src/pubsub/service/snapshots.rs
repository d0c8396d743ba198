//! Snapshots: what a subscription had done at some time, kept to go back to.

use std::sync::Arc;

use jiff::SignedDuration;
use lauf_model::{Code, Status};
use lauf_store::{Resource as _, Txn};
use tokio::sync::oneshot;

use super::super::backlog::JournalEntry;
use super::super::names::{SnapshotName, SubscriptionName};
use super::super::resource::{Labels, SNAPSHOT_LIFE, Snapshot, exists, not_found};
use super::super::subscription::Ask;
use super::super::topics::stream_of;
use super::{PubSub, bad_path, begin, gone, page_of};
use crate::log::{Limit, Position, failed};
use crate::page::Page;
use crate::random::uid;

const ONE: Limit = Limit {
    records: 1,
    bytes: usize::MAX,
};
/// A snapshot that would not live so long is not made.
const LEAST_LIFE: SignedDuration = SignedDuration::from_hours(1);

/// The stream that a snapshot is kept in.
pub(super) fn stream_of_snapshot(uid: &str) -> String {
    format!("pubsub/snapshot/{uid}")
}

impl PubSub {
    /// Keeps what a subscription has done by now. It lives for seven days, less the age of the oldest
    /// message that is not done.
    ///
    /// # Errors
    /// When there is no such subscription, there is a snapshot of that name, or its backlog is so old
    /// that it would soon be gone.
    pub async fn create_snapshot(
        &self,
        name: &SnapshotName,
        subscription: &SubscriptionName,
        labels: Labels,
    ) -> Result<Snapshot, Status> {
        let _admin = self.0.admin.lock().await;
        if self.0.snapshots.get(name).is_some() {
            return Err(exists(name));
        }
        let open = self.in_use(subscription)?;
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::Save(reply)).await?;
        let saved = answer.await.map_err(|_| not_found(subscription))?;
        let oldest = self
            .log()
            .read(
                &stream_of(&open.config.topic_uid),
                Position(saved.done_before),
                ONE,
            )
            .await
            .map_err(|error| failed(&error))?;
        let now = self.0.tools.clock.now();
        let since = oldest.records.first().map_or(now, |record| record.time);
        let life = SignedDuration::try_from(SNAPSHOT_LIFE).unwrap_or_default();
        let expires = since.checked_add(life).unwrap_or(now);
        if expires.duration_since(now) < LEAST_LIFE {
            return Err(Status::new(
                Code::FailedPrecondition,
                format!(
                    "The oldest unacknowledged message of {subscription} is from {since}; a snapshot \
                     would be gone within an hour. Acknowledge it or seek first."
                ),
            ));
        }
        let snapshot = Snapshot {
            name: name.clone(),
            uid: uid()?,
            topic: open.config.topic.clone(),
            topic_uid: open.config.topic_uid.clone(),
            expires,
            labels,
            done_before: saved.done_before,
        };
        snapshot.check()?;
        let stream = stream_of_snapshot(&snapshot.uid);
        let record = JournalEntry::Saved(saved).into_record();
        let kept = async {
            self.log().create(&stream).await?;
            self.log().append(&stream, vec![record])?.await
        };
        kept.await.map_err(|error| failed(&error))?;
        let create = Txn::create(Snapshot::at(name), snapshot.body());
        self.write(create, || exists(name)).await?;
        self.0.snapshots.put(name.clone(), snapshot.clone());
        Ok(snapshot)
    }

    /// The snapshot of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn snapshot(&self, name: &SnapshotName) -> Result<Snapshot, Status> {
        let found = self.0.snapshots.get(name);
        Ok((*found.ok_or_else(|| not_found(name))?).clone())
    }

    /// Changes a snapshot: its labels, and when it goes.
    ///
    /// # Errors
    /// When there is none, or a field cannot be changed.
    pub async fn update_snapshot(
        &self,
        spec: &Snapshot,
        paths: &[String],
    ) -> Result<Snapshot, Status> {
        let _admin = self.0.admin.lock().await;
        let mut snapshot = self.snapshot(&spec.name)?;
        for path in paths {
            match path.split('.').next().unwrap_or_default() {
                "labels" => snapshot.labels.clone_from(&spec.labels),
                "expire_time" => snapshot.expires = spec.expires,
                _ => return Err(bad_path(path, &["labels", "expire_time"])),
            }
        }
        snapshot.check()?;
        self.put(&snapshot.name, &snapshot).await?;
        self.0
            .snapshots
            .put(snapshot.name.clone(), snapshot.clone());
        Ok(snapshot)
    }

    /// A project's snapshots, by name.
    ///
    /// # Errors
    /// When the token is none.
    pub fn list_snapshots(
        &self,
        project: &str,
        size: usize,
        token: &str,
    ) -> Result<Page<Snapshot>, Status> {
        Ok(page_of!(
            self.0.snapshots,
            SnapshotName,
            project,
            size,
            token,
            |_| true,
            |snapshot: &Arc<Snapshot>| (**snapshot).clone()
        ))
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete_snapshot(&self, name: &SnapshotName) -> Result<(), Status> {
        let _admin = self.0.admin.lock().await;
        let snapshot = self.snapshot(name)?;
        self.write(Txn::new().delete(Snapshot::at(name)), gone)
            .await?;
        self.0.snapshots.remove(name);
        let _ = self.log().delete(&stream_of_snapshot(&snapshot.uid)).await;
        Ok(())
    }

    /// Lets a subscription go back to what a snapshot says was done.
    ///
    /// # Errors
    /// When there is no such subscription or snapshot, or they are of different topics.
    pub async fn seek_to_snapshot(
        &self,
        subscription: &SubscriptionName,
        name: &SnapshotName,
    ) -> Result<(), Status> {
        let open = self.in_use(subscription)?;
        let snapshot = self.snapshot(name)?;
        if snapshot.topic_uid != open.config.topic_uid {
            return Err(Status::new(
                Code::FailedPrecondition,
                format!(
                    "{name} is of {} and {subscription} is of {}; seek to a snapshot of the same \
                     topic.",
                    snapshot.topic, open.config.topic
                ),
            ));
        }
        let stream = stream_of_snapshot(&snapshot.uid);
        let chunk = self.log().read(&stream, Position(0), ONE).await;
        let chunk = chunk.map_err(|error| failed(&error))?;
        let record = chunk.records.into_iter().next().map(|record| record.body);
        let entry = record.and_then(|record| JournalEntry::from_record(record).ok().flatten());
        let Some(JournalEntry::Saved(saved)) = entry else {
            return Err(Status::new(
                Code::Internal,
                format!("What {name} kept cannot be read."),
            ));
        };
        let (reply, answer) = oneshot::channel();
        self.ask(&open, Ask::Restore(Box::new(saved), reply))
            .await?;
        answer
            .await
            .unwrap_or_else(|_| Err(not_found(subscription)))
    }
}
