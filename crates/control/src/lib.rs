//! Controllers: they turn desired state into revisions and routes, tasks and workers.
//!
//! In: changes of the store (services, revisions, policies, jobs, executions, worker pools). Out:
//! revisions stamped and made ready, routes published to the gateway, executions run to their ends,
//! workers kept running, statuses written back. Laws:
//!
//! 1. Everything a controller knows is in the store; killed between any two steps, the next start
//!    finishes the work. Nothing is repaired by hand.
//! 2. Nothing is found out by asking again and again: a store watch brings every change.
//! 3. A bad deploy never takes away what was served before it.
#![forbid(unsafe_code)]

mod context;
mod error;
mod jobs;
mod naming;
mod plan;
mod pools;
mod queue;
mod revision;
mod routes;
mod service;
mod standing;
#[cfg(test)]
mod testing;
mod wording;
mod worker;

pub use context::{Context, Deps, JobLimits};
pub use jobs::Underway;
pub use worker::{Controllers, start};
