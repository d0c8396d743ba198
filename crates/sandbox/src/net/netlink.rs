//! Just enough rtnetlink (netlink(7), rtnetlink(7)): build messages, send many in one go, read the answers.
//!
//! Written by hand because an attach is on the clock: one `sendmsg` for a whole batch, no thread, no runtime, no allocation per message.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_GETROUTE: u16 = 26;
pub(super) const RTM_NEWNEIGH: u16 = 28;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;

/// A batch of requests, each to be acknowledged.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    count: usize,
    /// Requests whose failure is none, by their place.
    optional: Vec<usize>,
}

impl Batch {
    /// Appends a request: the fixed part of its kind, then the attributes that `fill` adds.
    pub(super) fn push(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        self.count += 1;
        let sequence = u32::try_from(self.count).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(flags | REQUEST | ACK).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        pad(&mut self.bytes);
        fill(&mut Attributes {
            bytes: &mut self.bytes,
        });
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        patch(&mut self.bytes, start, &length.to_ne_bytes());
    }

    /// What the last request asks for is not there on every kernel, and can be done without.
    pub(super) fn last_may_fail(&mut self) {
        self.optional.extend(self.count.checked_sub(1));
    }
}

/// Writes the attributes of one message.
pub(super) struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        pad(self.bytes);
        self
    }

    pub(super) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub(super) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut zero_ended = value.as_bytes().to_vec();
        zero_ended.push(0);
        self.bytes(kind, &zero_ended)
    }

    pub(super) fn ip(&mut self, kind: u16, value: Ipv4Addr) -> &mut Self {
        self.bytes(kind, &value.octets())
    }

    /// An attribute that holds others, after a fixed part if it has one.
    pub(super) fn nest(
        &mut self,
        kind: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        fill(&mut Attributes { bytes: self.bytes });
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        patch(self.bytes, start, &length.to_ne_bytes());
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn patch(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// `struct ifinfomsg`.
pub(super) fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut h = [0; 16];
    patch(&mut h, 4, &index.to_ne_bytes());
    patch(&mut h, 8, &flags.to_ne_bytes());
    patch(&mut h, 12, &change.to_ne_bytes());
    h
}

/// `struct ifaddrmsg` for IPv4.
pub(super) fn address_header(prefix: u8, index: u32) -> [u8; 8] {
    let mut h = [2, prefix, 0, 0, 0, 0, 0, 0];
    patch(&mut h, 4, &index.to_ne_bytes());
    h
}

/// `struct ndmsg` for an IPv4 neighbour that never expires.
pub(super) fn neighbour_header(index: u32) -> [u8; 12] {
    const PERMANENT: u8 = 0x80;
    let mut h = [2, 0, 0, 0, 0, 0, 0, 0, PERMANENT, 0, 0, 0];
    patch(&mut h, 4, &index.to_ne_bytes());
    h
}

/// `struct rtmsg` for an IPv4 route to one address that is right behind the link.
pub(super) const HOST_ROUTE_HEADER: [u8; 12] = {
    const MAIN: u8 = 254;
    const BOOT: u8 = 3;
    const LINK: u8 = 253;
    const UNICAST: u8 = 1;
    [2, 32, 0, 0, MAIN, BOOT, LINK, UNICAST, 0, 0, 0, 0]
};

/// `struct rtmsg` for an IPv4 default route whose gateway needs no route of its own (`onlink`).
pub(super) const DEFAULT_ROUTE_HEADER: [u8; 12] = {
    const MAIN: u8 = 254;
    const BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    const ONLINK: u8 = 4;
    [2, 0, 0, 0, MAIN, BOOT, 0, UNICAST, ONLINK, 0, 0, 0]
};

/// A NETLINK_ROUTE socket of the network namespace it was opened in.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { fd })
    }

    /// Sends a batch; the result has one entry per request, in order. All are carried out, those after a failed one too.
    pub(super) fn run(&self, batch: &Batch) -> io::Result<Vec<io::Result<()>>> {
        self.send(&batch.bytes)?;
        let mut results: Vec<io::Result<()>> = Vec::with_capacity(batch.count);
        let mut buffer = vec![0u8; 16 * 1024];
        while results.len() < batch.count {
            let received = self.receive(&mut buffer)?;
            for message in messages(received) {
                if message.kind == NLMSG_ERROR {
                    results.push(message.error());
                }
            }
        }
        Ok(results)
    }

    /// Sends a batch and reports the first failure.
    pub(super) fn run_all(&self, batch: &Batch) -> io::Result<()> {
        let results = self.run(batch)?.into_iter().enumerate();
        results
            .filter(|(place, _)| !batch.optional.contains(place))
            .try_for_each(|(_, result)| result)
    }

    /// Asks for everything of a kind and hands each answer's body (without the netlink header) to `each`.
    pub(super) fn dump(
        &self,
        kind: u16,
        fixed: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        let mut request = Vec::with_capacity(HEADER + fixed.len());
        let length = u32::try_from(HEADER + fixed.len()).unwrap_or(u32::MAX);
        request.extend_from_slice(&length.to_ne_bytes());
        request.extend_from_slice(&kind.to_ne_bytes());
        request.extend_from_slice(&(REQUEST | DUMP).to_ne_bytes());
        request.extend_from_slice(&[0; 8]);
        request.extend_from_slice(fixed);
        self.send(&request)?;
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let received = self.receive(&mut buffer)?;
            for message in messages(received) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return message.error(),
                    _ => each(message.body),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::sendto(
            self.fd.as_fd(),
            bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        Ok(())
    }

    fn receive<'b>(&self, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let (filled, length) = loop {
            match rustix::net::recv(self.fd.as_fd(), &mut *buffer, RecvFlags::TRUNC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        if length > filled {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(buffer.get(..filled).unwrap_or_default())
    }
}

struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

impl Message<'_> {
    /// `struct nlmsgerr`: the negated errno first, zero being an acknowledgement.
    fn error(&self) -> io::Result<()> {
        let code = self
            .body
            .get(..4)
            .and_then(|b| b.try_into().ok())
            .map_or(0, i32::from_ne_bytes);
        if code == 0 {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(code.wrapping_neg()))
        }
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 4)?;
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    })
}

/// The attributes in `bytes`, as (kind, value).
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // The two upper bits are flags (nested, byte order).
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn ip_of(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut batch = Batch::default();
        batch.push(RTM_NEWLINK, CREATE, &link_header(7, 1, 1), |a| {
            a.text(3, "abc").nest(18, &[], |a| {
                a.text(1, "veth").u32(4, 9);
            });
        });
        batch.push(RTM_NEWADDR, 0, &address_header(32, 7), |a| {
            a.ip(2, Ipv4Addr::new(10, 1, 2, 3));
        });
        let all: Vec<_> = messages(&batch.bytes)
            .map(|m| (m.kind, m.body.to_vec()))
            .collect();
        assert_eq!(all.len(), 2);
        let link: Vec<_> = attributes(&all[0].1[16..]).collect();
        assert_eq!(link[0], (3, b"abc\0".as_slice()));
        assert_eq!(
            attributes(link[1].1).nth(1),
            Some((4, 9u32.to_ne_bytes().as_slice()))
        );
        assert_eq!(
            ip_of(attributes(&all[1].1[8..]).next().unwrap().1),
            Some(Ipv4Addr::new(10, 1, 2, 3))
        );
    }

    #[test]
    fn cut_off_messages_end_the_walk() {
        let whole: Vec<_> = {
            let mut b = Batch::default();
            b.push(RTM_NEWLINK, 0, &link_header(1, 0, 0), |a| {
                a.text(3, "x");
            });
            b.bytes
        };
        for cut in 0..whole.len() {
            assert_eq!(messages(&whole[..cut]).count(), 0);
            let _ = attributes(&whole[..cut]).count();
        }
    }
}
