//! A resolver with a fake upstream, over real sockets.

use super::message::{A, AAAA, AXFR, NO_ERROR, REFUSED, SERVER_FAILURE, code, query, question};
use super::*;
use std::sync::atomic::AtomicUsize;

const OURS: Ipv4Addr = Ipv4Addr::new(10, 213, 0, 1);

/// An upstream that answers every A query with 9.9.9.9, first with a forged id, over UDP and TCP; counts what it is asked.
async fn upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(addr).await.unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let reply = |query: &[u8]| {
        message::answer(
            query,
            question(query).unwrap().unwrap().bytes,
            0,
            Some(&[9, 9, 9, 9]),
            60,
        )
    };
    let seen = Arc::clone(&count);
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (n, from) = udp.recv_from(&mut buffer).await.unwrap();
            seen.fetch_add(1, Ordering::SeqCst);
            let mut forged = reply(&buffer[..n]);
            forged[0] ^= 0xff;
            udp.send_to(&forged, from).await.unwrap();
            udp.send_to(&reply(&buffer[..n]), from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let query = read_framed(&mut stream).await.unwrap().unwrap();
            write_framed(&mut stream, &reply(&query)).await.unwrap();
        }
    });
    (addr, count)
}

async fn server(upstreams: Vec<SocketAddr>) -> SocketAddr {
    let server = DnsServer::bind(
        "127.0.0.1:0".parse().unwrap(),
        "run.localhost",
        OURS,
        upstreams,
    )
    .await
    .unwrap();
    let addr = server.local_addr().unwrap();
    tokio::spawn(server.run());
    addr
}

async fn ask(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let mut buffer = [0; 2048];
    let (n, _) = timeout(Duration::from_secs(20), socket.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    buffer[..n].to_vec()
}

#[tokio::test]
async fn the_platforms_names_lead_to_the_bridge() {
    let addr = server(vec![]).await;
    let reply = ask(addr, &query(1, "hello.Run.localhost", A)).await;
    assert!(reply.ends_with(&OURS.octets()));
    let reply = ask(addr, &query(1, "hello.run.localhost", AAAA)).await;
    assert_eq!(
        (code(&reply), reply[7]),
        (NO_ERROR, 0),
        "exists, but has no such record"
    );
    let reply = ask(addr, &query(1, "host.lauf.internal", A)).await;
    assert!(reply.ends_with(&OURS.octets()), "the host");
    let reply = ask(addr, &query(1, "notrun.localhost", A)).await;
    assert!(
        reply.ends_with(&[127, 0, 0, 1]),
        "a name that only ends alike is the loopback"
    );
    assert_eq!(
        code(&ask(addr, &query(1, "run.localhost", AXFR)).await),
        REFUSED
    );
}

#[tokio::test]
async fn the_rest_is_asked_once_and_kept() {
    let (up, count) = upstream().await;
    let addr = server(vec![up]).await;
    for id in [5, 6, 7] {
        let asked = query(id, "example.com", A);
        let reply = ask(addr, &asked).await;
        assert_eq!(reply[..2], asked[..2]);
        assert!(reply.ends_with(&[9, 9, 9, 9]));
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn tcp_clients_are_served_over_tcp() {
    let (up, count) = upstream().await;
    let addr = server(vec![up]).await;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    for name in ["a.example", "b.example", "x.run.localhost"] {
        write_framed(&mut stream, &query(3, name, A)).await.unwrap();
        let reply = read_framed(&mut stream).await.unwrap().unwrap();
        assert_eq!(reply[7], 1, "{name}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "none came by UDP");
}

#[tokio::test]
async fn silence_upstream_is_a_failure_and_the_next_one_is_asked() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (up, _) = upstream().await;
    let addr = server(vec![silent.local_addr().unwrap(), up]).await;
    assert!(
        ask(addr, &query(1, "example.com", A))
            .await
            .ends_with(&[9, 9, 9, 9])
    );
    let alone = server(vec![]).await;
    assert_eq!(
        code(&ask(alone, &query(1, "example.com", A)).await),
        SERVER_FAILURE
    );
}

#[test]
fn resolvers_are_read_as_the_c_library_reads_them() {
    let text = "# nameserver 1.1.1.1\nsearch x\nnameserver 127.0.0.53\nnameserver\t2001:db8::1\nnameserver bad\noptions a\nnameserver 8.8.8.8\nnameserver 8.8.4.4\n";
    let found: Vec<String> = host_resolvers(text)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, ["127.0.0.53:53", "[2001:db8::1]:53", "8.8.8.8:53"]);
}
