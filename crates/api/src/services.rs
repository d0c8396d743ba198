//! Writing and reading services and revisions, in the words of the model. Both versions of the API
//! come here with the same [`Desired`]; controllers do the rest.

use std::collections::BTreeMap;

use lauf_iam::Caller;
use lauf_model::{
    Code, Meta, Place, Policy, Revision, RevisionKey, Service, ServiceKey, ServiceSpec,
    ServiceStatus, Status, TrafficTarget, Violation, validate,
};
use lauf_store::{
    Condition, ListQuery, PolicyName, Resource, Scope, Stored, Txn, Version, WriteError,
};

use crate::api::Api;
use crate::failed;
use crate::kube;
use crate::page::Token;

/// How often a write without an expected version is tried again when others write too.
pub(crate) const TRIES: usize = 5;

/// What a client wants a service to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Desired {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) as_sent: BTreeMap<String, String>,
    pub(crate) client: String,
    pub(crate) client_version: String,
    pub(crate) spec: ServiceSpec,
}

/// What a replacement expects to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Expected {
    /// The version that the client read, if it says so.
    pub(crate) version: Option<Version>,
    /// The generation that the client read. A stale version with this generation still current
    /// means that only the status moved on, which is no conflict: while a deploy is under way the
    /// status is written many times.
    pub(crate) generation: Option<i64>,
}

/// All requests to the latest ready revision: what a service without traffic targets means.
pub(crate) fn everything_to_latest() -> Vec<TrafficTarget> {
    vec![TrafficTarget {
        revision: None,
        percent: 100,
        tag: None,
    }]
}

/// A page of objects.
#[derive(Debug)]
pub(crate) struct Listing<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<Token>,
    pub(crate) version: Version,
}

impl Api {
    /// A service, or `NOT_FOUND`.
    pub(crate) async fn service(&self, key: &ServiceKey) -> Result<Stored<Service>, Status> {
        self.find(key)
            .await?
            .ok_or_else(|| not_found("Service", key, &key.name))
    }

    /// A revision, or `NOT_FOUND`.
    pub(crate) async fn revision(&self, key: &RevisionKey) -> Result<Stored<Revision>, Status> {
        self.find(key)
            .await?
            .ok_or_else(|| not_found("Revision", &key.service, &key.revision))
    }

    /// Any resource of that name, if there is one.
    pub(crate) async fn find<T: Resource>(
        &self,
        name: &T::Name,
    ) -> Result<Option<Stored<T>>, Status> {
        let found = self.deps.store.find(name).await;
        found.map_err(|error| failed::find(&error))
    }

    /// Writes, if all conditions hold; `None` if another was first.
    pub(crate) async fn write(&self, txn: Txn) -> Result<Option<Version>, Status> {
        match self.deps.store.write(txn).await {
            Ok(version) => Ok(Some(version)),
            Err(WriteError::Conflict { .. }) => Ok(None),
            Err(error) => Err(failed::write(&error)),
        }
    }

    /// Creates a service.
    pub(crate) async fn create_service(
        &self,
        caller: &Caller,
        key: &ServiceKey,
        desired: Desired,
        found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<Service>, Status> {
        let meta = self.new_meta(caller, key)?;
        let service = desired.into_service(meta, ServiceStatus::default());
        self.insert_service(service, found, dry_run).await
    }

    /// Stores a service that is not there yet.
    pub(crate) async fn insert_service(
        &self,
        service: Service,
        mut found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<Service>, Status> {
        let key = &service.key();
        check(validate::service(&service), &mut found)?;
        if let Some(existing) = self.find::<Service>(key).await? {
            return Err(already_exists(key, existing.value.meta.deleted.is_some()));
        }
        self.check_revision_name(&service, None).await?;
        if dry_run {
            return Ok(Stored {
                value: service,
                version: Version::ZERO,
            });
        }
        // A policy that an earlier service of this name left behind must not open this one.
        let txn =
            Txn::create(Service::at(key), service.body()).delete(Policy::at(&PolicyName::of(key)));
        match self.write(txn).await? {
            Some(version) => Ok(Stored {
                value: service,
                version,
            }),
            None => Err(already_exists(key, false)),
        }
    }

    /// Identity and bookkeeping of something that is made now.
    pub(crate) fn new_meta(&self, caller: &Caller, key: &ServiceKey) -> Result<Meta, Status> {
        Ok(Meta {
            uid: new_uid()?,
            creator: caller.principal.clone(),
            last_modifier: caller.principal.clone(),
            ..Meta::new(key, self.deps.clock.now())
        })
    }

    /// Replaces what is wanted of a service.
    pub(crate) async fn replace_service(
        &self,
        caller: &Caller,
        key: &ServiceKey,
        desired: Desired,
        expected: Expected,
        found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<Service>, Status> {
        self.change_service(key, dry_run, |old| {
            expected.check(old.version, old.value.meta.generation, key)?;
            let mut service = self.changed(caller, &old.value, desired.clone());
            kube::carry(&old.value, &mut service);
            Ok((service, found.clone()))
        })
        .await
    }

    /// Changes a service. `change` makes of what is stored what shall be, with the violations found
    /// on the way, and is asked again when somebody else was quicker.
    pub(crate) async fn change_service<E: From<Status>>(
        &self,
        key: &ServiceKey,
        dry_run: bool,
        change: impl Fn(&Stored<Service>) -> Result<(Service, Vec<Violation>), E>,
    ) -> Result<Stored<Service>, E> {
        for _ in 0..TRIES {
            let old = self.service(key).await?;
            if old.value.meta.deleted.is_some() {
                return Err(being_deleted("Service", key).into());
            }
            let (service, mut found) = change(&old)?;
            check(validate::service(&service), &mut found)?;
            self.check_revision_name(&service, Some(&old.value)).await?;
            if dry_run || service == old.value {
                return Ok(Stored {
                    value: service,
                    version: old.version,
                });
            }
            let txn = Txn::replace(Service::at(key), old.version, service.body());
            if let Some(version) = self.write(txn).await? {
                return Ok(Stored {
                    value: service,
                    version,
                });
            }
        }
        Err(conflict(key).into())
    }

    /// The service as it is when `desired` takes the place of what was wanted. The generation
    /// rises with every change a client can see in its own request.
    pub(crate) fn changed(&self, caller: &Caller, old: &Service, desired: Desired) -> Service {
        let changed = old.spec != desired.spec
            || old.meta.labels != desired.labels
            || old.meta.annotations != desired.annotations
            || old.meta.as_sent != desired.as_sent;
        if !changed {
            return old.clone();
        }
        let meta = Meta {
            generation: old.meta.generation + 1,
            updated: self.deps.clock.now(),
            last_modifier: caller.principal.clone(),
            ..old.meta.clone()
        };
        desired.into_service(meta, old.status.clone())
    }

    /// A revision never changes, so its name cannot be given to another template.
    async fn check_revision_name(
        &self,
        service: &Service,
        old: Option<&Service>,
    ) -> Result<(), Status> {
        let template = &service.spec.template;
        let Some(name) = &template.name else {
            return Ok(());
        };
        if old.is_some_and(|old| old.spec.template == *template) {
            return Ok(());
        }
        let key = service.key().revision(name);
        if self.find::<Revision>(&key).await?.is_some() {
            return Err(Status::new(
                Code::AlreadyExists,
                format!(
                    "Revision named '{name}' with different configuration already exists. Give \
                     the new one another name, or none."
                ),
            ));
        }
        Ok(())
    }

    /// Marks a service for deletion; controllers stop what runs and remove it.
    pub(crate) async fn delete_service(
        &self,
        caller: &Caller,
        key: &ServiceKey,
        expected: Expected,
        dry_run: bool,
    ) -> Result<Stored<Service>, Status> {
        for _ in 0..TRIES {
            let mut service = self.service(key).await?;
            expected.check(service.version, service.value.meta.generation, key)?;
            if dry_run || service.value.meta.deleted.is_some() {
                return Ok(service);
            }
            service.value.meta.deleted = Some(self.deps.clock.now());
            service.value.meta.last_modifier = caller.principal.clone();
            // Nobody can call it from here on, and its policy is gone with it.
            let txn = Txn::replace(Service::at(key), service.version, service.value.body())
                .delete(Policy::at(&PolicyName::of(key)));
            if let Some(version) = self.write(txn).await? {
                service.version = version;
                return Ok(service);
            }
        }
        Err(conflict(key))
    }

    /// Marks a revision for deletion, unless its service needs it.
    pub(crate) async fn delete_revision(
        &self,
        key: &RevisionKey,
        dry_run: bool,
    ) -> Result<Stored<Revision>, Status> {
        for _ in 0..TRIES {
            let mut revision = self.revision(key).await?;
            let owner = ServiceKey {
                name: revision.value.service.clone(),
                ..key.service.clone()
            };
            let mut txn = Txn::new();
            if let Some(service) = self.find::<Service>(&owner).await? {
                in_use(&service.value, &key.revision)?;
                txn = txn.require(Condition::Version(Service::at(&owner), service.version));
            }
            if dry_run || revision.value.meta.deleted.is_some() {
                return Ok(revision);
            }
            revision.value.meta.deleted = Some(self.deps.clock.now());
            let at = Revision::at(key);
            let txn = txn
                .require(Condition::Version(at.clone(), revision.version))
                .put(at, revision.value.body());
            if let Some(version) = self.write(txn).await? {
                revision.version = version;
                return Ok(revision);
            }
        }
        Err(Status::new(
            Code::Aborted,
            format!(
                "Revision '{}' changes all the time. Try again.",
                key.revision
            ),
        ))
    }

    /// A page of resources of a project, in one region or all, as `write` writes them; what it makes
    /// nothing of is left out. Zero as the limit asks for all.
    pub(crate) async fn page<T: Resource, V>(
        &self,
        project: &str,
        region: Option<&str>,
        limit: usize,
        from: Option<Token>,
        write: impl Fn(Stored<T>) -> Option<V>,
    ) -> Result<Listing<V>, Status> {
        self.page_of(project, region, "", limit, from, write).await
    }

    /// As [`Api::page`], of those whose names begin with `prefix`. The others are not even read when
    /// the region is known.
    pub(crate) async fn page_of<T: Resource, V>(
        &self,
        project: &str,
        region: Option<&str>,
        prefix: &str,
        limit: usize,
        from: Option<Token>,
        write: impl Fn(Stored<T>) -> Option<V>,
    ) -> Result<Listing<V>, Status> {
        let after = from.map(|token| (token.scope, token.name));
        let begin = region
            .filter(|_| !prefix.is_empty())
            .map(|region| (format!("{project}/{region}"), prefix.to_owned()));
        let mut walk = self.deps.store.walk(ListQuery {
            scope: match region {
                Some(region) => Scope::Exact(format!("{project}/{region}")),
                None => Scope::Prefix(format!("{project}/")),
            },
            after: after.or(begin),
            ..ListQuery::all(T::KIND)
        });
        let mut items = Vec::new();
        let mut next = None;
        let failed_read = |error| failed::read(&error);
        while let Some(object) = walk.next().await.map_err(failed_read)? {
            if !object.key.name.starts_with(prefix) {
                // Names come in order, so that in one region no other will.
                if region.is_some() {
                    break;
                }
                continue;
            }
            let stored = Stored::<T>::read(&object).map_err(|error| failed::body(&error))?;
            items.extend(write(stored));
            if limit > 0 && items.len() == limit && !walk.is_over() {
                next = Some(Token {
                    scope: object.key.scope,
                    name: object.key.name,
                    second: false,
                });
                break;
            }
        }
        Ok(Listing {
            items,
            next,
            version: walk.version(),
        })
    }
}

impl Desired {
    /// The service that this is wanted of.
    pub(crate) fn into_service(self, meta: Meta, status: ServiceStatus) -> Service {
        Service {
            meta: Meta {
                client: self.client,
                client_version: self.client_version,
                labels: self.labels,
                annotations: self.annotations,
                as_sent: self.as_sent,
                ..meta
            },
            spec: self.spec,
            status,
        }
    }
}

impl Expected {
    /// Whether what is there at this version and generation may be replaced.
    pub(crate) fn check(
        self,
        version: Version,
        generation: i64,
        key: &impl Place,
    ) -> Result<(), Status> {
        let same = self.version.is_none_or(|v| v == version) || self.generation == Some(generation);
        if same { Ok(()) } else { Err(conflict(key)) }
    }
}

/// All that is wrong with a request: what its reader found, and what validation did.
pub(crate) fn check(wrong: Vec<Violation>, found: &mut Vec<Violation>) -> Result<(), Status> {
    for violation in wrong {
        // What could not be read was reported by the reader, in better words, and so was a list
        // whose first element is missed here.
        let inside = |whole: &str| violation.field.strip_prefix(whole);
        let known =
            |f: &Violation| inside(&f.field).is_some_and(|r| r.is_empty() || r.starts_with('['));
        if !found.iter().any(known) {
            found.push(violation);
        }
    }
    if found.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(std::mem::take(found)))
    }
}

fn in_use(service: &Service, revision: &str) -> Result<(), Status> {
    if service.meta.deleted.is_some() {
        return Ok(());
    }
    let wanted = |t: &TrafficTarget| t.revision.as_deref() == Some(revision);
    let why = if service.spec.traffic.iter().any(wanted)
        || service
            .status
            .traffic
            .iter()
            .any(|t| t.revision == revision)
    {
        "it is a target of the service's traffic: route requests and tags elsewhere first"
    } else if service.status.latest_created_revision == revision
        || service.status.latest_ready_revision == revision
    {
        "it is the latest revision of its service: deploy another, or delete the service"
    } else {
        return Ok(());
    };
    Err(Status::new(
        Code::FailedPrecondition,
        format!("Revision '{revision}' cannot be deleted, because {why}."),
    ))
}

pub(crate) fn not_found(kind: &str, place: &impl Place, name: &str) -> Status {
    Status::new(
        Code::NotFound,
        format!(
            "{kind} '{name}' was not found in region '{}' of project '{}'.",
            place.region(),
            place.project()
        ),
    )
}

pub(crate) fn already_exists(key: &impl Place, being_deleted: bool) -> Status {
    let hint = if being_deleted {
        " and is being deleted: try again in a moment"
    } else {
        ""
    };
    Status::new(
        Code::AlreadyExists,
        format!(
            "Resource '{}' already exists in region '{}' of project '{}'{hint}.",
            key.name(),
            key.region(),
            key.project()
        ),
    )
}

pub(crate) fn being_deleted(kind: &str, key: &impl Place) -> Status {
    Status::new(
        Code::FailedPrecondition,
        format!(
            "{kind} '{}' is being deleted. Create it again when it is gone.",
            key.name()
        ),
    )
}

pub(crate) fn conflict(key: &impl Place) -> Status {
    Status::new(
        Code::Aborted,
        format!(
            "Conflict for resource '{}': it was changed since it was read. Read it again, make \
             the change to what is there now, and send that.",
            key.name()
        ),
    )
}

/// What a new resource is told apart by for ever.
pub(crate) fn new_uid() -> Result<String, Status> {
    Ok(lauf_model::meta::uid(random()?))
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Status> {
    let mut bytes = [0_u8; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        Status::new(
            Code::Internal,
            format!("The system gives no randomness: {error}."),
        )
    })?;
    Ok(bytes)
}
