//! The wire: Cloud Run's Admin API and the neighbours that its clients call.
//!
//! A request comes in through [`router`] whatever its host; the host tells the API and, for v1,
//! the region. gRPC and REST of whatever is in `lauf-wire`'s table of RPCs end in the same handlers
//! (`v2`); the rest (v1, and what gcloud asks of neighbours) is REST by hand. A request is
//! authenticated, read into the model ([`lauf_model`]), validated, and written to the store as desired
//! state; controllers do the rest. Reads go the other way: store, model, wire form. Nothing here
//! decides anything about what runs.
//!
//! The laws:
//!
//! 1. **One model, many views.** v1 (`/apis/serving.knative.dev/v1`), v2 (REST and gRPC) and Kubernetes
//!    (`kube`) read and write the same stored object. Putting back what was got changes nothing.
//! 2. **All violations at once**, each with its field's path, and nothing is stored.
//! 3. **What cannot be honoured is refused**, never taken and forgotten.
//! 4. **Errors have one shape a face**, made in one place: `google.rpc.Status` with details
//!    (`lauf_wire`), Kubernetes' `Status` on its own (`kube`).
//! 5. **Everything is bounded:** body, path, time to send them, pages.
#![forbid(unsafe_code)]

mod api;
mod audit;
mod config;
mod deps;
mod door;
mod etag;
mod eventarc;
mod failed;
mod host;
mod iam;
mod jobs;
mod kube;
mod lenient;
mod logging;
mod native;
mod outgoing;
mod page;
mod policy_at;
mod pubsub;
mod refuse;
mod reply;
mod resourcemanager;
mod rpc;
mod scheduler;
mod selector;
mod services;
mod serviceusage;
mod tasks;
mod v1;
mod v2;
mod worker_pools;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;

pub use audit::Client;
pub use config::ApiConfig;
pub use deps::{AuditEntry, Deps, Live, LiveCounts, LogPage, LogQuery, LogStream, Logs};

use api::Api;
use door::Door;

/// The whole API as one service: any host that ends in `.googleapis.com`, and the platform's own
/// address. The `Host` header (or `:authority`) must come as the client sent it.
pub fn router(config: ApiConfig, deps: Deps) -> Router {
    let door = Door::new(Api {
        config: Arc::new(config),
        deps,
        kube: kube::Shared::default(),
    });
    Router::new().fallback(move |request: Request| door.clone().answer(request))
}

/// Pub/Sub alone, without asking who is calling: what clients expect of Google's emulator. Whoever
/// reaches it may do everything with Pub/Sub; serve it on loopback, if at all.
pub fn pubsub_emulator(config: ApiConfig, deps: Deps) -> Router {
    let door = Door::emulator(Api {
        config: Arc::new(config),
        deps,
        kube: kube::Shared::default(),
    });
    Router::new().fallback(move |request: Request| door.clone().answer(request))
}
