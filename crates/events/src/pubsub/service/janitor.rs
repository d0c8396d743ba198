//! What is done now and then, without being asked: messages that nobody needs are given up,
//! subscriptions that nobody uses and snapshots that are old go, and streams that belong to nothing
//! are deleted.

use std::collections::HashSet;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::super::subscription::journal_of;
use super::super::topics::stream_of;
use super::snapshots::stream_of_snapshot;
use super::{Inner, PubSub};
use crate::log::{LogError, Position};

/// How often messages are given up.
const TRIM_EVERY: Duration = Duration::from_secs(5);
/// Everything else is done at every so many of those.
const OTHER_EVERY: u32 = 12;
/// That a subscription was used is stored when what is stored is this old.
const STORE_USED: SignedDuration = SignedDuration::from_hours(6);
/// Streams with less than this are not worth trimming.
const SMALL: u64 = 1 << 20;

/// Works for as long as there is something to work on.
pub(super) fn start(inner: Weak<Inner>) {
    tokio::spawn(async move {
        if let Some(inner) = inner.upgrade()
            && let Err(status) = PubSub(inner).mend().await
        {
            tracing::warn!(%status, "subscriptions of deleted topics could not be marked");
        }
        for round in 0_u32.. {
            tokio::time::sleep(TRIM_EVERY).await;
            let Some(inner) = inner.upgrade() else {
                return;
            };
            let this = PubSub(inner);
            match this.trim().await {
                Err(LogError::Closed) => return,
                Err(error) => tracing::warn!(%error, "messages could not be given up"),
                Ok(()) => {}
            }
            if round % OTHER_EVERY == 0 {
                this.expire().await;
                if let Err(error) = this.remove_strangers().await {
                    tracing::warn!(%error, "streams that belong to nothing could not be deleted");
                }
            }
        }
    });
}

impl PubSub {
    /// Gives up what neither a subscription nor a snapshot nor a topic's own setting keeps.
    async fn trim(&self) -> Result<(), LogError> {
        // A subscription that is being made has been promised what comes from now on.
        let _admin = self.0.admin.lock().await;
        for uid in self.topic_uids() {
            let stream = stream_of(&uid);
            let extent = match self.log().extent(&stream).await {
                Err(LogError::NoStream(_)) => continue,
                other => other?,
            };
            let unopened = self.unopened().iter().any(|other| other.topic_uid == uid);
            if extent.bytes < SMALL || unopened {
                continue;
            }
            let needed = self.needed(&uid, &stream, extent.next).await?;
            if needed > extent.first {
                self.log().trim(&stream, needed).await?;
            }
        }
        Ok(())
    }

    fn topic_uids(&self) -> HashSet<String> {
        let topics = self.0.topics.by_name.all();
        let subscriptions = self.0.subscriptions.all();
        let snapshots = self.0.snapshots.all();
        topics
            .iter()
            .map(|topic| topic.config.uid.clone())
            .chain(
                subscriptions
                    .iter()
                    .map(|open| open.config.topic_uid.clone()),
            )
            .chain(snapshots.iter().map(|snapshot| snapshot.topic_uid.clone()))
            .collect()
    }

    /// The first message of a topic that somebody needs.
    async fn needed(&self, uid: &str, stream: &str, end: Position) -> Result<Position, LogError> {
        let mut needed = end;
        let mut keep: Option<Duration> = None;
        for open in self.0.subscriptions.all() {
            if open.config.topic_uid != *uid || open.config.detached {
                continue;
            }
            let done_before = open.handle.signs.done_before.load(Ordering::Acquire);
            needed = needed.min(Position(done_before));
            if open.config.retain_acked {
                keep = keep.max(Some(open.config.retention));
            }
        }
        for topic in self.0.topics.by_name.all() {
            if topic.config.uid == *uid {
                keep = keep.max(topic.config.retention);
            }
        }
        for snapshot in self.0.snapshots.all() {
            if snapshot.topic_uid == *uid {
                needed = needed.min(Position(snapshot.done_before));
            }
        }
        if let Some(keep) = keep {
            let since = self.ago(keep);
            needed = needed.min(self.log().position_at(stream, since).await?);
        }
        Ok(needed)
    }

    fn ago(&self, duration: Duration) -> Timestamp {
        let duration = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        let then = self.0.tools.clock.now().checked_sub(duration);
        then.unwrap_or(Timestamp::MIN)
    }

    /// Deletes subscriptions that have not been used for long, and snapshots whose time has come.
    async fn expire(&self) {
        let now = self.0.tools.clock.now();
        for open in self.0.subscriptions.all() {
            let mut config = open.config.clone();
            let pushes = config.push.is_some() && !config.detached;
            if open.handle.signs.used.swap(false, Ordering::Relaxed) || pushes {
                if now.duration_since(config.used) > STORE_USED {
                    config.used = now;
                    let _admin = self.0.admin.lock().await;
                    // Only if nobody has changed it meanwhile.
                    if self.subscription(&config.name) == Ok(open.config.clone())
                        && self.put(&config.name, &config).await.is_ok()
                    {
                        self.replace_subscription(&open, config).await;
                    }
                }
                continue;
            }
            let over = config
                .expiration
                .is_some_and(|ttl| config.used < self.ago(ttl));
            if over {
                tracing::info!(name = %config.name, "a subscription that was not used expires");
                let _ = self.delete_subscription(&config.name).await;
            }
        }
        for snapshot in self.0.snapshots.all() {
            if snapshot.expires <= now {
                let _ = self.delete_snapshot(&snapshot.name).await;
            }
        }
    }

    /// Deletes streams that nothing refers to: what was deleted when the machine stopped, or was
    /// being made.
    async fn remove_strangers(&self) -> Result<(), LogError> {
        let _admin = self.0.admin.lock().await;
        let mut known: HashSet<String> =
            self.topic_uids().iter().map(|uid| stream_of(uid)).collect();
        let subscriptions = self.0.subscriptions.all();
        known.extend(
            subscriptions
                .iter()
                .map(|open| journal_of(&open.config.uid)),
        );
        for config in &*self.unopened() {
            known.extend([journal_of(&config.uid), stream_of(&config.topic_uid)]);
        }
        let snapshots = self.0.snapshots.all();
        known.extend(
            snapshots
                .iter()
                .map(|snapshot| stream_of_snapshot(&snapshot.uid)),
        );
        for stream in self.log().streams().await? {
            if stream.starts_with("pubsub/") && !known.contains(&stream) {
                self.log().delete(&stream).await?;
            }
        }
        Ok(())
    }
}
