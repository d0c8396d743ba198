//! A connection from a client: requests in, one after another, and their responses out, on one task.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, Write as _};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite as _, ReadBuf};

use super::body::{Coding, Decoder, Encoder, Step};
use super::head::{self, Refused};
use super::out::Out;
use super::scratch;
use crate::body::{BoxError, Ended, FromClient, Outgoing};
use crate::config::Limits;
use crate::drain::Open;
use crate::error_page;
use crate::fields::{Fields, Known, Set};
use crate::headers;
use crate::io::Conn;
use crate::listener::{self, Peer};
use crate::message::{Answer, RequestHead};
use crate::thread::Thread;

/// What is read of a body at once, at first and at most.
const READ: (usize, usize) = (16 * 1024, 256 * 1024);
/// How much of a request that is already answered is still read, so that the client gets to the answer.
const LINGER_BYTES: u64 = 512 * 1024;
/// For how long.
const LINGER: Duration = Duration::from_secs(2);

/// A client's connection, as its loop and the body of its current request share it. It is borrowed only
/// within one poll.
#[derive(Debug)]
struct Line {
    /// `None` once the connection is closed or speaks something else.
    conn: Option<Conn>,
    /// Was read and is not understood yet.
    input: BytesMut,
    /// Up to where `input` holds no head's end.
    looked: usize,
    out: Out,
    /// What is left of the current request's body.
    body: Decoder,
    expect: Expect,
    read: usize,
    /// Counts requests: who holds the body of an earlier one gets nothing of this one.
    serial: u64,
}

/// Where `Expect: 100-continue` stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The client waits for nothing.
    Nothing,
    /// It waits for our word before it sends the body.
    Waits,
    /// Our word is on its way.
    Told,
    /// It got a response instead.
    Answered,
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Why no further request comes.
enum Stop {
    /// Nothing is under way.
    Quiet,
    /// What came is answered so, and then nothing.
    Refused(Refused),
}

/// Serves requests until either side has enough.
pub(crate) async fn serve(thread: Rc<Thread>, peer: Rc<Peer>, conn: Conn, open: &Open) {
    let line = Rc::new(RefCell::new(Line {
        conn: Some(conn),
        input: BytesMut::new(),
        looked: 0,
        out: Out::default(),
        body: Decoder::NONE,
        expect: Expect::Nothing,
        read: READ.0,
        serial: 0,
    }));
    Session {
        thread,
        peer,
        line: Rc::clone(&line),
    }
    .run(open)
    .await;
    // A body that somebody still holds does not hold the connection.
    line.borrow_mut().conn = None;
}

struct Session {
    thread: Rc<Thread>,
    peer: Rc<Peer>,
    line: Rc<RefCell<Line>>,
}

/// What a response has to know of its request.
#[derive(Clone, Copy)]
struct Terms {
    head: bool,
    connect: bool,
    version: Version,
    trailers: bool,
    keep_alive: bool,
}

/// How a response ended.
enum After {
    /// Another request may come.
    Next,
    /// No other request comes. If bytes of this one may still be on their way, they are waited for.
    Close,
    /// The connection is somebody else's now.
    Switched,
}

impl Session {
    async fn run(&self, open: &Open) {
        loop {
            let head = match self.head(open).await {
                Ok(head) => head,
                Err(Stop::Quiet) => return,
                Err(Stop::Refused(refused)) => {
                    let response = error_page::text(refused.status, refused.why);
                    let terms = Terms {
                        head: false,
                        connect: false,
                        version: Version::HTTP_11,
                        trailers: false,
                        keep_alive: false,
                    };
                    if self.respond(response, terms).await.is_ok() {
                        self.close().await;
                    }
                    return;
                }
            };
            let (request, terms) = self.begin(head);
            let Some(response) = self.answer(request).await else {
                return;
            };
            let terms = Terms {
                keep_alive: terms.keep_alive && !self.thread.drain.is_draining(),
                ..terms
            };
            match self.respond(response, terms).await {
                Ok(After::Next) => {}
                Ok(After::Close) => return self.close().await,
                Ok(After::Switched) | Err(_) => return,
            }
        }
    }

    /// Waits for a request's head.
    async fn head(&self, open: &Open) -> Result<head::Request, Stop> {
        let limits = &self.thread.shared.config.limits;
        let mut deadline = None;
        {
            let mut line = self.line.borrow_mut();
            if !line.input.is_empty()
                && let Some(head) = line.read_head(&[], limits)?
            {
                return Ok(head);
            }
        }
        poll_fn(|cx| {
            let mut line = self.line.borrow_mut();
            if let Poll::Ready(head) = line.poll_head(cx, limits) {
                return Poll::Ready(head);
            }
            if open.is_to_finish(cx) && line.input.is_empty() {
                return Poll::Ready(Err(Stop::Quiet));
            }
            let deadline =
                *deadline.get_or_insert_with(|| self.thread.now() + limits.header_timeout);
            self.peer
                .alarm
                .poll(cx, &*self.thread.shared.clock, deadline)
                .map(|()| Err(Stop::Quiet))
        })
        .await
    }

    fn begin(&self, read: head::Request) -> ((RequestHead, FromClient), Terms) {
        let mut line = self.line.borrow_mut();
        let body = if read.body.is_done() {
            FromClient::Empty
        } else {
            FromClient::Http1(Body {
                line: Rc::clone(&self.line),
                serial: line.serial,
            })
        };
        line.expect = if read.expects_continue {
            Expect::Waits
        } else {
            Expect::Nothing
        };
        line.body = read.body;
        line.read = READ.0;
        let head = read.head;
        let terms = Terms {
            head: head.method == Method::HEAD,
            connect: head.method == Method::CONNECT,
            version: head.version,
            trailers: headers::wants_trailers(&head.fields),
            keep_alive: read.keep_alive,
        };
        ((head, body), terms)
    }

    /// Has a request answered. `None` when the client goes away meanwhile, or must not get an answer.
    async fn answer(&self, (head, body): (RequestHead, FromClient)) -> Option<Answer> {
        let handling = listener::handle(&self.thread, &self.peer, head, body);
        let mut handling = pin!(handling);
        poll_fn(|cx| match handling.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(response.ok()),
            Poll::Pending => self.line.borrow_mut().poll_gone(cx).map(|()| None),
        })
        .await
    }

    /// Writes a response.
    async fn respond(&self, answer: Answer, terms: Terms) -> io::Result<After> {
        let (status, mut fields, mut body) = (answer.status, answer.fields, answer.body);
        let switches = matches!(body, Outgoing::Switch(_));
        let plan = plan(status, &mut fields, &body, switches, terms);
        {
            let line = &mut *self.line.borrow_mut();
            // A body that was not asked for by now is not asked for any more.
            line.expect = match line.expect {
                Expect::Waits | Expect::Answered => Expect::Answered,
                Expect::Told | Expect::Nothing => Expect::Nothing,
            };
            self.write_head(line.out.buffer(), status, &fields, &plan, terms);
        }
        drop(fields);
        if let Some(coding) = plan.coding {
            self.write_body(&mut body, Encoder::new(coding)).await?;
        } else {
            poll_fn(|cx| self.poll_flush(cx, &mut None)).await?;
        }
        if let Outgoing::Switch(switch) = body {
            let conn = self.line.borrow_mut().take();
            if let Some(conn) = conn {
                tokio::task::spawn_local(switch.run(conn));
            }
            return Ok(After::Switched);
        }
        drop(body);
        {
            let mut line = self.line.borrow_mut();
            line.serial += 1;
            if !plan.keep_alive {
                return Ok(After::Close);
            }
            if line.body.is_done() {
                return Ok(After::Next);
            }
            // Whether the body still comes is the client's choice if it waited for our word.
            if line.expect == Expect::Answered {
                return Ok(After::Close);
            }
        }
        Ok(if self.rest_is_read().await {
            After::Next
        } else {
            After::Close
        })
    }

    fn write_head(
        &self,
        to: &mut Vec<u8>,
        status: StatusCode,
        fields: &Fields,
        plan: &Plan,
        terms: Terms,
    ) {
        head::write_status(to, status);
        fields.write(to);
        if !fields.has(Known::Date) && !status.is_informational() {
            to.extend_from_slice(b"date: ");
            self.thread.write_date(to);
            to.extend_from_slice(b"\r\n");
        }
        match plan.coding {
            Some(Coding::Chunked { .. }) => {
                to.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            Some(Coding::Length(length)) if plan.tells_length => {
                to.extend_from_slice(b"content-length: ");
                // Writing to a buffer cannot fail.
                let _ = write!(to, "{length}\r\n");
            }
            _ => {}
        }
        if !plan.keep_alive && !plan.switches {
            to.extend_from_slice(b"connection: close\r\n");
        } else if terms.version == Version::HTTP_10 {
            to.extend_from_slice(b"connection: keep-alive\r\n");
        }
        to.extend_from_slice(b"\r\n");
    }

    async fn write_body(&self, body: &mut Outgoing, encoder: Encoder) -> io::Result<()> {
        let (mut encoder, mut all, mut stalled) = (encoder, false, None);
        if encoder.is_done() {
            all = true;
        }
        poll_fn(|cx| {
            loop {
                let mut waiting = false;
                // The body may itself read from the line, so the line is not borrowed meanwhile.
                while !all && self.line.borrow().out.has_room() {
                    let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                        waiting = true;
                        break;
                    };
                    let out = &mut self.line.borrow_mut().out;
                    match frame.transpose().map_err(io::Error::other)? {
                        Some(frame) => match frame.into_data() {
                            Ok(data) => {
                                if !data.is_empty() {
                                    encoder.data(data, out).map_err(io::Error::other)?;
                                }
                                all = encoder.is_done() && body.is_end_stream();
                            }
                            Err(frame) => {
                                let end = encoder.end(frame.trailers_ref(), out);
                                end.map_err(io::Error::other)?;
                                all = true;
                            }
                        },
                        None => {
                            encoder.end(None, out).map_err(io::Error::other)?;
                            all = true;
                        }
                    }
                }
                ready!(self.poll_flush(cx, &mut stalled))?;
                if all {
                    return Poll::Ready(Ok(()));
                }
                if waiting {
                    ready!(self.line.borrow_mut().poll_gone(cx));
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
            }
        })
        .await
    }

    /// Writes what waits. A client that takes nothing of it for too long is given up. `stalled` is when that
    /// will be.
    fn poll_flush(
        &self,
        cx: &mut Context<'_>,
        stalled: &mut Option<(usize, Duration)>,
    ) -> Poll<io::Result<()>> {
        let mut line = self.line.borrow_mut();
        let line = &mut *line;
        let Some(conn) = &mut line.conn else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        if let Poll::Ready(done) = line.out.poll_flush(cx, conn) {
            *stalled = None;
            return Poll::Ready(done);
        }
        let left = line.out.len();
        let shared = &self.thread.shared;
        let (_, deadline) = match *stalled {
            Some(before) if before.0 == left => before,
            _ => *stalled.insert((
                left,
                self.thread.now() + shared.config.limits.header_timeout,
            )),
        };
        self.peer
            .alarm
            .poll(cx, &*shared.clock, deadline)
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads on to the end of a request that is answered already. `false` when that is too far away.
    async fn rest_is_read(&self) -> bool {
        let deadline = self.thread.now() + LINGER;
        let mut read = 0;
        poll_fn(|cx| {
            let mut line = self.line.borrow_mut();
            loop {
                match line.poll_body(cx) {
                    Poll::Ready(Ok(Some(frame))) => {
                        let n = frame.data_ref().map_or(0, Bytes::len);
                        read += u64::try_from(n).unwrap_or(u64::MAX);
                        if read > LINGER_BYTES {
                            return Poll::Ready(false);
                        }
                    }
                    Poll::Ready(Ok(None)) => return Poll::Ready(true),
                    Poll::Ready(Err(_)) => return Poll::Ready(false),
                    Poll::Pending => break,
                }
            }
            let clock = &*self.thread.shared.clock;
            self.peer.alarm.poll(cx, clock, deadline).map(|()| false)
        })
        .await
    }

    /// Closes our side, then waits a moment for the client to close its own: were bytes of it still on their
    /// way, the system would take the answer back.
    async fn close(&self) {
        let deadline = self.thread.now() + LINGER;
        let mut read = 0;
        let mut shut = false;
        poll_fn(|cx| {
            let line = &mut *self.line.borrow_mut();
            let Some(conn) = &mut line.conn else {
                return Poll::Ready(());
            };
            let clock = &*self.thread.shared.clock;
            let timed_out = |cx: &mut Context<'_>| self.peer.alarm.poll(cx, clock, deadline);
            if !shut {
                match Pin::new(&mut *conn).poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => shut = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return timed_out(cx),
                }
            }
            if line.body.is_done() && line.input.is_empty() {
                return Poll::Ready(());
            }
            loop {
                match poll_discard(conn, cx) {
                    Poll::Ready(Ok(n)) if n > 0 && read <= LINGER_BYTES => {
                        read += u64::try_from(n).unwrap_or(u64::MAX);
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return timed_out(cx),
                }
            }
        })
        .await;
    }
}

/// How a response is written.
struct Plan {
    /// `None` when there is no body.
    coding: Option<Coding>,
    /// Whether `Content-Length` has to be added.
    tells_length: bool,
    keep_alive: bool,
    switches: bool,
}

/// Decides how a response is written (RFC 9112, section 6), and removes from its fields what would say
/// something else.
fn plan(
    status: StatusCode,
    fields: &mut Fields,
    body: &Outgoing,
    switches: bool,
    terms: Terms,
) -> Plan {
    const LENGTH: Set = Set::of(&[Known::ContentLength]);
    const FRAMING: Set = Set::of(&[Known::TransferEncoding, Known::Connection]);
    let mut plan = Plan {
        coding: None,
        tells_length: false,
        keep_alive: terms.keep_alive,
        switches,
    };
    if !switches {
        plan.keep_alive &= !fields.lists(Known::Connection, "close");
        fields.remove(FRAMING);
    }
    let tunnel = terms.connect && status.is_success();
    if switches || tunnel || status.is_informational() || status == StatusCode::NO_CONTENT {
        fields.remove(LENGTH);
        return plan;
    }
    // The length of what a GET would bring is in the fields.
    if terms.head || status == StatusCode::NOT_MODIFIED {
        return plan;
    }
    let told = fields
        .get_str(Known::ContentLength)
        .and_then(|told| told.parse().ok());
    plan.coding = Some(match (told, body.size_hint().exact()) {
        (Some(told), _) => Coding::Length(told),
        (None, Some(exact)) => {
            plan.tells_length = true;
            Coding::Length(exact)
        }
        (None, None) if terms.version == Version::HTTP_10 => {
            plan.keep_alive = false;
            Coding::UntilEnd
        }
        (None, None) => Coding::Chunked {
            trailers: terms.trailers,
        },
    });
    if told.is_none() {
        fields.remove(LENGTH);
    }
    plan
}

fn poll_discard(conn: &mut Conn, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    ready!(conn.poll_readable(cx))?;
    scratch::with(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(conn).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    })
}

impl Line {
    /// Reads a request's head.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
    ) -> Poll<Result<head::Request, Stop>> {
        loop {
            let head = scratch::with(|scratch| {
                let conn = self.conn.as_mut().ok_or(Stop::Quiet)?;
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(conn).poll_read(cx, &mut buffer)).map_err(|_| Stop::Quiet)?;
                match buffer.filled() {
                    [] => Poll::Ready(Err(Stop::Quiet)),
                    new => Poll::Ready(self.read_head(new, limits)),
                }
            });
            if let Some(head) = ready!(head)? {
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// Takes new bytes and looks for a head in all there are.
    fn read_head(&mut self, new: &[u8], limits: &Limits) -> Result<Option<head::Request>, Stop> {
        let joined;
        let mut input = new;
        if !self.input.is_empty() {
            self.input.extend_from_slice(new);
            if self.input.len() <= limits.header_bytes
                && !head::is_complete(&self.input, &mut self.looked)
            {
                return Ok(None);
            }
            joined = std::mem::take(&mut self.input);
            input = &joined;
        }
        // Empty lines before a request mean nothing (RFC 9112, section 2.2).
        let empty = |b: &u8| matches!(b, b'\r' | b'\n');
        input = &input[input.iter().take_while(|b| empty(b)).count()..];
        let parsed = head::request(input, limits.header_count).map_err(Stop::Refused)?;
        let length = parsed.as_ref().map_or(input.len(), |(_, length)| *length);
        if length > limits.header_bytes {
            return Err(Stop::Refused(Refused::TOO_LARGE));
        }
        self.looked = 0;
        let rest = if parsed.is_some() { length } else { 0 };
        self.input.extend_from_slice(&input[rest..]);
        Ok(parsed.map(|(head, _)| head))
    }

    /// Reads a part of the current request's body; `None` after the last.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BoxError>> {
        let Some(conn) = &mut self.conn else {
            return Poll::Ready(Err(Box::new(Ended("the connection is closed"))));
        };
        if self.expect == Expect::Waits {
            self.out.buffer().extend_from_slice(CONTINUE);
            self.expect = Expect::Told;
        }
        if self.expect == Expect::Told {
            ready!(self.out.poll_flush(cx, conn))?;
            self.expect = Expect::Nothing;
        }
        loop {
            match self.body.decode(&mut self.input)? {
                Step::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Step::Trailers(trailers) => {
                    return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
                }
                Step::End => return Poll::Ready(Ok(None)),
                Step::Starved => {}
            }
            ready!(conn.poll_readable(cx))?;
            // With room for more than is left, a read that brings all of it says that there is no more.
            let left = self.body.left().and_then(|n| usize::try_from(n).ok());
            self.input
                .reserve(left.map_or(self.read, |left| left.saturating_add(64).min(self.read)));
            let n = ready!(pin!(conn.read_buf(&mut self.input)).poll(cx))?;
            if n == 0 {
                self.body.ended()?;
            } else if n >= self.read {
                self.read = (self.read * 2).min(READ.1);
            }
        }
    }

    /// Ready when the client has gone. Looked for only while nothing else is there to be read.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(conn) = &mut self.conn else {
            return Poll::Ready(());
        };
        while self.body.is_done() && self.input.is_empty() {
            if ready!(conn.poll_readable(cx)).is_err() {
                return Poll::Ready(());
            }
            let gone = scratch::with(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                let read = ready!(Pin::new(&mut *conn).poll_read(cx, &mut buffer));
                self.input.extend_from_slice(buffer.filled());
                Poll::Ready(read.is_err() || buffer.filled().is_empty())
            });
            if ready!(gone) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Takes the connection, with what was read of whatever comes next.
    fn take(&mut self) -> Option<Conn> {
        let mut conn = self.conn.take()?;
        conn.unread(std::mem::take(&mut self.input).freeze());
        Some(conn)
    }
}

/// The body of the request that is under way on a client's connection.
#[derive(Debug)]
pub(crate) struct Body {
    line: Rc<RefCell<Line>>,
    serial: u64,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut line = self.line.borrow_mut();
        if line.serial != self.serial {
            return Poll::Ready(Some(Err(Box::new(Ended("the request is answered")))));
        }
        line.poll_body(cx).map(Result::transpose)
    }

    fn is_end_stream(&self) -> bool {
        let line = self.line.borrow();
        line.serial == self.serial && line.body.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        let line = self.line.borrow();
        let left = line.body.left().filter(|_| line.serial == self.serial);
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Terms = Terms {
        head: false,
        connect: false,
        version: Version::HTTP_11,
        trailers: false,
        keep_alive: true,
    };

    fn planned(
        status: u16,
        pairs: &[(&'static str, &'static str)],
        body: &Outgoing,
        terms: Terms,
    ) -> (Option<Coding>, bool, bool, bool) {
        let mut fields = Fields::new();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let plan = plan(status, &mut fields, body, false, terms);
        let told = fields.has(Known::ContentLength);
        (plan.coding, plan.tells_length, told, plan.keep_alive)
    }

    #[test]
    fn a_response_has_one_end_and_says_it_once() {
        let text = Outgoing::Full(Some(Bytes::from_static(b"hello")));
        let none = Outgoing::Full(None);
        let endless = Outgoing::Face(axum_core::body::Body::from_stream(
            futures_util::stream::pending::<Result<Bytes, io::Error>>(),
        ));
        let length = |n| Some(Coding::Length(n));
        let chunked = Some(Coding::Chunked { trailers: false });
        let cl = [("content-length", "9")];
        assert_eq!(
            planned(200, &[], &text, GET),
            (length(5), true, false, true)
        );
        assert_eq!(
            planned(200, &[], &none, GET),
            (length(0), true, false, true)
        );
        assert_eq!(
            planned(200, &cl, &endless, GET),
            (length(9), false, true, true)
        );
        assert_eq!(
            planned(200, &[], &endless, GET),
            (chunked, false, false, true)
        );
        let bad = [("content-length", "nine"), ("transfer-encoding", "gzip")];
        assert_eq!(
            planned(200, &bad, &endless, GET),
            (chunked, false, false, true)
        );
        let head = Terms { head: true, ..GET };
        assert_eq!(planned(200, &cl, &none, head), (None, false, true, true));
        assert_eq!(planned(304, &cl, &none, GET), (None, false, true, true));
        assert_eq!(planned(204, &cl, &none, GET), (None, false, false, true));
        let old = Terms {
            version: Version::HTTP_10,
            ..GET
        };
        let until_end = Some(Coding::UntilEnd);
        assert_eq!(
            planned(200, &[], &endless, old),
            (until_end, false, false, false)
        );
        let close = [("connection", "close")];
        assert_eq!(
            planned(200, &close, &text, GET),
            (length(5), true, false, false)
        );
    }
}
