//! Whoever answers what is not a service's host: the APIs, the registry, the console.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum_core::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::runtime::Handle;

/// How a request came to the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// The host the client asked for, lowercase, without port.
    pub host: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Whether it came through `CONNECT` or with an absolute URI.
    pub via_proxy: bool,
}

/// The answer of a [`Face`].
pub type FaceFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Answers everything that is not a service's host. Its futures run on the control runtime and are
/// dropped when the client goes away.
pub trait Face: Send + Sync + 'static {
    /// Answers one request.
    fn serve(&self, request: Request<Body>, info: ConnInfo) -> FaceFuture;
}

/// Has the face answer on the control runtime. `None` when it panicked.
pub(crate) async fn serve(
    face: &Arc<dyn Face>,
    control: &Handle,
    request: Request<Incoming>,
    info: ConnInfo,
) -> Option<Response<Body>> {
    let face = Arc::clone(face);
    let mut task =
        AbortOnDrop(control.spawn(async move { face.serve(request.map(Body::new), info).await }));
    (&mut task.0).await.ok()
}

/// A client that goes away takes its work with it.
struct AbortOnDrop(tokio::task::JoinHandle<Response<Body>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
