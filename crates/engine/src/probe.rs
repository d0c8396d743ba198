//! One try of a probe: TCP, HTTP or gRPC, against one instance.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lauf_model::container::{Port, Protocol};
use lauf_model::{Probe, ProbeAction};
use tokio::net::TcpStream;

use crate::Endpoint;

/// A health service's answer is a few bytes; more than this is no health service.
const MAX_ANSWER: usize = 4096;

/// The port a probe is about.
pub(crate) fn port(action: &ProbeAction, container: Port) -> u16 {
    let (ProbeAction::Tcp { port }
    | ProbeAction::Http { port, .. }
    | ProbeAction::Grpc { port, .. }) = action;
    port.unwrap_or(container.number)
}

/// What a probe is called in messages: `TCP`, `HTTP`, `GRPC`.
pub(crate) fn kind(action: &ProbeAction) -> &'static str {
    match action {
        ProbeAction::Tcp { .. } => "TCP",
        ProbeAction::Http { .. } => "HTTP",
        ProbeAction::Grpc { .. } => "GRPC",
    }
}

/// Tries once, within the probe's timeout. The error says what was wrong with the answer.
pub(crate) async fn attempt(
    endpoint: &Arc<dyn Endpoint>,
    container: Port,
    probe: &Probe,
) -> Result<(), String> {
    match tokio::time::timeout(probe.timeout, answer(endpoint, container, &probe.action)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {}", seconds(probe.timeout))),
    }
}

/// `1s`, `0.5s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

async fn answer(
    endpoint: &Arc<dyn Endpoint>,
    container: Port,
    action: &ProbeAction,
) -> Result<(), String> {
    let number = port(action, container);
    let stream = connect(endpoint, number).await?;
    match action {
        ProbeAction::Tcp { .. } => Ok(()),
        ProbeAction::Http { path, headers, .. } => {
            let mut request = Request::get(path)
                .header(header::HOST, format!("127.0.0.1:{number}"))
                .header(header::USER_AGENT, "Lauf-HealthCheck/1");
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request.body(Full::default()).map_err(|e| e.to_string())?;
            let h2 = container.protocol == Protocol::H2c && number == container.number;
            let status = send(stream, request, h2).await?.0;
            if (200..400).contains(&status.as_u16()) {
                Ok(())
            } else {
                Err(format!("status {}", status.as_u16()))
            }
        }
        ProbeAction::Grpc { service, .. } => {
            let request = Request::post(format!(
                "http://127.0.0.1:{number}/grpc.health.v1.Health/Check"
            ))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Full::from(health_request(service)))
            .map_err(|e| e.to_string())?;
            let (status, body) = send(stream, request, true).await?;
            if status != StatusCode::OK {
                return Err(format!("status {}", status.as_u16()));
            }
            // Frame: no compression, length, then field 1 (varint) = 1, SERVING.
            if body.get(5..) == Some(&[0x08, 0x01]) {
                Ok(())
            } else {
                Err("the health service does not say SERVING".to_owned())
            }
        }
    }
}

async fn connect(endpoint: &Arc<dyn Endpoint>, port: u16) -> Result<TcpStream, String> {
    let stream = endpoint.connect(port).map_err(|e| e.to_string())?;
    let stream = TcpStream::from_std(stream).map_err(|e| e.to_string())?;
    stream.writable().await.map_err(|e| e.to_string())?;
    match stream.take_error() {
        Ok(None) => Ok(stream),
        Ok(Some(e)) | Err(e) => Err(e.to_string()),
    }
}

async fn send(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
    h2: bool,
) -> Result<(StatusCode, Bytes), String> {
    let io = TokioIo::new(stream);
    let response = if h2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(text)?;
        let _driver =
            AbortOnDrop(tokio::spawn(async move { connection.await.ok() }).abort_handle());
        collect(sender.send_request(request).await.map_err(text)?).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(text)?;
        let _driver =
            AbortOnDrop(tokio::spawn(async move { connection.await.ok() }).abort_handle());
        collect(sender.send_request(request).await.map_err(text)?).await
    };
    Ok(response)
}

/// The status and as much of the body as a health answer has. What cannot be read is left out: a
/// probe is about the status.
async fn collect(response: http::Response<hyper::body::Incoming>) -> (StatusCode, Bytes) {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    (
        status,
        body.map(http_body_util::Collected::to_bytes)
            .unwrap_or_default(),
    )
}

fn text(error: hyper::Error) -> String {
    error.to_string()
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A gRPC frame with a `grpc.health.v1.HealthCheckRequest { service = 1 }`.
fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}
