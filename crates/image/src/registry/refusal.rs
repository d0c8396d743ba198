//! Errors of the registry protocol: one JSON form, one table of codes (distribution-spec, "Error
//! Codes").

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use crate::digest::Digest;
use crate::error::{ErrorClass, ImageError};

/// A request that is answered with an error.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "sign in to use this registry",
        )
        .header("www-authenticate", "Basic realm=\"lauf\"")
    }

    pub(crate) fn denied(why: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", why)
    }

    pub(crate) fn name_invalid(name: &str) -> Self {
        let shown: String = name.chars().take(300).collect();
        Self::new(
            StatusCode::BAD_REQUEST,
            "NAME_INVALID",
            format!(
                "\"{shown}\" is not a repository name: lower-case letters, digits, '.', '_', '-' and '/'"
            ),
        )
    }

    pub(crate) fn name_unknown(repo: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NAME_UNKNOWN",
            format!("there is no repository {repo}"),
        )
    }

    pub(crate) fn blob_unknown(digest: &Digest) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UNKNOWN",
            format!("the repository holds no blob {digest}"),
        )
    }

    pub(crate) fn manifest_unknown(reference: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "MANIFEST_UNKNOWN",
            format!("the repository holds no manifest {reference}"),
        )
    }

    pub(crate) fn manifest_invalid(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why)
    }

    pub(crate) fn digest_invalid(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", why)
    }

    pub(crate) fn upload_unknown(id: &str) -> Self {
        let shown: String = id.chars().take(64).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "BLOB_UPLOAD_UNKNOWN",
            format!("there is no upload {shown}; start a new one"),
        )
    }

    pub(crate) fn upload_invalid(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", why)
    }

    pub(crate) fn too_large(what: &str, limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "SIZE_INVALID",
            format!("{what} may have at most {limit} bytes"),
        )
    }

    pub(crate) fn method() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "the method is not defined for this path",
        )
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "UNSUPPORTED",
            "the registry has no such path",
        )
    }
}

impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        let (status, code) = match (&error, error.class()) {
            (ImageError::Corrupt { .. }, _) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            (ImageError::TooLarge { .. }, _) => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            (_, ErrorClass::User) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            (_, ErrorClass::NotFound) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            (_, ErrorClass::Denied) => (StatusCode::FORBIDDEN, "DENIED"),
            (_, ErrorClass::Retry) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            (_, ErrorClass::Internal) => {
                // The one who answers logs; the paths in it are not the client's business.
                tracing::error!(%error, "a registry request failed");
                return Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "UNKNOWN",
                    "the server failed to store or read the content; see its log",
                );
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "errors": [{ "code": self.code, "message": self.message, "detail": null }]
        });
        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, "application/json")],
            body.to_string(),
        )
            .into_response();
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}
