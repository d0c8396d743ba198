//! How calls leave: to the world over the network; to this Lauf's own services and to Google's APIs,
//! which it serves itself, through its own listener, whatever the names resolve to elsewhere.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lauf_events::{CallError, Caller, Identity};
use lauf_iam::Issuer;
use tokio::net::TcpStream;

/// What is read of an answer. Nobody looks at more.
const MAX_ANSWER: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends requests.
pub(super) struct Outgoing {
    home: Client<Home, Full<Bytes>>,
    away: OnceLock<reqwest::Client>,
    domain: String,
    issuer: Arc<Issuer>,
}

impl Outgoing {
    pub(super) fn new(listen: SocketAddr, domain: &str, issuer: Arc<Issuer>) -> Self {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let home = Home(SocketAddr::new(ip, listen.port()));
        Self {
            home: Client::builder(TokioExecutor::new()).build(home),
            away: OnceLock::new(),
            domain: domain.to_owned(),
            issuer,
        }
    }

    /// Made when it is first needed: reading the system's certificates takes a while.
    fn away(&self) -> Result<&reqwest::Client, CallError> {
        if let Some(away) = self.away.get() {
            return Ok(away);
        }
        let made = client().map_err(|error| CallError::Unreachable(format!("{error:#}")))?;
        Ok(self.away.get_or_init(|| made))
    }

    fn token(&self, identity: &Identity) -> Result<HeaderValue, CallError> {
        let token = match identity {
            Identity::Oidc { email, audience } => self.issuer.id_token(email, audience),
            Identity::OAuth { email, scope } => self.issuer.access_token(email, scope),
        };
        let failed = |error: String| CallError::Identity(error);
        let token = token.map_err(|error| failed(error.to_string()))?;
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| failed(error.to_string()))
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
        let host = request.uri().host().unwrap_or_default();
        if is_home(host, &self.domain) {
            let (mut parts, body) = request.into_parts();
            parts.uri = without_tls(parts.uri);
            let request = Request::from_parts(parts, Full::new(body));
            let response = self.home.request(request).await;
            let (parts, mut body) = response.map_err(|error| unreachable(&error))?.into_parts();
            let mut read = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| unreachable(&error))?;
                if let Ok(data) = frame.into_data()
                    && !take(&mut read, &data)
                {
                    break;
                }
            }
            return Ok(Response::from_parts(parts, read.freeze()));
        }
        let request = reqwest::Request::try_from(request).map_err(|error| unreachable(&error))?;
        let response = self.away()?.execute(request).await;
        let mut response = response.map_err(|error| unreachable(&error))?;
        let mut read = BytesMut::new();
        while let Some(data) = response
            .chunk()
            .await
            .map_err(|error| unreachable(&error))?
        {
            if !take(&mut read, &data) {
                break;
            }
        }
        let mut answer = Response::new(read.freeze());
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        Ok(answer)
    }
}

#[async_trait]
impl Caller for Outgoing {
    async fn call(
        &self,
        mut request: Request<Bytes>,
        identity: Option<Identity>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, CallError> {
        if let Some(identity) = &identity {
            let token = self.token(identity)?;
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        tokio::time::timeout(timeout, self.send(request))
            .await
            .unwrap_or(Err(CallError::TimedOut(timeout)))
    }
}

/// A client for the world, that trusts what the system trusts.
fn client() -> anyhow::Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()?)
}

/// Whether a host is served here.
fn is_home(host: &str, domain: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let under = |domain: &str| {
        host.strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    under(domain) || under("googleapis.com")
}

/// The same without TLS: the way is within the machine.
fn without_tls(uri: Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    Uri::from_parts(parts).unwrap_or(uri)
}

/// Takes a piece of an answer. `false` when there is enough.
fn take(read: &mut BytesMut, data: &[u8]) -> bool {
    let room = MAX_ANSWER - read.len();
    read.extend_from_slice(&data[..data.len().min(room)]);
    data.len() < room
}

fn unreachable(error: &(dyn std::error::Error + 'static)) -> CallError {
    // The outermost error says what was tried, the innermost why it failed.
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    CallError::Unreachable(text)
}

/// Connects every name to this Lauf's listener.
#[derive(Clone, Copy)]
struct Home(SocketAddr);

impl tower::Service<Uri> for Home {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let address = self.0;
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_are_home_and_no_others() {
        for (host, home) in [
            ("run.localhost", true),
            ("hello-1.us-central1.run.localhost", true),
            ("HELLO.Run.LocalHost", true),
            ("us-central1-run.googleapis.com", true),
            ("pubsub.googleapis.com.", true),
            ("notrun.localhost", false),
            ("googleapis.com.evil.example", false),
            ("evilgoogleapis.com", false),
            ("localhost", false),
            ("example.com", false),
        ] {
            assert_eq!(is_home(host, "run.localhost"), home, "{host}");
        }
    }

    #[test]
    fn the_way_home_is_without_tls() {
        let uri: Uri = "https://a.run.localhost:8080/x?y=z".parse().unwrap();
        assert_eq!(without_tls(uri), "http://a.run.localhost:8080/x?y=z");
    }
}
