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
use crate::audit::Client;
use crate::audit::rpc::Audited;
use crate::host::{self, Host, Target};
use crate::reply::{self, Reply};
use crate::{
    eventarc, kube, logging, native, pubsub, resourcemanager, scheduler, serviceusage, tasks, v1,
    v2,
};

/// The longest path and query that is read, in bytes.
const MAX_URI: usize = 16 << 10;

/// All faces behind one door.
#[derive(Clone)]
pub(crate) struct Door {
    api: Api,
    /// What answers RPCs.
    rpcs: Audited,
    transcoder: Arc<Transcoder>,
    /// Whether this is the door of a Pub/Sub emulator: nobody is asked who they are, and nothing else
    /// is behind it.
    emulator: bool,
}

impl Door {
    pub(crate) fn new(api: Api) -> Self {
        let transcoder = Transcoder::new(lauf_wire::pool(), BINDINGS);
        Self {
            rpcs: Audited {
                rpcs: routes(&api).prepare(),
                api: api.clone(),
            },
            api,
            transcoder: Arc::new(transcoder.expect("a test of lauf-wire reads the whole table")),
            emulator: false,
        }
    }

    /// The door of a Pub/Sub emulator.
    pub(crate) fn emulator(api: Api) -> Self {
        Self {
            emulator: true,
            ..Self::new(api)
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
        if !self.emulator && kube::is_kubernetes(&request) {
            return match self.let_in(&request) {
                Ok((caller, host, _)) => kube::answer(&self.api, caller, host, request).await,
                Err(error) => kube::refuse(error),
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
        if self.emulator {
            if is_grpc(request.headers()) && !is_pubsub(uri.path()) {
                return Err(Status::new(
                    Code::Unimplemented,
                    format!("{} is not a method of Pub/Sub.", uri.path()),
                ));
            }
            let caller = Caller {
                principal: self.api.deps.iam.admin().to_owned(),
            };
            return Ok((caller, host::parse(pubsub::DOMAIN), Target::PubSub));
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
            let most = self.largest(is_pubsub(parts.uri.path()));
            let body = self.api.body(body, most).await?;
            Request::from_parts(parts, tonic::body::Body::new(Full::new(body)))
        };
        let mut response = ok(self.rpcs.oneshot(request).await);
        status::fit(response.headers_mut());
        Ok(response.map(Body::new))
    }

    /// The largest body of a request: messages may be large, resources are not.
    fn largest(&self, messages: bool) -> usize {
        if messages {
            pubsub::MAX_REQUEST
        } else {
            self.api.config.max_body
        }
    }

    async fn rest(self, request: Request<Body>) -> Result<Reply, Status> {
        let (caller, host, target) = self.let_in(&request)?;
        let path = request.uri().path();
        let apis: &[&str] = match target {
            Target::Run if host.is_own() => &[
                v2::DOMAIN,
                pubsub::DOMAIN,
                scheduler::DOMAIN,
                tasks::DOMAIN,
                eventarc::DOMAIN,
                eventarc::PUBLISHING,
            ],
            Target::Run => &[v2::DOMAIN],
            Target::PubSub => &[pubsub::DOMAIN],
            Target::Scheduler => &[scheduler::DOMAIN],
            Target::Tasks => &[tasks::DOMAIN],
            Target::Eventarc => &[eventarc::DOMAIN, eventarc::PUBLISHING],
            _ => &[],
        };
        let found = apis.iter().find_map(|domain| {
            let found = self.transcoder.find(domain, request.method(), path)?;
            Some((found, *domain))
        });
        if let Some((found, domain)) = found {
            let most = self.largest(domain == pubsub::DOMAIN);
            let (parts, body) = request.into_parts();
            let mut rest = Rest {
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body: self.api.body(body, most).await?,
                ..Rest::default()
            };
            if let Some(client) = parts.extensions.get::<Client>() {
                rest.extensions.insert(*client);
            }
            rest.extensions.insert(caller);
            return Ok(found.answer(rest, self.rpcs).await.map(Body::new));
        }
        let api = &self.api;
        let ask = api.read(caller, host, request).await?;
        let path: Vec<&str> = ask.path.iter().map(String::as_str).collect();
        match (target, path.as_slice()) {
            (_, ["lauf", "v1", ..]) => native::answer(api, &ask, &path).await,
            (Target::Run, _) => {
                let answered = v1::answer(api, &ask, &path).await;
                api.audited(&ask, answered).await
            }
            (Target::ServiceUsage, _) => serviceusage::answer(api, &ask, &path).await,
            (Target::ResourceManager, _) => resourcemanager::answer(api, &ask, &path).await,
            (Target::Logging, _) => logging::answer(api, &ask, &path).await,
            (Target::PubSub | Target::Scheduler | Target::Tasks | Target::Eventarc, _) => {
                Err(ask.no_such_path())
            }
        }
    }
}

/// What answers RPCs, of all APIs: their paths tell them apart.
fn routes(api: &Api) -> Routes {
    let routes = pubsub::add(v2::routes(api), api);
    eventarc::add(tasks::add(scheduler::add(routes, api), api), api)
}

/// Whether an RPC's path is one of Pub/Sub's.
fn is_pubsub(path: &str) -> bool {
    path.starts_with("/google.pubsub.") || path.starts_with("/google.iam.v1.IAMPolicy/")
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
