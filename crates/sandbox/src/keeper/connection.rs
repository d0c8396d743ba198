//! The connection to the one server.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crate::protocol::{Reply, Request, VERSION};
use crate::settings::KeeperSettings;
use crate::wire::{FrameReader, FrameWriter};

/// A server that lets more than this pile up does not read; it is cut off and may come back.
const MAX_PENDING: usize = 16 << 20;

/// Below this, the next entries of a list are sent.
pub(super) const LIST_AHEAD: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) serial: u64,
    pub(super) socket: UnixStream,
    reader: FrameReader,
    writer: FrameWriter,
    /// Items still to be told for a `List`, with its `seq`.
    pub(super) listings: VecDeque<(u64, VecDeque<u64>)>,
    greeted: bool,
    /// Whether epoll watches for room to write.
    pub(super) watches_room: bool,
}

impl Connection {
    /// Takes a connection, when it comes from the user the keeper runs as.
    pub(super) fn accept(
        socket: UnixStream,
        serial: u64,
        gateways: Vec<Ipv4Addr>,
        settings: &KeeperSettings,
    ) -> io::Result<Self> {
        let peer = rustix::net::sockopt::socket_peercred(&socket)?;
        if peer.uid != rustix::process::geteuid() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the peer is another user",
            ));
        }
        socket.set_nonblocking(true)?;
        let mut connection = Self {
            serial,
            socket,
            reader: FrameReader::default(),
            writer: FrameWriter::default(),
            listings: VecDeque::new(),
            greeted: false,
            watches_room: false,
        };
        connection.say(
            &Reply::Hello {
                version: VERSION,
                pid: std::process::id(),
                gateways,
                settings: Some(Box::new(settings.clone())),
            },
            Vec::new(),
        )?;
        Ok(connection)
    }

    pub(super) fn say(&mut self, reply: &Reply, fds: Vec<OwnedFd>) -> io::Result<()> {
        if self.writer.pending() > MAX_PENDING {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "the server does not read",
            ));
        }
        self.writer.push(reply, fds)
    }

    pub(super) fn pending(&self) -> usize {
        self.writer.pending()
    }

    pub(super) fn flush(&mut self) -> io::Result<bool> {
        self.writer.flush(&self.socket)
    }

    /// Reads what is there. The end of the stream is an error.
    pub(super) fn read(&mut self) -> io::Result<Vec<Request>> {
        let mut requests = Vec::new();
        match self.reader.fill(&self.socket) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(e) => return Err(e),
        }
        while let Some(frame) = self.reader.next_frame()? {
            let request: Request = frame.decode()?;
            match request {
                Request::Hello { version } if version == VERSION => self.greeted = true,
                Request::Hello { version } => {
                    return Err(io::Error::other(format!(
                        "the server speaks version {version}, this keeper {VERSION}"
                    )));
                }
                other if self.greeted => requests.push(other),
                _ => return Err(io::Error::other("the first message must be a greeting")),
            }
        }
        Ok(requests)
    }
}
