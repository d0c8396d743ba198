//! A connection to an instance.

use std::io;
use std::time::Duration;

use lauf_engine::Instance;
use tokio::net::TcpStream;

/// Connects to a port of an instance.
pub(crate) async fn dial(
    instance: &Instance,
    port: u16,
    within: Duration,
) -> io::Result<TcpStream> {
    let socket = match instance.first.take() {
        Some(first) if port == instance.spec.container.port.number => first,
        _ => instance.endpoint.connect(port)?,
    };
    socket.set_nonblocking(true)?;
    let stream = TcpStream::from_std(socket)?;
    tokio::time::timeout(within, stream.writable())
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}
