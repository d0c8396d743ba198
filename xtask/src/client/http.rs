//! HTTP/1.1: one request, or many over one connection.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;

use super::Target;

/// A whole answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The beginning of the body, for a message.
    pub(crate) fn start(&self) -> String {
        self.text().chars().take(200).collect()
    }
}

/// A connection that stays open between requests.
pub(crate) struct Connection {
    host: String,
    sender: SendRequest<Empty<Bytes>>,
}

impl Connection {
    /// Connects to a target.
    pub(crate) async fn open(target: &Target) -> Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(target.connect().await?)).await?;
        // It ends with the sender; what goes wrong on it is told to the request in progress.
        tokio::spawn(connection);
        Ok(Self {
            host: target.host.clone(),
            sender,
        })
    }

    /// Asks for a path and reads the whole answer.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Reply> {
        let request = Request::get(path)
            .header(header::HOST, &self.host)
            .body(Empty::new())?;
        self.sender.ready().await?;
        let response = self
            .sender
            .send_request(request)
            .await
            .with_context(|| format!("GET {path}"))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Reply { status, body })
    }
}

/// Asks for a path over a connection of its own.
pub(crate) async fn get(target: &Target, path: &str) -> Result<Reply> {
    Connection::open(target).await?.get(path).await
}
