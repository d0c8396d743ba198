//! Bodies on their way: what a client sends to a container, and what goes back.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use axum_core::body::Body as FaceBody;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::proxy::Exchange;

type BoxError = Box<dyn Error + Send + Sync>;

/// A response's body, whoever made it.
pub(crate) enum Outgoing {
    /// The gateway itself, or an empty one.
    Full(Option<Bytes>),
    /// The face.
    Face(FaceBody),
    /// A container.
    Container(Box<Download>),
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
            Self::Container(download) => Pin::new(&mut **download).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Face(body) => body.is_end_stream(),
            Self::Container(download) => download.body.is_end_stream(),
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
        }
    }
}

/// A container's response body. Holds the slot until its end, and ends at the request's deadline.
pub(crate) struct Download {
    pub(crate) body: Incoming,
    /// `None` once the exchange has ended.
    pub(crate) exchange: Option<Exchange>,
    pub(crate) deadline: Pin<Box<Sleep>>,
    pub(crate) bytes: u64,
}

impl Download {
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => {
                if this.exchange.is_some() && this.deadline.as_mut().poll(cx).is_ready() {
                    if let Some(exchange) = this.exchange.take() {
                        exchange.timed_out(this.bytes);
                    }
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
                Poll::Ready(Some(Err(Box::new(error))))
            }
            Poll::Ready(None) => {
                this.complete();
                Poll::Ready(None)
            }
        }
    }

    fn complete(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.complete(self.bytes);
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

/// What is known of a request's body while it is sent on.
#[derive(Debug, Default)]
pub(crate) struct UploadState {
    pub(crate) bytes: Cell<u64>,
    pub(crate) too_large: Cell<bool>,
    pub(crate) client_failed: Cell<bool>,
    pub(crate) begun: Cell<bool>,
}

/// A request's body on its way to a container.
pub(crate) enum Upload {
    /// There is none.
    Empty,
    /// What the client sends, counted and bounded.
    Stream {
        body: Incoming,
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
        polled.map_err(Into::into)
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
