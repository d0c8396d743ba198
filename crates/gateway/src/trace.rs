//! The trace a request belongs to: taken from what the client sent, made where it sent nothing.

use crate::fields::{Fields, Known, Set};
use crate::random::Random;

/// Finds the trace id in `X-Cloud-Trace-Context` or `traceparent` and adds whichever is missing. A new
/// trace is not sampled.
pub(crate) fn ensure(fields: &mut Fields, random: &Random) -> u128 {
    let cloud = fields.get_str(Known::CloudTrace).and_then(parse_cloud);
    let w3c = fields.get_str(Known::TraceParent).and_then(parse_w3c);
    let (trace, span, sampled) = w3c.or(cloud).unwrap_or_else(|| {
        let trace = (u128::from(random.next()) << 64) | u128::from(random.next()) | 1;
        (trace, random.next() | 1, false)
    });
    if cloud.is_some() && w3c.is_some() {
        return trace;
    }
    let text = hex_of(trace);
    if w3c.is_none() {
        let span: [u8; 32] = hex_of(u128::from(span));
        let flags: &[u8] = if sampled { b"-01" } else { b"-00" };
        fields.remove(Set::of(&[Known::TraceParent]));
        fields.append(
            Known::TraceParent,
            &[b"00-", &text, b"-", &span[16..], flags],
        );
    }
    if cloud.is_none() {
        let mut digits = [0; 20];
        let options: &[u8] = if sampled { b";o=1" } else { b";o=0" };
        fields.remove(Set::of(&[Known::CloudTrace]));
        fields.append(
            Known::CloudTrace,
            &[&text, b"/", decimal_of(span, &mut digits), options],
        );
    }
    trace
}

fn hex_of(value: u128) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(value.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
    text
}

fn decimal_of(mut value: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

/// `TRACE/SPAN;o=OPTIONS`, of which only the trace is required.
fn parse_cloud(value: &str) -> Option<(u128, u64, bool)> {
    let (ids, options) = value.split_once(';').unwrap_or((value, ""));
    let (trace, span) = ids.split_once('/').unwrap_or((ids, "0"));
    let trace = hex(trace, 32)?;
    Some((trace, span.parse().ok()?, options == "o=1"))
}

/// `00-TRACE-SPAN-FLAGS` (W3C Trace Context, section 3.2).
fn parse_w3c(value: &str) -> Option<(u128, u64, bool)> {
    let mut parts = value.split('-');
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

    fn told(fields: &Fields) -> (&str, &str) {
        let get = |known| fields.get_str(known).unwrap();
        (get(Known::TraceParent), get(Known::CloudTrace))
    }

    #[test]
    fn a_trace_is_made_where_there_is_none() {
        let mut fields = Fields::new();
        let trace = ensure(&mut fields, &Random::new());
        let (w3c, cloud) = told(&fields);
        assert_eq!(parse_w3c(w3c), parse_cloud(cloud));
        assert_eq!(parse_w3c(w3c).map(|t| t.0), Some(trace));
    }

    #[test]
    fn a_trace_of_the_client_is_kept_and_told_in_both_forms() {
        let sent = "105445aa7843bc8bf206b12000100000/7;o=1";
        let mut fields = Fields::from([("X-Cloud-Trace-Context", sent)]);
        ensure(&mut fields, &Random::new());
        let w3c = "00-105445aa7843bc8bf206b12000100000-0000000000000007-01";
        assert_eq!(told(&fields), (w3c, sent));
    }
}
