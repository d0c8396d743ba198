//! The one HTTP client of all commands: JSON in, JSON out, errors in words for people.
//!
//! The API is chosen by the `Host` header, as it is for gcloud, so that one address serves all.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Method, StatusCode, header};
use anyhow::{Context as _, Result, anyhow, bail};
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use super::connect::{Target, is_loopback};

/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// How long the server may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// A server, its project and its region.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: reqwest::Client,
    target: Target,
    /// The project of this command.
    pub(crate) project: String,
    /// The region of this command.
    pub(crate) region: String,
}

/// Which API a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// Cloud Run in the command's region.
    Run,
    /// Cloud Run without a region.
    RunGlobal,
    /// Cloud Logging.
    Logging,
    /// Pub/Sub.
    PubSub,
    /// Lauf's own, and the registry.
    Native,
}

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The HTTP status.
    pub(crate) code: StatusCode,
    /// What the server said.
    pub(crate) message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl Api {
    /// A client for the server that options and data folder name. Asks the server for the default
    /// project and region where nobody named them.
    pub(crate) async fn connect(target: Target) -> Result<Self> {
        let mut api = Self {
            client: client(&target, false)?,
            project: target.project.clone().unwrap_or_default(),
            region: target.region.clone().unwrap_or_default(),
            target,
        };
        if api.project.is_empty() || api.region.is_empty() {
            let info = api.get(Face::Native, &["lauf", "v1", "info"], &[]).await?;
            for (field, key) in [
                (&mut api.project, "defaultProject"),
                (&mut api.region, "defaultRegion"),
            ] {
                if field.is_empty() {
                    *field = info[key].as_str().unwrap_or_default().to_owned();
                }
            }
        }
        Ok(api)
    }

    /// The server's address.
    pub(crate) fn server(&self) -> &Url {
        &self.target.server
    }

    /// What this client was made from.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// `GET`, and the answer as JSON.
    pub(crate) async fn get(
        &self,
        face: Face,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value> {
        self.call(Method::GET, face, path, query, None).await
    }

    /// Like [`Api::get`], with `None` for 404.
    pub(crate) async fn find(&self, face: Face, path: &[&str]) -> Result<Option<Value>> {
        match self.get(face, path, &[]).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if refused_with(&error, StatusCode::NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a request and reads the answer as JSON.
    pub(crate) async fn call(
        &self,
        method: Method,
        face: Face,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Value> {
        let mut request = self.request(method, face, path, query)?;
        if let Some(body) = body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(serde_json::to_vec(body)?);
        }
        let reply = self.send(request.timeout(SILENCE)).await?;
        let bytes = collect(reply).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} answered with something that is not JSON; is it a Lauf?",
                self.target.server
            )
        })
    }

    /// Sends a request whose answer is read as it comes, or whose headers matter.
    pub(crate) async fn open(
        &self,
        method: Method,
        face: Face,
        path: &[&str],
        query: &[(&str, &str)],
        accept: &str,
    ) -> Result<reqwest::Response> {
        let request = self
            .request(method, face, path, query)?
            .header(header::ACCEPT, accept);
        self.send(request).await
    }

    fn request(
        &self,
        method: Method,
        face: Face,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<reqwest::RequestBuilder> {
        let mut url = self.target.server.clone();
        url.path_segments_mut()
            .map_err(|()| anyhow!("'{}' takes no path", self.target.server))?
            .clear()
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url);
        let host = match face {
            Face::Run => Some(format!("{}-run.googleapis.com", self.region)),
            Face::RunGlobal => Some("run.googleapis.com".to_owned()),
            Face::Logging => Some("logging.googleapis.com".to_owned()),
            Face::PubSub => Some("pubsub.googleapis.com".to_owned()),
            Face::Native => None,
        };
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        if let Some(token) = &self.target.token {
            request = request.bearer_auth(token);
        }
        Ok(request)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let reply = request
            .send()
            .await
            .map_err(|error| unreachable(&self.target.server, &error))?;
        let code = reply.status();
        if code.is_success() {
            return Ok(reply);
        }
        let body = collect(reply).await.unwrap_or_default();
        let mut message = refusal(code, &body);
        if code == StatusCode::UNAUTHORIZED {
            message = match &self.target.no_token {
                Some(why) => format!("The server wants a token. {why}"),
                None => format!(
                    "{} did not accept the token. Is it the token of another server? `lauf token` \
                     prints the right one on the server; give it with --token or LAUF_TOKEN.",
                    self.target.server
                ),
            };
        }
        Err(Refused { code, message }.into())
    }
}

/// Whether an error is the server's refusal with this status.
pub(crate) fn refused_with(error: &anyhow::Error, code: StatusCode) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| refused.code == code)
}

/// A client that trusts the system's authorities and the server's own. `through` sends everything
/// through the server's forward proxy, as gcloud does.
pub(crate) fn client(target: &Target, through: bool) -> Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &target.ca_file
        && let Ok(pem) = fs::read(file)
    {
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .user_agent(concat!("lauf/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none());
    if through {
        builder = builder.proxy(reqwest::Proxy::all(target.server.as_str())?);
    } else if is_loopback(&target.server) {
        // A proxy of the company cannot reach this machine.
        builder = builder.no_proxy();
    }
    Ok(builder.build()?)
}

/// A transport error as a sentence with a remedy.
pub(crate) fn unreachable(server: &Url, error: &reqwest::Error) -> anyhow::Error {
    let why = innermost(error);
    if error.is_timeout() {
        return anyhow!("{server} did not answer in time ({why}). Is it overloaded or stopped?");
    }
    if error.is_connect() {
        return anyhow!(
            "No Lauf answers at {server} ({why}).\n\
             Start it with `sudo lauf up`, or name another with --server (LAUF_SERVER)."
        );
    }
    anyhow!("The connection to {server} failed: {why}")
}

/// The last cause of an error: the outer ones only repeat the URL.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

/// Reads a body that must not be endless.
async fn collect(mut reply: reqwest::Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await.context("the answer broke off")? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            bail!("the answer is larger than {MAX_ANSWER} bytes");
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What an error body says, in Google's form, the registry's, or plain.
fn refusal(code: StatusCode, body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let violations: Vec<String> = json["error"]["details"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|detail| detail["fieldViolations"].as_array())
        .flatten()
        .map(|v| {
            let field = v["field"].as_str().unwrap_or_default();
            let description = v["description"].as_str().unwrap_or_default();
            format!("{field}: {description}")
        })
        .collect();
    match violations.as_slice() {
        [] => {}
        [one] => return one.clone(),
        many => {
            return format!(
                "the request has {} faults:\n  {}",
                many.len(),
                many.join("\n  ")
            );
        }
    }
    for pointer in ["/error/message", "/errors/0/message", "/message"] {
        if let Some(text) = json.pointer(pointer).and_then(Value::as_str)
            && !text.is_empty()
        {
            return text.to_owned();
        }
    }
    let text: String = String::from_utf8_lossy(body)
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    if text.trim().is_empty() {
        format!("the server answered {code}")
    } else {
        format!("the server answered {code}: {}", text.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_is_wrong() {
        let google = br#"{"error":{"code":400,"message":"m","status":"INVALID_ARGUMENT","details":[
            {"fieldViolations":[{"field":"spec.x","description":"is 0."}]}]}}"#;
        assert_eq!(refusal(StatusCode::BAD_REQUEST, google), "spec.x: is 0.");
        let registry =
            br#"{"errors":[{"code":"NAME_UNKNOWN","message":"there is no repository x"}]}"#;
        assert_eq!(
            refusal(StatusCode::NOT_FOUND, registry),
            "there is no repository x"
        );
        assert_eq!(
            refusal(StatusCode::BAD_GATEWAY, b""),
            "the server answered 502 Bad Gateway"
        );
    }
}
