//! Long-running operations (`google.longrunning`). None is stored: an operation's id says what it
//! is about, and how far it is follows from the service or revision, so that it outlives a restart
//! and needs no cleaning up.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lauf_model::{Code, ConditionStatus, Revision, Service, ServiceKey, Status, condition};
use lauf_store::Stored;
use lauf_wire::google::cloud::run::v2;
use lauf_wire::google::longrunning::{Operation, operation::Result as Outcome};
use lauf_wire::google::rpc;
use lauf_wire::{Any, pack};

use super::{revision, service};
use crate::api::Api;

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

/// One that is under way.
fn begun(place: &ServiceKey, id: &Id, about: Any) -> Operation {
    Operation {
        name: name(place, id),
        metadata: Some(about),
        ..Operation::default()
    }
}

fn name(place: &ServiceKey, id: &Id) -> String {
    format!(
        "projects/{}/locations/{}/operations/{}",
        place.project,
        place.region,
        id.encode()
    )
}

/// The same, done, with what it was about as the result.
pub(crate) fn succeeded(operation: Operation) -> Operation {
    Operation {
        done: true,
        result: operation.metadata.clone().map(Outcome::Response),
        ..operation
    }
}

fn failed(operation: Operation, code: Code, message: &str) -> Operation {
    Operation {
        done: true,
        result: Some(Outcome::Error(rpc::Status {
            code: code.grpc(),
            message: message.to_owned(),
            ..rpc::Status::default()
        })),
        ..operation
    }
}

/// The operation that made a service what it is now, as far as it has come.
pub(crate) fn of_service(of: &Service) -> Operation {
    let operation = begun(&of.key(), &Id::of(of), pack(&service::write(of)));
    if !service::settled(of) {
        return operation;
    }
    let ready = condition::find(&of.status.conditions, "Ready");
    match ready.filter(|c| c.status == ConditionStatus::False) {
        Some(ready) => failed(operation, failure(&ready.reason), &ready.message),
        None => succeeded(operation),
    }
}

/// The operation of a service that is only to be checked.
pub(crate) fn checked(of: &Service) -> Operation {
    succeeded(begun(&of.key(), &Id::of(of), pack(&service::write(of))))
}

/// The deletion of a revision.
pub(crate) fn of_revision(of: &Stored<Revision>) -> Operation {
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
    begun(&place, &id, pack(&revision::write(revision, of.version)))
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
                    Ok(Operation {
                        name: name(place, &id),
                        ..of_service(&found.value)
                    })
                }
                _ => Ok(failed(
                    begun(place, &id, gone(&key, None, uid)),
                    Code::NotFound,
                    &format!("Service '{service}' was deleted."),
                )),
            }
        }
        Id::DeleteService { service, uid } => {
            let key = key(service);
            let found = missing_is_none(api.service(&key).await)?;
            match found.filter(|found| found.value.meta.uid == *uid) {
                Some(found) if found.value.meta.deleted.is_some() => Ok(of_service(&found.value)),
                Some(_) => Err(unknown()),
                None => Ok(succeeded(begun(place, &id, gone(&key, None, uid)))),
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
                Some(found) if found.value.meta.deleted.is_some() => Ok(of_revision(&found)),
                Some(_) => Err(unknown()),
                None => Ok(succeeded(begun(
                    place,
                    &id,
                    gone(&key, Some(revision), uid),
                ))),
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
fn gone(key: &ServiceKey, revision: Option<&str>, uid: &str) -> Any {
    let name = format!(
        "projects/{}/locations/{}/services/{}",
        key.project, key.region, key.name
    );
    match revision {
        None => pack(&v2::Service {
            name,
            uid: uid.to_owned(),
            ..v2::Service::default()
        }),
        Some(revision) => pack(&v2::Revision {
            name: format!("{name}/revisions/{revision}"),
            uid: uid.to_owned(),
            service: key.name.clone(),
            ..v2::Revision::default()
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
