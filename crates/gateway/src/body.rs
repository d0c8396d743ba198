//! Bodies on their way: what a client sends to a container, and what goes back.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use axum_core::body::Body as FaceBody;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::h1::{client, server};
use crate::proxy::Exchange;
use crate::switch::Switch;
use crate::upstream::Stream;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// A response's body, whoever made it.
pub(crate) enum Outgoing {
    /// The gateway itself, or an empty one.
    Full(Option<Bytes>),
    /// The face.
    Face(FaceBody),
    /// A container.
    Container(Download),
    /// There is none: the connection speaks another protocol from here on.
    Switch(Switch),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Face(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Container(download) => download.poll_frame(cx),
            Self::Switch(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Face(body) => body.is_end_stream(),
            Self::Container(download) => download.body.is_end_stream(),
            Self::Switch(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                let len = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(len).unwrap_or(u64::MAX))
            }
            Self::Face(body) => body.size_hint(),
            Self::Container(download) => download.body.size_hint(),
            Self::Switch(_) => SizeHint::with_exact(0),
        }
    }
}

/// A container's response body. Holds the slot until its end, and ends at the request's deadline.
pub(crate) struct Download {
    pub(crate) body: FromContainer,
    /// `None` once the exchange has ended.
    pub(crate) exchange: Option<Box<Exchange>>,
    pub(crate) bytes: u64,
}

impl Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => {
                if let Some(exchange) = this.exchange.take_if(|e| e.poll_deadline(cx).is_ready()) {
                    exchange.timed_out(this.bytes);
                    return Poll::Ready(Some(Err(Box::new(Ended("the request's time is up")))));
                }
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    this.bytes += u64::try_from(data.remaining()).unwrap_or(0);
                }
                if this.body.is_end_stream() {
                    this.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(exchange) = this.exchange.take() {
                    exchange.broken(this.bytes);
                }
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.complete();
                Poll::Ready(None)
            }
        }
    }

    fn complete(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            let body = std::mem::replace(&mut self.body, FromContainer::Taken);
            exchange.complete(self.bytes, body);
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.abandoned(self.bytes);
        }
    }
}

/// A response's body as it comes from a container.
#[derive(Debug)]
pub(crate) enum FromContainer {
    Http1(client::Body),
    Http2(
        Incoming,
        #[expect(dead_code, reason = "counts the stream until it is dropped")] Stream,
    ),
    /// It was read to its end.
    Taken,
}

impl Body for FromContainer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body, _) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Taken => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body, _) => body.is_end_stream(),
            Self::Taken => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body, _) => body.size_hint(),
            Self::Taken => SizeHint::with_exact(0),
        }
    }
}

/// A request's body as it comes from a client.
#[derive(Debug)]
pub(crate) enum FromClient {
    /// There is none.
    Empty,
    Http1(server::Body),
    Http2(Incoming),
}

impl FromClient {
    pub(crate) fn http2(body: Incoming) -> Self {
        if body.is_end_stream() {
            Self::Empty
        } else {
            Self::Http2(body)
        }
    }
}

impl Body for FromClient {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Http1(body) => Pin::new(body).poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

/// What is known of a request's body while it is sent on.
#[derive(Debug, Default)]
pub(crate) struct UploadState {
    pub(crate) bytes: Cell<u64>,
    pub(crate) too_large: Cell<bool>,
    pub(crate) client_failed: Cell<bool>,
    pub(crate) begun: Cell<bool>,
}

/// A request's body on its way to a container.
#[derive(Debug)]
pub(crate) enum Upload {
    /// There is none.
    Empty,
    /// What the client sends, counted and bounded.
    Stream {
        body: FromClient,
        limit: u64,
        state: Rc<UploadState>,
    },
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self::Stream { body, limit, state } = self.get_mut() else {
            return Poll::Ready(None);
        };
        state.begun.set(true);
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = state.bytes.get() + u64::try_from(data.remaining()).unwrap_or(0);
                    state.bytes.set(bytes);
                    if bytes > *limit {
                        state.too_large.set(true);
                        return Poll::Ready(Some(Err(Box::new(Ended("the request is too large")))));
                    }
                }
            }
            Poll::Ready(Some(Err(_))) => state.client_failed.set(true),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { body, .. } => body.size_hint(),
        }
    }
}

/// Why a body ends early.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) &'static str);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Ended {}
