//! JSON over HTTP, as the REST faces of the APIs speak it.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::{Target, timed};

/// Sends a request and reads the answer. `null` is sent as no body at all.
///
/// # Errors
/// No answer in time, a status that is not 200, or an answer that is not JSON.
pub(crate) async fn call(
    target: &Target,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: &Value,
) -> Result<Value> {
    let what = format!("{method} {path}");
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, &target.host)
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = if body.is_null() {
        Bytes::new()
    } else {
        serde_json::to_vec(body)?.into()
    };
    let request = request.body(Full::new(body))?;
    let exchange = async {
        let (mut sender, connection) = handshake(TokioIo::new(target.connect().await?)).await?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, body))
    };
    let (_, (status, body)) = timed(exchange).await.with_context(|| what.clone())?;
    let text = String::from_utf8_lossy(&body);
    ensure!(status == 200, "{what} answered {status}: {text}");
    serde_json::from_str(&text).with_context(|| format!("{what} answered no JSON: {text}"))
}
