//! Ports of this machine for instances: `host.lauf.internal:5432` is the database that listens here.
//!
//! Databases listen on the loopback interface, where no packet of an instance can go. So each listed port is taken on the bridges'
//! addresses, and what connects there is passed on to the same port of 127.0.0.1. Where the program listens on all addresses, it
//! has the port itself, and instances reach it without this.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The most connections through one port at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;

/// Takes the ports and serves them for as long as the program runs.
pub(super) async fn open(gateways: &[Ipv4Addr], ports: &[u16]) {
    for gateway in gateways {
        for port in ports {
            let address = SocketAddr::from((*gateway, *port));
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
                    tokio::spawn(pass_on(listener, target));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    tracing::info!(%address, "the program that listens here is reached by instances directly");
                }
                Err(error) => {
                    tracing::error!(%error, %address, "instances cannot reach this port of the machine");
                }
            }
        }
    }
}

async fn pass_on(listener: TcpListener, target: SocketAddr) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let mut client = match listener.accept().await {
            Ok((client, _)) => client,
            // Out of descriptors, or a client that left: neither is for good.
            Err(_) => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                continue;
            }
        };
        tokio::spawn(async move {
            let _permit = permit;
            // Nobody listens: the client sees its connection closed, as it would see it refused.
            if let Ok(mut server) = TcpStream::connect(target).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_connection_is_passed_on_both_ways() {
        let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = database.local_addr().unwrap();
        let bridge = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = bridge.local_addr().unwrap();
        tokio::spawn(pass_on(bridge, target));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"query").await.unwrap();
        let (mut server, _) = database.accept().await.unwrap();
        let mut asked = [0; 5];
        server.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"query");
        server.write_all(b"rows").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"rows");
        // With nobody behind it, the connection ends.
        drop(database);
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}
