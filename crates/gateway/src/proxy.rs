//! Stop 5: a request to its container and the response back, both streamed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, REFERER, TRANSFER_ENCODING, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::SignedDuration;
use lauf_engine::{ExitReason, Instance, InstanceState};
use lauf_model::Protocol;

use crate::admit::{Denied, Refusal, admit};
use crate::body::{Download, Ended, Outgoing, Upload, UploadState};
use crate::error_page;
use crate::headers;
use crate::listener::Peer;
use crate::meter::{Outcome, RequestRecord};
use crate::pool::{Lease, Refused, RevisionPool};
use crate::route::ServiceRoute;
use crate::slot::Slots;
use crate::thread::Thread;
use crate::trace;
use crate::upstream::Sender;

/// A connection that was idle for longer may just be closing, so a request that may be repeated is
/// kept until its response begins.
const FRESH: Duration = Duration::from_millis(100);
/// How long to wait, once a connection broke, for the engine to say that the instance has ended.
const OBITUARY: Duration = Duration::from_millis(200);
/// Other instances to try for a request of which nothing was sent.
const INSTANCES: usize = 3;
/// Revisions to try while routes change.
const REVISIONS: usize = 3;

/// Serves a request to a service.
pub(crate) async fn serve(
    thread: Rc<Thread>,
    peer: Rc<Peer>,
    route: Arc<ServiceRoute>,
    host: HeaderValue,
    name: &str,
    mut request: Request<Incoming>,
) -> Result<Response<Outgoing>, Ended> {
    let mut exchange = Exchange::begin(thread, &peer, Arc::clone(&route), host, &request);
    if let Err(refusal) = admit(&route, name, peer.internal, request.headers_mut()) {
        let path = request.uri().path();
        let response = match refusal {
            Refusal::Hidden => error_page::not_found(),
            Refusal::Denied(Denied::Forbidden) => error_page::forbidden(path),
            Refusal::Denied(Denied::Unauthenticated) => error_page::unauthorized(path),
        };
        return Ok(exchange.refused(
            response,
            "The request was not authorized to invoke this service.",
        ));
    }
    let Some(mut pool) = route.pick(&exchange.thread.random).cloned() else {
        return Ok(exchange.unavailable(error_page::NO_REVISION));
    };
    if request.body().size_hint().lower() > exchange.body_limit(&pool) {
        let response =
            error_page::text(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large.");
        return Ok(exchange.refused(response, "The request body is too large."));
    }
    let mut lease = match pool.try_acquire(exchange.received) {
        Some(lease) => lease,
        None => match Box::pin(wait(&mut exchange, &mut pool, name)).await {
            Ok(lease) => lease,
            Err(refused) => return Ok(exchange.no_instance(&refused)),
        },
    };
    exchange.take(&pool, &lease);

    let upgrade = headers::upgrade(request.headers()).filter(|_| pool.protocol == Protocol::Http1);
    let client_side = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let (mut outbound, upload) = prepare(&mut exchange, &peer, &pool, request, upgrade);

    let mut deadline = Some(tokio::time::sleep(pool.timeout));
    let mut tries = INSTANCES;
    let answered = loop {
        let attempt = attempt(&exchange.thread, &pool, &lease.slots, outbound);
        let result = {
            let deadline = deadline
                .take()
                .unwrap_or_else(|| tokio::time::sleep(pool.timeout));
            let mut deadline = std::pin::pin!(deadline);
            tokio::select! {
                biased;
                result = attempt => result,
                () = deadline.as_mut() => Err(Failure::TimedOut),
            }
        };
        match result {
            Ok(answered) => break answered,
            Err(Failure::NotSent(unsent)) if tries > 0 => {
                // The instance is gone or going; nothing of the request has reached it.
                tries -= 1;
                obituary(&lease.slots.instance).await;
                drop(lease);
                lease = match Box::pin(wait(&mut exchange, &mut pool, name)).await {
                    Ok(lease) => lease,
                    Err(refused) => return Ok(exchange.no_instance(&refused)),
                };
                exchange.take(&pool, &lease);
                outbound = *unsent;
            }
            Err(failure) => {
                return Box::pin(failed(exchange, &lease, failure, upload.as_deref())).await;
            }
        }
    };
    let (sender, mut response) = answered;
    exchange.record.status = response.status();
    exchange.upload = upload;
    exchange.lease = Some(lease);

    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client_side) = client_side else {
            // Nobody asked for it.
            drop(sender);
            return Ok(exchange.malformed());
        };
        let protocol = headers::upgrade(response.headers());
        let container_side = hyper::upgrade::on(&mut response);
        let (mut head, _) = response.into_parts();
        headers::prepare_response(&mut head.headers);
        if let Some(protocol) = protocol {
            headers::set_upgrade(&mut head.headers, protocol);
        }
        tokio::task::spawn_local(join(exchange, client_side, container_side, pool.timeout));
        return Ok(Response::from_parts(head, Outgoing::Full(None)));
    }

    exchange.sender = Some(sender);
    headers::prepare_response(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    let (head, body) = response.into_parts();
    let body = if body.is_end_stream() {
        exchange.complete(0);
        // The length of a response to HEAD is in its headers.
        Outgoing::Full(None)
    } else {
        let elapsed = exchange.thread.now().saturating_sub(exchange.dispatched);
        let left = pool.timeout.saturating_sub(elapsed);
        Outgoing::Container(Box::new(Download {
            body,
            exchange: Some(exchange),
            deadline: Box::pin(tokio::time::sleep(left)),
            bytes: 0,
        }))
    };
    Ok(Response::from_parts(head, body))
}

/// Waits in the queue of a revision for a slot.
async fn wait(
    exchange: &mut Exchange,
    pool: &mut Arc<RevisionPool>,
    name: &str,
) -> Result<Lease, Refused> {
    let began = exchange.thread.now();
    let mut result = Err(Refused::NoInstance);
    for _ in 0..REVISIONS {
        result = match pool.enqueue() {
            Ok(waiter) => tokio::time::timeout(pool.queue_deadline(), waiter)
                .await
                .unwrap_or(Err(Refused::NoInstance)),
            Err(refused) => Err(refused),
        };
        if !matches!(result, Err(Refused::Retired)) {
            break;
        }
        // The routes have changed since this request looked at them.
        let newer = {
            let mut routes = exchange.thread.routes.borrow_mut();
            let route = routes.load().get(name).cloned();
            route.and_then(|route| route.pick(&exchange.thread.random).cloned())
        };
        match newer {
            Some(newer) => *pool = newer,
            None => break,
        }
    }
    exchange.record.waited += exchange.thread.now().saturating_sub(began);
    result
}

/// Makes the container's request of the client's.
fn prepare(
    exchange: &mut Exchange,
    peer: &Peer,
    pool: &RevisionPool,
    request: Request<Incoming>,
    upgrade: Option<HeaderValue>,
) -> (Request<Upload>, Option<Rc<UploadState>>) {
    let (mut head, body) = request.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    headers::reduce_te(&mut head.headers);
    headers::prepare_request(&mut head.headers, &peer.client);
    exchange.record.trace = trace::ensure(&mut head.headers, &exchange.thread.random);
    let target = target(&head.uri);
    match pool.protocol {
        Protocol::Http1 => {
            head.version = Version::HTTP_11;
            head.uri = Uri::from(target);
            if exchange.record.protocol == Version::HTTP_2 {
                headers::join_cookies(&mut head.headers);
            }
            // The host of an absolute URI or of `:authority` wins over any other.
            let host = exchange.record.host.clone();
            head.headers.insert(HOST, host);
            if let Some(protocol) = upgrade {
                headers::set_upgrade(&mut head.headers, protocol);
            } else if !body.is_end_stream() && !head.headers.contains_key(CONTENT_LENGTH) {
                // Said openly, or the client side would drop the body of a GET.
                head.headers
                    .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
        }
        Protocol::H2c => {
            head.version = Version::HTTP_2;
            head.headers.remove(HOST);
            let authority = exchange.record.host.as_bytes();
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(if peer.client.scheme == "https" {
                Scheme::HTTPS
            } else {
                Scheme::HTTP
            });
            parts.authority = http::uri::Authority::try_from(authority).ok();
            parts.path_and_query = Some(target);
            if let Ok(uri) = Uri::from_parts(parts) {
                head.uri = uri;
            }
        }
    }
    head.extensions.clear();
    let limit = exchange.body_limit(pool);
    if body.is_end_stream() {
        return (Request::from_parts(head, Upload::Empty), None);
    }
    let state = Rc::new(UploadState::default());
    let upload = Upload::Stream {
        body,
        limit,
        state: Rc::clone(&state),
    };
    (Request::from_parts(head, upload), Some(state))
}

fn target(uri: &Uri) -> PathAndQuery {
    uri.path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Why an attempt brought no response.
enum Failure {
    /// Nothing of the request has reached the instance.
    NotSent(Box<Request<Upload>>),
    /// The connection broke, or what came was no HTTP.
    Broken,
    /// The request's time is up.
    TimedOut,
}

/// Sends a request on a connection that is there, or on a new one.
async fn attempt(
    thread: &Thread,
    pool: &RevisionPool,
    slots: &Slots,
    mut request: Request<Upload>,
) -> Result<(Sender, Response<Incoming>), Failure> {
    while let Some(mut reused) = thread.upstreams.reuse(slots, thread.now()) {
        let repeat = (reused.idle > FRESH)
            .then(|| repeatable(&request))
            .flatten();
        match reused.sender.send(request).await {
            Ok(response) => return Ok((reused.sender, response)),
            Err(failed) => match failed
                .request
                .or_else(|| repeat.filter(|_| stale(&failed.error)))
            {
                Some(unsent) => request = unsent,
                None => return Err(Failure::Broken),
            },
        }
    }
    let Ok(mut sender) = thread
        .upstreams
        .connect(slots, pool.port, pool.protocol)
        .await
    else {
        return Err(Failure::NotSent(Box::new(request)));
    };
    match sender.send(request).await {
        Ok(response) => Ok((sender, response)),
        Err(failed) => Err(match failed.request {
            Some(unsent) => Failure::NotSent(Box::new(unsent)),
            None => Failure::Broken,
        }),
    }
}

/// Whether a used connection was closed before any of the response came.
fn stale(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || error.is_closed() || error.is_canceled() || is_reset(error)
}

fn is_reset(error: &hyper::Error) -> bool {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .is_some_and(|io| {
            matches!(
                io.kind(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
            )
        })
}

/// A copy of a request that may be sent twice (RFC 9110, section 9.2.2) and has no body.
fn repeatable(request: &Request<Upload>) -> Option<Request<Upload>> {
    if !request.method().is_idempotent() || !matches!(request.body(), Upload::Empty) {
        return None;
    }
    let mut copy = Request::new(Upload::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Waits a moment for the engine to notice that an instance has ended, and says why it did.
async fn obituary(instance: &Instance) -> Option<ExitReason> {
    let mut state = instance.state.clone();
    let exited = state.wait_for(|s| matches!(s, InstanceState::Exited(_)));
    match tokio::time::timeout(OBITUARY, exited).await {
        Ok(Ok(state)) => match &*state {
            InstanceState::Exited(exit) => Some(exit.reason),
            _ => None,
        },
        _ => None,
    }
}

/// Answers for an instance that did not.
async fn failed(
    exchange: Exchange,
    lease: &Lease,
    failure: Failure,
    upload: Option<&UploadState>,
) -> Result<Response<Outgoing>, Ended> {
    if let Some(upload) = upload {
        if upload.too_large.get() {
            let response =
                error_page::text(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large.");
            return Ok(exchange.refused(response, "The request body is too large."));
        }
        if upload.client_failed.get() {
            exchange.end(0, Outcome::Failed(error_page::CLIENT_GONE));
            return Err(Ended("the client's request ended early"));
        }
    }
    if matches!(failure, Failure::TimedOut) {
        let response = error_page::text(StatusCode::GATEWAY_TIMEOUT, error_page::TIMEOUT);
        return Ok(exchange.refused(response, error_page::TIMEOUT));
    }
    if obituary(&lease.slots.instance).await == Some(ExitReason::OutOfMemory) {
        let response =
            error_page::text(StatusCode::INTERNAL_SERVER_ERROR, error_page::OUT_OF_MEMORY);
        return Ok(exchange.refused(response, error_page::OUT_OF_MEMORY));
    }
    Ok(exchange.malformed())
}

/// Copies bytes both ways once both sides have changed to another protocol. Each direction ends for
/// itself; the request's timeout ends both.
async fn join(
    exchange: Exchange,
    client: hyper::upgrade::OnUpgrade,
    container: hyper::upgrade::OnUpgrade,
    timeout: Duration,
) {
    let copied = tokio::time::timeout(timeout, async {
        let (client, container) = tokio::try_join!(client, container).ok()?;
        let (mut client, mut container) = (TokioIo::new(client), TokioIo::new(container));
        tokio::io::copy_bidirectional(&mut client, &mut container)
            .await
            .ok()
    })
    .await;
    match copied {
        Ok(Some((up, down))) => {
            let mut exchange = exchange;
            exchange.record.request_bytes = up;
            exchange.complete(down);
        }
        Ok(None) => exchange.broken(0),
        Err(_) => exchange.timed_out(0),
    }
}

/// A request under way: what will be recorded of it, and what it holds.
pub(crate) struct Exchange {
    thread: Rc<Thread>,
    record: RequestRecord,
    received: Duration,
    /// When it got its instance.
    dispatched: Duration,
    lease: Option<Lease>,
    sender: Option<Sender>,
    upload: Option<Rc<UploadState>>,
}

impl Exchange {
    fn begin(
        thread: Rc<Thread>,
        peer: &Peer,
        route: Arc<ServiceRoute>,
        host: HeaderValue,
        request: &Request<Incoming>,
    ) -> Self {
        let received = thread.now();
        let record = RequestRecord {
            route,
            revision: None,
            instance: None,
            received: jiff::Timestamp::UNIX_EPOCH,
            latency: Duration::ZERO,
            waited: Duration::ZERO,
            method: request.method().clone(),
            scheme: peer.client.scheme,
            host,
            uri: request.uri().clone(),
            protocol: request.version(),
            status: StatusCode::OK,
            request_bytes: 0,
            response_bytes: 0,
            user_agent: request.headers().get(USER_AGENT).cloned(),
            referer: request.headers().get(REFERER).cloned(),
            remote: peer.address.ip(),
            trace: 0,
            outcome: Outcome::Complete,
        };
        Self {
            thread,
            record,
            received,
            dispatched: received,
            lease: None,
            sender: None,
            upload: None,
        }
    }

    fn take(&mut self, pool: &RevisionPool, lease: &Lease) {
        self.dispatched = if self.record.waited.is_zero() {
            self.received
        } else {
            self.thread.now()
        };
        self.record.revision = Some(Arc::clone(pool.key()));
        self.record.instance = Some(Arc::clone(&lease.slots.instance));
    }

    fn body_limit(&self, pool: &RevisionPool) -> u64 {
        match pool.protocol {
            Protocol::Http1 => self
                .thread
                .shared
                .config
                .limits
                .http1_request_body
                .unwrap_or(u64::MAX),
            Protocol::H2c => u64::MAX,
        }
    }

    /// The whole response went to the client.
    pub(crate) fn complete(mut self, bytes: u64) {
        if let (Some(sender), Some(lease)) = (self.sender.take(), &self.lease) {
            // One that still sends an upload is not ready and will not be used again.
            let now = self.thread.now();
            self.thread.upstreams.put_back(&lease.slots, sender, now);
        }
        self.end(bytes, Outcome::Complete);
    }

    /// The client went away.
    pub(crate) fn abandoned(self, bytes: u64) {
        self.end(bytes, Outcome::Failed(error_page::CLIENT_GONE));
    }

    /// The container's response broke off.
    pub(crate) fn broken(self, bytes: u64) {
        self.end(bytes, Outcome::Failed(error_page::MALFORMED));
    }

    /// The request's time ran out while the response was under way.
    pub(crate) fn timed_out(self, bytes: u64) {
        self.end(bytes, Outcome::Failed(error_page::TIMEOUT));
    }

    fn malformed(self) -> Response<Outgoing> {
        self.unavailable(error_page::MALFORMED)
    }

    fn unavailable(self, why: &'static str) -> Response<Outgoing> {
        let response = error_page::text(StatusCode::SERVICE_UNAVAILABLE, why);
        self.refused(response, why)
    }

    fn no_instance(self, refused: &Refused) -> Response<Outgoing> {
        match refused {
            Refused::NoInstance => {
                self.refused(error_page::rate_exceeded(), error_page::NO_INSTANCE)
            }
            Refused::StartFailed(_) => self.unavailable(error_page::START_FAILED),
            Refused::Retired => self.unavailable(error_page::NO_REVISION),
        }
    }

    fn refused(mut self, response: Response<Outgoing>, why: &'static str) -> Response<Outgoing> {
        self.record.status = response.status();
        let bytes = response.body().size_hint().lower();
        self.end(bytes, Outcome::Failed(why));
        response
    }

    fn end(mut self, bytes: u64, outcome: Outcome) {
        // The slot first: somebody may be waiting for it.
        self.sender = None;
        self.lease = None;
        let mut record = self.record;
        record.latency = self.thread.now().saturating_sub(self.received);
        let latency = SignedDuration::try_from(record.latency).unwrap_or_default();
        record.received = self.thread.shared.clock.now() - latency;
        record.response_bytes = bytes;
        record.outcome = outcome;
        if let Some(upload) = &self.upload {
            record.request_bytes = upload.bytes.get();
        }
        self.thread.meter.record(record);
    }
}
