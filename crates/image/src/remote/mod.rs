//! Talking to other registries: sign-in, retries, resumed downloads, uploads.
//!
//! Laws:
//! - What a registry sends is bounded: a manifest by the limit, a blob by the size its manifest
//!   states, a token answer by the manifest limit. Nothing is used before its digest is checked.
//! - 429, 5xx and broken connections are tried again with growing pauses; a blob goes on where it
//!   broke off. Everything else is an answer and is not asked for twice.
//! - Loopback registries are asked over HTTP and never through a proxy, as Docker does.

mod auth;
mod push;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use reqwest::{RequestBuilder, Response, Url};

use crate::config::{ImagesConfig, RegistryConfig};
use crate::digest::{Digest, Hasher};
use crate::error::ImageError;
use crate::ingest::{Ended, collect, ingest};
use crate::manifest::media;
use crate::store::{Store, blocking, random_id};
use auth::{Challenge, Tokens};

const ATTEMPTS: u32 = 5;
/// Name resolution and refused connections seldom heal within seconds.
const CONNECT_ATTEMPTS: u32 = 2;
/// A blob may break off this often in all; each time it must have got further.
const RESUMES: u32 = 100;

/// A repository on a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RemoteRepo {
    pub(crate) host: String,
    pub(crate) path: String,
}

impl std::fmt::Display for RemoteRepo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

/// The client for all registries.
pub(crate) struct Remote {
    config: Arc<ImagesConfig>,
    http: reqwest::Client,
    /// Without proxies, for loopback.
    local: reqwest::Client,
    tokens: Tokens,
}

/// What a registry answered for a manifest.
pub(crate) struct FetchedManifest {
    pub(crate) digest: Digest,
    pub(crate) bytes: Vec<u8>,
}

impl Remote {
    pub(crate) fn new(config: Arc<ImagesConfig>) -> Result<Self, ImageError> {
        let failed = |e: &dyn std::fmt::Display| ImageError::storage("set up the HTTP client", e);
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let builder = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(concat!("lauf/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_secs(10))
                .read_timeout(config.limits.stall)
                .redirect(reqwest::redirect::Policy::limited(5))
        };
        Ok(Self {
            http: builder().build().map_err(|e| failed(&e))?,
            local: builder().no_proxy().build().map_err(|e| failed(&e))?,
            tokens: Tokens::default(),
            config,
        })
    }

    fn settings(&self, host: &str) -> Option<&RegistryConfig> {
        self.config
            .registries
            .iter()
            .find(|r| r.host.eq_ignore_ascii_case(host))
    }

    fn client(&self, endpoint: &str) -> &reqwest::Client {
        if is_loopback(endpoint) {
            &self.local
        } else {
            &self.http
        }
    }

    /// The base URL of a registry.
    fn base(&self, host: &str) -> Result<Url, ImageError> {
        let settings = self.settings(host);
        let endpoint = match settings.and_then(|s| s.endpoint.as_deref()) {
            Some(endpoint) => endpoint,
            None if host == "docker.io" => "registry-1.docker.io",
            None => host,
        };
        let insecure = settings.map_or_else(|| is_loopback(endpoint), |s| s.insecure);
        let scheme = if insecure { "http" } else { "https" };
        Url::parse(&format!("{scheme}://{endpoint}")).map_err(|e| ImageError::Unreachable {
            registry: host.to_owned(),
            why: format!("\"{endpoint}\" is not a host: {e}"),
        })
    }

    /// Asks until there is an answer; 2xx and 404 and 416 are handed back, the rest are errors.
    async fn ask(
        &self,
        repo: &RemoteRepo,
        actions: &str,
        method: Method,
        url: &Url,
        dress: &(dyn Fn(RequestBuilder) -> RequestBuilder + Sync),
    ) -> Result<Response, ImageError> {
        let scope = format!("repository:{}:{actions}", repo.path);
        let mut signed_in = false;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let request = dress(
                self.client(url_host(url))
                    .request(method.clone(), url.clone()),
            );
            let request = match self.tokens.get(&repo.host, &scope) {
                Some(authorization) => request.header(header::AUTHORIZATION, authorization),
                None => request,
            };
            let (why, pause) = match request.send().await {
                Ok(response) => match response.status() {
                    StatusCode::UNAUTHORIZED if !signed_in => {
                        signed_in = true;
                        self.tokens.forget(&repo.host, &scope);
                        let challenge = Challenge::read(response.headers());
                        self.sign_in(repo, &scope, challenge).await?;
                        attempt -= 1;
                        continue;
                    }
                    status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                        return Err(ImageError::Unauthorized {
                            registry: repo.host.clone(),
                            image: repo.to_string(),
                            why: said(status, response).await,
                        });
                    }
                    status
                        if status.is_success()
                            || matches!(
                                status,
                                StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE
                            ) =>
                    {
                        return Ok(response);
                    }
                    status
                        if status == StatusCode::TOO_MANY_REQUESTS
                            || status == StatusCode::REQUEST_TIMEOUT
                            || status.is_server_error() =>
                    {
                        let pause = retry_after(response.headers());
                        (said(status, response).await, pause)
                    }
                    status => {
                        return Err(ImageError::unsupported(
                            repo,
                            format!("the registry refused: {}", said(status, response).await),
                        ));
                    }
                },
                Err(error) => {
                    if error.is_connect() && attempt >= CONNECT_ATTEMPTS || error.is_redirect() {
                        attempt = ATTEMPTS;
                    }
                    (innermost(&error), None)
                }
            };
            if attempt >= ATTEMPTS {
                return Err(ImageError::Unreachable {
                    registry: repo.host.clone(),
                    why,
                });
            }
            tokio::time::sleep(pause.unwrap_or_else(|| backoff(attempt))).await;
        }
    }

    /// A manifest by tag or digest; `None` when the registry has none of that name.
    pub(crate) async fn manifest(
        &self,
        repo: &RemoteRepo,
        reference: &str,
    ) -> Result<Option<FetchedManifest>, ImageError> {
        let url = endpoint(
            &self.base(&repo.host)?,
            &repo.path,
            &format!("manifests/{reference}"),
        )?;
        let accept = media::ACCEPT.join(", ");
        let response = self
            .ask(repo, "pull", Method::GET, &url, &|r| {
                r.header(header::ACCEPT, accept.as_str())
            })
            .await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let said_digest = response
            .headers()
            .get("docker-content-digest")
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<Digest>().ok());
        let max = self.config.limits.max_manifest;
        let bytes = collect(Box::pin(response.bytes_stream()), max)
            .await
            .map_err(|e| ImageError::Unreachable {
                registry: repo.host.clone(),
                why: innermost(&e),
            })?
            .ok_or_else(|| ImageError::TooLarge {
                what: format!("The manifest of '{repo}'"),
                found: format!("more than {max} bytes"),
                limit: format!("{max} bytes"),
            })?;
        let expected = reference.parse::<Digest>().ok().or(said_digest);
        let mut hasher = Hasher::new(
            expected
                .as_ref()
                .map_or(crate::digest::Algorithm::Sha256, Digest::algorithm),
        );
        hasher.update(&bytes);
        let digest = hasher.finish();
        match expected {
            Some(expected) if expected != digest => Err(ImageError::corrupt(
                &expected,
                format!("the registry sent a manifest with digest {digest}"),
            )),
            _ => Ok(Some(FetchedManifest { digest, bytes })),
        }
    }

    /// Brings a blob of known digest and size into the store; false when the registry has none.
    pub(crate) async fn blob(
        &self,
        store: &Arc<Store>,
        repo: &RemoteRepo,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, ImageError> {
        let url = endpoint(
            &self.base(&repo.host)?,
            &repo.path,
            &format!("blobs/{digest}"),
        )?;
        let new_writer = || {
            let (store, algorithm) = (store.clone(), digest.algorithm());
            async move {
                blocking(move || store.blob_writer(algorithm))
                    .await?
                    .map(Box::new)
            }
        };
        let mut writer = new_writer().await?;
        let (mut resumes, mut fruitless) = (0, 0);
        loop {
            let have = writer.len();
            let response = self
                .ask(repo, "pull", Method::GET, &url, &|r| {
                    if have > 0 {
                        r.header(header::RANGE, format!("bytes={have}-"))
                    } else {
                        r
                    }
                })
                .await?;
            match response.status() {
                StatusCode::NOT_FOUND => return Ok(false),
                StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), have) => {}
                StatusCode::OK if have == 0 => {}
                // It does not know ranges: from the start again.
                _ => {
                    resumes += 1;
                    if resumes > ATTEMPTS {
                        return Err(ImageError::Unreachable {
                            registry: repo.host.clone(),
                            why: format!("it cannot go on with blob {digest}"),
                        });
                    }
                    writer = new_writer().await?;
                    continue;
                }
            }
            let longer = || {
                ImageError::corrupt(
                    digest,
                    format!("the registry sends more than the {size} bytes its manifest states"),
                )
            };
            if response
                .content_length()
                .is_some_and(|n| have.saturating_add(n) > size)
            {
                return Err(longer());
            }
            let (back, ended) = ingest(writer, Box::pin(response.bytes_stream()), size).await;
            let why = match ended {
                Ended::TooLong => return Err(longer()),
                Ended::Disk(error) => return Err(error),
                Ended::Source(error) => innermost(&error),
                Ended::Whole => "the connection ended early".to_owned(),
            };
            let Some(back) = back else {
                return Err(ImageError::storage("write a blob", "the writer was lost"));
            };
            writer = back;
            if writer.len() == size {
                break;
            }
            resumes += 1;
            fruitless = if writer.len() > have {
                0
            } else {
                fruitless + 1
            };
            if fruitless >= ATTEMPTS || resumes >= RESUMES {
                return Err(ImageError::Unreachable {
                    registry: repo.host.clone(),
                    why: format!(
                        "blob {digest} broke off at {} of {size} bytes: {why}",
                        writer.len()
                    ),
                });
            }
            tokio::time::sleep(backoff(fruitless)).await;
        }
        let (store, digest) = (store.clone(), digest.clone());
        blocking(move || store.commit(*writer, &digest)).await??;
        Ok(true)
    }
}

fn endpoint(base: &Url, path: &str, rest: &str) -> Result<Url, ImageError> {
    base.join(&format!("/v2/{path}/{rest}"))
        .map_err(|e| ImageError::unsupported(path, format!("it makes no URL: {e}")))
}

fn url_host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

/// Whether a host (with or without port) is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or_default(),
        None => host,
    };
    name == "localhost"
        || name.ends_with(".localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

fn starts_at(headers: &HeaderMap, have: u64) -> bool {
    headers
        .get(header::CONTENT_RANGE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| {
            v.strip_prefix("bytes ")?
                .split('-')
                .next()?
                .parse::<u64>()
                .ok()
        })
        == Some(have)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse::<u64>()
        .ok()?;
    Some(Duration::from_secs(seconds.min(30)))
}

/// 200 ms, doubled each time, with up to half of it added so that many clients spread out.
fn backoff(attempt: u32) -> Duration {
    let base = 100_u64 << attempt.min(6);
    let noise = u64::from_str_radix(&random_id()[..4], 16).unwrap_or(0);
    Duration::from_millis(base + base * noise / (2 * 0xffff))
}

/// A status and the registry's own words, shortened.
async fn said(status: StatusCode, response: Response) -> String {
    let body = collect(Box::pin(response.bytes_stream()), 64 * 1024)
        .await
        .ok()
        .flatten();
    let message = body.and_then(|bytes| {
        let json: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        let error = json.get("errors")?.get(0)?;
        let text = error
            .get("message")
            .or_else(|| error.get("code"))?
            .as_str()?;
        Some(
            text.chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect::<String>(),
        )
    });
    match message {
        Some(message) if !message.is_empty() => format!("{status}, {message}"),
        _ => status.to_string(),
    }
}

/// The last cause of a transport error: the outer ones only repeat the URL.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}
