//! The controllers' loops: the store's changes in, turns of the two controllers out.

use std::sync::Arc;

use lauf_model::{Revision, RevisionKey, Service, ServiceKey};
use lauf_store::{Change, Event, Scope, Version, Watch, WatchError, WatchQuery, WriteError};
use tokio::task::JoinSet;

use crate::objects::{self, ObjectError, POLICY, REVISION, SERVICE};
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

fn into_read_error(error: ObjectError) -> lauf_store::ReadError {
    match error {
        ObjectError::Read(e) => e,
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
) -> Result<Version, ObjectError> {
    let (all, from) = objects::all::<Service>(&context.store, SERVICE, Scope::All).await?;
    let (stamped, _) = objects::all::<Revision>(&context.store, REVISION, Scope::All).await?;
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
    let key = &change.key;
    let Some((project, region)) = objects::parse_scope(&key.scope) else {
        return;
    };
    if key.kind == SERVICE {
        services.add(ServiceKey {
            project,
            region,
            name: key.name.clone(),
        });
    } else if key.kind == POLICY {
        if let Some(name) = key.name.strip_prefix("services/") {
            services.add(ServiceKey {
                project,
                region,
                name: name.to_owned(),
            });
        }
    } else if key.kind == REVISION {
        let (Event::Put(object) | Event::Deleted(object)) = &change.event;
        match objects::parse::<Revision>(object) {
            Ok(revision) => {
                let service = owner(&revision.value);
                revisions.add(service.revision(&key.name));
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

fn give_back<K>(queue: &Arc<WorkQueue<K>>, key: &K, error: &ObjectError)
where
    K: Clone + Eq + std::hash::Hash + std::fmt::Display + Send + 'static,
{
    match error {
        // Somebody else wrote first: look again, and then it is right.
        ObjectError::Write(WriteError::Conflict { .. }) => {}
        // A turn with a body it cannot read would only fail again.
        ObjectError::Body { .. } => {
            tracing::error!(%key, %error, "left alone");
            return queue.done(key);
        }
        _ => tracing::warn!(%key, %error, "will be tried again"),
    }
    queue.retry(key);
}
