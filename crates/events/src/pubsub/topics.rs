//! The topics that there are, and publishing to them.

use std::sync::Arc;

use bytes::Bytes;
use lauf_model::Status;

use super::message::{self, Message};
use super::names::TopicName;
use super::registry::Registry;
use super::resource::{Topic, not_found};
use super::schema::Checker;
use crate::log::{Appended, MessageLog, Position, failed};

/// The stream that a topic's messages are kept in.
pub(super) fn stream_of(uid: &str) -> String {
    format!("pubsub/topic/{uid}")
}

/// A topic, ready to be published to.
pub(super) struct OpenTopic {
    pub(super) config: Topic,
    stream: String,
    /// What messages must look like.
    checker: Option<Arc<Checker>>,
}

impl OpenTopic {
    pub(super) fn new(config: Topic, checker: Option<Arc<Checker>>) -> Self {
        Self {
            stream: stream_of(&config.uid),
            config,
            checker,
        }
    }
}

/// All topics, by name.
pub(super) struct Topics {
    log: Arc<dyn MessageLog>,
    pub(super) by_name: Registry<TopicName, OpenTopic>,
}

impl Topics {
    pub(super) fn new(log: Arc<dyn MessageLog>) -> Self {
        Self {
            log,
            by_name: Registry::default(),
        }
    }

    pub(super) fn get(&self, name: &TopicName) -> Result<Arc<OpenTopic>, Status> {
        self.by_name.get(name).ok_or_else(|| not_found(name))
    }

    pub(super) fn put(&self, topic: OpenTopic) {
        self.by_name.put(topic.config.name.clone(), topic);
    }

    pub(super) fn remove(&self, name: &TopicName) {
        self.by_name.remove(name);
    }

    /// Publishes messages, all or none, and says where they are when they are durable.
    ///
    /// # Errors
    /// When there is no such topic; for messages that are too large, too many, or
    /// not what the topic's schema says; when too much waits.
    pub(super) async fn publish(
        &self,
        name: &TopicName,
        mut messages: Vec<Message>,
    ) -> Result<Vec<Position>, Status> {
        let topic = self.get(name)?;
        message::check(&messages)?;
        if let Some(checker) = &topic.checker {
            checker.check(&mut messages)?;
        }
        self.append(&topic, &messages).await
    }

    /// Publishes a message that has been published before, with notes added, to a topic for those that
    /// nobody could handle. Whatever it looks like, it is kept.
    pub(super) async fn publish_dead_letter(
        &self,
        name: &TopicName,
        message: Message,
    ) -> Result<(), Status> {
        let topic = self.get(name)?;
        self.append(&topic, &[message]).await.map(drop)
    }

    async fn append(
        &self,
        topic: &OpenTopic,
        messages: &[Message],
    ) -> Result<Vec<Position>, Status> {
        let records: Vec<Bytes> = messages.iter().map(Message::to_record).collect();
        let receipt = self.log.append(&topic.stream, records);
        let Appended { first, .. } = match receipt {
            Ok(receipt) => receipt.await,
            Err(error) => Err(error),
        }
        .map_err(|error| failed(&error))?;
        Ok((0..messages.len() as u64).map(|n| first.plus(n)).collect())
    }
}
