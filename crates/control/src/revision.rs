//! The revision controller: takes a new revision to `Ready` True or False, once.
//!
//! Steps: resolve the image to a digest, store it; have the fleet start a first instance; store the
//! outcome. Each step can be the last before a crash: the next start of the server finds the
//! revision without a final `Ready` and goes on.

use std::sync::Arc;

use lauf_engine::StartError;
use lauf_model::{ConditionStatus, Revision, RevisionKey, Scaling, condition};
use lauf_store::{Condition, Resource as _, Stored, Txn, Version};

use crate::error::TurnError;
use crate::plan::{Readiness, readiness};
use crate::{Context, plan, wording};

/// What came of one turn.
pub(crate) enum Outcome {
    /// Nothing is left to do until something changes.
    Settled,
    /// The host could not do it now; try again after a pause.
    Later,
}

pub(crate) async fn reconcile(
    context: &Arc<Context>,
    key: &RevisionKey,
) -> Result<Outcome, TurnError> {
    let Some(mut revision) = context.store.find::<Revision>(key).await? else {
        context.fleet.retire(key).await;
        return Ok(Outcome::Settled);
    };
    if revision.value.meta.deleted.is_some() {
        return delete(context, key, revision).await;
    }
    if readiness(&revision.value) != Readiness::Pending {
        return Ok(Outcome::Settled);
    }
    if revision.value.status.image_digest.is_empty() {
        match context
            .images
            .resolve(&revision.value.spec.container.image)
            .await
        {
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
    // The share of the service's counts comes with traffic; the first instance needs none of it.
    let counts = plan::counts(&Scaling::default(), &[(&revision.value, 0)]);
    context.ensure_pool(key, &revision.value, counts[0]);
    let started = context.fleet.first_instance(key).await;
    conclude(context, key, revision, started).await
}

async fn conclude(
    context: &Context,
    key: &RevisionKey,
    mut revision: Stored<Revision>,
    started: Result<(), StartError>,
) -> Result<Outcome, TurnError> {
    let now = context.clock.now();
    let port = revision.value.spec.container.port.number;
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
            tracing::warn!(revision = %key, %error, "cannot start a first instance yet");
            let text = error.to_string();
            condition::set(
                conditions,
                wording::pending("Ready", wording::RETRY, &text, now),
            );
            replace(context, key, &revision).await?;
            return Ok(Outcome::Later);
        }
        Err(error) => {
            let (reason, text) = wording::start_failure(&error, port);
            let about = match error {
                StartError::Image(_) => "ContainerReady",
                _ => "ContainerHealthy",
            };
            condition::set(conditions, wording::failed(about, reason, &text, now));
            condition::set(conditions, wording::failed("Ready", reason, &text, now));
            context.fleet.retire(key).await;
        }
    }
    replace(context, key, &revision).await?;
    Ok(Outcome::Settled)
}

async fn delete(
    context: &Context,
    key: &RevisionKey,
    revision: Stored<Revision>,
) -> Result<Outcome, TurnError> {
    context.fleet.retire(key).await;
    let at = Revision::at(key);
    let txn = Txn::new()
        .require(Condition::Version(at.clone(), revision.version))
        .delete(at);
    context.store.write(txn).await?;
    Ok(Outcome::Settled)
}

/// Stores what is known of a revision now, if nobody else did since it was read.
async fn replace(
    context: &Context,
    key: &RevisionKey,
    revision: &Stored<Revision>,
) -> Result<Version, TurnError> {
    let txn = Txn::replace(Revision::at(key), revision.version, revision.value.body());
    Ok(context.store.write(txn).await?)
}

/// Whether a revision still waits for this controller.
pub(crate) fn is_unsettled(revision: &Revision) -> bool {
    revision.meta.deleted.is_some()
        || !condition::find(&revision.status.conditions, "Ready")
            .is_some_and(|c| c.status != ConditionStatus::Unknown)
}
