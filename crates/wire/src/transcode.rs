//! REST above gRPC: a request with JSON becomes a gRPC request to the face, and its answer JSON.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use lauf_model::{Code, Status, Violation};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use crate::frame::{self, Frames};
use crate::json::{self, Style};
use crate::path::Template;
use crate::query::{self, System};
use crate::router::{Captures, NotText, Router};
use crate::{Binding, status};

/// A message whose content is not JSON.
const HTTP_BODY: &str = "google.api.HttpBody";

/// Knows the HTTP bindings of RPCs, by API.
#[derive(Debug)]
pub struct Transcoder {
    apis: BTreeMap<String, Router<Route>>,
}

/// A binding that cannot be.
#[derive(Debug, PartialEq, Eq)]
pub struct BadBinding(String);

impl fmt::Display for BadBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadBinding {}

/// An RPC behind a path.
#[derive(Debug)]
struct Route {
    path: PathAndQuery,
    /// The API whose error it is when the request cannot be read.
    api: String,
    input: MessageDescriptor,
    output: MessageDescriptor,
    body: Where,
    streams: bool,
}

/// Where in the request the body belongs.
#[derive(Debug)]
enum Where {
    Nowhere,
    Whole,
    Field(FieldDescriptor),
}

/// A request over REST, but for its verb and path.
#[derive(Debug, Default)]
pub struct Rest {
    /// The query, as it came.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// All of the body.
    pub body: Bytes,
    /// What the face is told besides: who is calling.
    pub extensions: Extensions,
}

/// The RPC that a verb and a path mean.
#[derive(Debug)]
pub struct Found<'a> {
    route: &'a Route,
    captures: Result<Captures, NotText>,
}

impl Transcoder {
    /// Learns bindings of RPCs that are in the pool.
    ///
    /// # Errors
    /// For a binding whose RPC, path or body is not there, or is bound already.
    pub fn new(pool: &DescriptorPool, bindings: &[Binding]) -> Result<Self, BadBinding> {
        let mut apis: BTreeMap<String, Router<Route>> = BTreeMap::new();
        for binding in bindings {
            let bad = |why: &dyn fmt::Display| {
                BadBinding(format!("{} {}: {why}", binding.verb, binding.path))
            };
            let service = pool.get_service_by_name(binding.service);
            let method = service.and_then(|service| {
                let mut methods = service.methods();
                methods.find(|method| method.name() == binding.method)
            });
            let method = method.ok_or_else(|| bad(&"there is no such RPC"))?;
            let template = Template::parse(binding.path).map_err(|why| bad(&why))?;
            let input = method.input();
            let body = match binding.body {
                "" => Where::Nowhere,
                "*" => Where::Whole,
                name => match input.get_field_by_name(name) {
                    Some(field) if !field.is_list() && matches!(field.kind(), Kind::Message(_)) => {
                        Where::Field(field)
                    }
                    _ => return Err(bad(&"the body is not a message of the request")),
                },
            };
            for variable in &template.variables {
                let mut request = DynamicMessage::new(input.clone());
                query::set(&mut request, &variable.field, "").map_err(|why| bad(&why))?;
            }
            let path = format!("/{}/{}", binding.service, binding.method);
            let route = Route {
                path: path.parse().map_err(|why| bad(&why))?,
                api: binding.api.to_owned(),
                input,
                output: method.output(),
                body,
                streams: method.is_server_streaming(),
            };
            if method.is_client_streaming() {
                return Err(bad(&"a client cannot stream over REST"));
            }
            let router = apis
                .entry(binding.api.to_owned())
                .or_insert_with(Router::new);
            if router.bind(binding.verb, template, route).is_err() {
                return Err(bad(&"something else is bound to it"));
            }
        }
        Ok(Self { apis })
    }

    /// The RPC of an API that a verb and a path mean. The path is as it came, without the query.
    pub fn find(&self, api: &str, method: &Method, path: &str) -> Option<Found<'_>> {
        let (route, captures) = self.apis.get(api)?.find(method.as_str(), path)?;
        Some(Found { route, captures })
    }
}

impl Found<'_> {
    /// Has the face answer.
    pub async fn answer<S>(self, rest: Rest, face: S) -> Response<Body>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let refuse = |why: &Status| status::http(&status::to_grpc(why, &self.route.api));
        let mut pairs = match query::pairs(&rest.query) {
            Ok(pairs) => pairs,
            Err(why) => return refuse(&why),
        };
        let system = match query::system(&mut pairs) {
            Ok(system) => system,
            Err(why) => return refuse(&why),
        };
        let message = match self.request(pairs, &rest.headers, rest.body) {
            Ok(message) => message,
            Err(why) => return refuse(&why),
        };
        let mut request = Request::new(Body::new(Full::new(frame::one(&message))));
        *request.method_mut() = Method::POST;
        *request.version_mut() = http::Version::HTTP_2;
        *request.uri_mut() = self.route.path.clone().into();
        *request.headers_mut() = metadata(&rest.headers);
        *request.extensions_mut() = rest.extensions;
        let response = match face.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        match self.response(response, system).await {
            Ok(response) => response,
            Err(status) => status::http(&status),
        }
    }

    fn request(
        &self,
        mut pairs: Vec<(String, String)>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<DynamicMessage, Status> {
        let captures = self.captures.as_ref().map_err(|NotText| {
            Status::new(Code::InvalidArgument, "The request's path is not UTF-8.")
        })?;
        let input = &self.route.input;
        let mut wrong = Vec::new();
        pairs.retain(|(key, value)| {
            let known = query::names(input, key);
            let Some((_, set)) = captures
                .iter()
                .find(|(field, _)| known.as_ref() == Some(field))
            else {
                return true;
            };
            if set != value {
                let why = format!("is '{value}', but the path says '{set}'.");
                wrong.push(Violation::new(key, why));
            }
            false
        });
        let in_body = |key: &str| match &self.route.body {
            Where::Nowhere => false,
            Where::Whole => true,
            Where::Field(field) => query::names(input, key)
                .is_some_and(|path| path.split('.').next() == Some(field.name())),
        };
        for (key, _) in pairs.iter().filter(|(key, _)| in_body(key)) {
            wrong.push(Violation::new(
                key,
                "is not a parameter: it belongs in the body.",
            ));
        }
        if !wrong.is_empty() {
            return Err(Status::invalid(wrong));
        }
        let mut message = match &self.route.body {
            Where::Whole => read(input.clone(), headers, body)?,
            Where::Nowhere => {
                if !matches!(body.trim_ascii(), b"" | b"{}") {
                    return Err(Status::new(
                        Code::InvalidArgument,
                        "This method takes no request body.",
                    ));
                }
                query::read(input, &pairs)?
            }
            Where::Field(field) => {
                let mut message = query::read(input, &pairs)?;
                if let Kind::Message(of) = field.kind() {
                    let inner = read(of, headers, body)?;
                    message.set_field(field, Value::Message(inner));
                }
                message
            }
        };
        for (field, value) in captures {
            query::set(&mut message, field, value)?;
        }
        Ok(message)
    }

    async fn response(
        &self,
        response: Response<Body>,
        system: System,
    ) -> Result<Response<Body>, tonic::Status> {
        let (head, body) = response.into_parts();
        let status = tonic::Status::from_header_map(&head.headers);
        if let Some(status) = status.filter(|s| s.code() != tonic::Code::Ok) {
            return Err(status);
        }
        let mut messages = Messages {
            body,
            frames: Frames::default(),
            of: self.route.output.clone(),
        };
        if self.route.streams {
            return streamed(messages, system).await;
        }
        let message = messages.next().await?;
        let message = message.ok_or_else(|| tonic::Status::internal("There was no answer."))?;
        // The status comes after the message.
        while messages.next().await?.is_some() {}
        if messages.of.full_name() == HTTP_BODY {
            let (content_type, data) = raw(&message);
            return Ok(reply(content_type, Body::new(Full::new(data))));
        }
        let text = written(&message, system.style)?;
        Ok(reply(status::JSON, Body::new(Full::new(text.into()))))
    }
}

/// A body as a message.
fn read(of: MessageDescriptor, headers: &HeaderMap, body: Bytes) -> Result<DynamicMessage, Status> {
    if of.full_name() != HTTP_BODY {
        let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
        return json::read(of, text);
    }
    let mut message = DynamicMessage::new(of);
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    message.set_field_by_name("content_type", Value::String(content_type.to_owned()));
    message.set_field_by_name("data", Value::Bytes(body));
    Ok(message)
}

/// What a `google.api.HttpBody` holds.
fn raw(message: &DynamicMessage) -> (HeaderValue, Bytes) {
    let field = |name| message.get_field_by_name(name);
    let content_type = field("content_type").and_then(|value| {
        let text = value.as_str().filter(|text| !text.is_empty())?;
        HeaderValue::from_str(text).ok()
    });
    let data = field("data").and_then(|value| value.as_bytes().cloned());
    let unknown = HeaderValue::from_static("application/octet-stream");
    (content_type.unwrap_or(unknown), data.unwrap_or_default())
}

fn written(message: &DynamicMessage, style: Style) -> Result<Vec<u8>, tonic::Status> {
    json::write(message, style).map_err(|why| tonic::Status::internal(why.message))
}

fn reply(content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    response
}

/// The headers that a face sees: the client's own, without those that are about this connection and
/// this body.
fn metadata(sent: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in sent {
        if name.as_str().starts_with("x-") || name == header::USER_AGENT {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(
        HeaderName::from_static("te"),
        HeaderValue::from_static("trailers"),
    );
    headers
}

/// The messages of a gRPC response, and the error that may end them.
struct Messages {
    body: Body,
    frames: Frames,
    of: MessageDescriptor,
}

impl Messages {
    async fn next(&mut self) -> Result<Option<DynamicMessage>, tonic::Status> {
        let broken = || tonic::Status::internal("The answer cannot be read.");
        loop {
            if let Some(message) = self.frames.next().map_err(|_| broken())? {
                let message = DynamicMessage::decode(self.of.clone(), message);
                return Ok(Some(message.map_err(|_| broken())?));
            }
            match self.body.frame().await {
                Some(frame) => match frame?.into_data() {
                    Ok(data) => self.frames.push(&data),
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        let status = tonic::Status::from_header_map(&trailers);
                        if let Some(status) = status.filter(|s| s.code() != tonic::Code::Ok) {
                            return Err(status);
                        }
                    }
                },
                None if self.frames.is_empty() => return Ok(None),
                None => return Err(broken()),
            }
        }
    }
}

/// A stream as a JSON array whose elements come as they are made, or as server-sent events. An error on
/// the way is the last element, since the HTTP status is gone by then.
async fn streamed(mut messages: Messages, system: System) -> Result<Response<Body>, tonic::Status> {
    if messages.of.full_name() == HTTP_BODY {
        let Some(first) = messages.next().await? else {
            return Ok(reply(
                HeaderValue::from_static("application/octet-stream"),
                Body::empty(),
            ));
        };
        let (content_type, data) = raw(&first);
        let rest = futures_util::stream::try_unfold(messages, async |mut messages| {
            let next = messages.next().await?;
            Ok::<_, tonic::Status>(next.map(|next| (Frame::data(raw(&next).1), messages)))
        });
        let first = futures_util::stream::iter([Ok(Frame::data(data))]);
        let all = futures_util::StreamExt::chain(first, rest);
        return Ok(reply(content_type, Body::new(StreamBody::new(all))));
    }
    let events = system.events;
    let pieces = futures_util::stream::unfold(Some((messages, 0_u64)), move |state| async move {
        let (mut messages, count) = state?;
        let next = match messages.next().await {
            Ok(Some(message)) => written(&message, system.style).map(Some),
            Ok(None) => Ok(None),
            Err(status) => Err(status),
        };
        let (text, goes_on) = match next {
            Ok(Some(text)) => (Some(Bytes::from(text)), true),
            Ok(None) => (None, false),
            Err(status) => (Some(status::body(&status).1), false),
        };
        let piece = piece(text.as_deref(), count, !goes_on, events);
        let state = goes_on.then_some((messages, count + 1));
        Some((Ok::<_, Infallible>(Frame::data(piece)), state))
    });
    let content_type = if events {
        HeaderValue::from_static("text/event-stream")
    } else {
        status::JSON
    };
    Ok(reply(content_type, Body::new(StreamBody::new(pieces))))
}

fn piece(text: Option<&[u8]>, count: u64, last: bool, events: bool) -> Bytes {
    let (before, after): (&[u8], &[u8]) = match (events, text) {
        (true, Some(_)) => (b"data: ", b"\r\n\r\n"),
        (true, None) => (b"", b""),
        (false, None) if count == 0 => (b"[", b""),
        (false, None) => (b"\n", b""),
        (false, Some(_)) if count == 0 => (b"[", b""),
        (false, Some(_)) => (b",\n", b""),
    };
    let end: &[u8] = if last && !events { b"]\n" } else { b"" };
    [before, text.unwrap_or_default(), after, end]
        .concat()
        .into()
}
