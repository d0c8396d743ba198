//! The laws of the message log, held against every implementation, and what is the embedded one's
//! own: that it keeps them over `kill -9` and loss of power.

mod crash;
mod embedded;
mod jetstream;
mod laws;
#[path = "../servers/nats.rs"]
mod nats;
