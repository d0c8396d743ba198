//! The DNS server of instances, on the gateway's address.
//!
//! Names of the platform (`*.run.localhost`) are answered with the gateway's address, so that one service reaches another by the URL
//! people use; so is `host.lauf.internal`, the host itself; other `localhost` names stay the loopback (RFC 6761); everything else is passed to the host's resolvers as it is, and
//! their answers are kept for as long as they say, at most five minutes.
//!
//! Laws: no query makes anything grow without bound (queries in flight, connections and kept answers are counted); an answer from
//! upstream counts only if id and question are the ones sent, from a port of their own; a resolver that is silent is passed over.

mod cache;
mod message;

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use cache::Cache;
use message::Question;

/// How long one resolver may think.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// The most queries waiting for a resolver at once; beyond that, SERVFAIL at once.
const IN_FLIGHT: usize = 512;
/// The most TCP connections; beyond that they wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// What instances call the host, of which they reach the ports that the operator lists.
pub const HOST_NAME: &str = "host.lauf.internal";
/// Answers about the platform's own names hold for this many seconds.
const OWN_TTL: u32 = 60;

/// A bound server; [`DnsServer::run`] serves.
#[derive(Debug)]
pub struct DnsServer {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    zone: String,
    answer: Ipv4Addr,
    upstreams: Vec<SocketAddr>,
    cache: Cache,
    in_flight: Semaphore,
    /// With a secret key, so that the numbers it makes of a counter cannot be foretold.
    random: RandomState,
    asked: AtomicU64,
}

/// How a query came, which decides how it is passed on: what fits a datagram must not come back cut off over TCP.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

impl DnsServer {
    /// Binds UDP and TCP on `addr`. `zone` is the platform's domain, whose names are all answered with `answer`; `upstreams` are asked
    /// in turn for the rest, less those that are this server itself.
    ///
    /// # Errors
    /// The address in use, or no right to port 53.
    pub async fn bind(
        addr: SocketAddr,
        zone: &str,
        answer: Ipv4Addr,
        upstreams: Vec<SocketAddr>,
    ) -> io::Result<Self> {
        let tcp = TcpListener::bind(addr).await?;
        let addr = tcp.local_addr()?;
        let udp = Arc::new(UdpSocket::bind(addr).await?);
        let shared = Shared {
            zone: zone.trim_matches('.').to_ascii_lowercase(),
            answer,
            upstreams: upstreams.into_iter().filter(|u| *u != addr).collect(),
            cache: Cache::default(),
            in_flight: Semaphore::new(IN_FLIGHT),
            random: RandomState::new(),
            asked: AtomicU64::new(0),
        };
        Ok(Self {
            udp,
            tcp,
            shared: Arc::new(shared),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// A socket that is broken for good.
    pub async fn run(self) -> io::Result<()> {
        tokio::try_join!(
            serve_udp(self.udp, Arc::clone(&self.shared)),
            serve_tcp(self.tcp, self.shared)
        )?;
        Ok(())
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) -> io::Result<()> {
    let mut buffer = [0u8; 4096];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An answer to somebody who has gone comes back as an error on the next call.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => return Err(e),
        };
        let query = buffer.get(..length).unwrap_or_default();
        // Most queries need nobody else and are answered here; the rest get a task each, of which there is a fixed number.
        match shared.local(query) {
            Local::Ignore => {}
            Local::Answer(reply) => drop(socket.try_send_to(&reply, from)),
            Local::Forward => {
                let (socket, shared, query) =
                    (Arc::clone(&socket), Arc::clone(&shared), query.to_vec());
                if shared.in_flight.available_permits() == 0 {
                    drop(socket.try_send_to(&shared.failure(&query), from));
                    continue;
                }
                tokio::spawn(async move {
                    let reply = shared.forward(&query, Transport::Udp).await;
                    drop(socket.try_send_to(&reply, from));
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) -> io::Result<()> {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return Ok(());
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Out of descriptors, or a client that left: neither is for good.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _permit = permit;
            // A client that breaks off has nobody to be told.
            let _ = converse(stream, &shared).await;
        });
    }
}

/// One TCP connection: queries and answers in turn, each after its length (RFC 1035 section 4.2.2).
async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    while let Some(query) = timeout(IDLE, read_framed(&mut stream)).await?? {
        let reply = match shared.local(&query) {
            Local::Ignore => return Ok(()),
            Local::Answer(reply) => reply,
            Local::Forward => shared.forward(&query, Transport::Tcp).await,
        };
        timeout(IDLE, write_framed(&mut stream, &reply)).await??;
    }
    Ok(())
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// What can be said without asking anybody.
enum Local {
    Ignore,
    Answer(Vec<u8>),
    Forward,
}

impl Shared {
    fn local(&self, query: &[u8]) -> Local {
        let question = match message::question(query) {
            None => return Local::Ignore,
            Some(Err(code)) => return Local::Answer(message::answer(query, &[], code, None, 0)),
            Some(Ok(question)) => question,
        };
        let say = |code, address: Option<&[u8]>| {
            Local::Answer(message::answer(
                query,
                question.bytes,
                code,
                address,
                OWN_TTL,
            ))
        };
        if question.class != 1 || matches!(question.kind, message::AXFR | message::IXFR) {
            return say(message::REFUSED, None);
        }
        if question.kind == message::ANY {
            return say(message::NOT_IMPLEMENTED, None);
        }
        if within(&question, &self.zone) {
            let address = self.answer.octets();
            return say(
                message::NO_ERROR,
                (question.kind == message::A).then_some(address.as_slice()),
            );
        }
        if question.name == HOST_NAME {
            let address = self.answer.octets();
            let address = (question.kind == message::A).then_some(address.as_slice());
            return say(message::NO_ERROR, address);
        }
        if within(&question, "localhost") {
            return match question.kind {
                message::A => say(message::NO_ERROR, Some(&Ipv4Addr::LOCALHOST.octets())),
                message::AAAA => say(message::NO_ERROR, Some(&Ipv6Addr::LOCALHOST.octets())),
                _ => say(message::NO_ERROR, None),
            };
        }
        self.cache.get(query).map_or(Local::Forward, Local::Answer)
    }

    /// Asks the resolvers in turn, twice around.
    async fn forward(&self, query: &[u8], transport: Transport) -> Vec<u8> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return self.failure(query);
        };
        for upstream in self.upstreams.iter().chain(&self.upstreams) {
            // An id of our own: a client's may be a small number that others can guess.
            let id = self
                .random
                .hash_one(self.asked.fetch_add(1, Ordering::Relaxed))
                .to_be_bytes();
            let mut asked = query.to_vec();
            if let (Some(place), Some(id)) = (asked.get_mut(..2), id.get(..2)) {
                place.copy_from_slice(id);
            }
            let exchange = async {
                match transport {
                    Transport::Udp => ask_udp(&asked, *upstream).await,
                    Transport::Tcp => ask_tcp(&asked, *upstream).await,
                }
            };
            let Ok(Ok(mut reply)) = timeout(PATIENCE, exchange).await else {
                continue;
            };
            if let (Some(place), Some(id)) = (reply.get_mut(..2), query.get(..2)) {
                place.copy_from_slice(id);
            }
            if message::code(&reply) == message::SERVER_FAILURE {
                continue;
            }
            self.cache.put(query, &reply);
            return reply;
        }
        self.failure(query)
    }

    fn failure(&self, query: &[u8]) -> Vec<u8> {
        let question = message::question(query)
            .and_then(Result::ok)
            .map_or(&[][..], |q| q.bytes);
        message::answer(query, question, message::SERVER_FAILURE, None, 0)
    }
}

fn within(question: &Question<'_>, zone: &str) -> bool {
    !zone.is_empty()
        && question
            .name
            .strip_suffix(zone)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// One exchange from a port of its own, which with the id makes forging an answer from elsewhere a matter of 2^32 guesses.
async fn ask_udp(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if upstream.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut buffer = vec![0u8; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let reply = buffer.get(..length).unwrap_or_default();
        if message::answers(query, reply) {
            return Ok(reply.to_vec());
        }
    }
}

async fn ask_tcp(query: &[u8], upstream: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_framed(&mut stream, query).await?;
    let reply = read_framed(&mut stream)
        .await?
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    if message::answers(query, &reply) {
        Ok(reply)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// The resolvers in the text of `/etc/resolv.conf` (resolv.conf(5)), the first three as the C library does.
#[must_use]
pub fn host_resolvers(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            // An address with a scope (fe80::1%eth0) has no meaning as plain text.
            (words.next() == Some("nameserver"))
                .then(|| words.next()?.parse().ok())
                .flatten()
        })
        .map(|ip| SocketAddr::new(ip, 53))
        .take(3)
        .collect()
}

#[cfg(test)]
mod tests;
