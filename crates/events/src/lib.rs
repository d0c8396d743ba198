//! Asynchronous work: messages that wait until somebody has done what they ask for.
//!
//! The room stands on one thing, the [`log`]: streams of records that are durable when they are
//! acknowledged, read again from any position, and given up from the front. On it stands
//! [`pubsub`]. What leaves the house, pushes for now, does so through one trait, [`Caller`].
#![forbid(unsafe_code)]

mod call;
pub mod log;
pub mod pubsub;
mod retry;
pub mod scheduler;
pub mod tasks;

pub use call::{CallError, Caller, Identity};
pub use retry::Backoff;
