//! The trace a request belongs to: taken from what the client sent, made where it sent nothing.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::random::Random;

const CLOUD: HeaderName = HeaderName::from_static("x-cloud-trace-context");
const W3C: HeaderName = HeaderName::from_static("traceparent");

/// Finds the trace id in `X-Cloud-Trace-Context` or `traceparent` and adds whichever is missing. A new
/// trace is not sampled.
pub(crate) fn ensure(headers: &mut HeaderMap, random: &Random) -> u128 {
    let cloud = headers.get(&CLOUD).and_then(parse_cloud);
    let w3c = headers.get(&W3C).and_then(parse_w3c);
    let (trace, span, sampled) = w3c.or(cloud).unwrap_or_else(|| {
        let trace = (u128::from(random.next()) << 64) | u128::from(random.next()) | 1;
        (trace, random.next() | 1, false)
    });
    if cloud.is_some() && w3c.is_some() {
        return trace;
    }
    // Both values in one allocation.
    let mut buffer = BytesMut::with_capacity(128);
    if w3c.is_none() {
        buffer.put_slice(b"00-");
        put_hex(&mut buffer, trace, 32);
        buffer.put_u8(b'-');
        put_hex(&mut buffer, u128::from(span), 16);
        buffer.put_slice(if sampled { b"-01" } else { b"-00" });
        put_header(headers, W3C, buffer.split().freeze());
    }
    if cloud.is_none() {
        put_hex(&mut buffer, trace, 32);
        buffer.put_u8(b'/');
        put_decimal(&mut buffer, span);
        buffer.put_slice(if sampled { b";o=1" } else { b";o=0" });
        put_header(headers, CLOUD, buffer.split().freeze());
    }
    trace
}

fn put_header(headers: &mut HeaderMap, name: HeaderName, value: Bytes) {
    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
        headers.insert(name, value);
    }
}

fn put_hex(buffer: &mut BytesMut, value: u128, digits: u32) {
    for digit in (0..digits).rev() {
        let nibble = usize::try_from((value >> (4 * digit)) & 0xf).unwrap_or(0);
        buffer.put_u8(b"0123456789abcdef"[nibble]);
    }
}

fn put_decimal(buffer: &mut BytesMut, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    buffer.put_slice(&digits[at..]);
}

/// `TRACE/SPAN;o=OPTIONS`, of which only the trace is required.
fn parse_cloud(value: &HeaderValue) -> Option<(u128, u64, bool)> {
    let value = value.to_str().ok()?;
    let (ids, options) = value.split_once(';').unwrap_or((value, ""));
    let (trace, span) = ids.split_once('/').unwrap_or((ids, "0"));
    let trace = hex(trace, 32)?;
    Some((trace, span.parse().ok()?, options == "o=1"))
}

/// `00-TRACE-SPAN-FLAGS` (W3C Trace Context, section 3.2).
fn parse_w3c(value: &HeaderValue) -> Option<(u128, u64, bool)> {
    let mut parts = value.to_str().ok()?.split('-');
    let _version = hex(parts.next()?, 2)?;
    let trace = hex(parts.next()?, 32)?;
    let span = u64::try_from(hex(parts.next()?, 16)?).ok()?;
    let flags = hex(parts.next()?, 2)?;
    Some((trace, span, flags & 1 == 1))
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let plain = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_made_where_there_is_none() {
        let mut headers = HeaderMap::new();
        let trace = ensure(&mut headers, &Random::new());
        assert_eq!(parse_w3c(&headers[W3C]), parse_cloud(&headers[CLOUD]));
        assert_eq!(parse_w3c(&headers[W3C]).map(|t| t.0), Some(trace));
    }

    #[test]
    fn a_trace_of_the_client_is_kept_and_told_in_both_forms() {
        let mut headers = HeaderMap::new();
        let sent = HeaderValue::from_static("105445aa7843bc8bf206b12000100000/7;o=1");
        headers.insert(CLOUD, sent.clone());
        ensure(&mut headers, &Random::new());
        assert_eq!(headers[CLOUD], sent);
        assert_eq!(
            headers[W3C],
            "00-105445aa7843bc8bf206b12000100000-0000000000000007-01"
        );
    }
}
