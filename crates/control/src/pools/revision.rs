//! Takes a new revision of a worker pool to `Ready` True or False, once: its image is resolved and a
//! first instance has run.

use std::sync::Arc;

use lauf_engine::StartError;
use lauf_model::{WorkerPoolKey, WorkerPoolRevision, WorkerPoolRevisionKey, condition};
use lauf_store::{Condition, Resource as _, Stored, Txn, Version};

use super::plan::readiness;
use crate::error::TurnError;
use crate::plan::Readiness;
use crate::revision::Outcome;
use crate::{Context, wording};

pub(crate) async fn reconcile(
    context: &Arc<Context>,
    key: &WorkerPoolRevisionKey,
) -> Result<Outcome, TurnError> {
    let Some(mut revision) = context.store.find::<WorkerPoolRevision>(key).await? else {
        context.crews.retire(key).await;
        return Ok(Outcome::Settled);
    };
    if revision.value.meta.deleted.is_some() {
        context.crews.retire(key).await;
        let at = WorkerPoolRevision::at(key);
        let txn = Txn::new()
            .require(Condition::Version(at.clone(), revision.version))
            .delete(at);
        context.store.write(txn).await?;
        return Ok(Outcome::Settled);
    }
    if readiness(&revision.value) != Readiness::Pending {
        return Ok(Outcome::Settled);
    }
    if revision.value.status.image_digest.is_empty() {
        let image = revision.value.spec.container.image.clone();
        match context.images.resolve(&image).await {
            Ok(digest) => {
                revision.value.status.image_digest = digest;
                let now = context.clock.now();
                let conditions = &mut revision.value.status.conditions;
                condition::set(conditions, wording::holds("ContainerReady", now));
                revision.version = replace(context, key, &revision).await?;
            }
            Err(error) => return conclude(context, key, revision, Err(error)).await,
        }
    }
    context.crews.check(key, &revision.value);
    let started = context.crews.first_instance(key).await;
    conclude(context, key, revision, started).await
}

async fn conclude(
    context: &Context,
    key: &WorkerPoolRevisionKey,
    mut revision: Stored<WorkerPoolRevision>,
    started: Result<(), StartError>,
) -> Result<Outcome, TurnError> {
    let now = context.clock.now();
    let conditions = &mut revision.value.status.conditions;
    match started {
        Ok(()) => {
            for kind in [
                "ContainerReady",
                "ContainerHealthy",
                "ResourcesAvailable",
                "Ready",
            ] {
                condition::set(conditions, wording::holds(kind, now));
            }
        }
        Err(error) if !error.is_permanent() => {
            tracing::warn!(revision = %key, %error, "cannot start a first worker yet");
            let text = error.to_string();
            condition::set(
                conditions,
                wording::pending("Ready", wording::RETRY, &text, now),
            );
            replace(context, key, &revision).await?;
            return Ok(Outcome::Later);
        }
        Err(error) => {
            let (about, reason) = match error {
                StartError::Image(_) => ("ContainerReady", "ContainerMissing"),
                _ => ("ContainerHealthy", "HealthCheckContainerError"),
            };
            let text = error.to_string();
            condition::set(conditions, wording::failed(about, reason, &text, now));
            condition::set(conditions, wording::failed("Ready", reason, &text, now));
            context.crews.retire(key).await;
        }
    }
    replace(context, key, &revision).await?;
    Ok(Outcome::Settled)
}

/// Stores what is known of a revision now, if its pool is there and nobody else wrote it meanwhile.
async fn replace(
    context: &Context,
    key: &WorkerPoolRevisionKey,
    revision: &Stored<WorkerPoolRevision>,
) -> Result<Version, TurnError> {
    let at = WorkerPoolRevision::at(key);
    let txn = Txn::replace(at, revision.version, revision.value.body());
    Ok(context.store.write(txn).await?)
}

/// Whether a revision still waits for this controller.
pub(crate) fn is_unsettled(revision: &WorkerPoolRevision) -> bool {
    revision.meta.deleted.is_some() || readiness(revision) == Readiness::Pending
}

/// All revisions of a pool.
pub(crate) async fn of_pool(
    context: &Context,
    key: &WorkerPoolKey,
) -> Result<Vec<WorkerPoolRevision>, TurnError> {
    // The range may hold revisions of `POOL-other` too.
    let prefix = format!("{}-", key.name);
    let found = context
        .store
        .beginning::<WorkerPoolRevision>(key.scope(), prefix);
    let all = found.await?.into_iter().map(|stored| stored.value);
    Ok(all.filter(|revision| revision.pool == key.name).collect())
}
