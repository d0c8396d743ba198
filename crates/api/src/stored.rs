//! Objects in the store: their keys, their JSON bodies, and the store's errors in the words of the
//! API.

use lauf_model::{Code, RevisionKey, ServiceKey, Status};
use lauf_store::{Key, ReadError, Version, WriteError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The kind under which services are stored, body [`lauf_model::Service`].
pub const SERVICE: &str = "Service";
/// The kind under which revisions are stored, body [`lauf_model::Revision`].
pub const REVISION: &str = "Revision";
/// The kind under which IAM policies are stored, body [`lauf_model::Policy`].
pub const POLICY: &str = "Policy";
/// The kind under which projects are stored, body [`lauf_model::Project`].
pub const PROJECT: &str = "Project";

/// Where a service is stored.
#[must_use]
pub fn service_key(key: &ServiceKey) -> Key {
    Key::new(SERVICE, key.scope(), &key.name)
}

/// Where a revision is stored.
#[must_use]
pub fn revision_key(key: &RevisionKey) -> Key {
    Key::new(REVISION, key.service.scope(), &key.revision)
}

/// Where a service's IAM policy is stored.
#[must_use]
pub fn policy_key(key: &ServiceKey) -> Key {
    Key::new(POLICY, key.scope(), format!("services/{}", key.name))
}

/// Where a project is stored: under its id, in no scope.
#[must_use]
pub fn project_key(id: &str) -> Key {
    Key::new(PROJECT, "", id)
}

/// A value as the store had it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored<T> {
    /// The value.
    pub(crate) value: T,
    /// The write that gave it this body.
    pub(crate) version: Version,
}

impl<T: DeserializeOwned> Stored<T> {
    /// Reads the body of an object.
    pub(crate) fn read(object: &lauf_store::Object) -> Result<Self, Status> {
        let value = serde_json::from_slice(&object.body).map_err(|error| {
            Status::new(
                Code::Internal,
                format!(
                    "{} is stored in a form that cannot be read: {error}.",
                    object.key
                ),
            )
        })?;
        Ok(Self {
            value,
            version: object.version,
        })
    }
}

/// The body of a value.
pub(crate) fn body(value: &impl Serialize) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(value)
        .map_err(|error| Status::new(Code::Internal, format!("Cannot be stored: {error}.")))
}

/// A failed read, as the client sees it.
pub(crate) fn read_failed(error: &ReadError) -> Status {
    tracing::error!(%error, "the store cannot be read");
    Status::new(Code::Unavailable, "The store cannot be read. Try again.")
}

/// A failed write, as the client sees it, where it is not a conflict that has words of its own.
pub(crate) fn write_failed(error: &WriteError) -> Status {
    match error {
        WriteError::Conflict { key, .. } => Status::new(
            Code::Aborted,
            format!("{key} was changed at the same time. Read it again, then try again."),
        ),
        WriteError::QueueFull | WriteError::Closed => Status::new(
            Code::Unavailable,
            "Too much waits to be written. Try again in a moment.",
        ),
        WriteError::Invalid(why) => Status::new(
            Code::InvalidArgument,
            format!("The object cannot be stored: {why}."),
        ),
        WriteError::Io(_) => {
            tracing::error!(%error, "the store cannot be written");
            Status::new(Code::Unavailable, "The store cannot be written. Try again.")
        }
    }
}
