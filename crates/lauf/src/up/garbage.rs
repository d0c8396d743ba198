//! Gives back the disk that images no longer needed take.

use std::collections::HashSet;
use std::time::Duration;

use lauf_image::{Digest, GarbagePolicy, Images, Reference};
use lauf_model::{Execution, Revision, WorkerPoolRevision};
use lauf_store::{ListQuery, Resource, ResourceError, Store, Stored};
use tokio::task::JoinHandle;

/// Often enough for a disk that fills in days; a collection reads every manifest.
const EVERY: Duration = Duration::from_secs(3600);

/// Collects now and then, for as long as the server runs. Images of stored revisions stay, since a
/// revision may start again at any time.
pub(crate) fn collect(images: Images, store: Store) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(EVERY).await;
            let keep = match needed(&store).await {
                Ok(keep) => keep,
                Err(error) => {
                    tracing::warn!(%error, "garbage is not collected this time");
                    continue;
                }
            };
            match images
                .collect_garbage(&keep, GarbagePolicy::default())
                .await
            {
                Ok(stats) => tracing::info!(?stats, "garbage collected"),
                Err(error) => tracing::warn!(%error, "garbage could not be collected"),
            }
        }
    })
}

/// The images of all revisions and executions there are.
async fn needed(store: &Store) -> Result<HashSet<Digest>, ResourceError> {
    let mut keep = HashSet::new();
    each::<Revision>(store, &mut keep, |r| &r.status.image_digest).await?;
    each::<WorkerPoolRevision>(store, &mut keep, |r| &r.status.image_digest).await?;
    each::<Execution>(store, &mut keep, |e| &e.status.image_digest).await?;
    Ok(keep)
}

async fn each<T: Resource>(
    store: &Store,
    keep: &mut HashSet<Digest>,
    image: impl Fn(&T) -> &str,
) -> Result<(), ResourceError> {
    let mut walk = store.walk(ListQuery::all(T::KIND));
    while let Some(object) = walk.next().await? {
        // Without knowing its image nothing may be thrown away.
        let stored = Stored::<T>::read(&object)?.value;
        let image = image(&stored).parse::<Reference>().ok();
        keep.extend(image.and_then(|image| image.digest));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lauf_store::{Key, Txn};

    #[tokio::test]
    async fn an_unreadable_revision_stops_the_collection() {
        let store = Store::in_memory().unwrap();
        assert!(needed(&store).await.unwrap().is_empty());
        let key = Key::new(Revision::KIND, "demo/us-central1", "x-00001-abc");
        store.write(Txn::create(key, "{}")).await.unwrap();
        assert!(needed(&store).await.is_err());
    }
}
