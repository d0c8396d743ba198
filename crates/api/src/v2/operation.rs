//! Long-running operations (`google.longrunning`). None is stored: an operation's id says what it
//! is about, and how far it is follows from the service or revision, so that it outlives a restart
//! and needs no cleaning up.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lauf_model::{Code, ConditionStatus, Revision, Service, ServiceKey, Status, condition};
use lauf_store::Stored;
use serde::Serialize;
use serde_json::{Value, json};

use super::{revision, service};
use crate::api::Api;

const SERVICE: &str = "type.googleapis.com/google.cloud.run.v2.Service";
const REVISION: &str = "type.googleapis.com/google.cloud.run.v2.Revision";

/// What an operation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Id {
    /// A service is to become what its generation says.
    Write {
        service: String,
        uid: String,
        generation: i64,
    },
    /// A service is to go.
    DeleteService { service: String, uid: String },
    /// A revision is to go.
    DeleteRevision {
        service: String,
        revision: String,
        uid: String,
    },
}

impl Id {
    /// The operation that made a service what it is.
    pub(crate) fn of(service: &Service) -> Self {
        let (service, meta) = (service.meta.name.clone(), &service.meta);
        match meta.deleted {
            Some(_) => Self::DeleteService {
                service,
                uid: meta.uid.clone(),
            },
            None => Self::Write {
                service,
                uid: meta.uid.clone(),
                generation: meta.generation,
            },
        }
    }

    /// As it stands in the operation's name.
    pub(crate) fn encode(&self) -> String {
        let text = match self {
            Self::Write {
                service,
                uid,
                generation,
            } => format!("w/{service}/{uid}/{generation}"),
            Self::DeleteService { service, uid } => format!("d/{service}/{uid}"),
            Self::DeleteRevision {
                service,
                revision,
                uid,
            } => format!("r/{service}/{revision}/{uid}"),
        };
        URL_SAFE_NO_PAD.encode(text)
    }

    /// Reads what [`Id::encode`] wrote.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            ["w", service, uid, generation] => Some(Self::Write {
                service: (*service).to_owned(),
                uid: (*uid).to_owned(),
                generation: generation.parse().ok()?,
            }),
            ["d", service, uid] => Some(Self::DeleteService {
                service: (*service).to_owned(),
                uid: (*uid).to_owned(),
            }),
            ["r", service, revision, uid] => Some(Self::DeleteRevision {
                service: (*service).to_owned(),
                revision: (*revision).to_owned(),
                uid: (*uid).to_owned(),
            }),
            _ => None,
        }
    }
}

/// `google.longrunning.Operation`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Operation {
    pub(crate) name: String,
    pub(crate) metadata: Value,
    #[serde(skip_serializing_if = "super::wire::is_default")]
    pub(crate) done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response: Option<Value>,
}

impl Operation {
    fn new(place: &ServiceKey, id: &Id, metadata: Value) -> Self {
        Self {
            name: format!(
                "projects/{}/locations/{}/operations/{}",
                place.project,
                place.region,
                id.encode()
            ),
            metadata,
            done: false,
            error: None,
            response: None,
        }
    }

    /// Done, with what it was about as the result.
    pub(crate) fn succeeded(mut self) -> Self {
        self.done = true;
        self.response = Some(self.metadata.clone());
        self
    }

    fn failed(mut self, code: Code, message: &str) -> Self {
        self.done = true;
        self.error = Some(json!({"code": code.grpc(), "message": message}));
        self
    }
}

fn any(kind: &str, message: &impl Serialize) -> Result<Value, Status> {
    let failed = |error: serde_json::Error| {
        Status::new(
            Code::Internal,
            format!("The answer cannot be written as JSON: {error}."),
        )
    };
    let mut value = serde_json::to_value(message).map_err(failed)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("@type".to_owned(), kind.into());
    }
    Ok(value)
}

/// The operation that made a service what it is now, as far as it has come.
pub(crate) fn of_service(of: &Service) -> Result<Operation, Status> {
    let metadata = any(SERVICE, &service::write(of))?;
    let operation = Operation::new(&of.key(), &Id::of(of), metadata);
    if !service::settled(of) {
        return Ok(operation);
    }
    let ready = condition::find(&of.status.conditions, "Ready");
    Ok(match ready.filter(|c| c.status == ConditionStatus::False) {
        Some(ready) => operation.failed(failure(&ready.reason), &ready.message),
        None => operation.succeeded(),
    })
}

/// The operation of a service that is only to be checked.
pub(crate) fn checked(of: &Service) -> Result<Operation, Status> {
    let metadata = any(SERVICE, &service::write(of))?;
    Ok(Operation::new(&of.key(), &Id::of(of), metadata).succeeded())
}

/// The deletion of a revision.
pub(crate) fn of_revision(of: &Stored<Revision>) -> Result<Operation, Status> {
    let revision = &of.value;
    let place = ServiceKey {
        project: revision.meta.project.clone(),
        region: revision.meta.region.clone(),
        name: revision.service.clone(),
    };
    let id = Id::DeleteRevision {
        service: revision.service.clone(),
        revision: revision.meta.name.clone(),
        uid: revision.meta.uid.clone(),
    };
    let metadata = any(REVISION, &revision::write(revision, of.version))?;
    Ok(Operation::new(&place, &id, metadata))
}

/// The code of a failure, by the reason of the condition.
fn failure(reason: &str) -> Code {
    match reason {
        "ContainerMissing" | "RevisionMissing" => Code::NotFound,
        "ContainerPermissionDenied" | "ContainerImageUnauthorized" => Code::PermissionDenied,
        "ResourcesUnavailable" => Code::ResourceExhausted,
        "RevisionNameTaken" => Code::AlreadyExists,
        "Internal" | "InternalError" => Code::Internal,
        _ => Code::FailedPrecondition,
    }
}

/// An operation by its id.
pub(crate) async fn get(api: &Api, place: &ServiceKey, text: &str) -> Result<Operation, Status> {
    let unknown = || Status::not_found("Operation", text);
    let id = Id::decode(text).ok_or_else(unknown)?;
    let key = |name: &str| ServiceKey {
        name: name.to_owned(),
        ..place.clone()
    };
    match &id {
        Id::Write {
            service,
            uid,
            generation,
        } => {
            let key = key(service);
            let found = missing_is_none(api.service(&key).await)?;
            match found.filter(|found| found.value.meta.uid == *uid) {
                Some(found) if found.value.meta.generation < *generation => Err(unknown()),
                Some(found) if found.value.meta.deleted.is_none() => {
                    // A later change took its place: it is done when that is.
                    let current = of_service(&found.value)?;
                    let name = Operation::new(place, &id, Value::Null).name;
                    Ok(Operation { name, ..current })
                }
                _ => Ok(Operation::new(place, &id, gone(&key, None, uid))
                    .failed(Code::NotFound, &format!("Service '{service}' was deleted."))),
            }
        }
        Id::DeleteService { service, uid } => {
            let key = key(service);
            let found = missing_is_none(api.service(&key).await)?;
            match found.filter(|found| found.value.meta.uid == *uid) {
                Some(found) if found.value.meta.deleted.is_some() => of_service(&found.value),
                Some(_) => Err(unknown()),
                None => Ok(Operation::new(place, &id, gone(&key, None, uid)).succeeded()),
            }
        }
        Id::DeleteRevision {
            service,
            revision,
            uid,
        } => {
            let key = key(service);
            let found = missing_is_none(api.revision(&key.revision(revision)).await)?;
            match found.filter(|found| found.value.meta.uid == *uid) {
                Some(found) if found.value.meta.deleted.is_some() => of_revision(&found),
                Some(_) => Err(unknown()),
                None => Ok(Operation::new(place, &id, gone(&key, Some(revision), uid)).succeeded()),
            }
        }
    }
}

fn missing_is_none<T>(found: Result<T, Status>) -> Result<Option<T>, Status> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(status) if status.code == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// What is left to say of something that is gone.
fn gone(key: &ServiceKey, revision: Option<&str>, uid: &str) -> Value {
    let name = format!(
        "projects/{}/locations/{}/services/{}",
        key.project, key.region, key.name
    );
    match revision {
        None => json!({"@type": SERVICE, "name": name, "uid": uid}),
        Some(revision) => json!({
            "@type": REVISION,
            "name": format!("{name}/revisions/{revision}"),
            "uid": uid,
            "service": key.name,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back() {
        let (service, uid) = ("hello".to_owned(), "u-1".to_owned());
        for id in [
            Id::Write {
                service: service.clone(),
                uid: uid.clone(),
                generation: 7,
            },
            Id::DeleteService {
                service: service.clone(),
                uid: uid.clone(),
            },
            Id::DeleteRevision {
                service,
                revision: "hello-00001-abc".to_owned(),
                uid,
            },
        ] {
            assert_eq!(Id::decode(&id.encode()), Some(id));
        }
        for wrong in ["", "abc", "dy9h", "%"] {
            assert_eq!(Id::decode(wrong), None, "{wrong}");
        }
    }
}
