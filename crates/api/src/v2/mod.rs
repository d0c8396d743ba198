//! The v2 API: `google.cloud.run.v2`, its operations, locations and IAM policies, as the traits that
//! `lauf-wire` makes of the table of RPCs. gRPC and REST both end here. It is a second view of what v1
//! shows.

mod condition;
mod container;
mod execution;
mod executions;
mod job;
mod jobs;
mod locations;
mod name;
mod operation;
mod operations;
pub(crate) mod policy;
mod revision;
mod revisions;
#[cfg(test)]
mod roundtrip;
mod service;
mod services;
mod shared;
mod words;
mod worker_pool;
mod worker_pools;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lauf_iam::Caller;
use lauf_model::{Condition, ConditionStatus, Meta, Status, Violation};
use lauf_store::{Resource, Stored, Version};
use lauf_wire::google::cloud::location::locations_server::LocationsServer;
use lauf_wire::google::cloud::run::v2::executions_server::ExecutionsServer;
use lauf_wire::google::cloud::run::v2::jobs_server::JobsServer;
use lauf_wire::google::cloud::run::v2::revisions_server::RevisionsServer;
use lauf_wire::google::cloud::run::v2::services_server::ServicesServer;
use lauf_wire::google::cloud::run::v2::tasks_server::TasksServer;
use lauf_wire::google::cloud::run::v2::worker_pools_server::WorkerPoolsServer;
use lauf_wire::google::longrunning::operations_server::OperationsServer;
use lauf_wire::status;
use tonic::service::Routes;
use tonic::{Request, Response};

use self::name::Here;
use crate::api::Api;
use crate::page::Token;
use crate::services::{Expected, Listing};

/// The API whose face this is.
pub(crate) const DOMAIN: &str = "run.googleapis.com";

/// The size of a page when the client names none, and the largest.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// How often an update without an etag is tried again when others change the same thing too.
const UPDATE_TRIES: usize = 5;

/// Everything that the traits are implemented for.
#[derive(Clone)]
struct Face {
    api: Api,
}

/// What answers gRPC requests. The caller must be among a request's extensions.
pub(crate) fn routes(api: &Api) -> Routes {
    let face = || Face { api: api.clone() };
    Routes::new(ServicesServer::new(face()))
        .add_service(RevisionsServer::new(face()))
        .add_service(JobsServer::new(face()))
        .add_service(ExecutionsServer::new(face()))
        .add_service(TasksServer::new(face()))
        .add_service(WorkerPoolsServer::new(face()))
        .add_service(OperationsServer::new(face()))
        .add_service(LocationsServer::new(face()))
}

/// What an RPC ends in.
type Answer<T> = Result<Response<T>, tonic::Status>;

/// Who sent a request, and what it asks.
fn asked<T>(request: Request<T>) -> Result<(Caller, T), tonic::Status> {
    let (_, mut extensions, message) = request.into_parts();
    match extensions.remove::<Caller>() {
        Some(caller) => Ok((caller, message)),
        None => Err(tonic::Status::unauthenticated(
            "Nobody said who is calling.",
        )),
    }
}

/// The answer, its error in the words of v2.
fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    match result {
        Ok(message) => Ok(Response::new(message)),
        Err(error) => Err(status::to_grpc(&words::in_v2(error), DOMAIN)),
    }
}

/// A time as protobuf has it.
fn time(at: Timestamp) -> lauf_wire::Timestamp {
    lauf_wire::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

/// Whether a field says something: is there, and is not as if it were not.
fn says<T: Says>(field: &T) -> bool {
    field.says()
}

trait Says {
    fn says(&self) -> bool;
}

impl<T: Default + PartialEq> Says for Option<T> {
    fn says(&self) -> bool {
        self.as_ref().is_some_and(|value| *value != T::default())
    }
}

impl<T> Says for Vec<T> {
    fn says(&self) -> bool {
        !self.is_empty()
    }
}

impl Says for String {
    fn says(&self) -> bool {
        !self.is_empty()
    }
}

/// The etag of what clients write: of what is wanted, which the controllers' work does not change.
fn etag(meta: &Meta) -> String {
    STANDARD.encode(format!("{}/{}", meta.generation, meta.uid))
}

/// What a client expects that sends this etag of the thing with this `meta`; nothing if it is empty.
fn expected(etag: &str, meta: &Meta) -> Result<Expected, Status> {
    if etag.is_empty() {
        return Ok(Expected::default());
    }
    let wrong = || {
        Status::invalid(vec![Violation::new(
            "etag",
            format!("'{etag}' is not one that a read gave."),
        )])
    };
    let bytes = crate::etag::bytes(etag).ok_or_else(wrong)?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (generation, uid) = text.split_once('/').ok_or_else(wrong)?;
    let generation: i64 = generation.parse().map_err(|_| wrong())?;
    // Another of this name has none of the generations that the client saw.
    Ok(Expected {
        version: Some(Version::ZERO),
        generation: (meta.uid == uid).then_some(generation),
    })
}

/// Whether nothing is under way: the controllers are done with the current generation.
fn settled(meta: &Meta, observed: i64, conditions: &[Condition]) -> bool {
    let ready = lauf_model::condition::find(conditions, "Ready");
    meta.deleted.is_none()
        && observed >= meta.generation
        && ready.is_some_and(|c| c.status != ConditionStatus::Unknown)
}

/// An error of a creation, in which a name is a field of the request beside the resource.
fn renamed(mut status: Status, field: &str) -> Status {
    for violation in &mut status.violations {
        if violation.field == "metadata.name" {
            field.clone_into(&mut violation.field);
        }
    }
    status
}

/// A page of a project's resources, in one region or all.
async fn page<T: Resource, V>(
    api: &Api,
    here: &Here,
    size: i32,
    token: &str,
    write: impl Fn(Stored<T>) -> Option<V>,
) -> Result<Listing<V>, Status> {
    page_of(api, here, "", size, token, write).await
}

/// The same, of those whose names begin with `prefix`.
async fn page_of<T: Resource, V>(
    api: &Api,
    here: &Here,
    prefix: &str,
    size: i32,
    token: &str,
    write: impl Fn(Stored<T>) -> Option<V>,
) -> Result<Listing<V>, Status> {
    let limit = page_size(size)?;
    let from = Token::decode(token)?;
    api.page_of(&here.project, here.region(), prefix, limit, from, write)
        .await
}

/// How many a client wants at once, within bounds.
fn page_size(size: i32) -> Result<usize, Status> {
    match usize::try_from(size) {
        Ok(0) => Ok(PAGE),
        Ok(size) => Ok(size.min(MAX_PAGE)),
        Err(_) => Err(Status::invalid(vec![Violation::new(
            "page_size",
            format!("is {size}; must be 0 or more."),
        )])),
    }
}

/// The token of the next page, as lists carry it.
fn next<V>(page: &Listing<V>) -> String {
    page.next.as_ref().map(Token::encode).unwrap_or_default()
}
