//! Whoever answers what is not a service's host: the APIs, the registry, the console.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_core::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::body::{BoxError, FromClient};
use crate::message::RequestHead;

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
    head: RequestHead,
    body: FromClient,
    info: ConnInfo,
) -> Option<Response<Body>> {
    let face = Arc::clone(face);
    let request = head.to_http(head.version, head.uri(), to_other_thread(body));
    let mut task = AbortOnDrop(control.spawn(async move { face.serve(request, info).await }));
    (&mut task.0).await.ok()
}

/// Frames of a body on their way to the control runtime. The client is read no faster than they are taken.
const FRAMES: usize = 2;

/// A body that another thread can read.
fn to_other_thread(body: FromClient) -> Body {
    let mut body = match body {
        FromClient::Empty => return Body::empty(),
        FromClient::Http2(body) => return Body::new(body),
        FromClient::Http1(body) => body,
    };
    let (sender, receiver) = mpsc::channel(FRAMES);
    tokio::task::spawn_local(async move {
        loop {
            let frame = tokio::select! {
                biased;
                () = sender.closed() => return,
                frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)) => frame,
            };
            let Some(frame) = frame else { return };
            let last = frame.is_err();
            if sender.send(frame).await.is_err() || last {
                return;
            }
        }
    });
    Body::new(Relayed(receiver))
}

/// The other end of it.
struct Relayed(mpsc::Receiver<Result<Frame<Bytes>, BoxError>>);

impl http_body::Body for Relayed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx)
    }
}

/// A client that goes away takes its work with it.
struct AbortOnDrop(tokio::task::JoinHandle<Response<Body>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
