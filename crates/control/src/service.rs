//! The service controller: stamps revisions, decides where requests go, and says how it stands.
//!
//! Every turn starts from what is stored and is short: it never waits for an instance (that is the
//! revision controller's part). A crash between any two writes leaves a state from which the next
//! turn goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use lauf_model::{
    Meta, Policy, Revision, RevisionStatus, Service, ServiceKey, TrafficStatus, condition,
};
use lauf_store::{Condition, PolicyName, Resource as _, Stored, Txn};

use crate::error::TurnError;
use crate::plan::Readiness;
use crate::standing::{self, SERVING};
use crate::{Context, naming, plan, wording};

pub(crate) async fn reconcile(context: &Arc<Context>, key: &ServiceKey) -> Result<(), TurnError> {
    let Some(mut service) = context.store.find::<Service>(key).await? else {
        context.routes.remove(key);
        return Ok(());
    };
    let revisions = revisions_of(context, key).await?;
    if service.value.meta.deleted.is_some() {
        return delete(context, key, &service, &revisions).await;
    }
    let latest = revisions.get(&service.value.status.latest_created_revision);
    if plan::needs_revision(&service.value.spec.template, latest) {
        return stamp(context, key, service, &revisions).await;
    }
    let routing = plan::route(&service.value, &revisions);
    publish(context, key, &service.value, &revisions, &routing.served).await?;
    settle(context, key, &mut service, &revisions, routing).await
}

/// All revisions of a service, by name.
pub(crate) async fn revisions_of(
    context: &Context,
    key: &ServiceKey,
) -> Result<BTreeMap<String, Revision>, TurnError> {
    // Revision names begin with `SERVICE-` and are listed in order, so a range of names suffices.
    // It may hold revisions of `SERVICE-other` too.
    let prefix = format!("{}-", key.name);
    let found = context.store.beginning::<Revision>(key.scope(), prefix);
    let all = found.await?.into_iter().map(|stored| stored.value);
    Ok(all
        .filter(|revision| revision.service == key.name)
        .map(|revision| (revision.meta.name.clone(), revision))
        .collect())
}

/// Stores how a service stands, if nobody else wrote it since it was read.
async fn replace(
    context: &Context,
    key: &ServiceKey,
    service: &Stored<Service>,
) -> Result<(), TurnError> {
    let txn = Txn::replace(Service::at(key), service.version, service.value.body());
    context.store.write(txn).await?;
    Ok(())
}

/// Makes the revision that the template asks for. The store change brings both controllers back.
async fn stamp(
    context: &Context,
    key: &ServiceKey,
    mut service: Stored<Service>,
    revisions: &BTreeMap<String, Revision>,
) -> Result<(), TurnError> {
    let now = context.clock.now();
    let template = &service.value.spec.template;
    let generation = service.value.meta.generation;
    let name = template
        .name
        .clone()
        .unwrap_or_else(|| naming::fresh_revision(&key.name, generation));
    if revisions.contains_key(&name) {
        let text = format!(
            "Revision named '{name}' with different configuration already exists. Choose another \
             name, or leave it out."
        );
        let status = &mut service.value.status;
        status.observed_generation = service.value.meta.generation;
        let changed = [
            wording::failed("ConfigurationsReady", "RevisionNameTaken", &text, now),
            wording::failed("Ready", "RevisionNameTaken", &text, now),
        ]
        .into_iter()
        .fold(false, |changed, c| {
            condition::set(&mut status.conditions, c) | changed
        });
        if changed {
            replace(context, key, &service).await?;
        }
        return Ok(());
    }
    let revision = Revision {
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
            kubernetes: None,
            ..service.value.meta.clone()
        },
        service: key.name.clone(),
        service_generation: service.value.meta.generation,
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
    service
        .value
        .status
        .latest_created_revision
        .clone_from(&name);
    let status = &mut service.value.status;
    status.observed_generation = service.value.meta.generation;
    for kind in ["ConfigurationsReady", "Ready"] {
        let pending = wording::pending(kind, "Deploying", "Creating Revision.", now);
        condition::set(&mut status.conditions, pending);
    }
    let made = Revision::at(&key.revision(&name));
    let txn = Txn::replace(Service::at(key), service.version, service.value.body())
        .require(Condition::Absent(made.clone()))
        .put(made, revision.body());
    context.store.write(txn).await?;
    Ok(())
}

/// Makes the served targets reachable and lets go of what gets no requests any more.
pub(crate) async fn publish(
    context: &Arc<Context>,
    key: &ServiceKey,
    service: &Service,
    revisions: &BTreeMap<String, Revision>,
    served: &[TrafficStatus],
) -> Result<(), TurnError> {
    let policy = context.store.find::<Policy>(&PolicyName::of(key)).await?;
    let policy = policy.map(|stored| stored.value).unwrap_or_default();
    context.route(key, service, revisions, served, policy);
    for revision in revisions.values() {
        let name = &revision.meta.name;
        let routed = served.iter().any(|t| t.revision == *name);
        if !routed && plan::readiness(revision) == Readiness::Ready {
            // It leaves the fleet here and now; its draining takes as long as its longest request,
            // and nobody waits for that.
            tokio::spawn(context.fleet.retire(&key.revision(name)));
        }
    }
    Ok(())
}

/// Writes the status, if it says anything new.
async fn settle(
    context: &Context,
    key: &ServiceKey,
    service: &mut Stored<Service>,
    revisions: &BTreeMap<String, Revision>,
    routing: plan::Routing,
) -> Result<(), TurnError> {
    let before = service.value.status.clone();
    let meta = &service.value.meta;
    let url = |tag: Option<&str>| context.url(&meta.project, &meta.region, &meta.name, tag);
    let status = &mut service.value.status;
    status.observed_generation = meta.generation;
    status.url = url(None);
    status.traffic = routing
        .served
        .into_iter()
        .map(|t| TrafficStatus {
            url: t.tag.as_deref().map(|tag| url(Some(tag))),
            ..t
        })
        .collect();
    if let Some(ready) = plan::latest_ready(revisions) {
        status.latest_ready_revision.clone_from(&ready.meta.name);
    }
    let now = context.clock.now();
    let latest = revisions.get(&status.latest_created_revision);
    let latest = latest.map(|r| (&*r.meta.name, &r.status.conditions[..]));
    let configurations = standing::configurations_ready(&SERVING, latest, now);
    let routes = standing::divided(&SERVING, routing.trouble.as_ref(), &configurations, now);
    let ready = wording::overall(&[&configurations, &routes], now);
    for condition in [ready, configurations, routes] {
        condition::set(&mut status.conditions, condition);
    }
    if *status != before {
        replace(context, key, service).await?;
    }
    Ok(())
}

/// Takes a service off the routes, drains its instances, then removes every trace of it at once.
async fn delete(
    context: &Context,
    key: &ServiceKey,
    service: &Stored<Service>,
    revisions: &BTreeMap<String, Revision>,
) -> Result<(), TurnError> {
    context.routes.remove(key);
    for name in revisions.keys() {
        context.fleet.retire(&key.revision(name)).await;
    }
    let stored = Service::at(key);
    let mut txn = Txn::new()
        .require(Condition::Version(stored.clone(), service.version))
        .delete(stored)
        .delete(Policy::at(&PolicyName::of(key)));
    for name in revisions.keys() {
        txn = txn.delete(Revision::at(&key.revision(name)));
    }
    context.store.write(txn).await?;
    Ok(())
}
