//! Stop 1: accepts connections and finds out what they speak.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::alarm::Alarm;
use crate::body::{Ended, FromClient, Outgoing};
use crate::drain::Graceful;
use crate::error_page;
use crate::face::{self, ConnInfo};
use crate::fields::Known;
use crate::h1::server;
use crate::headers::Client;
use crate::host;
use crate::io::Conn;
use crate::message::{Answer, RequestHead};
use crate::proxy;
use crate::thread::Thread;
use crate::tunnel;
use crate::upstream::LocalExecutor;

/// The first byte of a TLS handshake record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// What an HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to leave a listener alone that cannot accept (no descriptors, no memory).
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
    pub(crate) via_proxy: bool,
}

/// A connection's client, as all its requests see it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) via_proxy: bool,
    pub(crate) internal: bool,
    pub(crate) client: Client,
    /// For all deadlines of an HTTP/1 connection.
    pub(crate) alarm: Rc<Alarm>,
    origin: Origin,
}

/// Accepts until the thread drains.
pub(crate) async fn accept(thread: Rc<Thread>, listener: TcpListener, most: usize) {
    while !thread.drain.is_draining() {
        thread.drain.fewer_than(most.max(1)).await;
        match listener.accept().await {
            Ok((stream, address)) => {
                // Without it a small response would wait for an acknowledgement; a socket that
                // cannot have it still works.
                let _ = stream.set_nodelay(true);
                let origin = Origin {
                    address,
                    tls: false,
                    via_proxy: false,
                };
                let thread = Rc::clone(&thread);
                tokio::task::spawn_local(serve(thread, stream.into(), origin));
            }
            Err(error) => {
                if !is_of_one_connection(&error) {
                    tracing::warn!("cannot accept connections: {error}");
                    tokio::time::sleep(EXHAUSTED).await;
                }
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Serves a connection to its end, whatever it speaks.
pub(crate) fn serve(
    thread: Rc<Thread>,
    conn: Conn,
    origin: Origin,
) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let open = thread.drain.enter();
        let within = thread.shared.config.limits.header_timeout;
        let begun = tokio::time::timeout(within, begin(&thread, conn, origin)).await;
        let Ok(Some((conn, http2, origin))) = begun else {
            return;
        };
        let peer = Rc::new(Peer {
            address: origin.address,
            via_proxy: origin.via_proxy,
            internal: thread
                .shared
                .config
                .internal
                .iter()
                .any(|network| network.contains(origin.address.ip())),
            client: Client::new(
                origin.address.ip(),
                if origin.tls { "https" } else { "http" },
            ),
            alarm: Rc::new(Alarm::new(within)),
            origin,
        });
        // How a connection ends interests nobody: each of its requests has been recorded.
        if http2 {
            let limits = &thread.shared.config.limits;
            let service = {
                let thread = Rc::clone(&thread);
                service_fn(move |request: Request<Incoming>| {
                    let (thread, peer) = (Rc::clone(&thread), Rc::clone(&peer));
                    let (head, body) = RequestHead::of_http2(request);
                    async move {
                        let answer = handle(&thread, &peer, head, body).await?;
                        Ok(answer.into_http2())
                    }
                })
            };
            let connection = http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.h2_streams)
                .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
                .initial_stream_window_size(256 * 1024)
                .initial_connection_window_size(1024 * 1024)
                .keep_alive_interval(limits.h2_ping)
                .keep_alive_timeout(limits.header_timeout)
                .serve_connection(TokioIo::new(conn), service);
            let _ = open.watch(Http2(connection)).await;
        } else {
            server::serve(thread, peer, conn, &open).await;
        }
    })
}

/// Finds out what a connection speaks: TLS is taken off, then HTTP/2 (`true`) or HTTP/1.
async fn begin(thread: &Thread, mut conn: Conn, origin: Origin) -> Option<(Conn, bool, Origin)> {
    let first = peek(&mut conn).await?;
    if first != Spoken::Tls {
        return Some((conn, first == Spoken::Http2, origin));
    }
    if origin.tls {
        return None;
    }
    let stream = thread.shared.tls.accept(conn).await.ok()?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let origin = Origin {
        tls: true,
        ..origin
    };
    Some((stream.into(), http2, origin))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Tls,
    Http1,
    Http2,
}

/// Reads until it is clear what is spoken, and puts back what was read.
async fn peek(conn: &mut Conn) -> Option<Spoken> {
    let mut read = BytesMut::with_capacity(4096);
    let spoken = loop {
        if conn.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
        if read.first() == Some(&TLS_HANDSHAKE) {
            break Spoken::Tls;
        }
        let n = read.len().min(PREFACE.len());
        if read[..n] != PREFACE[..n] {
            break Spoken::Http1;
        }
        if n == PREFACE.len() {
            break Spoken::Http2;
        }
    };
    conn.unread(read.freeze());
    Some(spoken)
}

/// Answers one request.
pub(crate) async fn handle(
    thread: &Rc<Thread>,
    peer: &Peer,
    head: RequestHead,
    body: FromClient,
) -> Result<Answer, Ended> {
    if head.method == Method::CONNECT {
        return Ok(tunnel::connect(thread, peer.origin, &head));
    }
    if !asks_one_host(&head) {
        return Ok(refused(&head));
    }
    let host = head.host();
    let name = host::normalize(host);
    let route = thread.routes.borrow_mut().load().get(&name).cloned();
    if let Some(route) = route {
        // The name is one of ours, so what can be wrong is the port.
        if !host::has_valid_port(host) {
            return Ok(refused(&head));
        }
        return proxy::serve(thread, peer, route, head, body).await;
    }
    if !host::is_valid(host) {
        return Ok(refused(&head));
    }
    let config = &thread.shared.config;
    if host::under(&name, &config.domain) {
        return Ok(error_page::not_found());
    }
    let absolute = head.authority().is_some() && head.version != Version::HTTP_2;
    if absolute && !host::is_local(&name) && !tunnel::leads_to(config, &name) {
        return Ok(tunnel::refused());
    }
    let info = ConnInfo {
        peer: peer.address,
        host: name.into_owned(),
        scheme: peer.client.scheme,
        via_proxy: peer.via_proxy || absolute,
    };
    let served = face::serve(
        &thread.shared.face,
        &thread.shared.control,
        head,
        body,
        info,
    );
    match Box::pin(served).await {
        Some(response) => Ok(Answer::from(response).map(Outgoing::Face)),
        None => Ok(error_page::page(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Server Error",
            "The server encountered an error and could not complete your request.",
        )),
    }
}

/// A request of which it is not clear who it is for. Nothing that follows it on an HTTP/1 connection can be
/// trusted.
fn refused(head: &RequestHead) -> Answer {
    let why = "Bad request: the Host header is missing, repeated or not a host name.\n";
    let mut answer = error_page::text(StatusCode::BAD_REQUEST, why);
    if head.version != Version::HTTP_2 {
        answer.fields.append(Known::Connection, &[b"close"]);
    }
    answer
}

/// Whether a request says once, or the same twice, who it is for.
fn asks_one_host(head: &RequestHead) -> bool {
    let mut hosts = head.fields.get_all(Known::Host);
    let host = hosts.next();
    if hosts.next().is_some() || host.is_some_and(|host| !host.is_ascii()) {
        return false;
    }
    match head.authority() {
        None => host.is_some() || head.version == Version::HTTP_10,
        // RFC 9113, section 8.3.1: over HTTP/2 both must say the same. Over HTTP/1 the URI wins.
        Some(authority) if head.version == Version::HTTP_2 => {
            host.is_none_or(|host| host.eq_ignore_ascii_case(authority.as_bytes()))
        }
        Some(_) => true,
    }
}

/// Names the connection's type, which has no name of its own.
struct Http2<C>(C);

impl<S, F> Future for Http2<http2::Connection<TokioIo<Conn>, S, LocalExecutor>>
where
    S: Service<Request<Incoming>, Response = Response<Outgoing>, Error = Ended, Future = F> + Unpin,
    F: Future<Output = Result<Response<Outgoing>, Ended>> + 'static,
{
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<S, F> Graceful for Http2<http2::Connection<TokioIo<Conn>, S, LocalExecutor>>
where
    S: Service<Request<Incoming>, Response = Response<Outgoing>, Error = Ended, Future = F> + Unpin,
    F: Future<Output = Result<Response<Outgoing>, Ended>> + 'static,
{
    fn finish(mut self: Pin<&mut Self>) {
        Pin::new(&mut self.0).graceful_shutdown();
    }
}
