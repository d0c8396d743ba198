//! One thread's connections to instances. Nothing here is shared, so nothing is locked.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Uri, Version};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use lauf_model::Protocol;
use tokio::net::TcpStream;

use crate::body::{FromContainer, Upload};
use crate::dial::dial;
use crate::h1::client::{Connection, Failure};
use crate::message::{Answer, Outbound, RequestHead};
use crate::slot::Slots;

/// Requests at once on one HTTP/2 connection to an instance.
const STREAMS: u32 = 100;

/// An HTTP/1 connection that was not needed for so long is one too many.
const COLD: Duration = Duration::from_secs(60);

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
    Http1(Box<Connection>),
    Http2(http2::SendRequest<Upload>, Stream),
}

impl Sender {
    /// Sends a request, which is left as it was if nothing of it was sent. `uri` is where an HTTP/2 request
    /// goes.
    pub(crate) async fn send(
        self,
        request: &mut Outbound,
        uri: impl FnOnce(&RequestHead) -> Uri,
    ) -> Result<Answer<FromContainer>, Failure> {
        match self {
            Self::Http1(connection) => connection
                .send(request)
                .await
                .map(|answer| answer.map(FromContainer::Http1)),
            Self::Http2(mut sender, stream) => {
                let body = std::mem::replace(&mut request.body, Upload::Empty);
                let uri = uri(&request.head);
                let http = request.head.to_http(Version::HTTP_2, uri, body);
                match sender.try_send_request(http).await {
                    Ok(response) => {
                        let answer = Answer::from(response);
                        Ok(answer.map(|body| FromContainer::Http2(body, stream)))
                    }
                    Err(mut failed) => match failed.take_message() {
                        Some(unsent) => {
                            request.body = unsent.into_body();
                            Err(Failure::NotSent)
                        }
                        None => Err(Failure::Broken),
                    },
                }
            }
        }
    }
}

/// A stream on an HTTP/2 connection, counted until dropped.
#[derive(Debug)]
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

#[derive(Default)]
struct Entry {
    /// Idle HTTP/1 connections and when they became so; the last one is the warmest.
    http1: VecDeque<(Box<Connection>, Duration)>,
    /// HTTP/2 connections and their streams.
    http2: Vec<(http2::SendRequest<Upload>, Rc<Cell<u32>>)>,
    /// One HTTP/2 connection is made at a time; who waits finds room on it.
    dialing: Rc<tokio::sync::Mutex<()>>,
}

impl Entry {
    fn is_unused(&self) -> bool {
        self.http1.is_empty() && self.http2.is_empty() && Rc::strong_count(&self.dialing) == 1
    }
}

/// The connections, by the serial of their instance.
pub(crate) struct Upstreams {
    entries: RefCell<HashMap<u64, Entry>>,
    idle_limit: usize,
    connect_timeout: Duration,
    /// Wakes the task that forgets idle connections on which something happens; `None` before the first.
    reaper: RefCell<Option<Waker>>,
}

impl Upstreams {
    pub(crate) fn new(idle_limit: usize, connect_timeout: Duration) -> Self {
        Self {
            entries: RefCell::default(),
            idle_limit,
            connect_timeout,
            reaper: RefCell::default(),
        }
    }

    /// A connection that is there already, and since when it is idle.
    pub(crate) fn reuse(&self, slots: &Slots) -> Option<(Sender, Duration)> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&slots.serial)?;
        while let Some((mut connection, since)) = entry.http1.pop_back() {
            if self.is_quiet(&mut connection) {
                return Some((Sender::Http1(connection), since));
            }
        }
        entry.http2.retain(|(sender, _)| !sender.is_closed());
        let (sender, streams) = entry.http2.iter().find(|(_, n)| n.get() < STREAMS)?;
        let sender = Sender::Http2(sender.clone(), Stream::open(streams));
        Some((sender, Duration::MAX))
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
                Ok(Sender::Http1(Connection::new(stream)))
            }
            Protocol::H2c => {
                let dialing = {
                    let mut entries = self.entries.borrow_mut();
                    Rc::clone(&entries.entry(slots.serial).or_default().dialing)
                };
                let _one_at_a_time = dialing.lock().await;
                if let Some((reused, _)) = self.reuse(slots) {
                    return Ok(reused);
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

    /// Takes a connection back on which all was sent and read.
    pub(crate) fn put_back(
        self: &Rc<Self>,
        slots: &Slots,
        mut connection: Box<Connection>,
        now: Duration,
    ) {
        if slots.is_closed() || !self.is_quiet(&mut connection) {
            return;
        }
        let mut entries = self.entries.borrow_mut();
        let idle = &mut entries.entry(slots.serial).or_default().http1;
        if idle.len() < self.idle_limit {
            idle.push_back((connection, now));
        }
        // What a burst has left goes while others still come back, the coldest first.
        if idle.front().is_some_and(|(_, since)| *since + COLD < now) {
            idle.pop_front();
        }
        if self.reaper.borrow().is_none() {
            drop(entries);
            self.start_reaper();
        }
    }

    /// Whether an idle connection is as it was left. Has the reaper woken when that changes.
    fn is_quiet(&self, connection: &mut Connection) -> bool {
        let reaper = self.reaper.borrow();
        let waker = reaper.as_ref().unwrap_or(Waker::noop());
        connection.is_quiet(&mut Context::from_waker(waker))
    }

    /// Forgets idle connections as soon as their instances close them, for as long as the thread lives.
    fn start_reaper(self: &Rc<Self>) {
        *self.reaper.borrow_mut() = Some(Waker::noop().clone());
        let this = Rc::clone(self);
        tokio::task::spawn_local(std::future::poll_fn(move |cx| {
            *this.reaper.borrow_mut() = Some(cx.waker().clone());
            this.entries.borrow_mut().retain(|_, entry| {
                entry
                    .http1
                    .retain_mut(|(connection, _)| connection.is_quiet(cx));
                !entry.is_unused()
            });
            Poll::<()>::Pending
        }));
    }

    /// Forgets closed HTTP/2 connections of an instance.
    fn sweep(&self, serial: u64) {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.get_mut(&serial) {
            entry.http2.retain(|(sender, _)| !sender.is_closed());
            if entry.is_unused() {
                entries.remove(&serial);
            }
        }
    }
}
