//! What a client reads when no container answers, in the words of Cloud Run.

use bytes::Bytes;
use http::StatusCode;

use crate::fields::Known;
use crate::message::Answer;

/// No slot within the wait (`cloud-run.md`, section 3).
pub(crate) const NO_INSTANCE: &str =
    "The request was aborted because there was no available instance.";
/// The instance's answer was no HTTP, or its connection broke.
pub(crate) const MALFORMED: &str = "The request failed because either the HTTP response was malformed or connection to the instance had an error.";
/// The instance used too much memory meanwhile.
pub(crate) const OUT_OF_MEMORY: &str = "While handling this request, the container instance was found to be using too much memory and was terminated.";
/// The request's time is up.
pub(crate) const TIMEOUT: &str = "upstream request timeout";
/// An instance was started for the request and did not become ready.
pub(crate) const START_FAILED: &str =
    "The request failed because the instance could not start successfully.";
/// The revision went away while the request looked for it.
pub(crate) const NO_REVISION: &str = "The service has no revision that can serve the request.";
/// The client went away first.
pub(crate) const CLIENT_GONE: &str =
    "The client closed the connection before the response was complete.";

/// A page with a heading and a sentence.
pub(crate) fn page(status: StatusCode, heading: &str, sentence: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or("Error");
    let html = format!(
        "<!doctype html>\n<html><head><meta charset=\"utf-8\"><title>{code} {title}</title></head>\n\
         <body><h1>Error: {heading}</h1>\n<h2>{sentence}</h2>\n</body></html>\n",
        code = status.as_u16(),
        heading = escape(heading),
        sentence = escape(sentence),
    );
    Answer::text(status, "text/html; charset=utf-8", html.into())
}

/// A plain text.
pub(crate) fn text(status: StatusCode, text: &'static str) -> Answer {
    Answer::text(
        status,
        "text/plain; charset=utf-8",
        Bytes::from_static(text.as_bytes()),
    )
}

/// 404: no such service, or one that this network may not see.
pub(crate) fn not_found() -> Answer {
    page(
        StatusCode::NOT_FOUND,
        "Page not found",
        "The requested URL was not found on this server.",
    )
}

/// 403: the caller lacks `run.routes.invoke`.
pub(crate) fn forbidden(path: &str) -> Answer {
    let sentence =
        format!("Your client does not have permission to get URL {path} from this server.");
    page(StatusCode::FORBIDDEN, "Forbidden", &sentence)
}

/// 401: the caller's token is not valid.
pub(crate) fn unauthorized(path: &str) -> Answer {
    let sentence = format!("Your client does not have permission to the requested URL {path}.");
    let mut answer = page(StatusCode::UNAUTHORIZED, "Unauthorized", &sentence);
    let why = "Bearer error=\"invalid_token\" error_description=\"The access token could not be verified\"";
    answer
        .fields
        .append(Known::WwwAuthenticate, &[why.as_bytes()]);
    answer
}

/// 429: no instance was to be had.
pub(crate) fn rate_exceeded() -> Answer {
    text(StatusCode::TOO_MANY_REQUESTS, "Rate exceeded.")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
