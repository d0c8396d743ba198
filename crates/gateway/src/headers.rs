//! Header rules of a proxy: what ends at one hop, and what the next hop is told of the client.

use std::net::IpAddr;

use crate::fields::{Fields, Known, Set};

/// What is meant for one hop only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: Set = Set::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
]);

/// Removes what is meant for this hop only.
pub(crate) fn strip_hop_by_hop(fields: &mut Fields) {
    if fields.has(Known::Connection) {
        strip_nominated(fields);
    }
    fields.remove(HOP_BY_HOP);
}

/// Removes the fields that `Connection` names, but for those that frame or route the message: a client
/// must not be able to take them away from the next hop.
fn strip_nominated(fields: &mut Fields) {
    const STAY: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];
    const OPTIONS: [&str; 3] = ["close", "keep-alive", "upgrade"];
    let is = |element: &[u8], name: &&str| element.eq_ignore_ascii_case(name.as_bytes());
    let nominated: Vec<Vec<u8>> = fields
        .elements(Known::Connection)
        .filter(|element| !STAY.iter().chain(&OPTIONS).any(|name| is(element, name)))
        .map(<[u8]>::to_ascii_lowercase)
        .collect();
    if !nominated.is_empty() {
        fields.retain(|name| !nominated.iter().any(|n| n.eq_ignore_ascii_case(name)));
    }
}

/// The protocol that a request or response upgrades to, if it does.
pub(crate) fn upgrade(fields: &Fields) -> Option<Vec<u8>> {
    let upgrade = fields.get(Known::Upgrade)?;
    // HTTP/2 by upgrade would carry requests that nobody has admitted past the gateway.
    let taken = fields.lists(Known::Connection, "upgrade") && !fields.lists(Known::Upgrade, "h2c");
    taken.then(|| upgrade.to_vec())
}

/// Writes `Connection: upgrade` and `Upgrade`.
pub(crate) fn set_upgrade(fields: &mut Fields, protocol: &[u8]) {
    fields.set(Known::Connection, b"upgrade");
    fields.set(Known::Upgrade, protocol);
}

/// Prepares a request's fields for the container, hop-by-hop ones removed already.
pub(crate) fn prepare_request(fields: &mut Fields, client: &Client) {
    // The gateway itself answers with 100 when the container begins to read.
    fields.remove(Set::of(&[Known::Expect, Known::XForwardedProto]));
    join(
        fields,
        Known::XForwardedFor,
        b", ",
        Some(client.address.as_bytes()),
    );
    join(
        fields,
        Known::Forwarded,
        b", ",
        Some(client.forwarded.as_bytes()),
    );
    fields.append(Known::XForwardedProto, &[client.scheme.as_bytes()]);
}

/// Whether whoever sent these fields takes trailers (RFC 9110, section 10.1.4).
pub(crate) fn wants_trailers(fields: &Fields) -> bool {
    fields.lists(Known::Te, "trailers")
}

/// `TE` may only say that trailers are welcome.
pub(crate) fn reduce_te(fields: &mut Fields) {
    if fields.has(Known::Te) {
        let trailers = wants_trailers(fields);
        fields.remove(Set::of(&[Known::Te]));
        if trailers {
            fields.append(Known::Te, &[b"trailers"]);
        }
    }
}

/// HTTP/2 may split cookies; HTTP/1 wants them in one line (RFC 9113, section 8.2.3).
pub(crate) fn join_cookies(fields: &mut Fields) {
    if fields.get_all(Known::Cookie).nth(1).is_some() {
        join(fields, Known::Cookie, b"; ", None);
    }
}

/// Prepares a container's response fields for the client.
pub(crate) fn prepare_response(fields: &mut Fields) {
    strip_hop_by_hop(fields);
    // Cloud Run, "Container contract", response headers: what sets cookies must not be cached by others.
    if fields.has(Known::SetCookie) && !fields.has(Known::CacheControl) {
        fields.append(Known::CacheControl, &[b"private"]);
    }
}

/// Makes one field of all of a name, and of one more value.
fn join(fields: &mut Fields, known: Known, separator: &[u8], last: Option<&[u8]>) {
    if !fields.has(known) {
        if let Some(last) = last {
            fields.append(known, &[last]);
        }
        return;
    }
    let all: Vec<&[u8]> = fields.get_all(known).chain(last).collect();
    let all = all.join(separator);
    fields.set(known, &all);
}

/// What the container is told of the client; made once a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) scheme: &'static str,
    address: String,
    forwarded: String,
}

impl Client {
    pub(crate) fn new(address: IpAddr, scheme: &'static str) -> Self {
        let address = address.to_canonical();
        let node = match address {
            IpAddr::V4(v4) => v4.to_string(),
            // RFC 7239, section 6: in brackets and quotes.
            IpAddr::V6(v6) => format!("\"[{v6}]\""),
        };
        Self {
            scheme,
            address: address.to_string(),
            forwarded: format!("for={node};proto={scheme}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nominated_headers_go_but_framing_stays() {
        let mut fields = Fields::from([
            ("connection", "close, X-Secret, Content-Length, host"),
            ("x-Secret", "1"),
            ("content-length", "3"),
            ("host", "h"),
            ("keep-alive", "timeout=1"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut fields);
        let left = [("content-length", "3"), ("host", "h"), ("accept", "*/*")];
        assert_eq!(fields, left.into());
    }

    #[test]
    fn the_clients_address_is_appended() {
        let mut fields = Fields::from([
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "gopher"),
        ]);
        let client = Client::new("2001:db8::1".parse().unwrap(), "https");
        prepare_request(&mut fields, &client);
        let told = [
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 2001:db8::1"),
            ("forwarded", "for=\"[2001:db8::1]\";proto=https"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(fields, told.into());
    }

    #[test]
    fn only_asked_for_upgrades_count_and_never_to_http2() {
        let asks = |pairs: [(&str, &str); 2]| upgrade(&pairs.into());
        let websocket = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ];
        assert_eq!(asks(websocket).as_deref(), Some(&b"websocket"[..]));
        assert!(asks([("accept", "*/*"), ("upgrade", "websocket")]).is_none());
        assert!(asks([("connection", "upgrade"), ("upgrade", "foo, H2C")]).is_none());
    }

    #[test]
    fn cookies_are_joined_and_cookie_setters_private() {
        let mut fields = Fields::from([("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut fields);
        assert_eq!(fields, [("cookie", "a=1; b=2")].into());
        let mut fields = Fields::from([("set-cookie", "a=1")]);
        prepare_response(&mut fields);
        assert_eq!(fields.get_str(Known::CacheControl), Some("private"));
    }

    #[test]
    fn te_says_trailers_or_nothing() {
        let mut fields = Fields::from([("TE", "gzip, Trailers")]);
        reduce_te(&mut fields);
        assert_eq!(fields, [("te", "trailers")].into());
        let mut fields = Fields::from([("TE", "gzip")]);
        reduce_te(&mut fields);
        assert_eq!(fields.iter().len(), 0);
    }
}
