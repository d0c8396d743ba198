//! The door: everything that Pub/Sub does, with names and plain types.

mod delivery;
mod janitor;
mod schemas;
mod snapshots;
mod subscriptions;
mod topics;

use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use lauf_model::{Clock, Code, Status, Violation};
use lauf_store::{Condition, ReadError, Resource, Store, Txn, WriteError};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

pub use self::delivery::RefusedIds;
use super::names::{SchemaName, SnapshotName, SubscriptionName};
use super::push::Pusher;
use super::registry::{Registry, bad_token};
use super::resource::{Snapshot, Subscription, Topic};
use super::schema::Schema;
use super::subscription::{Handle, Tools, start};
use super::topics::{OpenTopic, Topics};
use crate::call::Caller;
use crate::log::{LogError, MessageLog};

/// What Pub/Sub works with.
#[derive(Clone)]
pub struct Deps {
    /// Where messages are kept.
    pub log: Arc<dyn MessageLog>,
    /// Where topics, subscriptions and the rest are kept.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How pushes leave the house.
    pub caller: Arc<dyn Caller>,
}

/// Why Pub/Sub cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] ReadError),
    /// The log fails.
    #[error("the message log: {0}")]
    Log(#[from] LogError),
}

/// Pub/Sub. Clones are the same.
#[derive(Clone)]
pub struct PubSub(Arc<Inner>);

struct Inner {
    tools: Tools,
    store: Store,
    caller: Arc<dyn Caller>,
    topics: Arc<Topics>,
    subscriptions: Registry<SubscriptionName, OpenSubscription>,
    snapshots: Registry<SnapshotName, Snapshot>,
    schemas: Registry<SchemaName, Schema>,
    /// Subscriptions that could not be opened. Nothing of theirs is given up.
    unopened: std::sync::Mutex<Vec<Subscription>>,
    /// Held by whoever changes what there is, so that checks hold until they are acted upon, and
    /// what somebody needs is not given up meanwhile.
    admin: Mutex<()>,
}

/// A subscription at work.
struct OpenSubscription {
    config: Subscription,
    handle: Arc<Handle>,
    push: Option<JoinHandle<()>>,
}

impl Drop for OpenSubscription {
    fn drop(&mut self) {
        if let Some(push) = &self.push {
            push.abort();
        }
    }
}

impl PubSub {
    /// Starts with what the store and the log hold.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(deps: Deps) -> Result<Self, StartError> {
        let topics = Arc::new(Topics::new(Arc::clone(&deps.log)));
        let inner = Inner {
            tools: Tools {
                log: deps.log,
                clock: deps.clock,
                topics: Arc::clone(&topics),
            },
            caller: deps.caller,
            topics,
            subscriptions: Registry::default(),
            snapshots: Registry::default(),
            schemas: Registry::default(),
            unopened: std::sync::Mutex::default(),
            admin: Mutex::new(()),
            store: deps.store,
        };
        let this = Self(Arc::new(inner));
        this.load_schemas().await?;
        for stored in this.0.store.all::<Topic>().await?.0 {
            let topic = stored.value;
            // Made before the topic was stored; made again for a store that is older than the log.
            this.log()
                .create(&super::topics::stream_of(&topic.uid))
                .await?;
            this.open_topic(topic);
        }
        for stored in this.0.store.all::<Snapshot>().await?.0 {
            let snapshot = stored.value;
            this.0.snapshots.put(snapshot.name.clone(), snapshot);
        }
        for stored in this.0.store.all::<Subscription>().await?.0 {
            let config = stored.value;
            // One that cannot be read must not keep all others from working.
            if let Err(error) = this.open_subscription(config.clone()).await {
                tracing::error!(%error, name = %config.name, "a subscription cannot be opened");
                this.unopened().push(config);
            }
        }
        janitor::start(Arc::downgrade(&this.0));
        Ok(this)
    }

    fn log(&self) -> &dyn MessageLog {
        &*self.0.tools.log
    }

    fn unopened(&self) -> std::sync::MutexGuard<'_, Vec<Subscription>> {
        self.0
            .unopened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn open_topic(&self, topic: Topic) {
        let checker = topic
            .schema
            .as_ref()
            .and_then(|settings| self.checker(settings));
        self.0.topics.put(OpenTopic::new(topic, checker));
    }

    async fn open_subscription(&self, config: Subscription) -> Result<(), LogError> {
        let handle = start(self.0.tools.clone(), config.clone()).await?;
        self.put_subscription(config, handle);
        Ok(())
    }

    /// Takes a subscription in, and begins to push if it says so.
    fn put_subscription(&self, config: Subscription, handle: Arc<Handle>) {
        let pusher = config
            .push
            .clone()
            .filter(|_| !config.detached)
            .map(|push| Pusher {
                name: config.name.clone(),
                push,
                ack_deadline: config.ack_deadline,
                tag: handle.tag,
                mailbox: handle.mailbox.downgrade(),
                caller: Arc::clone(&self.0.caller),
            });
        let open = OpenSubscription {
            push: pusher.map(|pusher| tokio::spawn(pusher.run())),
            handle,
            config,
        };
        let name = open.config.name.clone();
        self.0.subscriptions.put(name, open);
    }

    /// Writes to the store. `taken` is the answer if something stands in the way.
    async fn write(&self, txn: Txn, taken: impl FnOnce() -> Status) -> Result<(), Status> {
        match self.0.store.write(txn).await {
            Ok(_) => Ok(()),
            Err(WriteError::Conflict { .. }) => Err(taken()),
            Err(error) => Err(Status::new(
                Code::Unavailable,
                format!("It could not be stored: {error}. Try again."),
            )),
        }
    }

    async fn put<T: Resource>(&self, name: &T::Name, value: &T) -> Result<(), Status> {
        let key = T::at(name);
        let txn = Txn::new()
            .require(Condition::Exists(key.clone()))
            .put(key, value.body());
        self.write(txn, gone).await
    }
}

/// The answer about something that went away while it was changed.
fn gone() -> Status {
    Status::new(
        Code::NotFound,
        "Resource not found: it has just been deleted.",
    )
}

/// A mask with a path that cannot be changed, or is not known.
fn bad_path(path: &str, allowed: &[&str]) -> Status {
    Status::invalid(vec![Violation::new(
        "update_mask",
        format!(
            "'{path}' cannot be updated; these can: {}.",
            allowed.join(", ")
        ),
    )])
}

/// Where a page begins, from the token of the one before, which is the last id on it.
fn begin<K>(token: &str, first: K, parse: impl Fn(&str) -> Option<K>) -> Result<Bound<K>, Status> {
    if token.is_empty() {
        return Ok(Bound::Included(first));
    }
    parse(token)
        .map(Bound::Excluded)
        .ok_or_else(|| bad_token(token))
}

macro_rules! page_of {
    ($registry:expr, $name:ident, $project:expr, $size:expr, $token:expr, $wanted:expr, $item:expr) => {{
        let first = $name {
            project: $project.to_owned(),
            id: String::new(),
        };
        let begin = begin($token, first, |id| {
            let name = format!("projects/{}/{}/{id}", $project, $name::COLLECTION);
            $name::parse("page_token", &name).ok()
        })?;
        let (found, last) = $registry.page(
            begin,
            $size,
            |name: &$name| name.project == $project,
            $wanted,
        );
        Page {
            items: found.iter().map($item).collect(),
            next: last.map_or_else(String::new, |name| name.id),
        }
    }};
}
use page_of;
