//! A connection to an instance, driven by the task of the request that is on it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::Method;
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::TcpStream;

use super::body::{Decoder, Encoder, Malformed, Step};
use super::head::{self, Asked};
use super::out::Out;
use super::scratch;
use crate::body::{BoxError, Ended, Upload};
use crate::fields::Known;
use crate::message::{Answer, Outbound};

/// Bytes of a response's head.
const HEAD: usize = 128 * 1024;
/// Interim responses (1xx) before the final one.
const INTERIM: usize = 16;
/// What is read of a body at once, at first and at most.
const READ: (usize, usize) = (16 * 1024, 256 * 1024);

/// A connection to an instance.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// Was read and is not understood yet.
    input: BytesMut,
    /// Up to where `input` holds no head's end.
    looked: usize,
    out: Out,
    sending: Option<Sending>,
    /// Interim responses to the request on it.
    interim: usize,
}

/// A request's body on its way.
#[derive(Debug)]
struct Sending {
    body: Upload,
    encoder: Encoder,
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The connection took nothing of the request, which is as it was.
    NotSent,
    /// The connection ended before any of the response came.
    Silent,
    /// What came was no HTTP, or the request's body broke off.
    Broken,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Box<Self> {
        Box::new(Self {
            stream,
            input: BytesMut::new(),
            looked: 0,
            out: Out::default(),
            sending: None,
            interim: 0,
        })
    }

    /// Whether an unused connection can take a request: it is open, and nothing came unasked. Registers
    /// the waker for when that changes.
    pub(crate) fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        while self.stream.poll_read_ready(cx).is_ready() {
            let mut byte = [0];
            // Readiness may be out of date, which this attempt to read corrects.
            match self.stream.try_read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return false,
            }
        }
        true
    }

    /// Sends a request and waits for the head of its response. The request's body is taken, unless nothing
    /// was sent at all.
    pub(crate) async fn send(
        mut self: Box<Self>,
        request: &mut Outbound,
    ) -> Result<Answer<Body>, Failure> {
        self.interim = 0;
        head::write_request(self.out.buffer(), &request.head);
        let bodiless = request.body.is_end_stream();
        if !bodiless {
            self.sending = Some(Sending {
                encoder: Encoder::new(head::coding_of_request(&request.head.fields)),
                body: std::mem::replace(&mut request.body, Upload::Empty),
            });
        }
        let asked = Asked {
            head: request.head.method == Method::HEAD,
            upgrade: request.head.fields.has(Known::Upgrade),
        };
        let head = poll_fn(|cx| self.poll_response(cx, asked, bodiless)).await?;
        Ok(Answer {
            status: head.status,
            fields: head.fields,
            body: Body {
                connection: self,
                decoder: head.body,
                reusable: head.reusable,
                read: READ.0,
            },
        })
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        asked: Asked,
        bodiless: bool,
    ) -> Poll<Result<head::Response, Failure>> {
        match self.poll_send(cx) {
            Poll::Ready(Err(Stopped::Upload)) => return Poll::Ready(Err(Failure::Broken)),
            Poll::Ready(Err(Stopped::Untouched)) if bodiless => {
                return Poll::Ready(Err(Failure::NotSent));
            }
            // Why the instance reads no more may be in its response.
            Poll::Ready(Err(Stopped::Untouched | Stopped::Write) | Ok(())) | Poll::Pending => {}
        }
        loop {
            let read = scratch::with(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))
                    .map_err(|_| self.ended())?;
                match buffer.filled() {
                    [] => Poll::Ready(Err(self.ended())),
                    new => Poll::Ready(self.read_head(new, asked)),
                }
            });
            if let Some(head) = ready!(read)? {
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// The connection ended in the middle of a response, or before one.
    fn ended(&self) -> Failure {
        if self.input.is_empty() {
            Failure::Silent
        } else {
            Failure::Broken
        }
    }

    /// Takes new bytes and looks for the final response's head in all there are.
    fn read_head(&mut self, new: &[u8], asked: Asked) -> Result<Option<head::Response>, Failure> {
        let joined;
        let mut input = new;
        if !self.input.is_empty() {
            self.input.extend_from_slice(new);
            if self.input.len() <= HEAD && !head::is_complete(&self.input, &mut self.looked) {
                return Ok(None);
            }
            joined = std::mem::take(&mut self.input);
            input = &joined;
        }
        loop {
            let parsed = head::response(input, asked).map_err(|_| Failure::Broken)?;
            let Some((head, length)) = parsed else {
                if input.len() > HEAD {
                    return Err(Failure::Broken);
                }
                self.input.extend_from_slice(input);
                self.looked = 0;
                return Ok(None);
            };
            input = &input[length..];
            if !head.status.is_informational() || head.status.as_u16() == 101 {
                self.input.extend_from_slice(input);
                return Ok(Some(head));
            }
            self.interim += 1;
            if self.interim > INTERIM {
                return Err(Failure::Broken);
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Sends what there is of the request. Ready when all of it is sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        loop {
            let mut waiting = false;
            while let Some(sending) = &mut self.sending
                && self.out.has_room()
            {
                match sending.poll(cx, &mut self.out) {
                    Poll::Ready(Ok(More::Yes)) => {}
                    Poll::Ready(Ok(More::No)) => self.sending = None,
                    Poll::Ready(Err(_)) => {
                        self.sending = None;
                        return Poll::Ready(Err(Stopped::Upload));
                    }
                    Poll::Pending => {
                        waiting = true;
                        break;
                    }
                }
            }
            if !self.out.is_empty() && ready!(self.out.poll_flush(cx, &mut self.stream)).is_err() {
                self.sending = None;
                let untouched = self.out.is_untouched();
                self.out = Out::default();
                return Poll::Ready(Err(if untouched {
                    Stopped::Untouched
                } else {
                    Stopped::Write
                }));
            }
            match self.sending {
                None => return Poll::Ready(Ok(())),
                Some(_) if waiting => return Poll::Pending,
                Some(_) => {}
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        // A stream that is silent keeps no buffer.
        ready!(self.stream.poll_read_ready(cx))?;
        self.input.reserve(room);
        pin!(self.stream.read_buf(&mut self.input)).poll(cx)
    }
}

/// Why a request is not sent further.
enum Stopped {
    /// Its body broke off.
    Upload,
    /// Writing failed at the first byte of what was to be written.
    Untouched,
    /// Writing failed.
    Write,
}

enum More {
    Yes,
    No,
}

impl Sending {
    /// Moves a part of the body.
    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Out) -> Poll<Result<More, BoxError>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()? {
            Some(frame) => match frame.into_data() {
                Ok(data) => {
                    if !data.is_empty() {
                        self.encoder.data(data, out)?;
                    }
                    if !self.body.is_end_stream() || !self.encoder.is_done() {
                        return Poll::Ready(Ok(More::Yes));
                    }
                }
                Err(frame) => self.encoder.end(frame.trailers_ref(), out)?,
            },
            None => self.encoder.end(None, out)?,
        }
        Poll::Ready(Ok(More::No))
    }
}

/// A response's body. While it is read, what is left of the request is sent.
#[derive(Debug)]
pub(crate) struct Body {
    connection: Box<Connection>,
    decoder: Decoder,
    reusable: bool,
    read: usize,
}

impl Body {
    /// The connection, if all was sent and read and it may take another request.
    pub(crate) fn into_connection(self) -> Option<Box<Connection>> {
        let Self {
            connection,
            decoder,
            reusable,
            ..
        } = self;
        (reusable
            && decoder.is_done()
            && connection.sending.is_none()
            && connection.out.is_empty()
            && connection.input.is_empty())
        .then_some(connection)
    }

    /// What became of the connection after it switched protocols, and what was read of the new one.
    pub(crate) fn into_switched(self) -> (TcpStream, Bytes) {
        (self.connection.stream, self.connection.input.freeze())
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BoxError>> {
        if let Poll::Ready(Err(Stopped::Upload)) = self.connection.poll_send(cx) {
            return Poll::Ready(Err(Box::new(Ended("the request's body broke off"))));
        }
        loop {
            match self.decoder.decode(&mut self.connection.input)? {
                Step::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Step::Trailers(trailers) => {
                    return Poll::Ready(Ok(Some(Frame::<Bytes>::trailers(trailers))));
                }
                Step::End => return Poll::Ready(Ok(None)),
                Step::Starved => {}
            }
            // With room for more than is left, a read that brings all of it says that there is no more.
            let left = self.decoder.left().and_then(|n| usize::try_from(n).ok());
            let room = left.map_or(self.read, |left| left.saturating_add(64).min(self.read));
            let n = ready!(self.connection.poll_fill(cx, room))?;
            if n == 0 {
                self.decoder.ended()?;
            } else if n >= self.read {
                self.read = (self.read * 2).min(READ.1);
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.get_mut().poll_step(cx).map(Result::transpose)
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder
            .left()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::Broken
    }
}
