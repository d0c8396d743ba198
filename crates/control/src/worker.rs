//! The controllers' loops: the store's changes in, turns of the two controllers out.

use std::sync::Arc;

use lauf_model::{Revision, RevisionKey, Service, ServiceKey};
use lauf_store::{
    Change, Event, Resource as _, Stored, Version, Watch, WatchError, WatchQuery, WriteError,
    service_of,
};
use tokio::task::JoinSet;

use crate::error::TurnError;
use crate::queue::WorkQueue;
use crate::{Context, Deps, revision, service};

/// Services worked on at once. Their turns are short and mostly wait for the store.
const SERVICE_WORKERS: usize = 16;
/// Revisions worked on at once. Their turns last as long as a container's start.
const REVISION_WORKERS: usize = 256;

/// The running controllers. Dropping it stops them; the next start goes on where they were.
pub struct Controllers {
    _tasks: JoinSet<()>,
}

/// Reads everything there is, publishes the routes of what was served before, and starts the
/// controllers. When it returns, the platform serves.
///
/// # Errors
/// When the store cannot be read.
pub async fn start(deps: Deps) -> Result<Controllers, lauf_store::ReadError> {
    let context = Arc::new(Context::new(deps));
    let services = WorkQueue::new();
    let revisions = WorkQueue::new();
    let from = load(&context, &services, &revisions)
        .await
        .map_err(into_read_error)?;
    let mut tasks = JoinSet::new();
    for _ in 0..SERVICE_WORKERS {
        tasks.spawn(work_on_services(
            Arc::clone(&context),
            Arc::clone(&services),
        ));
    }
    for _ in 0..REVISION_WORKERS {
        tasks.spawn(work_on_revisions(
            Arc::clone(&context),
            Arc::clone(&revisions),
        ));
    }
    tasks.spawn(follow(context, services, revisions, from));
    Ok(Controllers { _tasks: tasks })
}

fn into_read_error(error: TurnError) -> lauf_store::ReadError {
    match error {
        TurnError::Read(e) => e,
        other => lauf_store::ReadError::Io(other.to_string()),
    }
}

type Services = Arc<WorkQueue<ServiceKey>>;
type Revisions = Arc<WorkQueue<RevisionKey>>;

/// Puts back what was served, from the stored statuses alone, and queues what is not settled.
async fn load(
    context: &Arc<Context>,
    services: &Services,
    revisions: &Revisions,
) -> Result<Version, TurnError> {
    // What comes between the two lists comes again with the watch; reconciling twice does no harm.
    let (all, from) = context.store.all::<Service>().await?;
    let (stamped, _) = context.store.all::<Revision>().await?;
    let mut by_service =
        std::collections::HashMap::<ServiceKey, std::collections::BTreeMap<_, _>>::new();
    for revision in stamped {
        let revision = revision.value;
        let key = owner(&revision);
        if revision::is_unsettled(&revision) {
            revisions.add(key.revision(&revision.meta.name));
        }
        by_service
            .entry(key)
            .or_default()
            .insert(revision.meta.name.clone(), revision);
    }
    for stored in all {
        let service = stored.value;
        let key = service.key();
        let own = by_service.remove(&key).unwrap_or_default();
        if service.meta.deleted.is_none() {
            service::publish(context, &key, &service, &own, &service.status.traffic).await?;
        }
        // A turn without anything to do costs one read and writes nothing.
        services.add(key);
    }
    // Revisions whose service is gone: their deletion was interrupted.
    for (key, orphans) in by_service {
        for name in orphans.keys() {
            revisions.add(key.revision(name));
        }
    }
    Ok(from)
}

fn owner(revision: &Revision) -> ServiceKey {
    ServiceKey {
        project: revision.meta.project.clone(),
        region: revision.meta.region.clone(),
        name: revision.service.clone(),
    }
}

/// Queues what each change is about, for ever.
async fn follow(context: Arc<Context>, services: Services, revisions: Revisions, from: Version) {
    let mut watch = context.store.watch(WatchQuery::default(), from);
    loop {
        match watch.next().await {
            Some(Ok(change)) => queue(&change, &services, &revisions),
            Some(Err(error)) => {
                tracing::warn!(%error, "the controllers' watch broke; reading everything again");
                watch = restart(&context, &services, &revisions, error).await;
            }
            // The store has closed: the server is going down.
            None => return,
        }
    }
}

async fn restart(
    context: &Arc<Context>,
    services: &Services,
    revisions: &Revisions,
    error: WatchError,
) -> Watch {
    let mut error = error.to_string();
    loop {
        match load(context, services, revisions).await {
            Ok(from) => return context.store.watch(WatchQuery::default(), from),
            Err(e) => {
                if error != e.to_string() {
                    error = e.to_string();
                    tracing::error!(%error, "the controllers cannot read the store");
                }
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

fn queue(change: &Change, services: &Services, revisions: &Revisions) {
    if let Some(service) = service_of(&change.key) {
        services.add(service);
    } else if change.key.kind == Revision::KIND {
        let (Event::Put(object) | Event::Deleted(object)) = &change.event;
        match Stored::<Revision>::read(object) {
            Ok(revision) => {
                let service = owner(&revision.value);
                revisions.add(service.revision(&change.key.name));
                services.add(service);
            }
            Err(error) => tracing::error!("{error}"),
        }
    }
}

async fn work_on_services(context: Arc<Context>, queue: Services) {
    loop {
        let key = queue.next().await;
        match service::reconcile(&context, &key).await {
            Ok(()) => queue.done(&key),
            Err(error) => give_back(&queue, &key, &error),
        }
    }
}

async fn work_on_revisions(context: Arc<Context>, queue: Revisions) {
    loop {
        let key = queue.next().await;
        match revision::reconcile(&context, &key).await {
            Ok(revision::Outcome::Settled) => queue.done(&key),
            Ok(revision::Outcome::Later) => queue.retry(&key),
            Err(error) => give_back(&queue, &key, &error),
        }
    }
}

fn give_back<K>(queue: &Arc<WorkQueue<K>>, key: &K, error: &TurnError)
where
    K: Clone + Eq + std::hash::Hash + std::fmt::Display + Send + 'static,
{
    match error {
        // Somebody else wrote first: look again, and then it is right.
        TurnError::Write(WriteError::Conflict { .. }) => {}
        // A turn with a body it cannot read would only fail again.
        TurnError::Body(_) => {
            tracing::error!(%key, %error, "left alone");
            return queue.done(key);
        }
        _ => tracing::warn!(%key, %error, "will be tried again"),
    }
    queue.retry(key);
}
