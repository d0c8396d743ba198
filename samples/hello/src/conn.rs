//! One connection: bytes in, requests in order, answers out, without ever waiting.

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;

use crate::http::{self, Parsed, Request};
use crate::page::Answer;

/// How much is read ahead of what is answered.
const MAX_INPUT: usize = http::MAX_HEAD + http::MAX_BODY;

/// What is to become of a connection after some progress.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Wait until the socket is ready again.
    Wait,
    /// An answer is held back until then.
    Sleep(Instant),
    /// Nothing more will come of it.
    Close,
}

/// A connection and what is pending on it.
pub(crate) struct Conn {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    held: Option<Held>,
    continued: bool,
    ended: bool,
    closing: bool,
}

/// An answer that waits for its time.
struct Held {
    until: Instant,
    /// Whether the loop was told when to come back.
    known: bool,
    request: Box<Request>,
    answer: Answer,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream) -> Self {
        // Answers are written whole, so there is nothing for Nagle to join.
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            held: None,
            continued: false,
            ended: false,
            closing: false,
        }
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether no request is in progress, so that closing loses nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_none() && self.input.is_empty() && self.output.is_empty()
    }

    /// Reads, answers and writes as far as the socket allows. `answer` is called once a request.
    pub(crate) fn advance(
        &mut self,
        now: Instant,
        draining: bool,
        mut answer: impl FnMut(&Request) -> Answer,
    ) -> Next {
        let Ok(mut drained) = self.fill() else {
            return Next::Close;
        };
        loop {
            if let Some(held) = &mut self.held
                && held.until > now
            {
                let known = std::mem::replace(&mut held.known, true);
                return match (self.flush(), known) {
                    (Err(_), _) => Next::Close,
                    (Ok(()), true) => Next::Wait,
                    (Ok(()), false) => Next::Sleep(held_until(&self.held)),
                };
            }
            if let Some(held) = self.held.take() {
                self.put(&held.request, &held.answer, draining);
            }
            // Write before reading on: a peer that never reads its answers must not grow our memory.
            if self.flush().is_err() {
                return Next::Close;
            }
            if !self.output.is_empty() {
                return Next::Wait;
            }
            if self.closing {
                return Next::Close;
            }
            match http::parse(&self.input) {
                Parsed::Partial { .. } if self.ended => return Next::Close,
                Parsed::Partial { .. } if self.input.is_empty() && draining => return Next::Close,
                Parsed::Partial { expects_continue } => {
                    if expects_continue && !self.continued {
                        self.continued = true;
                        self.output
                            .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                        continue;
                    }
                    if drained {
                        return Next::Wait;
                    }
                    // The socket holds more than was taken, and will not be reported again.
                    match self.fill() {
                        Ok(_) if self.input.len() > MAX_INPUT => self.refuse(413),
                        Ok(now_drained) => drained = now_drained,
                        Err(_) => return Next::Close,
                    }
                }
                Parsed::Whole(request, used) => {
                    self.input.drain(..used);
                    self.continued = false;
                    let answer = answer(&request);
                    self.held = Some(Held {
                        until: now + answer.delay,
                        known: false,
                        request,
                        answer,
                    });
                }
                Parsed::Refused(status) => self.refuse(status),
            }
        }
    }

    fn refuse(&mut self, status: u16) {
        http::answer(&mut self.output, status, "text/plain", b"", false);
        self.closing = true;
    }

    /// Reads what has arrived, up to one request of the largest size; true when the socket has no more for now.
    fn fill(&mut self) -> std::io::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        while !self.ended && self.input.len() <= MAX_INPUT {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.ended = true,
                Ok(n) => self.input.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.ended)
    }

    fn put(&mut self, request: &Request, answer: &Answer, draining: bool) {
        let keep = request.keep_alive && !draining;
        self.closing |= !keep;
        http::answer(
            &mut self.output,
            answer.status,
            answer.content_type,
            &answer.body,
            keep,
        );
        if request.method == "HEAD" {
            self.output.truncate(self.output.len() - answer.body.len());
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }
}

fn held_until(held: &Option<Held>) -> Instant {
    held.as_ref()
        .expect("asked only while an answer is held")
        .until
}
