//! Stop 5: a request to its container and the response back, both streamed.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, REFERER, TRANSFER_ENCODING, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body;
use jiff::SignedDuration;
use lauf_engine::{ExitReason, Instance, InstanceState, StartError};
use lauf_model::Protocol;

use crate::admit::{Denied, Refusal, admit};
use crate::alarm::Alarm;
use crate::body::{Download, Ended, FromClient, FromContainer, Outgoing, Upload, UploadState};
use crate::error_page;
use crate::h1::client;
use crate::headers;
use crate::io::Conn;
use crate::listener::Peer;
use crate::meter::{Outcome, RequestRecord};
use crate::pool::{Lease, Refused, RevisionPool};
use crate::route::ServiceRoute;
use crate::slot::Slots;
use crate::switch::{Join, Switch};
use crate::thread::Thread;
use crate::trace;

/// A connection that was idle for longer may just be closing.
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
    mut request: Request<FromClient>,
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
    let may_switch = upgrade.is_some();
    let (mut outbound, upload) = prepare(&mut exchange, &peer, &pool, request, upgrade);

    let mut tries = INSTANCES;
    let mut response = loop {
        let result = {
            let attempt = attempt(
                &exchange.thread,
                &pool,
                &lease.slots,
                &mut outbound,
                exchange.received,
            );
            let mut attempt = std::pin::pin!(attempt);
            poll_fn(|cx| match attempt.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => exchange.poll_deadline(cx).map(|()| Err(Failure::TimedOut)),
            })
            .await
        };
        match result {
            Ok(response) => break response,
            Err(Failure::NotSent) if tries > 0 => {
                // The instance is gone or going; nothing of the request has reached it.
                tries -= 1;
                obituary(&lease.slots.instance).await;
                drop(lease);
                lease = match Box::pin(wait(&mut exchange, &mut pool, name)).await {
                    Ok(lease) => lease,
                    Err(refused) => return Ok(exchange.no_instance(&refused)),
                };
                exchange.take(&pool, &lease);
            }
            Err(failure) => {
                return Box::pin(failed(exchange, &lease, failure, upload.as_deref())).await;
            }
        }
    };
    exchange.record.status = response.status();
    exchange.upload = upload;
    exchange.lease = Some(lease);

    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let protocol = headers::upgrade(response.headers());
        let (mut head, body) = response.into_parts();
        let FromContainer::Http1(body) = body else {
            return Ok(exchange.malformed());
        };
        if !may_switch {
            // Nobody asked for it.
            return Ok(exchange.malformed());
        }
        let container = Conn::switched(body.into_switched());
        headers::prepare_response(&mut head.headers);
        if let Some(protocol) = protocol {
            headers::set_upgrade(&mut head.headers, protocol);
        }
        let join = Join::new(exchange, container, pool.timeout);
        return Ok(Response::from_parts(
            head,
            Outgoing::Switch(Switch::Join(join)),
        ));
    }

    headers::prepare_response(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    let (head, body) = response.into_parts();
    let body = if body.is_end_stream() {
        exchange.complete(0, body);
        // The length of a response to HEAD is in its headers.
        Outgoing::Full(None)
    } else {
        Outgoing::Container(Box::new(Download {
            body,
            exchange: Some(exchange),
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
    request: Request<FromClient>,
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
            }
            if !body.is_end_stream() && !head.headers.contains_key(CONTENT_LENGTH) {
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
    NotSent,
    /// The connection broke, or what came was no HTTP.
    Broken,
    /// The request's time is up.
    TimedOut,
}

/// Sends a request on a connection that is there, or on a new one. What may be sent twice (RFC 9110, section
/// 9.2.2) is, once, when a connection that was idle ends without a word: the instance was just closing it.
async fn attempt(
    thread: &Thread,
    pool: &RevisionPool,
    slots: &Slots,
    request: &mut Request<Upload>,
    now: Duration,
) -> Result<Response<FromContainer>, Failure> {
    let repeatable = request.method().is_idempotent() && matches!(request.body(), Upload::Empty);
    let mut sent = false;
    while !sent && let Some((reused, since)) = thread.upstreams.reuse(slots) {
        match reused.send(request).await {
            Ok(response) => return Ok(response),
            Err(client::Failure::NotSent) => {}
            Err(client::Failure::Silent) if repeatable && now.saturating_sub(since) > FRESH => {
                sent = true;
            }
            Err(_) => return Err(Failure::Broken),
        }
    }
    let Ok(sender) = thread
        .upstreams
        .connect(slots, pool.port, pool.protocol)
        .await
    else {
        // An instance that nobody can connect to any more may have ended because of this request.
        return Err(if sent {
            Failure::Broken
        } else {
            Failure::NotSent
        });
    };
    sender.send(request).await.map_err(|failure| match failure {
        client::Failure::NotSent if !sent => Failure::NotSent,
        _ => Failure::Broken,
    })
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

/// A request under way: what will be recorded of it, and what it holds.
pub(crate) struct Exchange {
    thread: Rc<Thread>,
    record: RequestRecord,
    received: Duration,
    /// When its time is up, once it has an instance.
    deadline: Duration,
    alarm: Rc<Alarm>,
    lease: Option<Lease>,
    upload: Option<Rc<UploadState>>,
}

impl Exchange {
    fn begin(
        thread: Rc<Thread>,
        peer: &Peer,
        route: Arc<ServiceRoute>,
        host: HeaderValue,
        request: &Request<FromClient>,
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
            deadline: Duration::MAX,
            alarm: match request.version() {
                // Its streams are tasks of their own.
                Version::HTTP_2 => Rc::new(Alarm::new(Duration::MAX)),
                _ => Rc::clone(&peer.alarm),
            },
            lease: None,
            upload: None,
        }
    }

    fn take(&mut self, pool: &RevisionPool, lease: &Lease) {
        let dispatched = if self.record.waited.is_zero() {
            self.received
        } else {
            self.thread.now()
        };
        self.deadline = dispatched + pool.timeout;
        self.record.revision = Some(Arc::clone(pool.key()));
        self.record.instance = Some(Arc::clone(&lease.slots.instance));
    }

    /// Ready when the request's time is up.
    pub(crate) fn poll_deadline(&self, cx: &mut Context<'_>) -> Poll<()> {
        let clock = &*self.thread.shared.clock;
        self.alarm.poll(cx, clock, self.deadline)
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

    /// So many bytes of the client's went to the container.
    pub(crate) fn uploaded(&mut self, bytes: u64) {
        self.record.request_bytes = bytes;
    }

    /// The whole response went to the client.
    pub(crate) fn complete(self, bytes: u64, body: FromContainer) {
        if let (FromContainer::Http1(body), Some(lease)) = (body, &self.lease)
            && let Some(connection) = body.into_connection()
        {
            let now = self.thread.now();
            self.thread
                .upstreams
                .put_back(&lease.slots, connection, now);
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
            Refused::NoInstance | Refused::StartFailed(StartError::NoRoom(_)) => {
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
