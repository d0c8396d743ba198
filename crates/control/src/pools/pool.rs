//! The worker pool controller: stamps revisions, divides the instances, and says how it stands. As
//! with services, every turn starts from what is stored and is short.

use std::collections::BTreeMap;
use std::sync::Arc;

use lauf_model::{
    Meta, Policy, RevisionStatus, WorkerPool, WorkerPoolKey, WorkerPoolRevision, condition,
};
use lauf_store::{Condition, PolicyName, Resource as _, Stored, Txn};

use super::plan::{self, Division};
use super::revision::of_pool;
use crate::error::TurnError;
use crate::plan::Readiness;
use crate::standing::{self, WORKING};
use crate::{Context, naming, wording};

pub(crate) async fn reconcile(
    context: &Arc<Context>,
    key: &WorkerPoolKey,
) -> Result<(), TurnError> {
    let Some(pool) = context.store.find::<WorkerPool>(key).await? else {
        return Ok(());
    };
    let revisions = of_pool(context, key).await?.into_iter();
    let revisions: BTreeMap<String, WorkerPoolRevision> = revisions
        .map(|revision| (revision.meta.name.clone(), revision))
        .collect();
    if pool.value.meta.deleted.is_some() {
        return delete(context, key, &pool, &revisions).await;
    }
    let latest = revisions.get(&pool.value.status.latest_created_revision);
    if plan::needs_revision(&pool.value.spec.template, latest) {
        return stamp(context, key, pool, &revisions).await;
    }
    let division = plan::split(&pool.value, &revisions);
    assign(context, key, &pool.value, &revisions, &division);
    settle(context, key, pool, &revisions, division).await
}

/// Gives each revision its instances. Those without a share give theirs up as others take over.
pub(crate) fn assign(
    context: &Context,
    key: &WorkerPoolKey,
    pool: &WorkerPool,
    revisions: &BTreeMap<String, WorkerPoolRevision>,
    division: &Division,
) {
    let targets = plan::targets(pool.spec.instances, &division.splits);
    let running = revisions
        .keys()
        .map(|name| (name.clone(), context.crews.running(&key.revision(name))))
        .filter(|(_, count)| *count > 0)
        .collect();
    let counts = plan::now(&targets, &running);
    for (name, revision) in revisions {
        if plan::readiness(revision) != Readiness::Ready {
            continue;
        }
        let key = key.revision(name);
        match counts.get(name) {
            Some(count) => context.crews.want(&key, revision, *count),
            None => {
                let context = context.crews.clone();
                tokio::spawn(async move { context.retire(&key).await });
            }
        }
    }
}

/// Makes the revision that the template asks for. The store change brings both controllers back.
async fn stamp(
    context: &Context,
    key: &WorkerPoolKey,
    mut pool: Stored<WorkerPool>,
    revisions: &BTreeMap<String, WorkerPoolRevision>,
) -> Result<(), TurnError> {
    let now = context.clock.now();
    let template = &pool.value.spec.template;
    let generation = pool.value.meta.generation;
    let name = template
        .name
        .clone()
        .unwrap_or_else(|| naming::fresh_revision(&key.name, generation));
    if revisions.contains_key(&name) {
        let text = format!(
            "Revision named '{name}' with different configuration already exists. Choose another \
             name, or leave it out."
        );
        let before = pool.value.status.clone();
        let status = &mut pool.value.status;
        status.observed_generation = generation;
        for kind in ["ConfigurationsReady", "Ready"] {
            let taken = wording::failed(kind, "RevisionNameTaken", &text, now);
            condition::set(&mut status.conditions, taken);
        }
        if *status != before {
            replace(context, key, &pool).await?;
        }
        return Ok(());
    }
    let revision = WorkerPoolRevision {
        meta: Meta {
            name: name.clone(),
            uid: context.new_uid(),
            generation: 1,
            created: now,
            updated: now,
            deleted: None,
            labels: template.labels.clone(),
            annotations: template.annotations.clone(),
            as_sent: BTreeMap::new(),
            ..pool.value.meta.clone()
        },
        pool: key.name.clone(),
        pool_generation: generation,
        template_as_sent: template.as_sent.clone(),
        spec: template.spec.clone(),
        status: RevisionStatus {
            image_digest: String::new(),
            conditions: vec![wording::pending(
                "Ready",
                "Deploying",
                "Deploying revision.",
                now,
            )],
        },
    };
    let status = &mut pool.value.status;
    status.latest_created_revision.clone_from(&name);
    status.observed_generation = generation;
    for kind in ["ConfigurationsReady", "Ready"] {
        let pending = wording::pending(kind, "Deploying", "Creating Revision.", now);
        condition::set(&mut status.conditions, pending);
    }
    let made = WorkerPoolRevision::at(&key.revision(&name));
    let txn = Txn::replace(WorkerPool::at(key), pool.version, pool.value.body())
        .require(Condition::Absent(made.clone()))
        .put(made, revision.body());
    context.store.write(txn).await?;
    Ok(())
}

/// Stores how a pool stands, if nobody else wrote it since it was read.
async fn replace(
    context: &Context,
    key: &WorkerPoolKey,
    pool: &Stored<WorkerPool>,
) -> Result<(), TurnError> {
    let txn = Txn::replace(WorkerPool::at(key), pool.version, pool.value.body());
    context.store.write(txn).await?;
    Ok(())
}

async fn settle(
    context: &Context,
    key: &WorkerPoolKey,
    mut pool: Stored<WorkerPool>,
    revisions: &BTreeMap<String, WorkerPoolRevision>,
    division: Division,
) -> Result<(), TurnError> {
    let now = context.clock.now();
    let before = pool.value.status.clone();
    let status = &mut pool.value.status;
    status.observed_generation = pool.value.meta.generation;
    status.splits = division.splits;
    if let Some(ready) = plan::latest_ready(revisions) {
        status.latest_ready_revision.clone_from(&ready.meta.name);
    }
    let latest = revisions.get(&status.latest_created_revision);
    let latest = latest.map(|r| (&*r.meta.name, &r.status.conditions[..]));
    let made = standing::configurations_ready(&WORKING, latest, now);
    let split = standing::divided(&WORKING, division.trouble.as_ref(), &made, now);
    let ready = wording::overall(&[&made, &split], now);
    for condition in [ready, made, split] {
        condition::set(&mut status.conditions, condition);
    }
    if *status != before {
        replace(context, key, &pool).await?;
    }
    Ok(())
}

/// Stops all instances, then removes every trace of the pool at once.
async fn delete(
    context: &Context,
    key: &WorkerPoolKey,
    pool: &Stored<WorkerPool>,
    revisions: &BTreeMap<String, WorkerPoolRevision>,
) -> Result<(), TurnError> {
    for name in revisions.keys() {
        context.crews.retire(&key.revision(name)).await;
    }
    let at = WorkerPool::at(key);
    let mut txn = Txn::new()
        .require(Condition::Version(at.clone(), pool.version))
        .delete(at)
        .delete(Policy::at(&PolicyName::of(key)));
    for name in revisions.keys() {
        txn = txn.delete(WorkerPoolRevision::at(&key.revision(name)));
    }
    context.store.write(txn).await?;
    Ok(())
}
