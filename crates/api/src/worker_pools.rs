//! Writing and reading worker pools and their revisions, in the words of the model. Both versions of
//! the API come here; controllers do the rest.

use std::collections::BTreeMap;

use lauf_iam::Caller;
use lauf_model::worker_pool::WorkerPoolStatus;
use lauf_model::{
    Code, Meta, Policy, Status, Violation, WorkerPool, WorkerPoolKey, WorkerPoolRevision,
    WorkerPoolRevisionKey, WorkerPoolSpec, validate,
};
use lauf_store::{Condition, PolicyName, Resource as _, Stored, Txn, Version};

use crate::api::Api;
use crate::services::{
    Expected, TRIES, already_exists, being_deleted, check, conflict, new_uid, not_found,
};

/// What a client wants a worker pool to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DesiredPool {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) as_sent: BTreeMap<String, String>,
    pub(crate) client: String,
    pub(crate) client_version: String,
    pub(crate) spec: WorkerPoolSpec,
}

impl DesiredPool {
    fn into_pool(self, meta: Meta, status: WorkerPoolStatus) -> WorkerPool {
        WorkerPool {
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

impl Api {
    /// A worker pool, or `NOT_FOUND`.
    pub(crate) async fn worker_pool(
        &self,
        key: &WorkerPoolKey,
    ) -> Result<Stored<WorkerPool>, Status> {
        self.find(key)
            .await?
            .ok_or_else(|| not_found("Worker pool", key, &key.name))
    }

    /// A revision of a worker pool, or `NOT_FOUND`. The pool's name in the key does not count.
    pub(crate) async fn worker_pool_revision(
        &self,
        key: &WorkerPoolRevisionKey,
    ) -> Result<Stored<WorkerPoolRevision>, Status> {
        self.find(key)
            .await?
            .ok_or_else(|| not_found("Revision", &key.pool, &key.revision))
    }

    /// Creates a worker pool.
    pub(crate) async fn create_worker_pool(
        &self,
        caller: &Caller,
        key: &WorkerPoolKey,
        desired: DesiredPool,
        mut found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<WorkerPool>, Status> {
        let meta = Meta {
            uid: new_uid()?,
            creator: caller.principal.clone(),
            last_modifier: caller.principal.clone(),
            ..Meta::new(key, self.deps.clock.now())
        };
        let pool = desired.into_pool(meta, WorkerPoolStatus::default());
        check(validate::worker_pool(&pool), &mut found)?;
        if let Some(existing) = self.find::<WorkerPool>(key).await? {
            return Err(already_exists(key, existing.value.meta.deleted.is_some()));
        }
        self.check_pool_revision_name(&pool, None).await?;
        if dry_run {
            return Ok(Stored {
                value: pool,
                version: Version::ZERO,
            });
        }
        let txn =
            Txn::create(WorkerPool::at(key), pool.body()).delete(Policy::at(&PolicyName::of(key)));
        match self.write(txn).await? {
            Some(version) => Ok(Stored {
                value: pool,
                version,
            }),
            None => Err(already_exists(key, false)),
        }
    }

    /// Replaces what is wanted of a worker pool.
    pub(crate) async fn replace_worker_pool(
        &self,
        caller: &Caller,
        key: &WorkerPoolKey,
        desired: DesiredPool,
        expected: Expected,
        mut found: Vec<Violation>,
        dry_run: bool,
    ) -> Result<Stored<WorkerPool>, Status> {
        for _ in 0..TRIES {
            let old = self.worker_pool(key).await?;
            if old.value.meta.deleted.is_some() {
                return Err(being_deleted("Worker pool", key));
            }
            expected.check(old.version, old.value.meta.generation, key)?;
            let pool = self.changed_pool(caller, &old.value, desired.clone());
            check(validate::worker_pool(&pool), &mut found)?;
            self.check_pool_revision_name(&pool, Some(&old.value))
                .await?;
            if dry_run || pool == old.value {
                return Ok(Stored {
                    value: pool,
                    version: old.version,
                });
            }
            let txn = Txn::replace(WorkerPool::at(key), old.version, pool.body());
            if let Some(version) = self.write(txn).await? {
                return Ok(Stored {
                    value: pool,
                    version,
                });
            }
        }
        Err(conflict(key))
    }

    /// The pool as it is when `desired` takes the place of what was wanted.
    fn changed_pool(&self, caller: &Caller, old: &WorkerPool, desired: DesiredPool) -> WorkerPool {
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
        desired.into_pool(meta, old.status.clone())
    }

    /// A revision never changes, so its name cannot be given to another template.
    async fn check_pool_revision_name(
        &self,
        pool: &WorkerPool,
        old: Option<&WorkerPool>,
    ) -> Result<(), Status> {
        let template = &pool.spec.template;
        let Some(name) = &template.name else {
            return Ok(());
        };
        if old.is_some_and(|old| old.spec.template == *template) {
            return Ok(());
        }
        let key = pool.key().revision(name);
        if self.find::<WorkerPoolRevision>(&key).await?.is_some() {
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

    /// Marks a worker pool for deletion; controllers stop what runs and remove it.
    pub(crate) async fn delete_worker_pool(
        &self,
        caller: &Caller,
        key: &WorkerPoolKey,
        expected: Expected,
        dry_run: bool,
    ) -> Result<Stored<WorkerPool>, Status> {
        for _ in 0..TRIES {
            let mut pool = self.worker_pool(key).await?;
            expected.check(pool.version, pool.value.meta.generation, key)?;
            if dry_run || pool.value.meta.deleted.is_some() {
                return Ok(pool);
            }
            pool.value.meta.deleted = Some(self.deps.clock.now());
            pool.value.meta.last_modifier = caller.principal.clone();
            let txn = Txn::replace(WorkerPool::at(key), pool.version, pool.value.body())
                .delete(Policy::at(&PolicyName::of(key)));
            if let Some(version) = self.write(txn).await? {
                pool.version = version;
                return Ok(pool);
            }
        }
        Err(conflict(key))
    }

    /// Marks a revision of a worker pool for deletion, unless its pool needs it.
    pub(crate) async fn delete_worker_pool_revision(
        &self,
        key: &WorkerPoolRevisionKey,
        dry_run: bool,
    ) -> Result<Stored<WorkerPoolRevision>, Status> {
        for _ in 0..TRIES {
            let mut revision = self.worker_pool_revision(key).await?;
            let owner = WorkerPoolKey::beside(&key.pool, &revision.value.pool);
            let mut txn = Txn::new();
            if let Some(pool) = self.find::<WorkerPool>(&owner).await? {
                in_use(&pool.value, &key.revision)?;
                txn = txn.require(Condition::Version(WorkerPool::at(&owner), pool.version));
            }
            if dry_run || revision.value.meta.deleted.is_some() {
                return Ok(revision);
            }
            revision.value.meta.deleted = Some(self.deps.clock.now());
            let at = WorkerPoolRevision::at(key);
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
}

fn in_use(pool: &WorkerPool, revision: &str) -> Result<(), Status> {
    if pool.meta.deleted.is_some() {
        return Ok(());
    }
    let status = &pool.status;
    let split = pool
        .spec
        .splits
        .iter()
        .any(|s| s.revision.as_deref() == Some(revision))
        || status.splits.iter().any(|s| s.revision == revision);
    let why = if split {
        "it has a share of the pool's instances: give them to another revision first"
    } else if status.latest_created_revision == revision || status.latest_ready_revision == revision
    {
        "it is the latest revision of its worker pool: deploy another, or delete the pool"
    } else {
        return Ok(());
    };
    Err(Status::new(
        Code::FailedPrecondition,
        format!("Revision '{revision}' cannot be deleted, because {why}."),
    ))
}
