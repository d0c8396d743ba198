//! The store with the model's types: JSON bodies under well-known keys.

use lauf_model::{Policy, Revision, RevisionKey, Service, ServiceKey};
use lauf_store::{Key, Kind, ListQuery, Object, ReadError, Scope, Store, Txn, Version, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Kind of services; the body is a [`Service`].
pub const SERVICE: Kind = Kind::new("Service");
/// Kind of revisions; the body is a [`Revision`].
pub const REVISION: Kind = Kind::new("Revision");
/// Kind of IAM policies; the body is a [`Policy`], the name is `services/NAME`.
pub const POLICY: Kind = Kind::new("Policy");

/// What goes wrong between the controllers and the store. All of it may be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObjectError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the stored {key} cannot be understood: {source}")]
    Body { key: Key, source: serde_json::Error },
}

/// An object and the version it was read at.
pub(crate) struct Stored<T> {
    pub(crate) version: Version,
    pub(crate) value: T,
}

pub(crate) fn service_key(key: &ServiceKey) -> Key {
    Key::new(SERVICE, key.scope(), key.name.clone())
}

pub(crate) fn revision_key(key: &RevisionKey) -> Key {
    Key::new(REVISION, key.service.scope(), key.revision.clone())
}

pub(crate) fn policy_key(key: &ServiceKey) -> Key {
    Key::new(POLICY, key.scope(), format!("services/{}", key.name))
}

/// The service that a key of any kind above is about, if it can be told from the key alone.
pub(crate) fn parse_scope(scope: &str) -> Option<(String, String)> {
    let (project, region) = scope.split_once('/')?;
    Some((project.to_owned(), region.to_owned()))
}

pub(crate) fn parse<T: DeserializeOwned>(object: &Object) -> Result<Stored<T>, ObjectError> {
    match serde_json::from_slice(&object.body) {
        Ok(value) => Ok(Stored {
            version: object.version,
            value,
        }),
        Err(source) => Err(ObjectError::Body {
            key: object.key.clone(),
            source,
        }),
    }
}

pub(crate) fn body<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("the model has only string keys and no failing serializer")
}

async fn get<T: DeserializeOwned>(
    store: &Store,
    key: Key,
) -> Result<Option<Stored<T>>, ObjectError> {
    store.get(&key).await?.as_ref().map(parse).transpose()
}

pub(crate) async fn service(
    store: &Store,
    key: &ServiceKey,
) -> Result<Option<Stored<Service>>, ObjectError> {
    get(store, service_key(key)).await
}

pub(crate) async fn revision(
    store: &Store,
    key: &RevisionKey,
) -> Result<Option<Stored<Revision>>, ObjectError> {
    get(store, revision_key(key)).await
}

pub(crate) async fn policy(store: &Store, key: &ServiceKey) -> Result<Policy, ObjectError> {
    Ok(get(store, policy_key(key))
        .await?
        .map(|p| p.value)
        .unwrap_or_default())
}

/// Every object of a kind, page by page, with the version from which a watch goes on.
pub(crate) async fn all<T: DeserializeOwned>(
    store: &Store,
    kind: Kind,
    scope: Scope,
) -> Result<(Vec<Stored<T>>, Version), ObjectError> {
    let mut found = Vec::new();
    let mut after = None;
    // The watch starts from the first page's version: changes between the pages come again, and
    // reconciling twice does no harm.
    let mut first = None;
    loop {
        let page = store
            .list(&ListQuery {
                kind: kind.clone(),
                scope: scope.clone(),
                after,
                limit: 1000,
            })
            .await?;
        first.get_or_insert(page.version);
        after = page
            .objects
            .last()
            .map(|o| (o.key.scope.clone(), o.key.name.clone()));
        for object in &page.objects {
            match parse(object) {
                Ok(stored) => found.push(stored),
                // One object of another version's making must not stop all the others.
                Err(e) => tracing::error!("{e}"),
            }
        }
        if !page.more {
            return Ok((found, first.unwrap_or(page.version)));
        }
    }
}

/// Writes a service's status back if it is still at the version it was read at.
pub(crate) async fn replace_service(
    store: &Store,
    service: &Stored<Service>,
) -> Result<Version, ObjectError> {
    let key = service_key(&service.value.key());
    Ok(store
        .write(Txn::replace(key, service.version, body(&service.value)))
        .await?)
}

/// Writes a revision's status back if it is still at the version it was read at.
pub(crate) async fn replace_revision(
    store: &Store,
    key: &RevisionKey,
    revision: &Stored<Revision>,
) -> Result<Version, ObjectError> {
    Ok(store
        .write(Txn::replace(
            revision_key(key),
            revision.version,
            body(&revision.value),
        ))
        .await?)
}
