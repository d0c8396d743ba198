//! The loop: one thread, one epoll set.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mio::event::Source;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::conn::{Conn, Next};
use crate::page::Site;

const LISTENER: Token = Token(0);
const SIGNALS: Token = Token(1);
const FIRST_CONNECTION: usize = 2;

/// How long requests in progress may take after a SIGTERM. Cloud Run kills after ten seconds.
const DRAIN: Duration = Duration::from_secs(9);

/// Serves `site` on every address until a SIGTERM; returns how many requests were answered.
///
/// # Errors
/// When the port cannot be had or epoll fails.
pub(crate) fn run(port: u16, site: Site) -> io::Result<u64> {
    let start = Instant::now();
    let mut poll = Poll::new()?;
    let mut signals = signal_pipe()?;
    poll.registry()
        .register(&mut signals, SIGNALS, Interest::READABLE)?;
    let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    crate::log(
        "INFO",
        &format!("listening on port {port}: {}", site.greeting()),
    );

    let mut server = Server {
        site,
        start,
        served: 0,
        conns: HashMap::new(),
        sleepers: BinaryHeap::new(),
    };
    let mut events = Events::with_capacity(256);
    let mut next_token = FIRST_CONNECTION;
    let mut deadline: Option<Instant> = None;
    loop {
        let wake = server
            .sleepers
            .peek()
            .map(|Reverse((at, _))| *at)
            .into_iter()
            .chain(deadline)
            .min();
        let timeout = wake.map(|at| at.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let now = Instant::now();
        let draining = deadline.is_some();
        for event in &events {
            match event.token() {
                SIGNALS if !draining => {
                    deadline = Some(now + DRAIN);
                    listener.deregister(poll.registry())?;
                    server.conns.retain(|_, conn| !conn.is_idle());
                }
                SIGNALS => {}
                LISTENER if !draining => {
                    accept(&listener, &poll, &mut server, &mut next_token, now)?
                }
                LISTENER => {}
                Token(token) => server.advance(token, now, draining),
            }
        }
        server.wake(now, draining);
        if deadline.is_some_and(|at| server.conns.is_empty() || now >= at) {
            return Ok(server.served);
        }
    }
}

/// A pipe that becomes readable when the platform asks us to stop. As process 1 nobody else would handle the signal.
fn signal_pipe() -> io::Result<mio::net::UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGINT, writer.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGTERM, writer)?;
    Ok(mio::net::UnixStream::from_std(reader))
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    server: &mut Server,
    next: &mut usize,
    now: Instant,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let mut conn = Conn::new(stream);
                let token = *next;
                *next += 1;
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry()
                    .register(conn.stream(), Token(token), interest)?;
                server.conns.insert(token, conn);
                // The request is usually there already: answer it without another round through epoll.
                server.advance(token, now, false);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // A peer that is gone again, or no descriptor left: neither is a reason to stop serving the others.
            Err(error) => {
                crate::log("WARNING", &format!("accept: {error}"));
                return Ok(());
            }
        }
    }
}

/// The connections, and those of them that hold an answer back.
struct Server {
    site: Site,
    start: Instant,
    served: u64,
    conns: HashMap<usize, Conn>,
    sleepers: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Server {
    fn advance(&mut self, token: usize, now: Instant, draining: bool) {
        let Some(conn) = self.conns.get_mut(&token) else {
            return;
        };
        let (site, served, start) = (&self.site, &mut self.served, self.start);
        let next = conn.advance(now, draining, |request| {
            *served += 1;
            site.answer(request, *served, now - start)
        });
        match next {
            Next::Wait => {}
            Next::Sleep(until) => self.sleepers.push(Reverse((until, token))),
            Next::Close => {
                self.conns.remove(&token);
            }
        }
    }

    /// Answers those whose time has come.
    fn wake(&mut self, now: Instant, draining: bool) {
        while let Some(Reverse((at, token))) = self.sleepers.peek().copied() {
            if at > now {
                return;
            }
            self.sleepers.pop();
            self.advance(token, now, draining);
        }
    }
}
