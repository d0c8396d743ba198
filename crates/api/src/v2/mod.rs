//! The v2 API: `google.cloud.run.v2`, its operations, locations and IAM policies, as the traits that
//! `lauf-wire` makes of the table of RPCs. gRPC and REST both end here. It is a second view of what v1
//! shows.

mod condition;
mod container;
mod locations;
mod name;
mod operation;
mod operations;
mod policies;
mod policy;
mod revision;
mod revisions;
#[cfg(test)]
mod roundtrip;
mod service;
mod services;
mod words;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use lauf_iam::Caller;
use lauf_model::{Service, ServiceKey, Status, Violation};
use lauf_store::{Resource, Stored, Version};
use lauf_wire::google::cloud::location::locations_server::LocationsServer;
use lauf_wire::google::cloud::run::v2::jobs_server::JobsServer;
use lauf_wire::google::cloud::run::v2::revisions_server::RevisionsServer;
use lauf_wire::google::cloud::run::v2::services_server::ServicesServer;
use lauf_wire::google::cloud::run::v2::worker_pools_server::WorkerPoolsServer;
use lauf_wire::google::longrunning::operations_server::OperationsServer;
use lauf_wire::status;
use tonic::service::Routes;
use tonic::{Request, Response};

use crate::api::Api;
use crate::page::Token;
use crate::services::{Expected, Listing};

/// The API whose face this is.
pub(crate) const DOMAIN: &str = "run.googleapis.com";

/// The size of a page when the client names none, and the largest.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

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
        .add_service(WorkerPoolsServer::new(face()))
        .add_service(OperationsServer::new(face()))
        .add_service(LocationsServer::new(face()))
        .prepare()
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

/// The etag of a service: of what is wanted, which the controllers' work does not change.
fn etag(service: &Service) -> String {
    STANDARD.encode(format!("{}/{}", service.meta.generation, service.meta.uid))
}

/// What a client expects that sends this etag; nothing if it is empty.
async fn expected(api: &Api, key: &ServiceKey, etag: &str) -> Result<Expected, Status> {
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
    // A service of this name that is another one has none of the generations the client saw.
    let same = api.service(key).await?.value.meta.uid == uid;
    Ok(Expected {
        version: Some(Version::ZERO),
        generation: same.then_some(generation),
    })
}

/// A page of a project's resources in one region.
async fn page<T: Resource, V>(
    api: &Api,
    place: &ServiceKey,
    size: i32,
    token: &str,
    write: impl Fn(Stored<T>) -> Option<V>,
) -> Result<Listing<V>, Status> {
    let limit = match usize::try_from(size) {
        Ok(0) => PAGE,
        Ok(size) => size.min(MAX_PAGE),
        Err(_) => {
            return Err(Status::invalid(vec![Violation::new(
                "page_size",
                format!("is {size}; must be 0 or more."),
            )]));
        }
    };
    let from = Token::decode(token)?;
    // No region at all is not served, and `-` is all of them.
    let region = Some(place.region.as_str()).filter(|region| *region != name::ALL);
    api.page(&place.project, region, limit, from, write).await
}

/// The token of the next page, as lists carry it.
fn next<V>(page: &Listing<V>) -> String {
    page.next.as_ref().map(Token::encode).unwrap_or_default()
}
