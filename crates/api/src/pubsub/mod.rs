//! Pub/Sub's API: `google.pubsub.v1`, as the traits that `lauf-wire` makes of the table of RPCs. gRPC
//! and REST both end here. Wire forms become the types of `lauf-events` and back; nothing is decided.

mod message;
mod policy;
mod publisher;
mod schema;
mod schemas;
mod snapshot;
mod subscriber;
mod subscription;
mod topic;

use std::time::Duration;

use jiff::Timestamp;
use lauf_events::pubsub::PubSub;
use lauf_iam::Caller;
use lauf_model::{Code, Status, Violation};
use lauf_wire::google::iam::v1::i_a_m_policy_server::IAMPolicyServer;
use lauf_wire::google::pubsub::v1::publisher_server::PublisherServer;
use lauf_wire::google::pubsub::v1::schema_service_server::SchemaServiceServer;
use lauf_wire::google::pubsub::v1::subscriber_server::SubscriberServer;
use lauf_wire::status;
use tonic::service::Routes;
use tonic::{Request, Response};

use crate::api::Api;

/// The API whose face this is.
pub(crate) const DOMAIN: &str = "pubsub.googleapis.com";

/// The largest request: ten megabytes of messages, which as JSON take a third more, and what stands
/// around them.
pub(crate) const MAX_REQUEST: usize = 16 << 20;

/// Everything that the traits are implemented for.
#[derive(Clone)]
struct Face {
    api: Api,
    pubsub: PubSub,
}

/// Adds what answers Pub/Sub's RPCs. The caller must be among a request's extensions.
pub(crate) fn add(routes: Routes, api: &Api) -> Routes {
    let face = || Face {
        api: api.clone(),
        pubsub: api.deps.pubsub.clone(),
    };
    let publisher = PublisherServer::new(face()).max_decoding_message_size(MAX_REQUEST);
    routes
        .add_service(publisher)
        .add_service(SubscriberServer::new(face()))
        .add_service(SchemaServiceServer::new(face()))
        .add_service(IAMPolicyServer::new(face()))
}

/// What an RPC ends in.
type Answer<T> = Result<Response<T>, tonic::Status>;

fn answer<T>(result: Result<T, Status>) -> Answer<T> {
    match result {
        Ok(message) => Ok(Response::new(message)),
        Err(error) => Err(refuse(&error)),
    }
}

fn refuse(error: &Status) -> tonic::Status {
    status::to_grpc(error, DOMAIN)
}

/// What a request asks, if somebody vouches for who sent it.
fn asked<T>(request: Request<T>) -> Result<T, tonic::Status> {
    let (_, extensions, message) = request.into_parts();
    match extensions.get::<Caller>() {
        Some(_) => Ok(message),
        None => Err(tonic::Status::unauthenticated(
            "Nobody said who is calling.",
        )),
    }
}

impl Face {
    /// A name with the project's id in place of its number.
    async fn named<T>(
        &self,
        field: &str,
        text: &str,
        parse: impl Fn(&str, &str) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let mut words = text.splitn(3, '/');
        if let (Some("projects"), Some(project), Some(rest)) =
            (words.next(), words.next(), words.next())
            && !project.is_empty()
        {
            let project = self.api.project(project).await?.id;
            return parse(field, &format!("projects/{project}/{rest}"));
        }
        parse(field, text)
    }

    /// The project of `projects/P`.
    async fn project(&self, field: &str, text: &str) -> Result<String, Status> {
        match text.strip_prefix("projects/") {
            Some(project) if !project.is_empty() && !project.contains('/') => {
                Ok(self.api.project(project).await?.id)
            }
            _ => Err(wrong(
                field,
                format!("'{text}' has not the form projects/PROJECT."),
            )),
        }
    }
}

fn wrong(field: &str, description: impl Into<String>) -> Status {
    Status::invalid(vec![Violation::new(field, description)])
}

fn unsupported(field: &str) -> Status {
    wrong(
        field,
        "It is not supported by this version of Lauf; leave it out.",
    )
}

/// Names each field that says something and is not supported.
fn refuse_all(fields: &[(&str, bool)]) -> Result<(), Status> {
    let violations: Vec<Violation> = fields
        .iter()
        .filter(|(_, says)| *says)
        .flat_map(|(field, _)| unsupported(field).violations)
        .collect();
    if violations.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid(violations))
    }
}

/// A page's size; 0 for the default.
fn size(asked: i32) -> Result<usize, Status> {
    usize::try_from(asked).map_err(|_| wrong("page_size", format!("{asked} is negative.")))
}

fn time(at: Timestamp) -> lauf_wire::Timestamp {
    lauf_wire::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

fn read_time(field: &str, sent: &lauf_wire::Timestamp) -> Result<Timestamp, Status> {
    Timestamp::new(sent.seconds, sent.nanos)
        .map_err(|error| wrong(field, format!("It is no time: {error}.")))
}

fn duration(of: Duration) -> lauf_wire::Duration {
    lauf_wire::Duration {
        seconds: i64::try_from(of.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(of.subsec_nanos()).unwrap_or(0),
    }
}

fn read_duration(field: &str, sent: &lauf_wire::Duration) -> Result<Duration, Status> {
    let seconds = u64::try_from(sent.seconds);
    let nanos = u32::try_from(sent.nanos);
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(wrong(field, "It must be a duration that is not negative.")),
    }
}

/// The paths of a mask. One that names nothing is an error: nothing would be changed.
fn paths(mask: Option<lauf_wire::FieldMask>) -> Result<Vec<String>, Status> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Err(wrong(
            "update_mask",
            "The update_mask in the request must name at least one field.",
        ));
    }
    Ok(paths)
}

fn missing(field: &str) -> Status {
    Status::new(
        Code::InvalidArgument,
        format!("Missing required field: {field}."),
    )
}
