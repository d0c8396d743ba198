//! The sockets of one address, one for each data-plane thread: the kernel deals connections out among
//! them, and those that come before anything accepts wait in their queues.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};

use crate::GatewayError;

/// Connections that may wait to be accepted on one socket.
const BACKLOG: i32 = 4096;

/// An address that is listened on, by nobody but us.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    pub(crate) sockets: Vec<TcpListener>,
}

impl Listening {
    /// Takes an address for so many threads. Port 0 takes a free one.
    ///
    /// # Errors
    /// When it cannot be listened on, because another program has it or it is none of this machine.
    pub fn on(address: SocketAddr, threads: usize) -> Result<Self, GatewayError> {
        let failed = |source| GatewayError::Listen { address, source };
        // Sockets that share an address let others of the same user in, so a first one that does not
        // share makes sure that nobody else is there, and holds the place while the others come.
        let first = bind(address, false).map_err(failed)?;
        let address = net::getsockname(&first)
            .and_then(SocketAddr::try_from)
            .map_err(|error| failed(error.into()))?;
        net::sockopt::set_socket_reuseport(&first, true).map_err(|error| failed(error.into()))?;
        let listen = |_| {
            let socket = bind(address, true)?;
            net::listen(&socket, BACKLOG)?;
            Ok(socket.into())
        };
        let sockets = (0..threads.max(1)).map(listen).collect::<io::Result<_>>();
        Ok(Self {
            address,
            sockets: sockets.map_err(failed)?,
        })
    }

    /// The address, with its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    net::sockopt::set_socket_reuseport(&socket, shared)?;
    net::bind(&socket, &address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn an_address_is_ours_alone_and_connections_wait_in_it() {
        let ours = Listening::on(ANY, 2).unwrap();
        assert_ne!(ours.address().port(), 0);
        assert!(Listening::on(ours.address(), 2).is_err());
        assert!(TcpListener::bind(ours.address()).is_err());

        let mut early = TcpStream::connect(ours.address()).unwrap();
        early.write_all(b"x").unwrap();
        let (mut accepted, _) = ours
            .sockets
            .iter()
            .find_map(|socket| socket.accept().ok())
            .unwrap();
        let mut byte = [0];
        accepted.set_nonblocking(false).unwrap();
        accepted.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }
}
