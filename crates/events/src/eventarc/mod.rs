//! Eventarc: events of a kind are sent to a service.
//!
//! A trigger stands on Pub/Sub, as Google's does, and shows it: a *transport topic*, made for the trigger
//! or named by it, and a push subscription that sends each message as a CloudEvent. The events are
//! messages that are published, entries of the audit log (what is done by Lauf's own APIs), and CloudEvents
//! that programs publish to a *channel*. The laws:
//!
//! 1. **A trigger is there wholly or not at all**: what was being made when the server was killed is
//!    finished by the next start, and so is what was being deleted.
//! 2. **An event is delivered as its message is**: at least once, with Pub/Sub's retries.

mod audit;
mod channel;
mod event;
mod name;
mod pattern;
mod service;
mod trigger;
mod update;

pub use crate::pubsub::MESSAGE_PUBLISHED;
pub use audit::{AUDIT_LOG_WRITTEN, AuditEvent};
pub use channel::Channel;
pub use event::CloudEvent;
pub use name::{ChannelName, TriggerName};
pub use service::{Deps, Eventarc};
pub use trigger::{Destination, Filter, Spec, Trigger};
