//! One try of a probe: TCP, HTTP or gRPC, against one instance.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lauf_model::container::{Port, Protocol};
use lauf_model::{Container, Probe, ProbeAction};
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

/// `failed 3 times consecutively for container "x" on port 8080 path "/healthz"`, as Cloud Run words it (Cloud Run, "Troubleshoot").
pub(crate) fn failed_times(container: &Container, action: &ProbeAction, times: u32) -> String {
    let port = port(action, container.port);
    let path = match action {
        ProbeAction::Http { path, .. } => format!(" path \"{path}\""),
        _ => String::new(),
    };
    let name = if container.name.is_empty() {
        "ingress"
    } else {
        &container.name
    };
    let times = match times {
        1 => "1 time".to_owned(),
        n => format!("{n} times"),
    };
    format!(
        "{} probe failed {times} consecutively for container \"{name}\" on port {port}{path}",
        kind(action)
    )
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
            let h2 = container.protocol == Protocol::H2c && number == container.number;
            let request = get(number, path, headers, h2)?;
            let status = send(stream, request, h2).await?.status;
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
            serving(&send(stream, request, true).await?)
        }
    }
}

fn get(
    port: u16,
    path: &str,
    headers: &[(String, String)],
    h2: bool,
) -> Result<Request<Full<Bytes>>, String> {
    let own_host = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = own_host.map_or_else(|| format!("127.0.0.1:{port}"), |(_, value)| value.clone());
    // HTTP/2 says the host in the address, HTTP/1 in a header.
    let mut request = if h2 {
        Request::get(format!("http://{host}{path}"))
    } else {
        Request::get(path).header(header::HOST, host)
    };
    request = request.header(header::USER_AGENT, "Lauf-HealthCheck/1");
    let others = headers
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("host"));
    for (name, value) in others {
        request = request.header(name, value);
    }
    request.body(Full::default()).map_err(|e| e.to_string())
}

/// What the answer of a health service says (gRPC, "GRPC Health Checking Protocol").
fn serving(answer: &Answer) -> Result<(), String> {
    if answer.status != StatusCode::OK {
        return Err(format!("status {}", answer.status.as_u16()));
    }
    let said = |name: &str| answer.said.get(name).and_then(|v| v.to_str().ok());
    match said("grpc-status") {
        Some("0") => {}
        Some("5") => return Err("the health service does not know this service name".to_owned()),
        Some("12") => {
            return Err("the server has no health service (grpc.health.v1.Health)".to_owned());
        }
        Some(code) => {
            let message = said("grpc-message").unwrap_or_default();
            return Err(format!("grpc-status {code} {message}")
                .trim_end()
                .to_owned());
        }
        None => return Err("the answer ended without a grpc-status".to_owned()),
    }
    // Frame: no compression, length, then field 1 (varint): the state.
    match answer.body.get(5..) {
        Some(&[0x08, 1]) => Ok(()),
        Some(&[0x08, 2]) => Err("the health service says NOT_SERVING".to_owned()),
        Some(&[0x08, 3]) => Err("the health service says SERVICE_UNKNOWN".to_owned()),
        _ => Err("the health service does not say SERVING".to_owned()),
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

/// An answer, as far as probes look at it.
struct Answer {
    status: StatusCode,
    body: Bytes,
    /// Trailers, or headers when there were none: where gRPC says how a call went.
    said: HeaderMap,
}

async fn send(
    stream: TcpStream,
    request: Request<Full<Bytes>>,
    h2: bool,
) -> Result<Answer, String> {
    let io = TokioIo::new(stream);
    if h2 {
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
        let response = sender.send_request(request).await.map_err(text)?;
        // An HTTP probe is about the status.
        let (parts, _body) = response.into_parts();
        Ok(Answer {
            status: parts.status,
            body: Bytes::new(),
            said: parts.headers,
        })
    }
}

async fn collect(response: http::Response<hyper::body::Incoming>) -> Result<Answer, String> {
    let (parts, body) = response.into_parts();
    let (body, said) = match Limited::new(body, MAX_ANSWER).collect().await {
        Ok(collected) => {
            let trailers = collected.trailers().cloned();
            (collected.to_bytes(), trailers)
        }
        // What cannot be read, or is no health service's, is left out.
        Err(_) => (Bytes::new(), None),
    };
    Ok(Answer {
        status: parts.status,
        body,
        said: said.unwrap_or(parts.headers),
    })
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{HeaderValue, Response};
    use http_body_util::combinators::BoxBody;
    use hyper::body::Incoming;
    use hyper::service::service_fn;

    use super::*;
    use crate::testing::{Deaf, Loopback};

    type Body = BoxBody<Bytes, Infallible>;

    /// An instance whose server is `app`.
    async fn instance<F>(h2: bool, app: F) -> Arc<dyn Endpoint>
    where
        F: Fn(Request<Bytes>) -> Response<Body> + Clone + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let app = app.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let app = app.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        Ok::<_, Infallible>(app(Request::from_parts(parts, body)))
                    }
                });
                let io = TokioIo::new(stream);
                tokio::spawn(async move {
                    if h2 {
                        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        server.serve_connection(io, service).await.ok();
                    } else {
                        let server = hyper::server::conn::http1::Builder::new();
                        server.serve_connection(io, service).await.ok();
                    }
                });
            }
        });
        Arc::new(Loopback(address))
    }

    fn probe(action: ProbeAction) -> Probe {
        Probe {
            action,
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            failure_threshold: 3,
            success_threshold: 1,
        }
    }

    fn http(path: &str, headers: &[(&str, &str)]) -> Probe {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        probe(ProbeAction::Http {
            path: path.to_owned(),
            port: None,
            headers: headers.iter().map(owned).collect(),
        })
    }

    fn empty(status: u16) -> Response<Body> {
        let mut response = Response::new(Full::default().boxed());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    /// A server that answers with the status in the path, and 400 to a request that is not as a probe's should be.
    fn statuses(request: Request<Bytes>) -> Response<Body> {
        let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
        let host = request
            .uri()
            .authority()
            .map(|a| a.as_str().as_bytes())
            .or(header("host"));
        let hosts = request.headers().get_all("host").iter().count();
        let well = request.method() == "GET"
            && hosts <= 1
            && (host == Some(b"127.0.0.1:8080") || host == Some(b"app.example"))
            && header("user-agent").is_some();
        let path = request.uri().path().trim_start_matches('/').to_owned();
        match (path.as_str(), header("x-probe")) {
            _ if !well => empty(400),
            ("header", value) => empty(if value == Some(b"yes") { 200 } else { 500 }),
            ("host", _) => empty(if host == Some(b"app.example") {
                200
            } else {
                500
            }),
            (status, _) => empty(status.parse().unwrap()),
        }
    }

    #[tokio::test]
    async fn http_probes_pass_from_200_to_399() {
        for protocol in [Protocol::Http1, Protocol::H2c] {
            let port = Port {
                number: 8080,
                protocol,
            };
            let app = instance(protocol == Protocol::H2c, statuses).await;
            let ask = async |probe: &Probe| attempt(&app, port, probe).await;
            for (path, answer) in [
                ("/200", Ok(())),
                ("/204?deep=1", Ok(())),
                ("/399", Ok(())),
                ("/400", Err("status 400".to_owned())),
                ("/503", Err("status 503".to_owned())),
            ] {
                assert_eq!(ask(&http(path, &[])).await, answer, "{path} {protocol:?}");
            }
            assert_eq!(ask(&http("/header", &[("X-Probe", "yes")])).await, Ok(()));
            assert_eq!(
                ask(&http("/host", &[("Host", "app.example")])).await,
                Ok(())
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_fails_at_the_timeout() {
        // Takes connections and says nothing.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app: Arc<dyn Endpoint> = Arc::new(Loopback(address));
        let mut quick = http("/", &[]);
        quick.timeout = Duration::from_millis(50);
        let answer = attempt(&app, Port::default(), &quick).await;
        assert_eq!(answer, Err("no answer within 0.05s".to_owned()));
        let tcp = probe(ProbeAction::Tcp { port: Some(9) });
        assert_eq!(attempt(&app, Port::default(), &tcp).await, Ok(()));
        let deaf: Arc<dyn Endpoint> = Arc::new(Deaf);
        let refused = attempt(&deaf, Port::default(), &tcp).await.unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
    }

    /// A health service that serves `map.Route` and the server as a whole, knows that `map.Sick` is not well, and nothing else.
    fn health(request: Request<Bytes>) -> Response<Body> {
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        let (state, status) = match request.body().get(7..).unwrap_or_default() {
            b"" | b"map.Route" => (Some(1_u8), "0"),
            b"map.Sick" => (Some(2), "0"),
            b"map.Without" => (None, "12"),
            _ => (None, "5"),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(status));
        let Some(state) = state else {
            let mut response = empty(200);
            *response.headers_mut() = trailers;
            return response;
        };
        let frame = Bytes::from(vec![0, 0, 0, 0, 2, 8, state]);
        let body = Full::new(frame).with_trailers(async move { Some(Ok(trailers)) });
        Response::new(body.boxed())
    }

    #[tokio::test]
    async fn grpc_probes_ask_the_health_service() {
        let app = instance(true, health).await;
        let port = Port::default();
        for (service, answer) in [
            ("", Ok(())),
            ("map.Route", Ok(())),
            ("map.Sick", Err("the health service says NOT_SERVING")),
            (
                "map.Other",
                Err("the health service does not know this service name"),
            ),
            (
                "map.Without",
                Err("the server has no health service (grpc.health.v1.Health)"),
            ),
        ] {
            let service = service.to_owned();
            let probe = probe(ProbeAction::Grpc {
                port: None,
                service,
            });
            let answer = answer.map_err(str::to_owned);
            assert_eq!(attempt(&app, port, &probe).await, answer, "{probe:?}");
        }
    }

    #[test]
    fn a_long_service_name_is_framed() {
        let name = "s".repeat(300);
        let frame = health_request(&name);
        assert_eq!(&frame[..5], [0, 0, 0, 1, 47]);
        assert_eq!(&frame[5..8], [0x0a, 0xac, 0x02]);
        assert_eq!(frame.len(), 5 + 303);
        assert_eq!(&health_request("")[..], [0; 5]);
    }

    #[test]
    fn failures_are_worded_as_cloud_run_words_them() {
        let mut container = Container::new("image");
        let action = http("/healthz", &[]).action;
        assert_eq!(
            failed_times(&container, &action, 3),
            "HTTP probe failed 3 times consecutively for container \"ingress\" on port 8080 path \"/healthz\""
        );
        container.name = "app".to_owned();
        let action = ProbeAction::Tcp { port: Some(9000) };
        assert_eq!(
            failed_times(&container, &action, 1),
            "TCP probe failed 1 time consecutively for container \"app\" on port 9000"
        );
    }
}
