//! Writing and reading services and revisions, in the words of the model. Both versions of the API
//! come here with the same [`Desired`]; controllers do the rest.

use std::collections::BTreeMap;

use lauf_iam::Caller;
use lauf_model::{
    Code, Meta, Revision, RevisionKey, Service, ServiceKey, ServiceSpec, ServiceStatus, Status,
    TrafficTarget, Violation, validate,
};
use lauf_store::{Condition, ListQuery, Scope, Txn, Version, WriteError};

use crate::api::Api;
use crate::page::Token;
use crate::stored::{
    REVISION, SERVICE, Stored, body, policy_key, read_failed, revision_key, service_key,
    write_failed,
};

/// How often a write without an expected version is tried again when others write too.
const TRIES: usize = 5;

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

/// The kind of a listed object, for messages and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    Services,
    Revisions,
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
        self.find(&service_key(key))
            .await?
            .ok_or_else(|| not_found("Service", key, &key.name))
    }

    /// A revision, or `NOT_FOUND`.
    pub(crate) async fn revision(&self, key: &RevisionKey) -> Result<Stored<Revision>, Status> {
        self.find(&revision_key(key))
            .await?
            .ok_or_else(|| not_found("Revision", &key.service, &key.revision))
    }

    async fn find<T: serde::de::DeserializeOwned>(
        &self,
        key: &lauf_store::Key,
    ) -> Result<Option<Stored<T>>, Status> {
        let object = self.deps.store.get(key).await;
        object
            .map_err(|error| read_failed(&error))?
            .map(|object| Stored::read(&object))
            .transpose()
    }

    /// Creates a service.
    pub(crate) async fn create_service(
        &self,
        caller: &Caller,
        key: &ServiceKey,
        desired: Desired,
        mut found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<Service>, Status> {
        let now = self.deps.clock.now();
        let service = Service {
            meta: Meta {
                project: key.project.clone(),
                region: key.region.clone(),
                name: key.name.clone(),
                uid: new_uid()?,
                generation: 1,
                created: now,
                updated: now,
                deleted: None,
                creator: caller.principal.clone(),
                last_modifier: caller.principal.clone(),
                client: desired.client,
                client_version: desired.client_version,
                labels: desired.labels,
                annotations: desired.annotations,
                as_sent: desired.as_sent,
            },
            spec: desired.spec,
            status: ServiceStatus::default(),
        };
        check(&service, &mut found)?;
        let at = service_key(key);
        if let Some(existing) = self.find::<Service>(&at).await? {
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
        let txn = Txn::create(at, body(&service)?).delete(policy_key(key));
        match self.deps.store.write(txn).await {
            Ok(version) => Ok(Stored {
                value: service,
                version,
            }),
            Err(WriteError::Conflict { .. }) => Err(already_exists(key, false)),
            Err(error) => Err(write_failed(&error)),
        }
    }

    /// Replaces what is wanted of a service.
    pub(crate) async fn replace_service(
        &self,
        caller: &Caller,
        key: &ServiceKey,
        desired: Desired,
        expected: Expected,
        mut found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<Service>, Status> {
        for _ in 0..TRIES {
            let old = self.service(key).await?;
            if old.value.meta.deleted.is_some() {
                return Err(being_deleted(key));
            }
            expected.check(&old, key)?;
            let service = self.changed(caller, &old.value, desired.clone());
            check(&service, &mut found)?;
            self.check_revision_name(&service, Some(&old.value)).await?;
            if dry_run || service == old.value {
                return Ok(Stored {
                    value: service,
                    version: old.version,
                });
            }
            let txn = Txn::replace(service_key(key), old.version, body(&service)?);
            match self.deps.store.write(txn).await {
                Ok(version) => {
                    return Ok(Stored {
                        value: service,
                        version,
                    });
                }
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(write_failed(&error)),
            }
        }
        Err(conflict(key))
    }

    /// The service as it is when `desired` takes the place of what was wanted. The generation
    /// rises with every change a client can see in its own request.
    fn changed(&self, caller: &Caller, old: &Service, desired: Desired) -> Service {
        let changed = old.spec != desired.spec
            || old.meta.labels != desired.labels
            || old.meta.annotations != desired.annotations
            || old.meta.as_sent != desired.as_sent;
        if !changed {
            return old.clone();
        }
        Service {
            meta: Meta {
                generation: old.meta.generation + 1,
                updated: self.deps.clock.now(),
                last_modifier: caller.principal.clone(),
                client: desired.client,
                client_version: desired.client_version,
                labels: desired.labels,
                annotations: desired.annotations,
                as_sent: desired.as_sent,
                ..old.meta.clone()
            },
            spec: desired.spec,
            status: old.status.clone(),
        }
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
        if self.find::<Revision>(&revision_key(&key)).await?.is_some() {
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
            expected.check(&service, key)?;
            if dry_run || service.value.meta.deleted.is_some() {
                return Ok(service);
            }
            service.value.meta.deleted = Some(self.deps.clock.now());
            service.value.meta.last_modifier = caller.principal.clone();
            // Nobody can call it from here on, and its policy is gone with it.
            let txn = Txn::replace(service_key(key), service.version, body(&service.value)?)
                .delete(policy_key(key));
            match self.deps.store.write(txn).await {
                Ok(version) => {
                    service.version = version;
                    return Ok(service);
                }
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(write_failed(&error)),
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
            if let Some(service) = self.find::<Service>(&service_key(&owner)).await? {
                in_use(&service.value, &key.revision)?;
                txn = txn.require(Condition::Version(service_key(&owner), service.version));
            }
            if dry_run || revision.value.meta.deleted.is_some() {
                return Ok(revision);
            }
            revision.value.meta.deleted = Some(self.deps.clock.now());
            let at = revision_key(key);
            let txn = txn
                .require(Condition::Version(at.clone(), revision.version))
                .put(at, body(&revision.value)?);
            match self.deps.store.write(txn).await {
                Ok(version) => {
                    revision.version = version;
                    return Ok(revision);
                }
                Err(WriteError::Conflict { .. }) => {}
                Err(error) => return Err(write_failed(&error)),
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

    /// A page of objects of a project, in one region or all, as `write` writes them; what it makes
    /// nothing of is left out. Zero as the limit asks for all.
    pub(crate) async fn page<T: serde::de::DeserializeOwned, V>(
        &self,
        kind: Listed,
        project: &str,
        region: Option<&str>,
        limit: usize,
        from: Option<Token>,
        write: impl Fn(Stored<T>) -> Option<V>,
    ) -> Result<Listing<V>, Status> {
        let mut query = ListQuery {
            kind: match kind {
                Listed::Services => SERVICE,
                Listed::Revisions => REVISION,
            }
            .into(),
            scope: match region {
                Some(region) => Scope::Exact(format!("{project}/{region}")),
                None => Scope::Prefix(format!("{project}/")),
            },
            after: from.map(|token| (token.scope, token.name)),
            limit: lauf_store::MAX_PAGE,
        };
        let mut items = Vec::new();
        loop {
            let page = self.deps.store.list(&query).await;
            let page = page.map_err(|error| read_failed(&error))?;
            for (i, object) in page.objects.iter().enumerate() {
                items.extend(write(Stored::<T>::read(object)?));
                let more = i + 1 < page.objects.len() || page.more;
                if limit > 0 && items.len() == limit && more {
                    return Ok(Listing {
                        items,
                        next: Some(Token {
                            scope: object.key.scope.clone(),
                            name: object.key.name.clone(),
                        }),
                        version: page.version,
                    });
                }
            }
            let last = page.objects.last();
            match last.filter(|_| page.more) {
                Some(last) => query.after = Some((last.key.scope.clone(), last.key.name.clone())),
                None => {
                    return Ok(Listing {
                        items,
                        next: None,
                        version: page.version,
                    });
                }
            }
        }
    }
}

impl Expected {
    fn check(self, stored: &Stored<Service>, key: &ServiceKey) -> Result<(), Status> {
        let same = self.version.is_none_or(|v| v == stored.version)
            || self.generation == Some(stored.value.meta.generation);
        if same { Ok(()) } else { Err(conflict(key)) }
    }
}

fn check(service: &Service, found: &mut Vec<Violation>) -> Result<(), Status> {
    for violation in validate::service(service) {
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

fn not_found(kind: &str, place: &ServiceKey, name: &str) -> Status {
    Status::new(
        Code::NotFound,
        format!(
            "{kind} '{name}' was not found in region '{}' of project '{}'.",
            place.region, place.project
        ),
    )
}

fn already_exists(key: &ServiceKey, being_deleted: bool) -> Status {
    let hint = if being_deleted {
        " and is being deleted: try again in a moment"
    } else {
        ""
    };
    Status::new(
        Code::AlreadyExists,
        format!(
            "Resource '{}' already exists in region '{}' of project '{}'{hint}.",
            key.name, key.region, key.project
        ),
    )
}

fn being_deleted(key: &ServiceKey) -> Status {
    Status::new(
        Code::FailedPrecondition,
        format!(
            "Service '{}' is being deleted. Create it again when it is gone.",
            key.name
        ),
    )
}

fn conflict(key: &ServiceKey) -> Status {
    Status::new(
        Code::Aborted,
        format!(
            "Conflict for resource '{}': it was changed since it was read. Read it again, make \
             the change to what is there now, and send that.",
            key.name
        ),
    )
}

/// A random identifier (RFC 9562, version 4).
fn new_uid() -> Result<String, Status> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Status::new(
            Code::Internal,
            format!("The system gives no randomness: {error}."),
        )
    })?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    Ok(format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    ))
}
