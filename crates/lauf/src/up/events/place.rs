//! Where messages are: in files of the data folder, or on NATS JetStream.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use lauf_events::holder_of_messages;
use lauf_events::log::{EmbeddedConfig, EmbeddedLog, JetStreamConfig, JetStreamLog, MessageLog};
use lauf_model::Clock;
use lauf_store::{Key, Kind, Resource, Store, Txn};
use serde::{Deserialize, Serialize};

/// What `lauf up` was told of a NATS server.
#[derive(Debug, Clone)]
pub(crate) struct Nats {
    /// Its addresses.
    pub(crate) url: String,
    /// On how many of its servers each stream is to be.
    pub(crate) replicas: usize,
}

/// Where the messages of this data folder are, as it is stored. Nothing is stored while they are in files.
#[derive(Serialize, Deserialize)]
struct MessagesOnNats {
    /// What this Lauf's streams are marked with, so that several can share a server.
    owner: String,
}

impl Resource for MessagesOnNats {
    const KIND: Kind = Kind::new("MessagesOnNats");
    type Name = ();

    fn at((): &()) -> Key {
        Key::new(Self::KIND, "", "current")
    }
}

/// Opens the log that is wanted. Refuses another than the one that has messages.
pub(super) async fn open(
    data: &Path,
    nats: Option<&Nats>,
    store: &Store,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn MessageLog>> {
    let stored = store.find::<MessagesOnNats>(&()).await?;
    match (nats, stored) {
        (Some(nats), Some(stored)) => on_nats(nats, stored.value.owner, clock).await,
        (Some(nats), None) => {
            refuse_to_lose(store, "files of the data folder", "without --message-log").await?;
            let owner = format!("{:016x}", getrandom::u64()?);
            let here = MessagesOnNats {
                owner: owner.clone(),
            };
            let log = on_nats(nats, owner, clock).await?;
            let create = Txn::create(MessagesOnNats::at(&()), here.body());
            store.write(create).await?;
            Ok(log)
        }
        (None, Some(_)) => {
            refuse_to_lose(
                store,
                "NATS JetStream",
                "with --message-log and its address",
            )
            .await?;
            let delete = Txn::new().delete(MessagesOnNats::at(&()));
            store.write(delete).await?;
            in_files(data, clock).await
        }
        (None, None) => in_files(data, clock).await,
    }
}

async fn refuse_to_lose(store: &Store, place: &str, how: &str) -> anyhow::Result<()> {
    if let Some(holder) = holder_of_messages(store).await? {
        bail!(
            "the messages of this data folder are in {place}, and are not moved to another place; start {how}, \
             or delete all topics, subscriptions, snapshots and queues first (there is the {holder})"
        );
    }
    Ok(())
}

async fn on_nats(
    nats: &Nats,
    owner: String,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn MessageLog>> {
    let config = JetStreamConfig {
        replicas: nats.replicas,
        ..JetStreamConfig::new(&*nats.url, owner)
    };
    Ok(Arc::new(
        JetStreamLog::connect(&config, Arc::clone(clock)).await?,
    ))
}

async fn in_files(data: &Path, clock: &Arc<dyn Clock>) -> anyhow::Result<Arc<dyn MessageLog>> {
    let dir = data.join("events");
    let clock = Arc::clone(clock);
    let open = move || EmbeddedLog::open(dir, &EmbeddedConfig::default(), clock);
    let log = tokio::task::spawn_blocking(open)
        .await?
        .context("cannot open the message log")?;
    Ok(Arc::new(log))
}
