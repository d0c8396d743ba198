//! The job controller: whether a job can be run, how its newest execution stands, which old ones go,
//! and the end of a job with all its executions.

use std::sync::Arc;

use lauf_model::execution::STARTED;
use lauf_model::job::ExecuteNow;
use lauf_model::{ConditionStatus, Execution, ExecutionKey, Job, JobKey, Policy, condition};
use lauf_store::{Condition, PolicyName, Resource as _, Stored, Txn};

use crate::error::TurnError;
use crate::revision::Outcome;
use crate::{Context, wording};

/// Executions of a job that are kept (Cloud Run, "Quotas and limits"); the oldest that have ended go.
const KEPT: usize = 1000;

/// Takes a job as far as it goes now.
pub(crate) async fn reconcile(context: &Arc<Context>, key: &JobKey) -> Result<Outcome, TurnError> {
    let Some(job) = context.store.find::<Job>(key).await? else {
        return Ok(Outcome::Settled);
    };
    if job.value.meta.deleted.is_some() {
        return delete(context, key, &job).await;
    }
    let outcome = settle(context, key, job).await?;
    prune(context, key).await?;
    Ok(outcome)
}

async fn settle(
    context: &Arc<Context>,
    key: &JobKey,
    mut job: Stored<Job>,
) -> Result<Outcome, TurnError> {
    let before = job.value.status.clone();
    let mut outcome = Outcome::Settled;
    let now = context.clock.now();
    let ready = condition::find(&before.conditions, "ResourcesAvailable");
    let known = before.observed_generation == job.value.meta.generation
        && ready.is_some_and(|c| c.status != ConditionStatus::Unknown);
    if !known {
        // An execution resolves the image anew; this is so that a wrong one is told at once.
        let image = &job.value.spec.template.spec.task.container.image;
        let resolved = context.images.resolve(image).await;
        let status = &mut job.value.status;
        status.observed_generation = job.value.meta.generation;
        let available = match resolved {
            Ok(_) => wording::holds("ResourcesAvailable", now),
            Err(error) if error.is_permanent() => {
                let text = error.to_string();
                wording::failed("ResourcesAvailable", "ContainerMissing", &text, now)
            }
            Err(error) => {
                outcome = Outcome::Later;
                let text = error.to_string();
                wording::pending("ResourcesAvailable", wording::RETRY, &text, now)
            }
        };
        condition::set(&mut status.conditions, available);
    }
    let newest = match &job.value.status.latest_execution {
        Some(latest) => {
            let name = ExecutionKey::beside(key, &latest.name);
            context.store.find::<Execution>(&name).await?
        }
        None => None,
    };
    let newest = newest.map(|stored| stored.value);
    if let Some(latest) = &mut job.value.status.latest_execution {
        match &newest {
            Some(execution) => {
                latest.status = execution.completion();
                latest.completed = execution.status.completed;
                latest.deleted = execution.meta.deleted;
            }
            None => {
                latest.deleted.get_or_insert(now);
            }
        }
    }
    let ready = readiness(&job.value, newest.as_ref(), now);
    condition::set(&mut job.value.status.conditions, ready);
    if job.value.status != before {
        let txn = Txn::replace(Job::at(key), job.version, job.value.body());
        context.store.write(txn).await?;
    }
    Ok(outcome)
}

/// `Ready` is that the image is there, and that the execution which came with the job, if one did,
/// is as far as its client wanted.
fn readiness(job: &Job, newest: Option<&Execution>, now: jiff::Timestamp) -> lauf_model::Condition {
    let available = condition::find(&job.status.conditions, "ResourcesAvailable");
    if let Some(c) = available.filter(|c| c.status != ConditionStatus::True) {
        return lauf_model::Condition {
            kind: "Ready".into(),
            last_transition: now,
            ..c.clone()
        };
    }
    let Some(execute) = &job.spec.execute else {
        return wording::holds("Ready", now);
    };
    let name = format!("{}-{}", job.meta.name, execute.token());
    // Once it has been as far, a later execution or its removal changes nothing.
    let Some(execution) = newest.filter(|e| e.meta.name == name) else {
        return wording::holds("Ready", now);
    };
    let wanted = match execute {
        ExecuteNow::Started(_) => STARTED,
        ExecuteNow::Completed(_) => lauf_model::execution::COMPLETED,
    };
    let conditions = &execution.status.conditions;
    let failed = condition::find(conditions, lauf_model::execution::COMPLETED)
        .filter(|c| c.status == ConditionStatus::False);
    match (condition::find(conditions, wanted), failed) {
        (Some(c), _) if c.status == ConditionStatus::True => wording::holds("Ready", now),
        (_, Some(c)) => wording::failed("Ready", &c.reason, &c.message, now),
        _ => {
            let text = format!("Waiting for execution '{name}'.");
            wording::pending("Ready", "Executing", &text, now)
        }
    }
}

/// All executions of a job, by name.
async fn executions(context: &Context, key: &JobKey) -> Result<Vec<Stored<Execution>>, TurnError> {
    // The range may hold executions of `JOB-other` too.
    let prefix = format!("{}-", key.name);
    let mut found = context
        .store
        .beginning::<Execution>(key.scope(), prefix)
        .await?;
    found.retain(|stored| stored.value.job == key.name);
    Ok(found)
}

/// Lets the oldest executions go when there are too many.
async fn prune(context: &Arc<Context>, key: &JobKey) -> Result<(), TurnError> {
    let count = context.store.find::<Job>(key).await?;
    let ever = count.map_or(0, |job| job.value.status.execution_count);
    if usize::try_from(ever).unwrap_or(usize::MAX) <= KEPT {
        return Ok(());
    }
    let mut all = executions(context, key).await?;
    let excess = all.len().saturating_sub(KEPT);
    all.retain(|e| e.value.is_over() && e.value.meta.deleted.is_none());
    all.sort_by_key(|e| e.value.meta.created);
    for old in all.into_iter().take(excess) {
        mark_deleted(context, old).await?;
    }
    Ok(())
}

async fn mark_deleted(
    context: &Context,
    mut execution: Stored<Execution>,
) -> Result<(), TurnError> {
    execution.value.meta.deleted = Some(context.clock.now());
    let at = Execution::at(&execution.value.key());
    let txn = Txn::replace(at, execution.version, execution.value.body());
    context.store.write(txn).await?;
    Ok(())
}

/// Ends and removes all executions, each by its driver, and then the job.
async fn delete(
    context: &Arc<Context>,
    key: &JobKey,
    job: &Stored<Job>,
) -> Result<Outcome, TurnError> {
    let left = executions(context, key).await?;
    if left.is_empty() {
        let at = Job::at(key);
        let txn = Txn::new()
            .require(Condition::Version(at.clone(), job.version))
            .delete(at)
            .delete(Policy::at(&PolicyName::of(key)));
        context.store.write(txn).await?;
        return Ok(Outcome::Settled);
    }
    // The removal of each brings this controller back.
    for execution in left {
        if execution.value.meta.deleted.is_none() {
            mark_deleted(context, execution).await?;
        }
    }
    Ok(Outcome::Settled)
}
