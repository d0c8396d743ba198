//! What a host name means to the gateway.

use std::borrow::Cow;
use std::net::IpAddr;

use http::uri::Authority;

/// The host of `host[:port]`, lowercase, without port, brackets or a final dot.
pub(crate) fn normalize(host: &str) -> Cow<'_, str> {
    let name = without_port(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.rsplit_once(':') {
        // More than one colon without brackets is a bare IPv6 address.
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

/// Whether `host` may stand in a `Host` header: an authority without user information.
pub(crate) fn is_valid(host: &str) -> bool {
    let authority = host.parse::<Authority>();
    host.is_empty() || (!host.contains('@') && authority.is_ok() && has_valid_port(host))
}

/// Whether what follows a host's name, if anything does, is a port.
pub(crate) fn has_valid_port(host: &str) -> bool {
    let port = match host.rsplit_once(']') {
        Some((_, rest)) => rest,
        None => host.find(':').map_or("", |colon| &host[colon..]),
    };
    // An empty one is allowed (RFC 3986, section 3.2.3).
    let digits = port.strip_prefix(':').unwrap_or(port);
    digits.is_empty()
        || (digits.len() < port.len()
            && digits.bytes().all(|b| b.is_ascii_digit())
            && digits.parse::<u16>().is_ok())
}

/// Whether `host` is `domain` or lies under it.
pub(crate) fn within(host: &str, domain: &str) -> bool {
    host == domain || under(host, domain)
}

/// Whether `host` lies under `domain`.
pub(crate) fn under(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain)
        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

/// Whether `host` can only mean this machine itself.
pub(crate) fn is_local(host: &str) -> bool {
    within(host, "localhost") || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_case_and_port() {
        assert_eq!(normalize("Hello.RUN.localhost:8080"), "hello.run.localhost");
        assert_eq!(normalize("hello.run.localhost."), "hello.run.localhost");
        assert_eq!(normalize("[::1]:8080"), "::1");
        assert_eq!(normalize("::1"), "::1");
        assert_eq!(normalize(""), "");
    }

    #[test]
    fn a_name_is_under_a_domain_only_at_a_dot() {
        assert!(within("run.googleapis.com", "googleapis.com"));
        assert!(within("googleapis.com", "googleapis.com"));
        assert!(!within("evilgoogleapis.com", "googleapis.com"));
        assert!(!under("run.localhost", "run.localhost"));
        assert!(!under(".run.localhost", "run.localhost"));
        assert!(is_local("127.0.0.1") && is_local("x.localhost") && !is_local("example.com"));
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for bad in [
            "a b", "a/b", "u@h", "h:1:2x", "h:x", "h:+1", "h:99999", "h\"", "<x>",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
        for good in ["", "h", "h:", "h:80", "[::1]", "[::1]:80", "a---b.c"] {
            assert!(is_valid(good), "{good}");
        }
    }
}
