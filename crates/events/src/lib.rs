//! Asynchronous work: messages that wait until somebody has done what they ask for.
//!
//! The room stands on one thing, the [`log`]: streams of records that are durable when they are
//! acknowledged, read again from any position, and given up from the front. On it stand
//! [`pubsub`] and [`tasks`]; [`scheduler`] calls and publishes at times, and [`eventarc`] has events sent to
//! services by Pub/Sub. What leaves the house does so through one trait, [`Caller`].
#![forbid(unsafe_code)]

mod call;
pub mod eventarc;
mod holders;
pub mod log;
mod page;
pub mod pubsub;
mod random;
mod retry;
pub mod scheduler;
pub mod tasks;

pub use call::{CallError, Caller, Identity};
pub use holders::holder_of_messages;
pub use retry::Backoff;
