//! One thread's connections to instances. Nothing here is shared, so nothing is locked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use lauf_model::Protocol;
use tokio::net::TcpStream;

use crate::body::Upload;
use crate::dial::dial;
use crate::slot::Slots;

/// Requests at once on one HTTP/2 connection to an instance.
const STREAMS: u32 = 100;

/// Spawns futures that stay on their thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// A connection to an instance that can take a request.
pub(crate) enum Sender {
    Http1(http1::SendRequest<Upload>),
    Http2(
        http2::SendRequest<Upload>,
        #[expect(dead_code, reason = "counts the stream until it is dropped")] Stream,
    ),
}

/// Why a request was not answered.
pub(crate) struct SendError {
    /// The request, if none of it was sent.
    pub(crate) request: Option<Request<Upload>>,
    pub(crate) error: hyper::Error,
}

impl Sender {
    pub(crate) async fn send(
        &mut self,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, SendError> {
        let sent = match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender, _) => sender.try_send_request(request).await,
        };
        sent.map_err(|mut failed| SendError {
            request: failed.take_message(),
            error: failed.into_error(),
        })
    }
}

/// A stream on an HTTP/2 connection, counted until dropped.
pub(crate) struct Stream(Rc<Cell<u32>>);

impl Stream {
    fn open(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// A connection that was used before.
pub(crate) struct Reused {
    pub(crate) sender: Sender,
    /// How long nothing was sent on it. The longer, the likelier the instance is just closing it.
    pub(crate) idle: Duration,
}

#[derive(Default)]
struct Entry {
    /// Idle HTTP/1 connections and when they became so; the last one is the warmest.
    http1: Vec<(http1::SendRequest<Upload>, Duration)>,
    /// HTTP/2 connections and their streams.
    http2: Vec<(http2::SendRequest<Upload>, Rc<Cell<u32>>)>,
    /// One HTTP/2 connection is made at a time; who waits finds room on it.
    dialing: Rc<tokio::sync::Mutex<()>>,
}

/// The connections, by the serial of their instance.
pub(crate) struct Upstreams {
    entries: RefCell<HashMap<u64, Entry>>,
    idle_limit: usize,
    connect_timeout: Duration,
}

impl Upstreams {
    pub(crate) fn new(idle_limit: usize, connect_timeout: Duration) -> Self {
        Self {
            entries: RefCell::default(),
            idle_limit,
            connect_timeout,
        }
    }

    /// A connection that is there already.
    pub(crate) fn reuse(&self, slots: &Slots, now: Duration) -> Option<Reused> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&slots.serial)?;
        while let Some((sender, since)) = entry.http1.pop() {
            if sender.is_ready() {
                return Some(Reused {
                    sender: Sender::Http1(sender),
                    idle: now.saturating_sub(since),
                });
            }
        }
        entry.http2.retain(|(sender, _)| !sender.is_closed());
        let (sender, streams) = entry.http2.iter().find(|(_, n)| n.get() < STREAMS)?;
        Some(Reused {
            sender: Sender::Http2(sender.clone(), Stream::open(streams)),
            idle: Duration::ZERO,
        })
    }

    /// A new connection (for HTTP/2: or room on one that somebody else has made meanwhile).
    pub(crate) async fn connect(
        self: &Rc<Self>,
        slots: &Slots,
        port: u16,
        protocol: Protocol,
    ) -> io::Result<Sender> {
        match protocol {
            Protocol::Http1 => {
                let stream = dial(&slots.instance, port, self.connect_timeout).await?;
                self.http1(slots.serial, stream).await
            }
            Protocol::H2c => {
                let dialing = {
                    let mut entries = self.entries.borrow_mut();
                    Rc::clone(&entries.entry(slots.serial).or_default().dialing)
                };
                let _one_at_a_time = dialing.lock().await;
                if let Some(reused) = self.reuse(slots, Duration::ZERO) {
                    return Ok(reused.sender);
                }
                let dialed = match dial(&slots.instance, port, self.connect_timeout).await {
                    Ok(stream) => self.http2(slots.serial, stream).await,
                    Err(error) => Err(error),
                };
                if dialed.is_err() {
                    self.sweep(slots.serial);
                }
                dialed
            }
        }
    }

    async fn http1(self: &Rc<Self>, serial: u64, stream: TcpStream) -> io::Result<Sender> {
        let (sender, connection) = http1::Builder::new()
            .handshake::<_, Upload>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            // How it ended is told to the request that was on it.
            let _ = connection.with_upgrades().await;
            this.sweep(serial);
        });
        Ok(Sender::Http1(sender))
    }

    async fn http2(self: &Rc<Self>, serial: u64, stream: TcpStream) -> io::Result<Sender> {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .handshake::<_, Upload>(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let _ = connection.await;
            this.sweep(serial);
        });
        let streams = Rc::new(Cell::new(0));
        let stream = Stream::open(&streams);
        self.entries
            .borrow_mut()
            .entry(serial)
            .or_default()
            .http2
            .push((sender.clone(), streams));
        Ok(Sender::Http2(sender, stream))
    }

    /// Takes a connection back whose response was read to its end.
    pub(crate) fn put_back(&self, slots: &Slots, sender: Sender, now: Duration) {
        let Sender::Http1(sender) = sender else {
            return;
        };
        if sender.is_closed() || slots.is_closed() {
            return;
        }
        let mut entries = self.entries.borrow_mut();
        let idle = &mut entries.entry(slots.serial).or_default().http1;
        if idle.len() < self.idle_limit {
            idle.push((sender, now));
        }
    }

    /// Forgets closed connections of an instance.
    fn sweep(&self, serial: u64) {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.get_mut(&serial) {
            entry.http1.retain(|(sender, _)| !sender.is_closed());
            entry.http2.retain(|(sender, _)| !sender.is_closed());
            let unused = entry.http1.is_empty()
                && entry.http2.is_empty()
                && Rc::strong_count(&entry.dialing) == 1;
            if unused {
                entries.remove(&serial);
            }
        }
    }
}
