//! One request, from the socket's side to the face that answers it: bound, authenticate, tell by host
//! which API it is for, tell gRPC from REST, dispatch by path.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use http::{HeaderMap, Request, header};
use http_body_util::Full;
use lauf_iam::Caller;
use lauf_model::{Code, Status};
use lauf_wire::{BINDINGS, Rest, Transcoder, status};
use tonic::service::Routes;
use tower::ServiceExt as _;

use crate::api::Api;
use crate::host::{self, Host, Target};
use crate::reply::{self, Reply};
use crate::{logging, native, resourcemanager, serviceusage, v1, v2};

/// The longest path and query that is read, in bytes.
const MAX_URI: usize = 16 << 10;

/// All faces behind one door.
#[derive(Clone)]
pub(crate) struct Door {
    api: Api,
    /// What answers RPCs.
    rpcs: Routes,
    transcoder: Arc<Transcoder>,
}

impl Door {
    pub(crate) fn new(api: Api) -> Self {
        let transcoder = Transcoder::new(lauf_wire::pool(), BINDINGS);
        Self {
            rpcs: v2::routes(&api),
            api,
            transcoder: Arc::new(transcoder.expect("a test of lauf-wire reads the whole table")),
        }
    }

    /// Answers any request; errors too are answers.
    pub(crate) async fn answer(self, request: Request<Body>) -> Reply {
        if is_grpc(request.headers()) {
            return match self.grpc(request).await {
                Ok(reply) => reply,
                Err(error) => status::refuse(&error, v2::DOMAIN).map(Body::new),
            };
        }
        match self.rest(request).await {
            Ok(reply) => reply,
            Err(error) => reply::error(&error),
        }
    }

    /// Who is calling and which API is meant.
    fn let_in(&self, request: &Request<Body>) -> Result<(Caller, Host, Target), Status> {
        let uri = request.uri();
        if uri.path().len() + uri.query().map_or(0, str::len) > MAX_URI {
            return Err(Status::new(
                Code::InvalidArgument,
                format!("The request's path and query are longer than {MAX_URI} bytes."),
            ));
        }
        let caller = self.api.authenticate(request)?;
        let authority = uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| request.headers().get(header::HOST)?.to_str().ok())
            .unwrap_or_default();
        let host = host::parse(authority);
        match host.service {
            Ok(target) => Ok((caller, host, target)),
            Err(name) => Err(Status::new(
                Code::Unimplemented,
                format!("{name} is not served by this version of Lauf."),
            )),
        }
    }

    async fn grpc(self, mut request: Request<Body>) -> Result<Reply, Status> {
        let (caller, _, _) = self.let_in(&request)?;
        request.extensions_mut().insert(caller);
        let request = if lauf_wire::client_streams(request.uri().path()) {
            request.map(tonic::body::Body::new)
        } else {
            let (parts, body) = request.into_parts();
            let body = self.api.body(body).await?;
            Request::from_parts(parts, tonic::body::Body::new(Full::new(body)))
        };
        let mut response = ok(self.rpcs.oneshot(request).await);
        status::fit(response.headers_mut());
        Ok(response.map(Body::new))
    }

    async fn rest(self, request: Request<Body>) -> Result<Reply, Status> {
        let (caller, host, target) = self.let_in(&request)?;
        let path = request.uri().path();
        if target == Target::Run
            && let Some(found) = self.transcoder.find(v2::DOMAIN, request.method(), path)
        {
            let (parts, body) = request.into_parts();
            let mut rest = Rest {
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body: self.api.body(body).await?,
                ..Rest::default()
            };
            rest.extensions.insert(caller);
            return Ok(found.answer(rest, self.rpcs).await.map(Body::new));
        }
        let api = &self.api;
        let ask = api.read(caller, host, request).await?;
        let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
        match (target, path.as_slice()) {
            (_, ["lauf", "v1", ..]) => native::answer(api, &ask, &path).await,
            (Target::Run, _) => v1::answer(api, &ask, &path).await,
            (Target::ServiceUsage, _) => serviceusage::answer(api, &ask, &path).await,
            (Target::ResourceManager, _) => resourcemanager::answer(api, &ask, &path).await,
            (Target::Logging, _) => logging::answer(api, &ask, &path).await,
        }
    }
}

/// gRPC, but not gRPC-Web, which is another protocol.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(|v| v.as_bytes());
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

fn ok<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}
