//! Asynchronous work, put together: the message log, Pub/Sub, and how calls leave.

mod emulator;
mod keys;
mod outgoing;
mod place;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use lauf_events::Caller;
use lauf_events::eventarc::{self, Eventarc};
use lauf_events::log::MessageLog;
use lauf_events::pubsub::{self, PubSub};
use lauf_events::scheduler::{self, Scheduler};
use lauf_events::tasks::{self, Tasks};
use lauf_iam::Issuer;
use lauf_model::Clock;
use lauf_store::Store;

pub(crate) use emulator::serve as serve_emulator;
use outgoing::Outgoing;
pub(crate) use place::Nats;

/// What runs.
pub(crate) struct Events {
    pub(crate) pubsub: PubSub,
    pub(crate) scheduler: Scheduler,
    pub(crate) tasks: Tasks,
    pub(crate) eventarc: Eventarc,
    log: Arc<dyn MessageLog>,
    keys: tokio::task::JoinHandle<()>,
}

/// What it is made of.
pub(crate) struct Parts<'a> {
    pub(crate) data: &'a Path,
    /// The NATS server that messages are on, if they are not in files.
    pub(crate) nats: Option<&'a Nats>,
    pub(crate) store: &'a Store,
    pub(crate) clock: &'a Arc<dyn Clock>,
    pub(crate) issuer: &'a Arc<Issuer>,
    /// Where this Lauf listens, and the domain of its services.
    pub(crate) listen: SocketAddr,
    pub(crate) domain: &'a str,
}

/// Starts it.
pub(crate) async fn start(parts: Parts<'_>) -> anyhow::Result<Events> {
    let log = place::open(parts.data, parts.nats, parts.store, parts.clock).await?;
    let keys = keys::keep(
        parts.store.clone(),
        Arc::clone(parts.issuer),
        Arc::clone(parts.clock),
    );
    let issuer = Arc::clone(parts.issuer);
    let caller: Arc<dyn Caller> = Arc::new(Outgoing::new(parts.listen, parts.domain, issuer));
    let pubsub = PubSub::start(pubsub::Deps {
        log: Arc::clone(&log),
        store: parts.store.clone(),
        clock: Arc::clone(parts.clock),
        caller: Arc::clone(&caller),
    })
    .await
    .context("cannot start Pub/Sub")?;
    let scheduler = Scheduler::start(scheduler::Deps {
        store: parts.store.clone(),
        clock: Arc::clone(parts.clock),
        caller: Arc::clone(&caller),
        pubsub: pubsub.clone(),
    })
    .await
    .context("cannot start Cloud Scheduler")?;
    let tasks = Tasks::start(tasks::Deps {
        log: Arc::clone(&log),
        store: parts.store.clone(),
        clock: Arc::clone(parts.clock),
        caller,
    })
    .await
    .context("cannot start Cloud Tasks")?;
    let eventarc = Eventarc::start(eventarc::Deps {
        store: parts.store.clone(),
        clock: Arc::clone(parts.clock),
        pubsub: pubsub.clone(),
    })
    .await
    .context("cannot start Eventarc")?;
    Ok(Events {
        pubsub,
        eventarc,
        scheduler,
        tasks,
        log,
        keys,
    })
}

impl Events {
    /// Writes what waits, and lets go of the log.
    pub(crate) async fn close(self) {
        self.keys.abort();
        self.log.close().await;
    }
}
