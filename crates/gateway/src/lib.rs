//! The data plane: everything between a client's connection and an instance.
//!
//! In: connections to one port, a [`RouteTable`] that control publishes, and an engine that starts
//! instances. Out: answers, [`RequestRecord`]s, and the [`Fleet`]'s counts. A request makes six stops,
//! each a file, none going back:
//!
//! 1. `listener` tells TLS, HTTP/1.1, HTTP/2 and forward-proxy requests apart.
//! 2. `route` finds the service and the revision by host, from an immutable table.
//! 3. `admit` checks ingress and invoker.
//! 4. `pool` gives a slot on a ready instance, or queues and asks for one more instance at once.
//! 5. `proxy` streams both ways.
//! 6. `meter` counts.
//!
//! Laws:
//!
//! - Nothing is written to a store and nothing waits for a timer on this path; timers are deadlines.
//! - Each data-plane thread has its own listener, runtime and upstream connections; threads share
//!   only the route table (swapped whole) and the slot counters (atomics). Locks are taken only where
//!   a request has to wait anyway.
//! - An instance never has more requests than its revision's concurrency, on all threads together.
//! - Every queue, buffer and cache is bounded; a slow or silent client costs one bounded buffer and
//!   is dropped at a deadline.
//! - What is not a service's host is answered by the [`Face`], on the control runtime.
#![forbid(unsafe_code)]

mod admit;
mod affinity;
mod alarm;
mod body;
mod certificates;
mod config;
mod cpu;
mod dial;
mod drain;
mod error_page;
mod face;
mod fields;
mod fleet;
mod gateway;
mod h1;
mod headers;
mod host;
mod inbox;
mod io;
mod listener;
mod listening;
mod message;
mod meter;
mod pool;
mod proxy;
mod random;
mod route;
mod slot;
mod switch;
mod thread;
mod tls;
mod trace;
mod tunnel;
mod upstream;
mod worker;

pub use admit::{Access, Denied, InvokerCheck};
pub use certificates::{CertificateFile, CertificateFileError, CertificateFiles};
pub use config::{GatewayConfig, Limits, Network};
pub use face::{ConnInfo, Face, FaceFuture};
pub use fleet::{Fleet, FleetDeps, RevisionConfig, RevisionCounts};
pub use gateway::{Deps, Gateway, GatewayError};
pub use listening::Listening;
pub use meter::{Outcome, RequestRecord, RequestSink};
pub use pool::RevisionPool;
pub use route::{RouteTable, Routes, ServiceRoute};
pub use tls::{CertAuthority, CertError};
pub use worker::{FleetEvent, FleetEvents};
