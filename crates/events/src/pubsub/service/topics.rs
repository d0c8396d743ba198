//! Topics: made, changed, listed, deleted.

use std::sync::Arc;

use lauf_model::Status;
use lauf_store::{Resource as _, Txn};

use super::super::names::{SnapshotName, SubscriptionName, TopicName};
use super::super::resource::{SchemaSettings, Subscription, Topic, exists, not_found};
use super::super::subscription::Ask;
use super::super::topics::{OpenTopic, stream_of};
use super::{PubSub, bad_path, begin, gone, page_of};
use crate::log::failed;
use crate::page::Page;
use crate::random::uid;

/// What may be changed of a topic.
const PATHS: [&str; 4] = [
    "labels",
    "message_retention_duration",
    "message_storage_policy",
    "schema_settings",
];

impl PubSub {
    /// Makes a topic. Its `uid` is given here.
    ///
    /// # Errors
    /// When something is wrong with it, its schema is not there, or there is one of that name.
    pub async fn create_topic(&self, spec: Topic) -> Result<Topic, Status> {
        spec.check()?;
        let _admin = self.0.admin.lock().await;
        if self.0.topics.get(&spec.name).is_ok() {
            return Err(exists(&spec.name));
        }
        self.check_schema(spec.schema.as_ref())?;
        let topic = Topic {
            uid: uid()?,
            ..spec
        };
        let stream = stream_of(&topic.uid);
        self.log()
            .create(&stream)
            .await
            .map_err(|error| failed(&error))?;
        let create = Txn::create(Topic::at(&topic.name), topic.body());
        self.write(create, || exists(&topic.name)).await?;
        self.open_topic(topic.clone());
        Ok(topic)
    }

    /// The topic of that name.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub fn topic(&self, name: &TopicName) -> Result<Topic, Status> {
        Ok(self.0.topics.get(name)?.config.clone())
    }

    /// Whether there is a topic of that name.
    #[must_use]
    pub fn has_topic(&self, name: &TopicName) -> bool {
        self.0.topics.get(name).is_ok()
    }

    /// Changes those fields of a topic that `paths` names.
    ///
    /// # Errors
    /// [`Code::NotFound`], or when a field cannot be changed, or something is wrong with it.
    pub async fn update_topic(&self, spec: Topic, paths: &[String]) -> Result<Topic, Status> {
        let _admin = self.0.admin.lock().await;
        let mut topic = self.topic(&spec.name)?;
        for path in paths {
            let whole = path.split('.').next().unwrap_or_default();
            match whole {
                "labels" => topic.labels.clone_from(&spec.labels),
                "message_retention_duration" => topic.retention = spec.retention,
                "message_storage_policy" => {
                    topic.storage_regions.clone_from(&spec.storage_regions);
                }
                "schema_settings" => topic.schema.clone_from(&spec.schema),
                _ => return Err(bad_path(path, &PATHS)),
            }
        }
        topic.check()?;
        self.check_schema(topic.schema.as_ref())?;
        self.put(&topic.name, &topic).await?;
        self.open_topic(topic.clone());
        Ok(topic)
    }

    fn check_schema(&self, settings: Option<&SchemaSettings>) -> Result<(), Status> {
        match settings.and_then(|settings| settings.schema.as_ref()) {
            Some(name) if self.0.schemas.get(name).is_none() => Err(not_found(name)),
            _ => Ok(()),
        }
    }

    /// A project's topics, by name.
    ///
    /// # Errors
    /// When the token is none.
    pub fn list_topics(
        &self,
        project: &str,
        size: usize,
        token: &str,
    ) -> Result<Page<Topic>, Status> {
        Ok(page_of!(
            self.0.topics.by_name,
            TopicName,
            project,
            size,
            token,
            |_| true,
            |topic: &Arc<OpenTopic>| topic.config.clone()
        ))
    }

    /// The names of a topic's subscriptions.
    ///
    /// # Errors
    /// [`Code::NotFound`], or when the token is none.
    pub fn list_topic_subscriptions(
        &self,
        name: &TopicName,
        size: usize,
        token: &str,
    ) -> Result<Page<String>, Status> {
        let topic = self.0.topics.get(name)?;
        // They may be of other projects: all are looked at, and the whole name is the token.
        let first = SubscriptionName {
            project: String::new(),
            id: String::new(),
        };
        let begin = begin(token, first, |name| {
            SubscriptionName::parse("page_token", name).ok()
        })?;
        let (found, last) = self.0.subscriptions.page(
            begin,
            size,
            |_| true,
            |open| open.config.topic_uid == topic.config.uid && !open.config.detached,
        );
        Ok(Page {
            items: found
                .iter()
                .map(|open| open.config.name.to_string())
                .collect(),
            next: last.map_or_else(String::new, |name| name.to_string()),
        })
    }

    /// The names of a topic's snapshots.
    ///
    /// # Errors
    /// [`Code::NotFound`], or when the token is none.
    pub fn list_topic_snapshots(
        &self,
        name: &TopicName,
        size: usize,
        token: &str,
    ) -> Result<Page<String>, Status> {
        let topic = self.0.topics.get(name)?;
        let first = SnapshotName {
            project: String::new(),
            id: String::new(),
        };
        let begin = begin(token, first, |name| {
            SnapshotName::parse("page_token", name).ok()
        })?;
        let (found, last) = self.0.snapshots.page(
            begin,
            size,
            |_| true,
            |snapshot| snapshot.topic_uid == topic.config.uid,
        );
        Ok(Page {
            items: found
                .iter()
                .map(|snapshot| snapshot.name.to_string())
                .collect(),
            next: last.map_or_else(String::new, |name| name.to_string()),
        })
    }

    /// Deletes a topic. Its subscriptions stay, with the messages that they have not done.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), Status> {
        let _admin = self.0.admin.lock().await;
        let topic = self.0.topics.get(name)?;
        // The topic goes first: what is said of the subscriptions follows from that, now or at the
        // next start.
        self.write(Txn::new().delete(Topic::at(name)), gone).await?;
        self.0.topics.remove(name);
        self.mark_deleted_topics(&topic.config.uid).await
    }

    /// Says of subscriptions of a topic that it has been deleted.
    async fn mark_deleted_topics(&self, uid: &str) -> Result<(), Status> {
        for open in self.0.subscriptions.all() {
            if open.config.topic_uid == *uid && !open.config.topic_deleted {
                let config = Subscription {
                    topic_deleted: true,
                    ..open.config.clone()
                };
                self.put(&config.name, &config).await?;
                self.replace_subscription(&open, config).await;
            }
        }
        Ok(())
    }

    /// Replaces what is said of a subscription; it works on.
    pub(super) async fn replace_subscription(
        &self,
        open: &super::OpenSubscription,
        config: Subscription,
    ) {
        let ask = Ask::Configure(Box::new(config.clone()));
        // An error says that it is ending.
        let _ = open.handle.mailbox.send(ask).await;
        self.put_subscription(config, Arc::clone(&open.handle));
    }

    /// Puts right what a start finds half done.
    pub(super) async fn mend(&self) -> Result<(), Status> {
        let lost: Vec<String> = self
            .0
            .subscriptions
            .all()
            .iter()
            .filter(|open| !open.config.topic_deleted)
            .filter(|open| {
                let topic = self.0.topics.get(&open.config.topic);
                !topic.is_ok_and(|topic| topic.config.uid == open.config.topic_uid)
            })
            .map(|open| open.config.topic_uid.clone())
            .collect();
        for uid in lost {
            self.mark_deleted_topics(&uid).await?;
        }
        Ok(())
    }

    /// Cuts a subscription off from its topic: it gets nothing more, and what it had not done is given
    /// up.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    pub async fn detach_subscription(&self, name: &SubscriptionName) -> Result<(), Status> {
        let _admin = self.0.admin.lock().await;
        let open = self.open_named(name)?;
        if open.config.detached {
            return Ok(());
        }
        let config = Subscription {
            detached: true,
            ..open.config.clone()
        };
        self.put(name, &config).await?;
        self.replace_subscription(&open, config).await;
        Ok(())
    }
}
