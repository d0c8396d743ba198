//! Eventarc: events of a kind are sent to a service.
//!
//! A trigger stands on Pub/Sub, as Google's does, and shows it: a *transport topic*, made for the trigger
//! or named by it, and a push subscription that sends each message as a CloudEvent. The one kind of event
//! that there is so far is that a message was published. The laws:
//!
//! 1. **A trigger is there wholly or not at all**: what was being made when the server was killed is
//!    finished by the next start, and so is what was being deleted.
//! 2. **An event is delivered as its message is**: at least once, with Pub/Sub's retries.

mod service;
mod trigger;

pub use crate::pubsub::MESSAGE_PUBLISHED;
pub use service::{Deps, Eventarc};
pub use trigger::{Destination, Filter, Spec, Trigger, TriggerName};
