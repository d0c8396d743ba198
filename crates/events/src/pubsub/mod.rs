//! Pub/Sub: topics, subscriptions, and what happens between them.
//!
//! A message that is published is checked ([`Message`]), appended to its topic's stream of the
//! [log](crate::log), and acknowledged when it is durable there. Each subscription is a task with a
//! mailbox (`subscription`), which owns a state machine that knows what is still to be done
//! (`backlog`); it reads the topic at its own pace, hands messages to whoever pulls, and writes down
//! in a journal of its own what was acknowledged. A push subscription is a subscriber within the house
//! (`push`) that sends messages on. [`PubSub`] is the door.
//!
//! The laws:
//!
//! 1. **A published message is delivered** to every subscription that there was when it was published
//!    and whose filter it passes, until it is acknowledged, dead-lettered or too old. `kill -9` and loss
//!    of power change nothing about that.
//! 2. **An acknowledged message stays acknowledged** as far as its subscription was promised: with
//!    exactly-once delivery from the moment the acknowledgement is answered, otherwise nearly always.
//! 3. **Topics and subscriptions are told apart by what they are, not by name:** what is made again under
//!    an old name has nothing of the old one.
//! 4. **A slow or failing subscriber costs nobody else anything** but disk.

mod ack_id;
mod backlog;
mod filter;
mod message;
mod names;
mod push;
mod registry;
mod resource;
mod schema;
mod service;
mod subscription;
mod topics;

pub use backlog::{KEY_WINDOW, MAX_SEEN};
pub use filter::{Filter, FilterError, MAX_FILTER};
pub use push::MESSAGE_PUBLISHED;

pub use crate::page::Page;
pub use message::{MAX_ATTRIBUTES, MAX_BYTES, MAX_MESSAGES, Message, Published};
pub use names::{DELETED_TOPIC, SchemaName, SnapshotName, SubscriptionName, TopicName};
pub use resource::{
    DEFAULT_EXPIRATION, DEFAULT_RETENTION, DeadLetter, Encoding, Labels, Oidc, Push, Retry,
    SchemaSettings, Snapshot, Subscription, Topic, Unwrapped,
};
pub use schema::{Language, MAX_DEFINITION, MAX_REVISIONS, Revision};
pub use service::{Deps, PubSub, RefusedIds, StartError};
pub use subscription::{Delivered, Refused, Subscriber};
