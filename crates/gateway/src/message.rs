//! Requests and responses on their way through, whatever protocol they came by.

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use crate::body::{FromClient, Outgoing, Upload};
use crate::fields::{Fields, Known, Span};

/// A request's head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// The client's; what an instance speaks is its revision's matter.
    pub(crate) version: Version,
    pub(crate) fields: Fields,
    target: Span,
    authority: Option<Span>,
}

impl RequestHead {
    /// Both spans are parts of the text of `fields`, and UTF-8.
    pub(crate) fn new(
        method: Method,
        version: Version,
        fields: Fields,
        target: Span,
        authority: Option<Span>,
    ) -> Self {
        Self {
            method,
            version,
            fields,
            target,
            authority,
        }
    }

    /// A request that came over HTTP/2.
    pub(crate) fn of_http2(request: Request<Incoming>) -> (Self, FromClient) {
        let (head, body) = request.into_parts();
        let mut fields = Fields::from(&head.headers);
        let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let target = fields.keep(&[target.as_bytes()]);
        let authority = head.uri.authority().map(Authority::as_str);
        let authority = authority.map(|authority| fields.keep(&[authority.as_bytes()]));
        let head = Self::new(head.method, head.version, fields, target, authority);
        (head, FromClient::http2(body))
    }

    /// Path and query; `*` for all of a server.
    pub(crate) fn target(&self) -> &str {
        std::str::from_utf8(self.fields.text(self.target)).unwrap_or("/")
    }

    /// The path alone.
    pub(crate) fn path(&self) -> &str {
        let target = self.target();
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// Who it is for: what the target says wins over `Host`. Empty when nothing says it.
    pub(crate) fn host(&self) -> &str {
        self.authority()
            .or_else(|| self.fields.get_str(Known::Host))
            .unwrap_or("")
    }

    /// Who it is for, where the target says so: over HTTP/2, to a proxy, and with `CONNECT`.
    pub(crate) fn authority(&self) -> Option<&str> {
        std::str::from_utf8(self.fields.text(self.authority?)).ok()
    }

    /// As hyper and the face have it.
    pub(crate) fn to_http<B>(&self, version: Version, uri: Uri, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.version_mut() = version;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.fields.to_map();
        request
    }

    /// The target as it was sent.
    pub(crate) fn uri(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = self.target().parse().ok();
        if let Some(authority) = self.authority() {
            parts.authority = authority.parse().ok();
            parts.scheme = Some(Scheme::HTTP);
        }
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// A request as it goes to an instance.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) head: RequestHead,
    pub(crate) body: Upload,
}

/// A response, on its way to the client unless its body says otherwise.
#[derive(Debug)]
pub(crate) struct Answer<B = Outgoing> {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: B,
}

impl<B> From<Response<B>> for Answer<B> {
    fn from(response: Response<B>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            fields: Fields::from(&head.headers),
            body,
        }
    }
}

impl<B> Answer<B> {
    /// The same with another body.
    pub(crate) fn map<C>(self, map: impl FnOnce(B) -> C) -> Answer<C> {
        Answer {
            status: self.status,
            fields: self.fields,
            body: map(self.body),
        }
    }
}

impl Answer {
    /// Without fields.
    pub(crate) fn new(status: StatusCode, body: Outgoing) -> Self {
        Self {
            status,
            fields: Fields::new(),
            body,
        }
    }

    /// A text of some type.
    pub(crate) fn text(status: StatusCode, content_type: &str, text: bytes::Bytes) -> Self {
        let mut answer = Self::new(status, Outgoing::Full(Some(text)));
        answer
            .fields
            .append(Known::ContentType, &[content_type.as_bytes()]);
        answer
    }

    /// As hyper has it.
    pub(crate) fn into_http2(self) -> Response<Outgoing> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.fields.to_map();
        response
    }
}
