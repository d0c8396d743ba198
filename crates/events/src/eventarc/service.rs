//! The door: triggers, each with its transport on Pub/Sub.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use jiff::Timestamp;
use lauf_model::{Clock, Code, Status};
use lauf_store::{Condition, ReadError, Resource as _, Store, Txn, WriteError};
use tokio::sync::{Mutex, MutexGuard};

use super::audit::{AUDIT_LOG_WRITTEN, AuditEvent};
use super::channel::Channel;
use super::name::{ChannelName, TriggerName};
use super::trigger::{Spec, State, Trigger};
use crate::page::{Page, page_size};
use crate::pubsub::{Oidc, PubSub, Push, Retry, Subscription, SubscriptionName, Topic, TopicName};
use crate::random::uid;

pub(super) const MAX_PAGE: usize = 1_000;
/// How long a service may take for an event, and how long one waits that failed: as Google's
/// subscriptions for Eventarc have it.
const ACK_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Retry = Retry {
    minimum: Duration::from_secs(10),
    maximum: Duration::from_secs(600),
};

/// What Eventarc works with.
#[derive(Clone)]
pub struct Deps {
    /// Where triggers are kept.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What carries events.
    pub pubsub: PubSub,
}

/// Eventarc. Clones are the same.
#[derive(Clone)]
pub struct Eventarc(Arc<Inner>);

struct Inner {
    deps: Deps,
    triggers: RwLock<BTreeMap<TriggerName, Trigger>>,
    channels: RwLock<BTreeMap<ChannelName, Channel>>,
    /// Held by whoever changes what there is.
    admin: Mutex<()>,
}

impl Eventarc {
    /// Starts with what the store holds, and finishes what was being made or deleted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(deps: Deps) -> Result<Self, ReadError> {
        let stored = deps.store.all::<Trigger>().await?.0;
        let channels = deps.store.all::<Channel>().await?.0.into_iter();
        let channels = channels.map(|stored| (stored.value.name.clone(), stored.value));
        let this = Self(Arc::new(Inner {
            channels: RwLock::new(channels.collect()),
            deps,
            triggers: RwLock::default(),
            admin: Mutex::new(()),
        }));
        for trigger in stored.into_iter().map(|stored| stored.value) {
            let name = trigger.spec.name.clone();
            let finished = match trigger.state {
                State::Made => {
                    this.keep(trigger.clone());
                    this.catch_up(&trigger).await
                }
                State::Making => match this.make(trigger.clone()).await {
                    Ok(_) => Ok(()),
                    // Nobody was told that it is there.
                    Err(_) => this.remove(&trigger).await,
                },
                State::Going => this.remove(&trigger).await,
            };
            if let Err(status) = finished {
                tracing::warn!(%name, %status, "what was being done to a trigger cannot be finished yet");
            }
        }
        Ok(this)
    }

    /// Held by whoever changes what there is.
    pub(super) async fn admin(&self) -> MutexGuard<'_, ()> {
        self.0.admin.lock().await
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.deps.clock.now()
    }

    pub(super) fn pubsub(&self) -> &PubSub {
        &self.0.deps.pubsub
    }

    fn triggers(&self) -> RwLockReadGuard<'_, BTreeMap<TriggerName, Trigger>> {
        let triggers = self.0.triggers.read();
        triggers.unwrap_or_else(PoisonError::into_inner)
    }

    fn triggers_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<TriggerName, Trigger>> {
        let triggers = self.0.triggers.write();
        triggers.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn channels(&self) -> RwLockReadGuard<'_, BTreeMap<ChannelName, Channel>> {
        let channels = self.0.channels.read();
        channels.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn channels_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<ChannelName, Channel>> {
        let channels = self.0.channels.write();
        channels.unwrap_or_else(PoisonError::into_inner)
    }

    /// The first trigger that is so.
    pub(super) fn first_trigger(&self, so: impl Fn(&Trigger) -> bool) -> Option<TriggerName> {
        let triggers = self.triggers();
        let found = triggers.values().find(|trigger| so(trigger));
        found.map(|trigger| trigger.spec.name.clone())
    }

    /// The topics of the triggers that want something.
    pub(super) fn topics_of(&self, wants: impl Fn(&Trigger) -> bool) -> Vec<TopicName> {
        let triggers = self.triggers();
        let wanting = triggers.values().filter(|trigger| wants(trigger));
        wanting.map(|trigger| trigger.topic.clone()).collect()
    }

    pub(super) fn keep(&self, trigger: Trigger) {
        let name = trigger.spec.name.clone();
        self.triggers_mut().insert(name, trigger);
    }

    /// Lets a trigger's subscription push where the trigger says: it was changed, and the server was
    /// killed in between.
    async fn catch_up(&self, trigger: &Trigger) -> Result<(), Status> {
        let wanted = Some(push(trigger));
        let subscription = self.pubsub().subscription(&trigger.subscription)?;
        if trigger.updated.is_none() || subscription.push == wanted {
            return Ok(());
        }
        let pushed = self.pubsub().modify_push(&trigger.subscription, wanted);
        pushed.await
    }

    pub(super) async fn write(&self, txn: Txn, name: &impl Display) -> Result<(), Status> {
        match self.0.deps.store.write(txn).await {
            Ok(_) => Ok(()),
            Err(WriteError::Conflict { .. }) => Err(Status::new(
                Code::Aborted,
                format!("'{name}' has been changed by somebody else meanwhile. Try again."),
            )),
            Err(error) => Err(Status::new(
                Code::Unavailable,
                format!("It could not be stored: {error}. Try again."),
            )),
        }
    }

    pub(super) async fn put(&self, trigger: &Trigger) -> Result<(), Status> {
        let key = Trigger::at(&trigger.spec.name);
        let txn = Txn::new()
            .require(Condition::Exists(key.clone()))
            .put(key, trigger.body());
        self.write(txn, &trigger.spec.name).await
    }

    /// Makes a trigger and its transport.
    ///
    /// # Errors
    /// When something is wrong with it, its topic is not there, or there is one of that name.
    pub async fn create(&self, spec: Spec) -> Result<Trigger, Status> {
        spec.check()?;
        let _admin = self.admin().await;
        if self.get(&spec.name).is_ok() {
            return Err(exists(&spec.name));
        }
        if let Some(topic) = &spec.topic {
            self.0.deps.pubsub.topic(topic)?;
        }
        if let Some(channel) = &spec.channel {
            self.channel(channel)?;
        }
        let uid = uid()?;
        // As Google names them, so that they are known for what they are.
        let base = format!("eventarc-{}-{}", spec.name.location, spec.name.id);
        let tail = &uid[..8];
        let project = spec.name.project.clone();
        let topic = spec.topic.clone().unwrap_or_else(|| TopicName {
            project: project.clone(),
            id: format!("{base}-{tail}"),
        });
        let trigger = Trigger {
            topic,
            subscription: SubscriptionName {
                project,
                id: format!("{base}-sub-{tail}"),
            },
            created: self.now(),
            updated: None,
            state: State::Making,
            uid,
            spec,
        };
        let name = &trigger.spec.name;
        let create = Txn::create(Trigger::at(name), trigger.body());
        self.write(create, name).await?;
        let made = self.make(trigger.clone()).await;
        if made.is_err() {
            // Whoever asked is told that there is none. What cannot be removed now, the next start makes
            // or removes.
            let _ = self.remove(&trigger).await;
        }
        made
    }

    /// Makes what a trigger stands on, as far as it is not there.
    async fn make(&self, mut trigger: Trigger) -> Result<Trigger, Status> {
        let pubsub = &self.0.deps.pubsub;
        if trigger.spec.topic.is_none() {
            there(pubsub.create_topic(Topic::new(trigger.topic.clone())).await)?;
        }
        there(pubsub.create_subscription(subscription(&trigger)).await)?;
        trigger.state = State::Made;
        self.put(&trigger).await?;
        self.keep(trigger.clone());
        Ok(trigger)
    }

    /// Deletes what a trigger stands on, and then the trigger.
    async fn remove(&self, trigger: &Trigger) -> Result<(), Status> {
        let pubsub = &self.0.deps.pubsub;
        gone(pubsub.delete_subscription(&trigger.subscription).await)?;
        if trigger.spec.topic.is_none() {
            gone(pubsub.delete_topic(&trigger.topic).await)?;
        }
        let name = &trigger.spec.name;
        let delete = Txn::new().delete(Trigger::at(name));
        self.write(delete, name).await?;
        self.triggers_mut().remove(name);
        Ok(())
    }

    /// Sends an entry of the audit log to whoever has a trigger for it. Durable when it returns; what
    /// cannot be sent is said in the log, since what it tells of has been done.
    pub async fn audited(&self, event: &AuditEvent) {
        for topic in self.topics_of(|trigger| event.is_for(trigger)) {
            let sent = self.pubsub().publish(&topic, vec![event.message()]);
            if let Err(status) = sent.await {
                tracing::error!(%topic, %status, "an event of the audit log could not be sent");
            }
        }
    }

    /// The trigger of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, name: &TriggerName) -> Result<Trigger, Status> {
        let found = self.triggers().get(name).cloned();
        found.ok_or_else(|| Status::not_found("Trigger", name))
    }

    /// A region's triggers, by name.
    #[must_use]
    pub fn list(&self, project: &str, location: &str, size: usize, token: &str) -> Page<Trigger> {
        let triggers = self.triggers();
        let of_region = triggers.values().filter(|trigger| {
            let name = &trigger.spec.name;
            name.project == project && name.location == location
        });
        Page::of(
            of_region,
            |trigger| &trigger.spec.name.id,
            page_size(size, MAX_PAGE),
            token,
        )
    }

    /// Deletes a trigger with its transport, but for a topic that it was given.
    ///
    /// # Errors
    /// When there is none.
    pub async fn delete(&self, name: &TriggerName) -> Result<Trigger, Status> {
        let _admin = self.admin().await;
        let mut trigger = self.get(name)?;
        trigger.state = State::Going;
        self.put(&trigger).await?;
        self.remove(&trigger).await?;
        Ok(trigger)
    }
}

fn exists(name: &TriggerName) -> Status {
    Status::new(
        Code::AlreadyExists,
        format!("Trigger '{name}' already exists."),
    )
}

/// What is there already is what was wanted: it was made before a kill.
fn there<T>(made: Result<T, Status>) -> Result<(), Status> {
    match made {
        Err(status) if status.code != Code::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}

/// What is gone already is what was wanted.
fn gone(deleted: Result<(), Status>) -> Result<(), Status> {
    match deleted {
        Err(status) if status.code != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

fn subscription(trigger: &Trigger) -> Subscription {
    Subscription {
        push: Some(push(trigger)),
        ack_deadline: ACK_DEADLINE,
        // It goes when its trigger does, and not before.
        expiration: None,
        retry: Some(RETRY),
        ..Subscription::new(trigger.subscription.clone(), trigger.topic.clone())
    }
}

/// How its events are sent.
pub(super) fn push(trigger: &Trigger) -> Push {
    let spec = &trigger.spec;
    // All but messages of Pub/Sub are CloudEvents already when they are published.
    let events = spec.channel.is_some() || spec.kind() == Some(AUDIT_LOG_WRITTEN);
    Push {
        oidc: (!spec.service_account.is_empty()).then(|| Oidc {
            service_account: spec.service_account.clone(),
            audience: spec.service_url.clone(),
        }),
        event_source: (!events).then(|| format!("//pubsub.googleapis.com/{}", trigger.topic)),
        events,
        ..Push::new(format!("{}{}", spec.service_url, spec.destination.path))
    }
}
