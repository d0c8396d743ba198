//! Subscriptions: made, changed, listed, deleted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lauf_model::Status;
use lauf_store::{Resource as _, Txn};

use super::super::names::SubscriptionName;
use super::super::resource::{Push, Subscription, exists, not_found};
use super::super::subscription::{Ask, begin as begin_journal, journal_of, start};
use super::super::topics::stream_of;
use super::{OpenSubscription, PubSub, bad_path, begin, gone, page_of};
use crate::log::failed;
use crate::page::Page;
use crate::random::uid;

/// What may be changed of a subscription.
const PATHS: [&str; 9] = [
    "push_config",
    "ack_deadline_seconds",
    "retain_acked_messages",
    "message_retention_duration",
    "labels",
    "expiration_policy",
    "dead_letter_policy",
    "retry_policy",
    "enable_exactly_once_delivery",
];

impl PubSub {
    /// Makes a subscription. It gets what is published from now on. Its `uid`, the topic's and what
    /// else only this side knows are given here.
    ///
    /// # Errors
    /// When something is wrong with it, a topic that it names is not there, or there is one of that
    /// name.
    pub async fn create_subscription(&self, spec: Subscription) -> Result<Subscription, Status> {
        spec.check()?;
        let _admin = self.0.admin.lock().await;
        if self.0.subscriptions.get(&spec.name).is_some() {
            return Err(exists(&spec.name));
        }
        let topic = self.0.topics.get(&spec.topic)?;
        self.check_dead_letter(&spec)?;
        let config = Subscription {
            uid: uid()?,
            topic_uid: topic.config.uid.clone(),
            topic_deleted: false,
            detached: false,
            used: self.0.tools.clock.now(),
            ..spec
        };
        let stream = stream_of(&config.topic_uid);
        let made = async {
            let extent = self.log().extent(&stream).await?;
            begin_journal(self.log(), &config.uid, extent.next).await?;
            start(self.0.tools.clone(), config.clone()).await
        };
        let handle = made.await.map_err(|error| failed(&error))?;
        let create = Txn::create(Subscription::at(&config.name), config.body());
        if let Err(status) = self.write(create, || exists(&config.name)).await {
            let _ = handle.mailbox.send(Ask::End).await;
            return Err(status);
        }
        self.put_subscription(config.clone(), handle);
        Ok(config)
    }

    fn check_dead_letter(&self, config: &Subscription) -> Result<(), Status> {
        if let Some(dead) = &config.dead_letter {
            self.0.topics.get(&dead.topic)?;
        }
        Ok(())
    }

    pub(super) fn open_named(
        &self,
        name: &SubscriptionName,
    ) -> Result<Arc<OpenSubscription>, Status> {
        self.0
            .subscriptions
            .get(name)
            .ok_or_else(|| not_found(name))
    }

    /// The same, for whoever uses it, which keeps it from expiring.
    pub(super) fn in_use(&self, name: &SubscriptionName) -> Result<Arc<OpenSubscription>, Status> {
        let open = self.open_named(name)?;
        open.handle.signs.used.store(true, Ordering::Relaxed);
        Ok(open)
    }

    /// The subscription of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn subscription(&self, name: &SubscriptionName) -> Result<Subscription, Status> {
        Ok(self.open_named(name)?.config.clone())
    }

    /// Whether there is a subscription of that name.
    #[must_use]
    pub fn has_subscription(&self, name: &SubscriptionName) -> bool {
        self.open_named(name).is_ok()
    }

    /// Changes those fields of a subscription that `paths` names.
    ///
    /// # Errors
    /// When there is none, a field cannot be changed, or something is wrong with it.
    pub async fn update_subscription(
        &self,
        spec: Subscription,
        paths: &[String],
    ) -> Result<Subscription, Status> {
        let _admin = self.0.admin.lock().await;
        let open = self.open_named(&spec.name)?;
        let mut config = open.config.clone();
        for path in paths {
            match path.split('.').next().unwrap_or_default() {
                "push_config" => config.push.clone_from(&spec.push),
                "ack_deadline_seconds" => config.ack_deadline = spec.ack_deadline,
                "retain_acked_messages" => config.retain_acked = spec.retain_acked,
                "message_retention_duration" => config.retention = spec.retention,
                "labels" => config.labels.clone_from(&spec.labels),
                "expiration_policy" => config.expiration = spec.expiration,
                "dead_letter_policy" => config.dead_letter.clone_from(&spec.dead_letter),
                "retry_policy" => config.retry = spec.retry,
                "enable_exactly_once_delivery" => config.exactly_once = spec.exactly_once,
                _ => return Err(bad_path(path, &PATHS)),
            }
        }
        config.check()?;
        self.check_dead_letter(&config)?;
        self.put(&config.name, &config).await?;
        self.replace_subscription(&open, config.clone()).await;
        Ok(config)
    }

    /// Changes how messages are sent, or that they are fetched.
    ///
    /// # Errors
    /// As [`PubSub::update_subscription`].
    pub async fn modify_push(
        &self,
        name: &SubscriptionName,
        push: Option<Push>,
    ) -> Result<(), Status> {
        let spec = Subscription {
            push,
            ..self.subscription(name)?
        };
        let paths = ["push_config".to_owned()];
        self.update_subscription(spec, &paths).await.map(drop)
    }

    /// A project's subscriptions, by name.
    ///
    /// # Errors
    /// When the token is none.
    pub fn list_subscriptions(
        &self,
        project: &str,
        size: usize,
        token: &str,
    ) -> Result<Page<Subscription>, Status> {
        Ok(page_of!(
            self.0.subscriptions,
            SubscriptionName,
            project,
            size,
            token,
            |_| true,
            |open: &Arc<OpenSubscription>| open.config.clone()
        ))
    }

    /// Deletes a subscription, and gives up what it had not done.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete_subscription(&self, name: &SubscriptionName) -> Result<(), Status> {
        let _admin = self.0.admin.lock().await;
        let open = self.open_named(name)?;
        self.write(Txn::new().delete(Subscription::at(name)), gone)
            .await?;
        self.0.subscriptions.remove(name);
        let _ = open.handle.mailbox.send(Ask::End).await;
        // What cannot be deleted now, the janitor finds.
        let _ = self.log().delete(&journal_of(&open.config.uid)).await;
        Ok(())
    }
}
