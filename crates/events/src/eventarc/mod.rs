//! Eventarc: events of a kind are sent to a service.
//!
//! A trigger stands on Pub/Sub, as Google's does, and shows it: a *transport topic*, made for the trigger
//! or named by it, and a push subscription that sends each message as a CloudEvent. The events are
//! messages that are published, and entries of the audit log: what is done by Lauf's own APIs. The laws:
//!
//! 1. **A trigger is there wholly or not at all**: what was being made when the server was killed is
//!    finished by the next start, and so is what was being deleted.
//! 2. **An event is delivered as its message is**: at least once, with Pub/Sub's retries.

mod audit;
mod pattern;
mod service;
mod trigger;

pub use crate::pubsub::MESSAGE_PUBLISHED;
pub use audit::{AUDIT_LOG_WRITTEN, AuditEvent};
pub use service::{Deps, Eventarc};
pub use trigger::{Destination, Filter, Spec, Trigger, TriggerName};
