//! The keys that tokens are signed with: kept in the store, made before they are needed, removed when
//! nothing that they signed can be valid.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lauf_iam::{Issuer, Keys, StoredKey, rotation};
use lauf_model::Clock;
use lauf_store::{Key, Kind, Resource, Store, Txn};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

/// How often it is looked whether a key has to be made or removed.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// How soon it is tried again after something failed.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The keys as they are stored.
#[derive(Default, Serialize, Deserialize)]
struct SigningKeys(Vec<StoredKey>);

impl Resource for SigningKeys {
    const KIND: Kind = Kind::new("SigningKeys");
    type Name = ();

    fn at((): &()) -> Key {
        Key::new(Self::KIND, "", "current")
    }
}

/// Keeps the issuer in keys.
pub(super) fn keep(store: Store, issuer: Arc<Issuer>, clock: Arc<dyn Clock>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let wait = match look(&store, &issuer, &*clock).await {
                Ok(()) => LOOK_EVERY,
                Err(error) => {
                    tracing::warn!("the keys that tokens are signed with: {error:#}");
                    RETRY_AFTER
                }
            };
            tokio::time::sleep(wait).await;
        }
    })
}

async fn look(store: &Store, issuer: &Issuer, clock: &dyn Clock) -> anyhow::Result<()> {
    let stored = store.find::<SigningKeys>(&()).await?;
    let (mut keys, version) = match stored {
        Some(stored) => (stored.value.0, Some(stored.version)),
        None => (Vec::new(), None),
    };
    if !keys.is_empty() {
        issuer.set_keys(Keys::new(&keys)?);
    }
    let plan = rotation(&keys, clock.now());
    if plan.make.is_none() && plan.remove.is_empty() {
        return Ok(());
    }
    keys.retain(|key| !plan.remove.contains(&key.id));
    if let Some(signs_from) = plan.make {
        // It takes up to seconds of a core.
        let made = tokio::task::spawn_blocking(move || StoredKey::generate(signs_from)).await?;
        keys.push(made?);
    }
    let keys = SigningKeys(keys);
    let key = SigningKeys::at(&());
    let txn = match version {
        Some(version) => Txn::replace(key, version, keys.body()),
        None => Txn::create(key, keys.body()),
    };
    store.write(txn).await.context("they cannot be stored")?;
    issuer.set_keys(Keys::new(&keys.0)?);
    Ok(())
}
