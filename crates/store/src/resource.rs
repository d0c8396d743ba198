//! What the platform stores: the model's types, each under a kind and keys of its own, as JSON.
//!
//! Everything that knows how a resource is called in the store stands here, once, for those who write
//! what is wanted and for those who make it so. A new kind is one more `impl Resource`.

use lauf_model::{
    Execution, ExecutionKey, Job, JobKey, Place, Policy, Project, Revision, RevisionKey, Service,
    ServiceKey, Task, TaskKey, WorkerPool, WorkerPoolKey, WorkerPoolRevision,
    WorkerPoolRevisionKey,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Key, Kind, ListQuery, Object, ReadError, Store, Version};

/// Begins the names of policies of services.
const SERVICES: &str = "services/";

/// A type of the model that is stored.
pub trait Resource: Serialize + DeserializeOwned {
    /// The kind under which it is stored.
    const KIND: Kind;
    /// What it is called in the model.
    type Name: ?Sized;

    /// Where it is stored.
    fn at(name: &Self::Name) -> Key;

    /// As it is stored.
    ///
    /// # Panics
    /// When a type of the model cannot be written as JSON, which none is so made that it could.
    fn body(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("the model has only string keys and no failing serializer")
    }
}

impl Resource for Service {
    const KIND: Kind = Kind::new("Service");
    type Name = ServiceKey;

    fn at(name: &ServiceKey) -> Key {
        Key::new(Self::KIND, name.scope(), &name.name)
    }
}

/// A revision's name is unique in its region, so that of its service is no part of the key.
impl Resource for Revision {
    const KIND: Kind = Kind::new("Revision");
    type Name = RevisionKey;

    fn at(name: &RevisionKey) -> Key {
        Key::new(Self::KIND, name.service.scope(), &name.revision)
    }
}

/// What may have a policy: who may do what with it.
pub trait PolicyOwner: Place + Send + Sync {
    /// Begins the names of policies of its kind.
    const POLICIES: &'static str;
    /// What it is stored as.
    type Owner: Resource<Name = Self>;
}

impl PolicyOwner for ServiceKey {
    const POLICIES: &'static str = SERVICES;
    type Owner = Service;
}

impl PolicyOwner for JobKey {
    const POLICIES: &'static str = "jobs/";
    type Owner = Job;
}

impl PolicyOwner for WorkerPoolKey {
    const POLICIES: &'static str = "workerPools/";
    type Owner = WorkerPool;
}

/// Whose policy a policy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyName {
    scope: String,
    name: String,
}

impl PolicyName {
    /// That of the policy of `owner`.
    pub fn of<K: PolicyOwner>(owner: &K) -> Self {
        Self {
            scope: format!("{}/{}", owner.project(), owner.region()),
            name: format!("{}{}", K::POLICIES, owner.name()),
        }
    }
}

impl Resource for Policy {
    const KIND: Kind = Kind::new("Policy");
    type Name = PolicyName;

    fn at(name: &PolicyName) -> Key {
        Key::new(Self::KIND, &name.scope, &name.name)
    }
}

impl Resource for Job {
    const KIND: Kind = Kind::new("Job");
    type Name = JobKey;

    fn at(name: &JobKey) -> Key {
        Key::new(Self::KIND, name.scope(), &name.name)
    }
}

impl Resource for Execution {
    const KIND: Kind = Kind::new("Execution");
    type Name = ExecutionKey;

    fn at(name: &ExecutionKey) -> Key {
        Key::new(Self::KIND, name.scope(), &name.name)
    }
}

impl Resource for Task {
    const KIND: Kind = Kind::new("Task");
    type Name = TaskKey;

    fn at(name: &TaskKey) -> Key {
        Key::new(Self::KIND, name.scope(), &name.name)
    }
}

impl Resource for WorkerPool {
    const KIND: Kind = Kind::new("WorkerPool");
    type Name = WorkerPoolKey;

    fn at(name: &WorkerPoolKey) -> Key {
        Key::new(Self::KIND, name.scope(), &name.name)
    }
}

/// As with services, the pool's name is no part of the key.
impl Resource for WorkerPoolRevision {
    const KIND: Kind = Kind::new("WorkerPoolRevision");
    type Name = WorkerPoolRevisionKey;

    fn at(name: &WorkerPoolRevisionKey) -> Key {
        Key::new(Self::KIND, name.pool.scope(), &name.revision)
    }
}

/// Projects are in no scope and have their ids as names.
impl Resource for Project {
    const KIND: Kind = Kind::new("Project");
    type Name = str;

    fn at(id: &str) -> Key {
        Key::new(Self::KIND, "", id)
    }
}

/// The service that a key is about, if its text alone says so: that of the service itself, or of its
/// policy.
#[must_use]
pub fn service_of(key: &Key) -> Option<ServiceKey> {
    let name = if key.kind == Service::KIND {
        &key.name
    } else if key.kind == Policy::KIND {
        key.name.strip_prefix(SERVICES)?
    } else {
        return None;
    };
    let (project, region) = key.scope.split_once('/')?;
    Some(ServiceKey {
        project: project.to_owned(),
        region: region.to_owned(),
        name: name.to_owned(),
    })
}

/// A resource as the store had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<T> {
    /// The resource.
    pub value: T,
    /// The version of the write that gave it this body.
    pub version: Version,
}

impl<T: Resource> Stored<T> {
    /// Reads the body of an object.
    ///
    /// # Errors
    /// When it is not such a resource.
    pub fn read(object: &Object) -> Result<Self, BodyError> {
        match serde_json::from_slice(&object.body) {
            Ok(value) => Ok(Self {
                value,
                version: object.version,
            }),
            Err(source) => Err(BodyError {
                key: object.key.clone(),
                source,
            }),
        }
    }
}

/// A body that is not what its kind says. Trying again does not help: another version of the program
/// wrote it, or the disk lost it.
#[derive(Debug, thiserror::Error)]
#[error("the stored {key} cannot be understood: {source}")]
pub struct BodyError {
    /// Whose body it is.
    pub key: Key,
    source: serde_json::Error,
}

/// A resource could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The store cannot be read now.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What was read makes no sense.
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl Store {
    /// The resource of that name, if there is one.
    ///
    /// # Errors
    /// See [`ResourceError`].
    pub async fn find<T: Resource>(
        &self,
        name: &T::Name,
    ) -> Result<Option<Stored<T>>, ResourceError> {
        let object = self.get(&T::at(name)).await?;
        Ok(object.as_ref().map(Stored::read).transpose()?)
    }

    /// The resources of a type in one scope whose names begin with `prefix`, by name.
    ///
    /// # Errors
    /// See [`ResourceError`].
    pub async fn beginning<T: Resource>(
        &self,
        scope: String,
        prefix: String,
    ) -> Result<Vec<Stored<T>>, ResourceError> {
        let mut walk = self.walk(ListQuery {
            after: Some((scope.clone(), prefix.clone())),
            ..ListQuery::scope(T::KIND, scope)
        });
        let mut found = Vec::new();
        while let Some(object) = walk.next().await?
            && object.key.name.starts_with(&prefix)
        {
            found.push(Stored::read(&object)?);
        }
        Ok(found)
    }

    /// Every resource of a type, with the version from which a watch goes on. One that cannot be
    /// understood is left out and said in the log: it must not stand in the way of all the others.
    ///
    /// # Errors
    /// [`ReadError::Io`] when the disk or the database fails.
    pub async fn all<T: Resource>(&self) -> Result<(Vec<Stored<T>>, Version), ReadError> {
        let mut walk = self.walk(ListQuery::all(T::KIND));
        let mut found = Vec::new();
        while let Some(object) = walk.next().await? {
            match Stored::read(&object) {
                Ok(stored) => found.push(stored),
                Err(error) => tracing::error!("{error}"),
            }
        }
        Ok((found, walk.version()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Txn;

    fn hello() -> ServiceKey {
        ServiceKey {
            project: "demo".to_owned(),
            region: "us-central1".to_owned(),
            name: "hello".to_owned(),
        }
    }

    #[test]
    fn keys_say_whose_they_are() {
        assert_eq!(service_of(&Service::at(&hello())), Some(hello()));
        let policy = |owner| Policy::at(&PolicyName::of(owner));
        assert_eq!(service_of(&policy(&hello())), Some(hello()));
        let revision = hello().revision("hello-00001-abc");
        assert_eq!(service_of(&Revision::at(&revision)), None);
        let job = JobKey::beside(&hello(), "hello");
        assert_eq!(service_of(&Policy::at(&PolicyName::of(&job))), None);
    }

    #[tokio::test]
    async fn one_body_that_makes_no_sense_is_told_and_hides_no_other() {
        let store = Store::in_memory().unwrap();
        let project = |id: &str| Project {
            id: id.to_owned(),
            number: 7,
        };
        for id in ["a", "c"] {
            let create = Txn::create(Project::at(id), project(id).body());
            store.write(create).await.unwrap();
        }
        let wrong = Txn::create(Project::at("b"), "[]");
        let last = store.write(wrong).await.unwrap();

        let found = store.find::<Project>("c").await.unwrap().unwrap();
        assert_eq!(found.value, project("c"));
        assert!(store.find::<Project>("d").await.unwrap().is_none());
        let error = store.find::<Project>("b").await.unwrap_err();
        assert!(matches!(error, ResourceError::Body(_)), "{error}");
        assert!(error.to_string().contains("Project /b"), "{error}");

        let (all, version) = store.all::<Project>().await.unwrap();
        let ids: Vec<_> = all.into_iter().map(|p| p.value.id).collect();
        assert_eq!(ids, ["a", "c"]);
        assert_eq!(version, last);
    }
}
