//! The API alone on a port of loopback, over services that are ready at once and serve nothing:
//! for trying clients before there is a platform.
//!
//! `cargo run -p lauf-api --example serve -- 127.0.0.1:18080` prints the token and serves until it
//! is ended.

#[path = "../tests/support/mod.rs"]
mod support;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use lauf_store::{Version, WatchQuery};

#[tokio::main]
async fn main() {
    let platform = support::Platform::new().await;
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:18080".into());
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    println!("{}", platform.token);
    let store = platform.store.clone();
    tokio::spawn(async move {
        let mut watch = store.watch(WatchQuery::default(), Version::ZERO);
        while watch.next().await.is_some() {
            support::reconcile(&store).await;
        }
    });
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(platform.router.clone());
        tokio::spawn(async move {
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}
