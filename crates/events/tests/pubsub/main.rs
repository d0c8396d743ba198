//! Pub/Sub as a whole, on a real log and a real store, with a clock that the tests move.

mod bad;
mod crash;
mod push;
mod stories;
mod support;
