//! Header rules of a proxy: what ends at one hop, and what the next hop is told of the client.

use std::net::IpAddr;

use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Removes what is meant for this hop only (RFC 9110, section 7.6.1).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        strip_nominated(headers);
        headers.remove(CONNECTION);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(PROXY_AUTHENTICATE);
    headers.remove(PROXY_AUTHORIZATION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(UPGRADE);
    headers.remove(HTTP2_SETTINGS);
}

/// Removes the headers that `Connection` names, but for those that frame or route the message: a client
/// must not be able to take them away from the next hop.
fn strip_nominated(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(name))
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

/// The protocol that a request or response upgrades to, if it does.
pub(crate) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(UPGRADE)?;
    let asked = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    // HTTP/2 by upgrade would carry requests that nobody has admitted past the gateway.
    let h2c = upgrade
        .to_str()
        .is_ok_and(|u| u.split(',').any(|p| p.trim().eq_ignore_ascii_case("h2c")));
    (asked && !h2c).then(|| upgrade.clone())
}

/// Writes `Connection: upgrade` and `Upgrade`.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Prepares a request's headers for the container, hop-by-hop ones removed already.
pub(crate) fn prepare_request(headers: &mut HeaderMap, client: &Client) {
    // The gateway itself answers with 100 when the container begins to read.
    headers.remove(EXPECT);
    append(headers, X_FORWARDED_FOR, &client.address, ", ");
    append(headers, FORWARDED, &client.forwarded, ", ");
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme));
}

/// Whether whoever sent these headers takes trailers (RFC 9110, section 10.1.4).
pub(crate) fn wants_trailers(headers: &HeaderMap) -> bool {
    headers
        .get(TE)
        .and_then(|te| te.to_str().ok())
        .is_some_and(|te| {
            te.split(',')
                .any(|t| t.trim().eq_ignore_ascii_case("trailers"))
        })
}

/// `TE` may only say that trailers are welcome.
pub(crate) fn reduce_te(headers: &mut HeaderMap) {
    let trailers = wants_trailers(headers);
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// HTTP/2 may split cookies; HTTP/1 wants them in one line (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

/// Prepares a container's response headers for the client.
pub(crate) fn prepare_response(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    // Cloud Run, "Container contract", response headers: what sets cookies must not be cached by others.
    if headers.contains_key(SET_COOKIE) && !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue, separator: &str) {
    if !headers.contains_key(&name) {
        headers.insert(name, value.clone());
        return;
    }
    let mut joined = Vec::new();
    for before in headers.get_all(&name) {
        joined.extend_from_slice(before.as_bytes());
        joined.extend_from_slice(separator.as_bytes());
    }
    joined.extend_from_slice(value.as_bytes());
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, joined);
    }
}

/// What the container is told of the client; made once a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) scheme: &'static str,
    address: HeaderValue,
    forwarded: HeaderValue,
}

impl Client {
    pub(crate) fn new(address: IpAddr, scheme: &'static str) -> Self {
        let address = address.to_canonical();
        let node = match address {
            IpAddr::V4(v4) => v4.to_string(),
            // RFC 7239, section 6: in brackets and quotes.
            IpAddr::V6(v6) => format!("\"[{v6}]\""),
        };
        let value = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        };
        Self {
            scheme,
            address: value(address.to_string()),
            forwarded: value(format!("for={node};proto={scheme}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn nominated_headers_go_but_framing_stays() {
        let mut headers = map(&[
            ("connection", "close, X-Secret, Content-Length, host"),
            ("x-secret", "1"),
            ("content-length", "3"),
            ("host", "h"),
            ("keep-alive", "timeout=1"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }

    #[test]
    fn the_clients_address_is_appended() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "gopher"),
        ]);
        let client = Client::new("2001:db8::1".parse().unwrap(), "https");
        prepare_request(&mut headers, &client);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 2001:db8::1");
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";proto=https");
        assert_eq!(headers["x-forwarded-proto"], "https");
    }

    #[test]
    fn only_asked_for_upgrades_count_and_never_to_http2() {
        let websocket = map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert!(upgrade(&websocket).is_some());
        assert!(upgrade(&map(&[("upgrade", "websocket")])).is_none());
        assert!(upgrade(&map(&[("connection", "upgrade"), ("upgrade", "h2c")])).is_none());
    }

    #[test]
    fn cookies_are_joined_and_cookie_setters_private() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers["cookie"], "a=1; b=2");
        let mut headers = map(&[("set-cookie", "a=1")]);
        prepare_response(&mut headers);
        assert_eq!(headers["cache-control"], "private");
    }
}
