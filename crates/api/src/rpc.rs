//! What the faces of messages, schedules and tasks have in common: who asks what, how it is answered, and
//! the plain things of protobuf, both ways.

use std::time::Duration;

use jiff::Timestamp;
use lauf_iam::Caller;
use lauf_model::{Code, Status, Violation};
use lauf_wire::status;
use tonic::{Request, Response};

use crate::api::Api;

/// What an RPC ends in.
pub(crate) type Answer<T> = Result<Response<T>, tonic::Status>;

/// The answer, its error in the name of an API.
pub(crate) fn answer<T>(domain: &'static str, result: Result<T, Status>) -> Answer<T> {
    match result {
        Ok(message) => Ok(Response::new(message)),
        Err(error) => Err(status::to_grpc(&error, domain)),
    }
}

/// What a request asks, if somebody vouches for who sent it.
pub(crate) fn asked<T>(request: Request<T>) -> Result<T, tonic::Status> {
    let (_, extensions, message) = request.into_parts();
    match extensions.get::<Caller>() {
        Some(_) => Ok(message),
        None => Err(tonic::Status::unauthenticated(
            "Nobody said who is calling.",
        )),
    }
}

/// A name below a region, with the project's id in place of its number.
pub(crate) async fn located(api: &Api, field: &str, text: &str) -> Result<String, Status> {
    let mut words = text.splitn(5, '/');
    let words: [Option<&str>; 5] = std::array::from_fn(|_| words.next());
    let [
        Some("projects"),
        Some(project),
        Some("locations"),
        Some(location),
        rest,
    ] = words
    else {
        return Err(wrong(
            field,
            format!("'{text}' does not begin with projects/PROJECT/locations/LOCATION."),
        ));
    };
    let project = api.project(project).await?.id;
    let location = api.known_region(location)?;
    let rest = rest.map(|rest| format!("/{rest}")).unwrap_or_default();
    Ok(format!("projects/{project}/locations/{location}{rest}"))
}

/// The project and the region of `projects/P/locations/L`.
pub(crate) async fn parent(api: &Api, field: &str, text: &str) -> Result<(String, String), Status> {
    let name = located(api, field, text).await?;
    match name.split('/').collect::<Vec<_>>()[..] {
        [_, project, _, location] => Ok((project.to_owned(), location.to_owned())),
        _ => Err(wrong(
            field,
            format!("'{text}' has not the form projects/PROJECT/locations/LOCATION."),
        )),
    }
}

/// What is wrong when a new thing's name is not below the parent that the request names.
pub(crate) fn below(field: &str, name: &str, parent: &str) -> Result<(), Status> {
    match name.strip_prefix(parent) {
        Some(rest) if rest.starts_with('/') => Ok(()),
        _ => Err(wrong(
            field,
            format!("'{name}' is not below the request's parent, '{parent}'."),
        )),
    }
}

pub(crate) fn wrong(field: &str, description: impl Into<String>) -> Status {
    Status::invalid(vec![Violation::new(field, description)])
}

pub(crate) fn unsupported(field: &str) -> Status {
    wrong(
        field,
        "It is not supported by this version of Lauf; leave it out.",
    )
}

/// Names each field that says something and is not supported.
pub(crate) fn refuse_all(fields: &[(&str, bool)]) -> Result<(), Status> {
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
pub(crate) fn size(asked: i32) -> Result<usize, Status> {
    usize::try_from(asked).map_err(|_| wrong("page_size", format!("{asked} is negative.")))
}

pub(crate) fn time(at: Timestamp) -> lauf_wire::Timestamp {
    lauf_wire::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

pub(crate) fn read_time(field: &str, sent: &lauf_wire::Timestamp) -> Result<Timestamp, Status> {
    Timestamp::new(sent.seconds, sent.nanos)
        .map_err(|error| wrong(field, format!("It is no time: {error}.")))
}

pub(crate) fn duration(of: Duration) -> lauf_wire::Duration {
    lauf_wire::Duration {
        seconds: i64::try_from(of.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(of.subsec_nanos()).unwrap_or(0),
    }
}

pub(crate) fn read_duration(field: &str, sent: &lauf_wire::Duration) -> Result<Duration, Status> {
    let seconds = u64::try_from(sent.seconds);
    let nanos = u32::try_from(sent.nanos);
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(wrong(field, "It must be a duration that is not negative.")),
    }
}

/// The paths of a mask. One that names nothing is an error: nothing would be changed.
pub(crate) fn paths(mask: Option<lauf_wire::FieldMask>) -> Result<Vec<String>, Status> {
    let paths = mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.is_empty() {
        return Err(wrong(
            "update_mask",
            "The update_mask in the request must name at least one field.",
        ));
    }
    Ok(paths)
}

pub(crate) fn missing(field: &str) -> Status {
    Status::new(
        Code::InvalidArgument,
        format!("Missing required field: {field}."),
    )
}
