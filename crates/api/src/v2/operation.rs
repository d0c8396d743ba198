//! Long-running operations (`google.longrunning`). None is stored: an operation's id says what it
//! is about, and how far it is follows from the resource, so that it outlives a restart and needs no
//! cleaning up.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use lauf_model::{
    Code, Condition, ConditionStatus, Execution, ExecutionKey, Job, JobKey, Meta, Place, Revision,
    Service, ServiceKey, Status, WorkerPool, WorkerPoolKey, WorkerPoolRevision, condition,
    execution,
};
use lauf_store::{Resource, Stored, Version};
use lauf_wire::google::cloud::run::v2;
use lauf_wire::google::longrunning::{Operation, operation::Result as Outcome};
use lauf_wire::google::rpc;
use lauf_wire::{Any, pack};

use super::name::{Here, Kind};
use super::{execution as wire_execution, job, revision, service, settled, worker_pool};
use crate::api::Api;

/// What an operation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The resource is what its generation says.
    Settled(i64),
    /// The resource is gone.
    Gone,
    /// The execution has ended, and how is what the operation tells.
    Over,
    /// The execution has ended, however.
    Ended,
}

/// What an operation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Id {
    until: Until,
    /// The resource's name below its place, `services/hello`.
    path: String,
    uid: String,
}

impl Id {
    /// As it stands in the operation's name.
    fn encode(&self) -> String {
        let Self { until, path, uid } = self;
        let text = match until {
            Until::Settled(generation) => format!("w{generation}/{uid}/{path}"),
            Until::Gone => format!("d/{uid}/{path}"),
            Until::Over => format!("x/{uid}/{path}"),
            Until::Ended => format!("c/{uid}/{path}"),
        };
        URL_SAFE_NO_PAD.encode(text)
    }

    /// Reads what [`Id::encode`] wrote.
    fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let (until, rest) = text.split_once('/')?;
        let (uid, path) = rest.split_once('/')?;
        let until = match until {
            "d" => Until::Gone,
            "x" => Until::Over,
            "c" => Until::Ended,
            other => Until::Settled(other.strip_prefix('w')?.parse().ok()?),
        };
        Kind::parse(&path.split('/').collect::<Vec<_>>())?;
        Some(Self {
            until,
            path: path.to_owned(),
            uid: uid.to_owned(),
        })
    }
}

/// How far something has come.
pub(crate) enum Standing {
    UnderWay,
    Done,
    Failed(Code, String),
}

/// A resource that operations are about.
pub(crate) trait Subject: Resource {
    fn meta(&self) -> &Meta;
    /// Its whole name.
    fn full_name(&self) -> String;
    /// As v2 shows it.
    fn packed(&self, version: Version) -> Any;
    /// What is left to say of one that is gone.
    fn gone(name: String, uid: String) -> Any;
    /// Where the controllers are with what is wanted.
    fn standing(&self) -> Standing;
    /// What the operation that made it waits for.
    fn until(&self) -> Until {
        Until::Settled(self.meta().generation)
    }
}

impl Subject for Service {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn full_name(&self) -> String {
        service::full_name(self)
    }
    fn packed(&self, _: Version) -> Any {
        pack(&service::write(self))
    }
    fn gone(name: String, uid: String) -> Any {
        let default = v2::Service::default();
        pack(&v2::Service {
            name,
            uid,
            ..default
        })
    }
    fn standing(&self) -> Standing {
        let status = &self.status;
        by_ready(&self.meta, status.observed_generation, &status.conditions)
    }
}

impl Subject for Job {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn full_name(&self) -> String {
        job::full_name(self)
    }
    fn packed(&self, _: Version) -> Any {
        pack(&job::write(self))
    }
    fn gone(name: String, uid: String) -> Any {
        let default = v2::Job::default();
        pack(&v2::Job {
            name,
            uid,
            ..default
        })
    }
    fn standing(&self) -> Standing {
        let status = &self.status;
        by_ready(&self.meta, status.observed_generation, &status.conditions)
    }
}

impl Subject for WorkerPool {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn full_name(&self) -> String {
        worker_pool::full_name(self)
    }
    fn packed(&self, _: Version) -> Any {
        pack(&worker_pool::write(self))
    }
    fn gone(name: String, uid: String) -> Any {
        let default = v2::WorkerPool::default();
        pack(&v2::WorkerPool {
            name,
            uid,
            ..default
        })
    }
    fn standing(&self) -> Standing {
        let status = &self.status;
        by_ready(&self.meta, status.observed_generation, &status.conditions)
    }
}

impl Subject for Execution {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn full_name(&self) -> String {
        wire_execution::full_name(self)
    }
    fn packed(&self, version: Version) -> Any {
        pack(&wire_execution::write(self, version))
    }
    fn gone(name: String, uid: String) -> Any {
        let default = v2::Execution::default();
        pack(&v2::Execution {
            name,
            uid,
            ..default
        })
    }
    fn standing(&self) -> Standing {
        let completed = condition::find(&self.status.conditions, execution::COMPLETED);
        match completed.map(|c| (c.status, c)) {
            _ if !self.is_over() => Standing::UnderWay,
            Some((ConditionStatus::False, c)) => Standing::failed(c),
            _ => Standing::Done,
        }
    }
    fn until(&self) -> Until {
        Until::Over
    }
}

impl Subject for Revision {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn full_name(&self) -> String {
        revision::full_name(self)
    }
    fn packed(&self, version: Version) -> Any {
        pack(&revision::write(self, version))
    }
    fn gone(name: String, uid: String) -> Any {
        let default = v2::Revision::default();
        pack(&v2::Revision {
            name,
            uid,
            ..default
        })
    }
    fn standing(&self) -> Standing {
        Standing::UnderWay
    }
}

impl Subject for WorkerPoolRevision {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn full_name(&self) -> String {
        worker_pool::full_revision_name(self)
    }
    fn packed(&self, version: Version) -> Any {
        pack(&worker_pool::write_revision(self, version))
    }
    fn gone(name: String, uid: String) -> Any {
        Revision::gone(name, uid)
    }
    fn standing(&self) -> Standing {
        Standing::UnderWay
    }
}

impl Standing {
    fn failed(condition: &Condition) -> Self {
        Self::Failed(failure(&condition.reason), condition.message.clone())
    }
}

fn by_ready(meta: &Meta, observed: i64, conditions: &[Condition]) -> Standing {
    if !settled(meta, observed, conditions) {
        return Standing::UnderWay;
    }
    let ready = condition::find(conditions, "Ready");
    match ready.filter(|c| c.status == ConditionStatus::False) {
        Some(ready) => Standing::failed(ready),
        None => Standing::Done,
    }
}

/// The code of a failure, by the reason of the condition.
fn failure(reason: &str) -> Code {
    match reason {
        "ContainerMissing" | "RevisionMissing" => Code::NotFound,
        "ContainerPermissionDenied" | "ContainerImageUnauthorized" => Code::PermissionDenied,
        "ResourcesUnavailable" => Code::ResourceExhausted,
        "RevisionNameTaken" => Code::AlreadyExists,
        "Cancelled" => Code::Cancelled,
        "Internal" | "InternalError" => Code::Internal,
        _ => Code::FailedPrecondition,
    }
}

/// One that is under way.
fn begun(here: &impl Place, id: &Id, about: Any) -> Operation {
    Operation {
        name: name(here, id),
        metadata: Some(about),
        ..Operation::default()
    }
}

fn name(here: &impl Place, id: &Id) -> String {
    format!(
        "projects/{}/locations/{}/operations/{}",
        here.project(),
        here.region(),
        id.encode()
    )
}

/// The same, done, with what it was about as the result.
fn succeeded(operation: Operation) -> Operation {
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

fn id_of<T: Subject>(of: &T, until: Until) -> Id {
    let name = of.full_name();
    // projects/P/locations/L/ comes before.
    let path = name.splitn(5, '/').nth(4).unwrap_or_default().to_owned();
    Id {
        until,
        path,
        uid: of.meta().uid.clone(),
    }
}

/// The operation that made a resource what it is now, as far as it has come: of an execution, its run.
pub(crate) fn of<T: Subject>(of: &Stored<T>) -> Operation {
    let meta = of.value.meta();
    if meta.deleted.is_some() {
        return deleted(of);
    }
    let id = id_of(&of.value, of.value.until());
    standing(of, begun(meta, &id, of.value.packed(of.version)))
}

fn standing<T: Subject>(of: &Stored<T>, operation: Operation) -> Operation {
    match of.value.standing() {
        Standing::UnderWay => operation,
        Standing::Done => succeeded(operation),
        Standing::Failed(code, message) => failed(operation, code, &message),
    }
}

/// The deletion of a resource.
pub(crate) fn deleted<T: Subject>(of: &Stored<T>) -> Operation {
    let id = id_of(&of.value, Until::Gone);
    begun(of.value.meta(), &id, of.value.packed(of.version))
}

/// The cancellation of an execution.
pub(crate) fn cancelled(of: &Stored<Execution>) -> Operation {
    let id = id_of(&of.value, Until::Ended);
    let operation = begun(&of.value.meta, &id, of.value.packed(of.version));
    if of.value.is_over() {
        succeeded(operation)
    } else {
        operation
    }
}

/// The same operation, but of a request that was only to be checked.
pub(crate) fn checked(operation: Operation, only_check: bool) -> Operation {
    if only_check {
        succeeded(operation)
    } else {
        operation
    }
}

/// An operation by its id.
pub(crate) async fn get(api: &Api, here: &Here, text: &str) -> Result<Operation, Status> {
    let id = Id::decode(text).ok_or_else(|| Status::not_found("Operation", text))?;
    let path: Vec<&str> = id.path.split('/').collect();
    let asked = Asked {
        api,
        here,
        id: &id,
        text,
    };
    match Kind::parse(&path) {
        Some(Kind::Service(name)) => asked.of::<Service>(&ServiceKey::beside(here, name)).await,
        Some(Kind::Job(name)) => asked.of::<Job>(&JobKey::beside(here, name)).await,
        Some(Kind::WorkerPool(name)) => {
            asked
                .of::<WorkerPool>(&WorkerPoolKey::beside(here, name))
                .await
        }
        Some(Kind::Execution(_, name)) => {
            asked
                .of::<Execution>(&ExecutionKey::beside(here, name))
                .await
        }
        Some(Kind::Revision(service, name)) => {
            let key = ServiceKey::beside(here, service).revision(name);
            asked.of::<Revision>(&key).await
        }
        Some(Kind::WorkerPoolRevision(pool, name)) => {
            let key = WorkerPoolKey::beside(here, pool).revision(name);
            asked.of::<WorkerPoolRevision>(&key).await
        }
        Some(Kind::Task(..)) | None => Err(asked.unknown()),
    }
}

/// An operation that somebody asks for.
struct Asked<'a> {
    api: &'a Api,
    here: &'a Here,
    id: &'a Id,
    text: &'a str,
}

impl Asked<'_> {
    fn unknown(&self) -> Status {
        Status::not_found("Operation", self.text)
    }

    async fn of<T: Subject>(&self, key: &T::Name) -> Result<Operation, Status> {
        let found = self.api.find::<T>(key).await?;
        // Another of the same name is not what it was about.
        let found = found.filter(|found| found.value.meta().uid == self.id.uid);
        let Some(found) = found else {
            return Ok(self.gone::<T>());
        };
        let meta = found.value.meta();
        let current = match self.id.until {
            Until::Gone if meta.deleted.is_some() => deleted(&found),
            // Nobody deleted it, or it is not yet what it is to be.
            Until::Gone => return Err(self.unknown()),
            Until::Settled(generation) if generation > meta.generation => {
                return Err(self.unknown());
            }
            Until::Settled(_) if meta.deleted.is_some() => return Ok(self.gone::<T>()),
            // A later change took its place: it is done when that is.
            Until::Settled(_) | Until::Over => {
                let operation = begun(self.here, self.id, found.value.packed(found.version));
                standing(&found, operation)
            }
            Until::Ended => {
                let operation = begun(self.here, self.id, found.value.packed(found.version));
                match found.value.standing() {
                    Standing::UnderWay => operation,
                    Standing::Done | Standing::Failed(..) => succeeded(operation),
                }
            }
        };
        Ok(Operation {
            name: name(self.here, self.id),
            ..current
        })
    }

    /// What it was about is gone.
    fn gone<T: Subject>(&self) -> Operation {
        let Here { project, region } = self.here;
        let whole = format!("projects/{project}/locations/{region}/{}", self.id.path);
        let operation = begun(self.here, self.id, T::gone(whole, self.id.uid.clone()));
        match self.id.until {
            Until::Gone => succeeded(operation),
            Until::Settled(_) | Until::Over | Until::Ended => {
                let why = format!("'{}' was deleted.", self.id.path);
                failed(operation, Code::NotFound, &why)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back() {
        for (until, path) in [
            (Until::Settled(7), "services/hello"),
            (Until::Gone, "jobs/etl"),
            (Until::Gone, "services/hello/revisions/hello-00001-abc"),
            (Until::Over, "jobs/etl/executions/etl-abcde"),
            (Until::Ended, "jobs/etl/executions/etl-abcde"),
        ] {
            let id = Id {
                until,
                path: path.to_owned(),
                uid: "u-1".to_owned(),
            };
            assert_eq!(Id::decode(&id.encode()), Some(id));
        }
        for wrong in [
            "",
            "abc",
            "dy9h",
            "%",
            &URL_SAFE_NO_PAD.encode("w1/u/nothing/x"),
        ] {
            assert_eq!(Id::decode(wrong), None, "{wrong}");
        }
    }
}
