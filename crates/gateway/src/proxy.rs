//! Stop 5: a request to its container and the response back, both streamed.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{StatusCode, Uri, Version};
use http_body::Body;
use jiff::SignedDuration;
use lauf_engine::{ExitReason, Instance, InstanceState, StartError};
use lauf_model::Protocol;

use crate::admit::{Denied, Refusal, admit};
use crate::affinity;
use crate::alarm::Alarm;
use crate::body::{Download, Ended, FromClient, FromContainer, Outgoing, Upload, UploadState};
use crate::error_page;
use crate::fields::Known;
use crate::h1::client;
use crate::headers;
use crate::host;
use crate::io::Conn;
use crate::listener::Peer;
use crate::message::{Answer, Outbound, RequestHead};
use crate::meter::{Outcome, RequestRecord, Words};
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
    thread: &Rc<Thread>,
    peer: &Peer,
    route: Arc<ServiceRoute>,
    mut head: RequestHead,
    body: FromClient,
) -> Result<Answer, Ended> {
    let mut exchange = Exchange::begin(thread, peer, Arc::clone(&route), &head);
    if let Err(refusal) = admit(
        &route,
        &host::normalize(&exchange.record.host()),
        peer.internal,
        &mut head.fields,
    ) {
        let answer = match refusal {
            Refusal::Hidden => error_page::not_found(),
            Refusal::Denied(Denied::Forbidden) => error_page::forbidden(head.path()),
            Refusal::Denied(Denied::Unauthenticated) => error_page::unauthorized(head.path()),
        };
        return Ok(exchange.refused(
            answer,
            "The request was not authorized to invoke this service.",
        ));
    }
    let staying = affinity::of(&route, &head.fields);
    let picked = match &staying {
        Some((pool, _)) => Some(Arc::clone(pool)),
        None => route.pick(&thread.random).cloned(),
    };
    let Some(mut pool) = picked else {
        return Ok(exchange.unavailable(error_page::NO_REVISION));
    };
    let stays_with = staying.map(|(_, slots)| slots);
    if body.size_hint().lower() > exchange.body_limit(&pool) {
        let answer = error_page::text(StatusCode::PAYLOAD_TOO_LARGE, "Request body is too large.");
        return Ok(exchange.refused(answer, "The request body is too large."));
    }
    let at_once = stays_with
        .as_ref()
        .and_then(|slots| pool.try_acquire_of(slots, exchange.received))
        .or_else(|| pool.try_acquire(exchange.received));
    let mut lease = match at_once {
        Some(lease) => lease,
        None => match Box::pin(wait(&mut exchange, &mut pool)).await {
            Ok(lease) => lease,
            Err(refused) => return Ok(exchange.no_instance(&refused)),
        },
    };
    exchange.take(&pool, &lease);

    let upgrade = headers::upgrade(&head.fields).filter(|_| pool.protocol == Protocol::Http1);
    let may_switch = upgrade.is_some();
    let (mut outbound, upload) = prepare(&mut exchange, peer, &pool, head, body, upgrade);

    let mut tries = INSTANCES;
    let answer = loop {
        let result = {
            let attempt = attempt(&exchange, &pool, &lease.slots, &mut outbound);
            let mut attempt = std::pin::pin!(attempt);
            poll_fn(|cx| match attempt.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => exchange.poll_deadline(cx).map(|()| Err(Failure::TimedOut)),
            })
            .await
        };
        match result {
            Ok(answer) => break answer,
            Err(Failure::NotSent) if tries > 0 => {
                // The instance is gone or going; nothing of the request has reached it.
                tries -= 1;
                obituary(&lease.slots.instance).await;
                drop(lease);
                lease = match Box::pin(wait(&mut exchange, &mut pool)).await {
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
    drop(outbound);
    exchange.record.status = answer.status;
    exchange.upload = upload;
    let mut fields = answer.fields;
    if pool.session_affinity {
        let said = stays_with.is_some_and(|slots| slots.serial == lease.slots.serial);
        affinity::tell(said, &lease.slots, peer.client.scheme, &mut fields);
    }
    exchange.lease = Some(lease);
    let body = match answer.body {
        FromContainer::Http1(body) if answer.status == StatusCode::SWITCHING_PROTOCOLS => {
            if !may_switch {
                // Nobody asked for it.
                return Ok(exchange.malformed());
            }
            let protocol = headers::upgrade(&fields);
            headers::prepare_response(&mut fields);
            if let Some(protocol) = protocol {
                headers::set_upgrade(&mut fields, &protocol);
            }
            let container = Conn::switched(body.into_switched());
            let join = Join::new(exchange, container, pool.timeout);
            Outgoing::Switch(Switch::Join(join))
        }
        body => {
            headers::prepare_response(&mut fields);
            if body.is_end_stream() {
                exchange.complete(0, body);
                // The length of a response to HEAD is in its headers.
                Outgoing::Full(None)
            } else {
                Outgoing::Container(Download {
                    body,
                    exchange: Some(exchange),
                    bytes: 0,
                })
            }
        }
    };
    Ok(Answer {
        status: answer.status,
        fields,
        body,
    })
}

/// Waits in the queue of a revision for a slot.
async fn wait(exchange: &mut Exchange, pool: &mut Arc<RevisionPool>) -> Result<Lease, Refused> {
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
            let host = exchange.record.host();
            let route = routes.load().get(&host::normalize(&host)).cloned();
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
    mut head: RequestHead,
    body: FromClient,
    upgrade: Option<Vec<u8>>,
) -> (Outbound, Option<Rc<UploadState>>) {
    let fields = &mut head.fields;
    headers::strip_hop_by_hop(fields);
    headers::reduce_te(fields);
    headers::prepare_request(fields, &peer.client);
    exchange.record.trace = trace::ensure(fields, &exchange.thread.random);
    match pool.protocol {
        Protocol::Http1 => {
            if head.version == Version::HTTP_2 {
                headers::join_cookies(fields);
            }
            if let Some(protocol) = upgrade {
                headers::set_upgrade(fields, &protocol);
            }
            if !body.is_end_stream() && !fields.has(Known::ContentLength) {
                // Said openly: a request that tells no length has no body.
                fields.append(Known::TransferEncoding, &[b"chunked"]);
            }
            // The host of an absolute URI or of `:authority` wins over any other.
            if let Some(authority) = head.authority().map(str::to_owned) {
                head.fields.set(Known::Host, authority.as_bytes());
            } else if !head.fields.has(Known::Host) {
                head.fields.append(Known::Host, &[]);
            }
        }
        // The host goes as `:authority` and nowhere else (RFC 9113, section 8.3.1).
        Protocol::H2c => head.move_host(),
    }
    let limit = exchange.body_limit(pool);
    if body.is_end_stream() {
        let body = Upload::Empty;
        return (Outbound { head, body }, None);
    }
    let state = Rc::new(UploadState::default());
    let body = Upload::Stream {
        body,
        limit,
        state: Rc::clone(&state),
    };
    (Outbound { head, body }, Some(state))
}

/// Where an HTTP/2 container finds host and scheme, which it gets in no field.
fn uri(head: &RequestHead, scheme: &str) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if scheme == "https" {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    parts.authority = Authority::try_from(head.host()).ok();
    parts.path_and_query = PathAndQuery::try_from(head.target()).ok();
    Uri::from_parts(parts).unwrap_or_default()
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
    exchange: &Exchange,
    pool: &RevisionPool,
    slots: &Slots,
    request: &mut Outbound,
) -> Result<Answer<FromContainer>, Failure> {
    let upstreams = &exchange.thread.upstreams;
    let uri = |head: &RequestHead| uri(head, exchange.record.scheme);
    let repeatable = request.head.method.is_idempotent() && matches!(request.body, Upload::Empty);
    let mut sent = false;
    while !sent && let Some((reused, since)) = upstreams.reuse(slots) {
        let idle = exchange.received.saturating_sub(since);
        match reused.send(request, uri).await {
            Ok(answer) => return Ok(answer),
            Err(client::Failure::NotSent) => {}
            Err(client::Failure::Silent) if repeatable && idle > FRESH => sent = true,
            Err(_) => return Err(Failure::Broken),
        }
    }
    let Ok(sender) = upstreams.connect(slots, pool.port, pool.protocol).await else {
        // An instance that nobody can connect to any more may have ended because of this request.
        return Err(if sent {
            Failure::Broken
        } else {
            Failure::NotSent
        });
    };
    sender
        .send(request, uri)
        .await
        .map_err(|failure| match failure {
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
    exchange: Box<Exchange>,
    lease: &Lease,
    failure: Failure,
    upload: Option<&UploadState>,
) -> Result<Answer, Ended> {
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
        thread: &Rc<Thread>,
        peer: &Peer,
        route: Arc<ServiceRoute>,
        head: &RequestHead,
    ) -> Box<Self> {
        let received = thread.now();
        Box::new(Self {
            record: RequestRecord {
                route,
                revision: None,
                instance: None,
                received: jiff::Timestamp::UNIX_EPOCH,
                latency: Duration::ZERO,
                waited: Duration::ZERO,
                method: head.method.clone(),
                scheme: peer.client.scheme,
                words: Words::of(head),
                protocol: head.version,
                status: StatusCode::OK,
                request_bytes: 0,
                response_bytes: 0,
                remote: peer.address.ip(),
                trace: 0,
                outcome: Outcome::Complete,
            },
            received,
            deadline: Duration::MAX,
            alarm: match head.version {
                // Its streams are tasks of their own.
                Version::HTTP_2 => Rc::new(Alarm::new(Duration::MAX)),
                _ => Rc::clone(&peer.alarm),
            },
            lease: None,
            upload: None,
            thread: Rc::clone(thread),
        })
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
    pub(crate) fn complete(self: Box<Self>, bytes: u64, body: FromContainer) {
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
    pub(crate) fn abandoned(self: Box<Self>, bytes: u64) {
        self.end(bytes, Outcome::Failed(error_page::CLIENT_GONE));
    }

    /// The container's response broke off.
    pub(crate) fn broken(self: Box<Self>, bytes: u64) {
        self.end(bytes, Outcome::Failed(error_page::MALFORMED));
    }

    /// The request's time ran out while the response was under way.
    pub(crate) fn timed_out(self: Box<Self>, bytes: u64) {
        self.end(bytes, Outcome::Failed(error_page::TIMEOUT));
    }

    fn malformed(self: Box<Self>) -> Answer {
        self.unavailable(error_page::MALFORMED)
    }

    fn unavailable(self: Box<Self>, why: &'static str) -> Answer {
        let response = error_page::text(StatusCode::SERVICE_UNAVAILABLE, why);
        self.refused(response, why)
    }

    fn no_instance(self: Box<Self>, refused: &Refused) -> Answer {
        match refused {
            Refused::NoInstance | Refused::StartFailed(StartError::NoRoom(_)) => {
                self.refused(error_page::rate_exceeded(), error_page::NO_INSTANCE)
            }
            Refused::StartFailed(_) => self.unavailable(error_page::START_FAILED),
            Refused::Retired => self.unavailable(error_page::NO_REVISION),
        }
    }

    fn refused(mut self: Box<Self>, answer: Answer, why: &'static str) -> Answer {
        self.record.status = answer.status;
        let bytes = answer.body.size_hint().lower();
        self.end(bytes, Outcome::Failed(why));
        answer
    }

    fn end(mut self: Box<Self>, bytes: u64, outcome: Outcome) {
        // The slot first: somebody may be waiting for it.
        drop(self.lease.take());
        let Self {
            mut record,
            thread,
            received,
            upload,
            ..
        } = *self;
        record.latency = thread.now().saturating_sub(received);
        let latency = SignedDuration::try_from(record.latency).unwrap_or_default();
        record.received = thread.shared.clock.now() - latency;
        record.response_bytes = bytes;
        record.outcome = outcome;
        if let Some(upload) = &upload {
            record.request_bytes = upload.bytes.get();
        }
        thread.meter.record(record);
    }
}
