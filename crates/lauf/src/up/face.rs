//! What is not a service: the registry and the APIs, told apart by path and host.

use std::sync::Arc;

use axum::body::Body;
use axum::response::IntoResponse as _;
use axum::{Json, Router};
use http::{HeaderMap, Method, Request, header};
use lauf_gateway::{ConnInfo, Face, FaceFuture};
use lauf_iam::{Iam, Issuer};
use lauf_image::{Action, AuthError, RegistryAuth};
use tower::ServiceExt;

use super::pushed::{Change, Pushed};

/// Both faces behind one door.
pub(crate) struct Faces {
    pub(crate) api: Router,
    pub(crate) registry: Router,
    pub(crate) pushed: Arc<Pushed>,
    pub(crate) issuer: Arc<Issuer>,
}

impl Face for Faces {
    fn serve(&self, mut request: Request<Body>, info: ConnInfo) -> FaceFuture {
        if from_another_site(&request, &info.host) {
            return Box::pin(async { refused() });
        }
        if let Some(document) = self.public(request.method(), request.uri().path()) {
            let answer = Json(document).into_response();
            return Box::pin(async move { answer });
        }
        request
            .extensions_mut()
            .insert(lauf_api::Client(info.peer.ip()));
        let registry = is_registry(&info.host, request.uri().path());
        let (router, change) = if registry {
            (self.registry.clone(), Change::of(&request))
        } else {
            (self.api.clone(), None)
        };
        let pushed = Arc::clone(&self.pushed);
        Box::pin(async move {
            let response = router
                .oneshot(request)
                .await
                .unwrap_or_else(|never| match never {});
            if let Some(change) = change {
                let messages = change.messages(&response);
                pushed.tell(&change, messages).await;
            }
            response
        })
    }
}

/// Whether a browser sends this for a page of somebody else's. A browser that was once given the token (a registry asks for it with a
/// dialogue) would send it along with whatever any page makes it send. Programs say neither header.
fn from_another_site(request: &Request<Body>, host: &str) -> bool {
    let said = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|v| v.to_str().unwrap_or("?"))
    };
    // What the address bar and bookmarks send is `none`.
    if said("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return true;
    }
    // Older browsers, and pages without TLS on other addresses than loopback.
    said("origin").is_some_and(|origin| {
        let page = origin.parse::<http::Uri>().ok();
        page.and_then(|page| page.host().map(str::to_ascii_lowercase))
            .as_deref()
            != Some(host)
    })
}

fn refused() -> http::Response<Body> {
    let body = serde_json::json!({ "error": {
        "code": 403,
        "message": "This was sent by a browser for a page of another site. Call this API from a program, or open it directly.",
        "status": "PERMISSION_DENIED",
    }});
    let mut response = http::Response::new(Body::from(body.to_string()));
    *response.status_mut() = http::StatusCode::FORBIDDEN;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json; charset=UTF-8"),
    );
    response
}

impl Faces {
    /// What anybody may read: how the tokens of this Lauf are checked (OpenID Connect Discovery 1.0).
    fn public(&self, method: &Method, path: &str) -> Option<serde_json::Value> {
        match path {
            "/.well-known/openid-configuration" if method == Method::GET => {
                Some(self.issuer.discovery())
            }
            "/oauth2/v3/certs" if method == Method::GET => Some(self.issuer.jwks()),
            _ => None,
        }
    }
}

/// Registry and Cloud Run v2 both live under `/v2/`. Google's hosts tell which is meant; on the
/// platform's own address the API's paths are the ones below `projects/`, and no registry request
/// looks like them: those end in `/manifests/...`, `/blobs/...`, `/tags/list` or `/referrers/...`.
fn is_registry(host: &str, path: &str) -> bool {
    if host.ends_with(".googleapis.com") {
        return false;
    }
    let Some(rest) = path.strip_prefix("/v2") else {
        return false;
    };
    if !(rest.is_empty() || rest.starts_with('/')) {
        return false;
    }
    let api = rest.starts_with("/projects/")
        && (rest.contains("/locations/") || rest.ends_with("/locations"))
        && !["/manifests/", "/blobs/", "/tags/list", "/referrers/"]
            .iter()
            .any(|m| rest.contains(m));
    !api
}

/// The registry is the administrator's.
pub(crate) struct AdminOnly(pub(crate) Arc<Iam>);

impl RegistryAuth for AdminOnly {
    fn allow(&self, headers: &HeaderMap, _repo: &str, _action: Action) -> Result<(), AuthError> {
        let authorization = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok());
        match self.0.authenticate(authorization) {
            Ok(_) => Ok(()),
            Err(_) => Err(AuthError::Unauthenticated),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;

    use super::{from_another_site, is_registry};

    #[test]
    fn pages_of_other_sites_get_nothing() {
        for (name, value, refused) in [
            ("accept", "*/*", false),
            ("sec-fetch-site", "none", false),
            ("sec-fetch-site", "same-origin", false),
            ("sec-fetch-site", "same-site", true),
            ("sec-fetch-site", "cross-site", true),
            ("origin", "http://127.0.0.1:8080", false),
            (
                "origin",
                "http://hello-1.us-central1.run.localhost:8080",
                true,
            ),
            ("origin", "https://evil.example", true),
            ("origin", "null", true),
        ] {
            let request = Request::post("/v2/").header(name, value);
            let request = request.body(Body::empty()).unwrap();
            let got = from_another_site(&request, "127.0.0.1");
            assert_eq!(got, refused, "{name}: {value}");
        }
    }

    #[test]
    fn the_registry_and_the_api_share_a_prefix() {
        for (host, path, registry) in [
            ("localhost", "/v2/", true),
            ("localhost", "/v2", true),
            ("localhost", "/v2/hello/manifests/latest", true),
            ("localhost", "/v2/projects/p/locations/l/manifests/x", true),
            ("localhost", "/v2/projects/p/locations/l/services", false),
            ("localhost", "/v2/projects/p/locations", false),
            ("localhost", "/v2/projects/p/locations/l", false),
            (
                "run.googleapis.com",
                "/v2/projects/p/locations/l/services",
                false,
            ),
            ("us-docker.pkg.dev", "/v2/p/r/i/manifests/latest", true),
            ("localhost", "/apis/serving.knative.dev/v1", false),
            ("localhost", "/v2beta", false),
        ] {
            assert_eq!(is_registry(host, path), registry, "{host} {path}");
        }
    }
}
