//! Which face a request is for, where two of them have the same paths.
//!
//! `/apis/serving.knative.dev/v1/namespaces/P/services` is a path of Cloud Run's v1 API and of
//! Knative's. They differ in the form of errors, in lists, and in what a write may say. Sound marks
//! come first, and only then what a client says of itself:
//!
//! 1. A host of Google's is Google's API. (gcloud and Google's libraries go through the proxy.)
//! 2. A path below `/kubernetes/REGION` is this face. (`lauf kubeconfig` writes such an address.)
//! 3. On Lauf's own address, a path or a method that Cloud Run does not have is this face:
//!    discovery, `/openapi`, `/version`, `/api`, lists over all namespaces, `PATCH`.
//! 4. A mark of Google's clients is Google's API: the parameter `alt`, an `x-goog-` header, or
//!    `google` in the user agent (Terraform's provider with a custom endpoint sends all three).
//! 5. A mark of Kubernetes' clients is this face: client-go's form of user agent, or a header or
//!    parameter that only they send.
//! 6. Anybody else, such as `lauf` itself, is answered as Cloud Run would.

use axum::body::Body;
use http::{HeaderMap, Method, Request, header};

use super::PREFIX;
use crate::host;

/// Parameters that only Kubernetes' API has.
const PARAMETERS: [&str; 9] = [
    "watch",
    "allowWatchBookmarks",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
];

/// Names with which well-known clients begin their user agent, where it is not client-go's own.
const AGENTS: [&str; 6] = [
    "kubectl/",
    "kn/",
    "helm/",
    "k9s/",
    "openapi-generator/",
    "swagger-codegen/",
];

/// Whether a request is for the Kubernetes face.
pub(crate) fn is_kubernetes(request: &Request<Body>) -> bool {
    let headers = request.headers();
    let uri = request.uri();
    let authority = uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| headers.get(header::HOST)?.to_str().ok())
        .unwrap_or_default();
    if host::is_google(authority) {
        return false;
    }
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    match path.as_slice() {
        [first, ..] if *first == PREFIX => true,
        ["version" | "livez" | "readyz"] | ["openapi" | "api", ..] => true,
        ["apis"] | ["apis", _] | ["apis", _, _] => true,
        ["apis", _, _, scope, ..] => {
            *scope != "namespaces"
                || request.method() == Method::PATCH
                || by_client(headers, uri.query().unwrap_or_default())
        }
        _ => false,
    }
}

fn by_client(headers: &HeaderMap, query: &str) -> bool {
    let text = |name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_ascii_lowercase()
    };
    let agent = text(header::USER_AGENT);
    let parameter = |names: &[&str]| {
        query
            .split('&')
            .map(|pair| pair.split('=').next().unwrap_or_default())
            .any(|name| names.contains(&name))
    };
    let google = parameter(&["alt", "$alt", "%24alt"])
        || headers
            .keys()
            .any(|name| name.as_str().starts_with("x-goog-"))
        || agent.contains("google");
    if google {
        return false;
    }
    let accept = text(header::ACCEPT);
    agent.contains(" kubernetes/")
        || AGENTS.iter().any(|name| agent.starts_with(name))
        || accept.contains(";as=")
        || accept.contains("kubernetes")
        || text(header::CONTENT_TYPE).contains("kubernetes")
        || parameter(&PARAMETERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(host: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        is_kubernetes(&request.body(Body::empty()).unwrap())
    }

    const SERVICES: &str = "/apis/serving.knative.dev/v1/namespaces/demo/services";

    #[test]
    fn sound_marks_come_first() {
        let kubectl = (
            "user-agent",
            "kubectl/v1.33.1 (linux/amd64) kubernetes/8adc0f0",
        );
        // Google's host, whatever the client says.
        assert!(!says(
            "us-central1-run.googleapis.com",
            "GET",
            SERVICES,
            &[kubectl]
        ));
        assert!(!says(
            "run.googleapis.com:443",
            "PATCH",
            SERVICES,
            &[kubectl]
        ));
        // The path of a kubeconfig, whatever the client says.
        let prefixed = format!("/kubernetes/us-central1{SERVICES}");
        assert!(says(
            "127.0.0.1:8080",
            "GET",
            &prefixed,
            &[("user-agent", "gcloud")]
        ));
        // What Cloud Run has not.
        for path in [
            "/api",
            "/apis",
            "/apis/serving.knative.dev/v1",
            "/openapi/v3",
            "/version",
        ] {
            assert!(says("127.0.0.1:8080", "GET", path, &[]), "{path}");
        }
        assert!(says(
            "h",
            "GET",
            "/apis/serving.knative.dev/v1/services",
            &[]
        ));
        assert!(says("h", "PATCH", SERVICES, &[]));
        for path in [
            "/lauf/v1/info",
            "/v1/projects/demo/locations",
            "/v2/projects/demo/operations",
        ] {
            assert!(!says("h", "GET", path, &[kubectl]), "{path}");
        }
    }

    #[test]
    fn then_what_a_client_says() {
        for headers in [
            [(
                "user-agent",
                "kubectl/v1.20.2 (linux/amd64) kubernetes/faecb19",
            )],
            [("user-agent", "kn/v1.14 (linux/amd64) kubernetes/$Format")],
            [(
                "accept",
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            )],
            [(
                "accept",
                "application/vnd.kubernetes.protobuf,application/json",
            )],
        ] {
            assert!(says("h", "GET", SERVICES, &headers), "{headers:?}");
        }
        assert!(says("h", "GET", &format!("{SERVICES}?watch=true"), &[]));
        assert!(says(
            "h",
            "POST",
            &format!("{SERVICES}?fieldManager=x"),
            &[]
        ));
        for headers in [
            [("user-agent", "lauf/0.1.0")],
            [("user-agent", "Terraform/1.11 terraform-provider-google/7.1")],
            [("x-goog-api-client", "gl-go/1.24")],
            [("accept", "application/json")],
        ] {
            assert!(!says("h", "GET", SERVICES, &headers), "{headers:?}");
        }
        assert!(!says(
            "h",
            "GET",
            &format!("{SERVICES}?alt=json&watch=true"),
            &[]
        ));
    }
}
