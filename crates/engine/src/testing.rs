//! Instances for unit tests: a server on the loopback interface, or nothing.

use std::io;
use std::net::{SocketAddr, TcpStream};

use crate::Endpoint;

/// Whatever listens at the address, on whichever port it is asked for.
#[derive(Debug)]
pub(crate) struct Loopback(pub(crate) SocketAddr);

impl Endpoint for Loopback {
    fn connect(&self, _: u16) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.0)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

/// A container that never listens.
#[derive(Debug)]
pub(crate) struct Deaf;

impl Endpoint for Deaf {
    fn connect(&self, _: u16) -> io::Result<TcpStream> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}
