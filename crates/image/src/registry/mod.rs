//! The registry protocol (OCI distribution-spec 1.1) as an [`axum::Router`] over the blob store.
//!
//! [`route`] reads a path into an [`Endpoint`]; `blobs`, `uploads`, `manifests` and `listing` answer
//! one group of endpoints each; [`Refusal`] is the one place that knows status codes and error codes.
//!
//! A request whose `Host` is an Artifact Registry or Container Registry name (a proxied
//! `docker push us-docker.pkg.dev/…`) finds its repositories under that host's name.

mod blobs;
mod listing;
mod manifests;
mod refusal;
mod route;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::Images;
use crate::digest::Digest;
pub(crate) use refusal::Refusal;
use route::Endpoint;

/// What a caller wants to do to a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read blobs, manifests and lists.
    Pull,
    /// Add or replace.
    Push,
    /// Remove.
    Delete,
}

/// Why a caller may not do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthError {
    /// Nobody, or with credentials that are wrong: answered 401, so that clients ask for them.
    Unauthenticated,
    /// Somebody who may not: answered 403 with this text.
    Denied(String),
}

/// Decides who may do what; asked once a request, before anything is read.
pub trait RegistryAuth: Send + Sync + 'static {
    /// Whether the caller with these headers may do `action` in `repo`; the empty name stands for the
    /// registry as a whole (the version check, the catalog).
    fn allow(&self, headers: &HeaderMap, repo: &str, action: Action) -> Result<(), AuthError>;
}

/// Lets everybody do everything; for tests and loopback-only servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

impl RegistryAuth for AllowAll {
    fn allow(&self, _: &HeaderMap, _: &str, _: Action) -> Result<(), AuthError> {
        Ok(())
    }
}

#[derive(Clone)]
struct Server {
    images: Images,
    auth: Arc<dyn RegistryAuth>,
}

/// One request to one repository, after the door.
struct Call<'a> {
    server: &'a Server,
    headers: &'a HeaderMap,
    /// The repository as it is stored.
    repo: String,
    /// The repository as the client calls it, for `Location`.
    name: &'a str,
    query: route::Query,
}

type Answer = Result<Response, Refusal>;

impl Images {
    /// The registry under `/v2/`, guarded by `auth`.
    pub fn registry_router(&self, auth: Arc<dyn RegistryAuth>) -> Router {
        let server = Server {
            images: self.clone(),
            auth,
        };
        Router::new()
            .route("/v2", axum::routing::any(serve))
            .route("/v2/", axum::routing::any(serve))
            .route("/v2/{*rest}", axum::routing::any(serve))
            .with_state(server)
    }
}

async fn serve(State(server): State<Server>, request: Request) -> Response {
    let mut response = match dispatch(&server, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    response
}

async fn dispatch(server: &Server, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix("/v2").unwrap_or_default();
    let (endpoint, name) = Endpoint::parse(path)?;
    let action = endpoint.action(&parts.method)?;
    let repo = match &name {
        Some(name) => stored_name(&parts.headers, name),
        None => String::new(),
    };
    server
        .auth
        .allow(&parts.headers, &repo, action)
        .map_err(|error| match error {
            AuthError::Unauthenticated => Refusal::unauthorized(),
            AuthError::Denied(why) => Refusal::denied(why),
        })?;
    let call = Call {
        server,
        headers: &parts.headers,
        repo,
        name: name.as_deref().unwrap_or_default(),
        query: route::Query::parse(parts.uri.query().unwrap_or_default())?,
    };
    match endpoint {
        Endpoint::Base => Ok(([(header::CONTENT_TYPE, "application/json")], "{}").into_response()),
        Endpoint::Catalog => listing::catalog(&call).await,
        Endpoint::Tags => listing::tags(&call).await,
        Endpoint::Referrers(digest) => listing::referrers(&call, digest).await,
        Endpoint::Manifest(reference) => match parts.method {
            Method::PUT => manifests::put(&call, reference, body).await,
            Method::DELETE => manifests::delete(&call, reference).await,
            ref method => manifests::get(&call, reference, *method == Method::HEAD).await,
        },
        Endpoint::Blob(digest) => match parts.method {
            Method::DELETE => blobs::delete(&call, digest).await,
            ref method => blobs::get(&call, digest, *method == Method::HEAD).await,
        },
        Endpoint::Uploads => uploads::start(&call, body).await,
        Endpoint::Upload(id) => match parts.method {
            Method::PATCH => uploads::append(&call, &id, body).await,
            Method::PUT => uploads::finish(&call, &id, body).await,
            Method::DELETE => uploads::cancel(&call, &id).await,
            _ => uploads::status(&call, &id).await,
        },
    }
}

/// Where a repository is kept: as named, under the host's name for hosts we stand in for.
fn stored_name(headers: &HeaderMap, name: &str) -> String {
    let host = headers
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    let host = host
        .split(':')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    if crate::resolve::is_google_registry(&host) {
        format!("{host}/{name}")
    } else {
        name.to_owned()
    }
}

impl Call<'_> {
    fn store(&self) -> Arc<crate::store::Store> {
        self.server.images.0.store.clone()
    }

    /// Runs blocking work on the store.
    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&crate::store::Store, &str) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (store, repo) = (self.store(), self.repo.clone());
        crate::store::blocking(move || work(&store, &repo)).await?
    }
}

/// The header that names content by digest.
fn digest_header(digest: &Digest) -> (http::HeaderName, String) {
    (
        http::HeaderName::from_static("docker-content-digest"),
        digest.to_string(),
    )
}

fn empty(status: StatusCode) -> http::response::Builder {
    Response::builder()
        .status(status)
        .header(header::CONTENT_LENGTH, "0")
}

/// Finishes a response; header values here are made by us and always valid.
fn build(builder: http::response::Builder, body: Body) -> Answer {
    builder
        .body(body)
        .map_err(|e| Refusal::from(crate::error::ImageError::storage("write a response", e)))
}
