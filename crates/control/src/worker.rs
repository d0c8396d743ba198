//! The controllers' loops: the store's changes in, turns of the controllers out.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lauf_engine::Owner;
use lauf_model::{
    Execution, Job, JobKey, Revision, RevisionKey, Service, ServiceKey, Task, TaskState,
    WorkerPool, WorkerPoolKey, WorkerPoolRevision, WorkerPoolRevisionKey,
};
use lauf_store::{
    Change, Event, Resource, Stored, Version, Watch, WatchError, WatchQuery, WriteError, service_of,
};
use tokio::task::JoinSet;

use crate::error::TurnError;
use crate::jobs::{self, Executions};
use crate::queue::WorkQueue;
use crate::revision::Outcome;
use crate::{Context, Deps, pools, revision, service};

/// Services worked on at once. Their turns are short and mostly wait for the store.
const SERVICE_WORKERS: usize = 16;
/// Revisions worked on at once. Their turns last as long as a container's start.
const REVISION_WORKERS: usize = 256;

/// Jobs worked on at once. A turn may last as long as the pull of an image.
const JOB_WORKERS: usize = 64;
/// Worker pools worked on at once.
const POOL_WORKERS: usize = 8;
/// Revisions of worker pools worked on at once.
const POOL_REVISION_WORKERS: usize = 64;
/// What a stray instance of a task gets between SIGTERM and SIGKILL.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What waits for each controller.
#[derive(Clone)]
struct Queues {
    services: Arc<WorkQueue<ServiceKey>>,
    revisions: Arc<WorkQueue<RevisionKey>>,
    jobs: Arc<WorkQueue<JobKey>>,
    executions: Arc<Executions>,
    pools: Arc<WorkQueue<WorkerPoolKey>>,
    pool_revisions: Arc<WorkQueue<WorkerPoolRevisionKey>>,
}

/// The running controllers. Dropping it stops them; the next start goes on where they were.
pub struct Controllers {
    _tasks: JoinSet<()>,
    executions: Arc<Executions>,
}

impl Drop for Controllers {
    fn drop(&mut self) {
        self.executions.stop();
    }
}

/// Reads everything there is, publishes the routes of what was served before, and starts the
/// controllers. When it returns, the platform serves.
///
/// # Errors
/// When the store cannot be read.
pub async fn start(deps: Deps) -> Result<Controllers, lauf_store::ReadError> {
    let pools = WorkQueue::new();
    let underway = deps.underway.clone();
    let context = Arc::new(Context::new(deps, Arc::clone(&pools)));
    let queues = Queues {
        services: WorkQueue::new(),
        revisions: WorkQueue::new(),
        jobs: WorkQueue::new(),
        executions: Executions::new(Arc::clone(&context), underway),
        pools,
        pool_revisions: WorkQueue::new(),
    };
    let from = load(&context, &queues).await.map_err(into_read_error)?;
    context.crews.stop_unclaimed();
    let mut tasks = JoinSet::new();
    let turns = &mut tasks;
    let settled = |turn: Result<(), TurnError>| turn.map(|()| Outcome::Settled);
    work(
        turns,
        SERVICE_WORKERS,
        &queues.services,
        &context,
        move |context, key| async move { settled(service::reconcile(&context, &key).await) },
    );
    work(
        turns,
        REVISION_WORKERS,
        &queues.revisions,
        &context,
        |context, key| async move { revision::reconcile(&context, &key).await },
    );
    work(
        turns,
        JOB_WORKERS,
        &queues.jobs,
        &context,
        |context, key| async move { jobs::job::reconcile(&context, &key).await },
    );
    work(
        turns,
        POOL_WORKERS,
        &queues.pools,
        &context,
        move |context, key| async move { settled(pools::pool::reconcile(&context, &key).await) },
    );
    let (most, waiting) = (POOL_REVISION_WORKERS, &queues.pool_revisions);
    work(turns, most, waiting, &context, |context, key| async move {
        pools::revision::reconcile(&context, &key).await
    });
    let executions = Arc::clone(&queues.executions);
    tasks.spawn(follow(context, queues, from));
    Ok(Controllers {
        _tasks: tasks,
        executions,
    })
}

/// Adds `count` workers that take keys from a queue, for ever.
fn work<K, F, T>(
    workers: &mut JoinSet<()>,
    count: usize,
    queue: &Arc<WorkQueue<K>>,
    context: &Arc<Context>,
    turn: F,
) where
    K: Clone + Eq + std::hash::Hash + std::fmt::Display + Send + Sync + 'static,
    F: Fn(Arc<Context>, K) -> T + Copy + Send + 'static,
    T: Future<Output = Result<Outcome, TurnError>> + Send,
{
    for _ in 0..count {
        let (queue, context) = (Arc::clone(queue), Arc::clone(context));
        workers.spawn(async move {
            loop {
                let key = queue.next().await;
                match turn(Arc::clone(&context), key.clone()).await {
                    Ok(Outcome::Settled) => queue.done(&key),
                    Ok(Outcome::Later) => queue.retry(&key),
                    Err(error) => give_back(&queue, &key, &error),
                }
            }
        });
    }
}

fn into_read_error(error: TurnError) -> lauf_store::ReadError {
    match error {
        TurnError::Read(e) => e,
        other => lauf_store::ReadError::Io(other.to_string()),
    }
}

/// Puts back what was served and what ran, from the stored statuses alone, and queues what is not
/// settled.
async fn load(context: &Arc<Context>, queues: &Queues) -> Result<Version, TurnError> {
    // What comes between the lists comes again with the watch; reconciling twice does no harm.
    let (services, from) = context.store.all::<Service>().await?;
    load_services(context, queues, services).await?;
    load_pools(context, queues).await?;
    load_jobs(context, queues).await?;
    Ok(from)
}

async fn load_services(
    context: &Arc<Context>,
    queues: &Queues,
    all: Vec<Stored<Service>>,
) -> Result<(), TurnError> {
    let (stamped, _) = context.store.all::<Revision>().await?;
    let mut by_service = HashMap::<ServiceKey, BTreeMap<_, _>>::new();
    for revision in stamped {
        let revision = revision.value;
        let key = owner(&revision);
        if revision::is_unsettled(&revision) {
            queues.revisions.add(key.revision(&revision.meta.name));
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
        queues.services.add(key);
    }
    // Revisions whose service is gone: their deletion was interrupted.
    for (key, orphans) in by_service {
        for name in orphans.keys() {
            queues.revisions.add(key.revision(name));
        }
    }
    Ok(())
}

async fn load_pools(context: &Arc<Context>, queues: &Queues) -> Result<(), TurnError> {
    let (all, _) = context.store.all::<WorkerPool>().await?;
    let (stamped, _) = context.store.all::<WorkerPoolRevision>().await?;
    let mut by_pool = HashMap::<WorkerPoolKey, BTreeMap<_, _>>::new();
    for revision in stamped {
        let revision = revision.value;
        let key = revision.key();
        if pools::revision::is_unsettled(&revision) {
            queues.pool_revisions.add(key.clone());
        }
        let own = by_pool.entry(key.pool).or_default();
        own.insert(key.revision, revision);
    }
    for stored in all {
        let pool = stored.value;
        let key = pool.key();
        let own = by_pool.remove(&key).unwrap_or_default();
        if pool.meta.deleted.is_none() {
            let division = pools::plan::split(&pool, &own);
            pools::pool::assign(context, &key, &pool, &own, &division);
        }
        queues.pools.add(key);
    }
    Ok(())
}

async fn load_jobs(context: &Arc<Context>, queues: &Queues) -> Result<(), TurnError> {
    let (all, _) = context.store.all::<Execution>().await?;
    for execution in all {
        let execution = execution.value;
        if jobs::is_unsettled(&execution) {
            queues.executions.look_at(execution.key());
        }
    }
    let (all, _) = context.store.all::<Job>().await?;
    for job in all {
        queues.jobs.add(job.value.key());
    }
    // Instances whose attempts are over, or whose executions are gone: the server died between the
    // write and what follows from it.
    for instance in context.unclaimed() {
        let Owner::Task(attempt) = &instance.spec.owner else {
            continue;
        };
        let task = context.store.find::<Task>(&attempt.task()).await?;
        let awaited = task.is_some_and(|task| {
            matches!(task.value.state, TaskState::Running(a) if a.instance == *instance.id())
        });
        if !awaited {
            let engine = Arc::clone(&context.engine);
            tokio::spawn(async move {
                engine.stop(instance.id(), STOP_GRACE).await;
                engine.forget(instance.id());
            });
        }
    }
    Ok(())
}

fn owner(revision: &Revision) -> ServiceKey {
    ServiceKey {
        project: revision.meta.project.clone(),
        region: revision.meta.region.clone(),
        name: revision.service.clone(),
    }
}

/// Queues what each change is about, for ever.
async fn follow(context: Arc<Context>, queues: Queues, from: Version) {
    let mut watch = context.store.watch(WatchQuery::default(), from);
    loop {
        match watch.next().await {
            Some(Ok(change)) => queue(&change, &queues),
            Some(Err(error)) => {
                tracing::warn!(%error, "the controllers' watch broke; reading everything again");
                watch = restart(&context, &queues, error).await;
            }
            // The store has closed: the server is going down.
            None => return,
        }
    }
}

async fn restart(context: &Arc<Context>, queues: &Queues, error: WatchError) -> Watch {
    let mut error = error.to_string();
    loop {
        match load(context, queues).await {
            Ok(from) => return context.store.watch(WatchQuery::default(), from),
            Err(e) => {
                if error != e.to_string() {
                    error = e.to_string();
                    tracing::error!(%error, "the controllers cannot read the store");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn queue(change: &Change, queues: &Queues) {
    let Some((project, region)) = change.key.scope.split_once('/') else {
        return;
    };
    let kind = &change.key.kind;
    let name = &change.key.name;
    if let Some(service) = service_of(&change.key) {
        queues.services.add(service);
    } else if *kind == Revision::KIND {
        if let Some(revision) = read::<Revision>(change) {
            let service = owner(&revision);
            queues.revisions.add(service.revision(name));
            queues.services.add(service);
        }
    } else if *kind == Execution::KIND {
        if let Some(execution) = read::<Execution>(change) {
            if matches!(change.event, Event::Put(_)) {
                queues.executions.look_at(execution.key());
            }
            // While tasks come and go a job has nothing new to show.
            if jobs::is_news(&execution, &change.event) {
                queues.jobs.add(execution.job_key());
            }
        }
    } else if *kind == Job::KIND {
        queues.jobs.add(JobKey {
            project: project.to_owned(),
            region: region.to_owned(),
            name: name.clone(),
        });
    } else if *kind == WorkerPool::KIND {
        queues.pools.add(WorkerPoolKey {
            project: project.to_owned(),
            region: region.to_owned(),
            name: name.clone(),
        });
    } else if *kind == WorkerPoolRevision::KIND
        && let Some(revision) = read::<WorkerPoolRevision>(change)
    {
        let key = revision.key();
        queues.pools.add(key.pool.clone());
        queues.pool_revisions.add(key);
    }
}

/// What was written, or what was there before it was deleted.
fn read<T: Resource>(change: &Change) -> Option<T> {
    let (Event::Put(object) | Event::Deleted(object)) = &change.event;
    match Stored::<T>::read(object) {
        Ok(stored) => Some(stored.value),
        Err(error) => {
            tracing::error!("{error}");
            None
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
