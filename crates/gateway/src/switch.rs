//! What a client's connection becomes when it speaks another protocol: a WebSocket's bytes both ways, or a
//! tunnel that is served like a connection of its own.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::FromContainer;
use crate::h1::scratch;
use crate::io::Conn;
use crate::listener::{self, Origin};
use crate::proxy::Exchange;
use crate::thread::Thread;

/// What comes after the response.
pub(crate) enum Switch {
    /// The container's connection.
    Join(Box<Join>),
    /// Another connection to the gateway itself, through `CONNECT`.
    Tunnel(Rc<Thread>, Origin),
}

impl Switch {
    /// Runs to the end of the client's connection.
    pub(crate) fn run(self, client: Conn) -> Pin<Box<dyn Future<Output = ()>>> {
        match self {
            Self::Join(join) => Box::pin(join.run(client)),
            Self::Tunnel(thread, inside) => listener::serve(thread, client, inside),
        }
    }
}

/// A request that became a connection to its container.
pub(crate) struct Join {
    /// `None` once it has ended.
    exchange: Option<Box<Exchange>>,
    container: Conn,
    timeout: Duration,
}

impl Join {
    pub(crate) fn new(exchange: Box<Exchange>, container: Conn, timeout: Duration) -> Box<Self> {
        Box::new(Self {
            exchange: Some(exchange),
            container,
            timeout,
        })
    }

    /// Copies bytes both ways. Each direction ends for itself; the request's timeout ends both. A container that
    /// takes no more may have said why, so what it said still goes to the client.
    async fn run(mut self: Box<Self>, mut client: Conn) {
        let (mut up, mut down) = (Way::default(), Way::default());
        let container = &mut self.container;
        let mut refused = None;
        let both = poll_fn(|cx| {
            let mut upward = Poll::Ready(Ok(()));
            if refused.is_none() {
                upward = up.poll_copy(cx, &mut client, container);
                if let Poll::Ready(Err(Stopped::Write(error))) = upward {
                    refused = Some(error);
                    upward = Poll::Ready(Ok(()));
                }
            }
            if let Poll::Ready(Err(Stopped::Read(error))) = upward {
                return Poll::Ready(Err(error));
            }
            ready!(down.poll_copy(cx, container, &mut client)).map_err(Stopped::why)?;
            match refused.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => upward.map_err(Stopped::why),
            }
        });
        let copied = tokio::time::timeout(self.timeout, both).await;
        if let Some(mut exchange) = self.exchange.take() {
            exchange.uploaded(up.bytes);
            match copied {
                Ok(Ok(())) => exchange.complete(down.bytes, FromContainer::Taken),
                Ok(Err(_)) => exchange.broken(down.bytes),
                Err(_) => exchange.timed_out(down.bytes),
            }
        }
    }
}

impl Drop for Join {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.abandoned(0);
        }
    }
}

/// One direction. It holds bytes only while whoever they are for does not take them.
#[derive(Default)]
struct Way {
    held: Bytes,
    state: State,
    bytes: u64,
}

/// Why a direction ended before its end.
enum Stopped {
    /// Nothing more can be read.
    Read(io::Error),
    /// Nothing more is taken.
    Write(io::Error),
}

impl Stopped {
    fn why(self) -> io::Error {
        match self {
            Self::Read(error) | Self::Write(error) => error,
        }
    }
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Closing,
    Closed,
}

impl Way {
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Conn,
        to: &mut Conn,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            match self.state {
                State::Open if !self.held.is_empty() => {
                    let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.held))
                        .map_err(Stopped::Write)?;
                    self.wrote(n)?;
                    self.held.advance(n);
                }
                State::Open => match self.poll_some(cx, from, to) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) => self.state = State::Closing,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if self.held.is_empty() => {
                        ready!(Pin::new(to).poll_flush(cx)).map_err(Stopped::Write)?;
                        return Poll::Pending;
                    }
                    Poll::Pending => return Poll::Pending,
                },
                State::Closing => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Stopped::Write)?;
                    self.state = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads once and writes what that brought; holds what is not taken. `false` at the end.
    fn poll_some(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Conn,
        to: &mut Conn,
    ) -> Poll<Result<bool, Stopped>> {
        ready!(from.poll_readable(cx)).map_err(Stopped::Read)?;
        scratch::with(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buffer)).map_err(Stopped::Read)?;
            let read = buffer.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(false));
            }
            let n = match Pin::new(to).poll_write(cx, read).map_err(Stopped::Write)? {
                Poll::Ready(n) => {
                    self.wrote(n)?;
                    n
                }
                Poll::Pending => 0,
            };
            self.held = Bytes::copy_from_slice(&read[n..]);
            Poll::Ready(Ok(true))
        })
    }

    fn wrote(&mut self, n: usize) -> Result<(), Stopped> {
        self.bytes += u64::try_from(n).unwrap_or(0);
        if n == 0 {
            return Err(Stopped::Write(io::ErrorKind::WriteZero.into()));
        }
        Ok(())
    }
}
