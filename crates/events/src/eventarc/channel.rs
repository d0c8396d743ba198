//! Channels: what programs publish CloudEvents of their own to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lauf_model::{Code, Status};
use lauf_store::{Condition, Key, Kind, Resource, Txn};
use serde::{Deserialize, Serialize};

use super::event::CloudEvent;
use super::name::ChannelName;
use super::service::{Eventarc, MAX_PAGE};
use crate::page::{Page, page_size};
use crate::pubsub::{Message, TopicName};
use crate::random::uid;

/// A channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// Its name.
    pub name: ChannelName,
    /// Another channel that is later given the same name has another.
    pub uid: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// What users hang on it.
    pub labels: BTreeMap<String, String>,
}

impl Resource for Channel {
    const KIND: Kind = Kind::new("EventarcChannel");
    type Name = ChannelName;

    fn at(name: &ChannelName) -> Key {
        let scope = format!("{}/{}", name.project, name.location);
        Key::new(Self::KIND, scope, &*name.id)
    }
}

impl Eventarc {
    /// Makes a channel.
    ///
    /// # Errors
    /// When there is one of that name.
    pub async fn create_channel(
        &self,
        name: ChannelName,
        labels: BTreeMap<String, String>,
    ) -> Result<Channel, Status> {
        let _admin = self.admin().await;
        if self.channel(&name).is_ok() {
            return Err(Status::new(
                Code::AlreadyExists,
                format!("Channel '{name}' already exists."),
            ));
        }
        let now = self.now();
        let channel = Channel {
            uid: uid()?,
            created: now,
            updated: now,
            labels,
            name,
        };
        let create = Txn::create(Channel::at(&channel.name), channel.body());
        self.write(create, &channel.name).await?;
        self.channels_mut()
            .insert(channel.name.clone(), channel.clone());
        Ok(channel)
    }

    /// Gives a channel other labels.
    ///
    /// # Errors
    /// When there is none.
    pub async fn label_channel(
        &self,
        name: &ChannelName,
        labels: BTreeMap<String, String>,
    ) -> Result<Channel, Status> {
        let _admin = self.admin().await;
        let channel = Channel {
            labels,
            updated: self.now(),
            ..self.channel(name)?
        };
        let key = Channel::at(name);
        let put = Txn::new()
            .require(Condition::Exists(key.clone()))
            .put(key, channel.body());
        self.write(put, name).await?;
        self.channels_mut().insert(name.clone(), channel.clone());
        Ok(channel)
    }

    /// Deletes a channel that no trigger listens to.
    ///
    /// # Errors
    /// When there is none, or a trigger that listens to it.
    pub async fn delete_channel(&self, name: &ChannelName) -> Result<Channel, Status> {
        let _admin = self.admin().await;
        let channel = self.channel(name)?;
        let listens = self.first_trigger(|trigger| trigger.spec.channel.as_ref() == Some(name));
        if let Some(trigger) = listens {
            return Err(Status::new(
                Code::FailedPrecondition,
                format!(
                    "Trigger '{trigger}' listens to channel '{name}'; delete the trigger first."
                ),
            ));
        }
        let delete = Txn::new().delete(Channel::at(name));
        self.write(delete, name).await?;
        self.channels_mut().remove(name);
        Ok(channel)
    }

    /// The channel of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn channel(&self, name: &ChannelName) -> Result<Channel, Status> {
        let found = self.channels().get(name).cloned();
        found.ok_or_else(|| Status::not_found("Channel", name))
    }

    /// A region's channels, by name.
    #[must_use]
    pub fn list_channels(
        &self,
        project: &str,
        location: &str,
        size: usize,
        token: &str,
    ) -> Page<Channel> {
        let channels = self.channels();
        let of_region = channels
            .values()
            .filter(|channel| channel.name.project == project && channel.name.location == location);
        Page::of(
            of_region,
            |channel| &channel.name.id,
            page_size(size, MAX_PAGE),
            token,
        )
    }

    /// Sends events to whoever has a trigger for them. Durable when it returns; one that no trigger
    /// wants is nobody's.
    ///
    /// # Errors
    /// When there is no such channel, an event is not one, or not all could be stored. Then some may
    /// be sent, and all are to be published again.
    pub async fn publish_events(
        &self,
        channel: &ChannelName,
        events: Vec<CloudEvent>,
    ) -> Result<(), Status> {
        self.channel(channel)?;
        for (at, event) in events.iter().enumerate() {
            event.check(&format!("events[{at}]"))?;
        }
        let mut sent: BTreeMap<TopicName, Vec<Message>> = BTreeMap::new();
        for event in &events {
            for topic in self.topics_of(|trigger| event.is_for(trigger, channel)) {
                sent.entry(topic).or_default().push(event.message());
            }
        }
        for (topic, messages) in sent {
            self.pubsub().publish(&topic, messages).await?;
        }
        Ok(())
    }
}
