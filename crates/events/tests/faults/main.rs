//! Kills at random moments, a thousand of them, and a judge who has heard everything.

mod child;
mod history;
mod kills;
#[path = "../servers/nats.rs"]
mod nats;
