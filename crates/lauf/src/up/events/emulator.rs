//! Pub/Sub without credentials, as Google's emulator has it: for client libraries that are told so by
//! `PUBSUB_EMULATOR_HOST` and then send none. Only where it was asked for, and nothing but Pub/Sub.

use std::net::SocketAddr;

use anyhow::Context as _;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves `router` on an address.
pub(crate) async fn serve(address: SocketAddr, router: Router) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for clients of a Pub/Sub emulator"))?;
    Ok(tokio::spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: others have to go first.
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // An error is the client's: it went away or spoke something else.
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }))
}
