//! Heads of messages: bytes to what they mean, and back (RFC 9112, sections 2 to 6).

use std::mem::MaybeUninit;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, Version};

use super::body::{Coding, Decoder};
use crate::fields::{Fields, Known, Span};
use crate::message::RequestHead;

/// Header lines of a response, and of a request unless the settings say otherwise.
pub(crate) const LINES: usize = 100;
/// Bytes of a request's target, as in most servers.
const TARGET: usize = 16 * 1024;

/// Why a request's head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    /// What the client reads.
    pub(crate) why: &'static str,
}

impl Refused {
    pub(crate) const TOO_LARGE: Self = Self {
        status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        why: "The request's headers are too large.\n",
    };
    const TARGET_TOO_LONG: Self = Self {
        status: StatusCode::URI_TOO_LONG,
        why: "The request's target is too long.\n",
    };
    const MALFORMED: Self = Self::bad("Bad request: this is not HTTP as RFC 9112 has it.\n");
    const TARGET: Self = Self::bad("Bad request: the target is no path and no URI.\n");
    const LENGTH: Self = Self::bad("Bad request: Content-Length is not one number.\n");
    const LENGTHS: Self =
        Self::bad("Bad request: Content-Length and Transfer-Encoding exclude each other.\n");
    const CODING: Self =
        Self::bad("Bad request: the only Transfer-Encoding understood is chunked, once.\n");
    const OLD_CODING: Self = Self::bad("Bad request: HTTP/1.0 has no Transfer-Encoding.\n");

    const fn bad(why: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            why,
        }
    }
}

/// A response's head that is none, or one that can be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response's head is malformed")]
pub(crate) struct Malformed;

/// A request as far as its head tells.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: RequestHead,
    pub(crate) body: Decoder,
    /// Whether the client lets the connection be used again.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub(crate) expects_continue: bool,
}

/// A response as far as its head tells.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: Decoder,
    /// Whether the connection can be used again after the body.
    pub(crate) reusable: bool,
}

/// What is asked decides how the answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// With `HEAD`.
    pub(crate) head: bool,
    /// For another protocol.
    pub(crate) upgrade: bool,
}

/// Reads a request's head, if all of it is there, and says how long it is. `input` begins with its first
/// line.
pub(crate) fn request(
    input: &[u8],
    most_lines: usize,
) -> Result<Option<(Request, usize)>, Refused> {
    if most_lines <= LINES {
        let mut lines = [const { MaybeUninit::uninit() }; LINES];
        request_with(input, &mut lines[..most_lines])
    } else {
        let mut lines = vec![MaybeUninit::uninit(); most_lines];
        request_with(input, &mut lines)
    }
}

fn request_with<'a>(
    input: &'a [u8],
    lines: &mut [MaybeUninit<httparse::Header<'a>>],
) -> Result<Option<(Request, usize)>, Refused> {
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(input, lines) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Refused::TOO_LARGE),
        Err(_) => return Err(Refused::MALFORMED),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refused::MALFORMED);
    };
    if target.len() > TARGET {
        return Err(Refused::TARGET_TOO_LONG);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refused::MALFORMED)?;
    let version = version(minor);
    let (mut fields, facts) = read(input, length, parsed.headers).ok_or(Refused::MALFORMED)?;
    let (target, authority) =
        read_target(&method, target, input, &mut fields).ok_or(Refused::TARGET)?;
    let body = match (facts.codings, facts.length) {
        (0, Length::None) => Decoder::NONE,
        (0, Length::Is(length)) => Decoder::Length(length),
        (0, Length::Bad) => return Err(Refused::LENGTH),
        // Two ways to tell a body's length are two ways to read it (RFC 9112, section 6.3).
        (_, Length::Is(_) | Length::Bad) => return Err(Refused::LENGTHS),
        _ if version == Version::HTTP_10 => return Err(Refused::OLD_CODING),
        // Chunked, once, is all that HTTP/1.1 knows between a client and a server (section 6.1).
        (1, _) if facts.chunked => Decoder::chunked(),
        _ => return Err(Refused::CODING),
    };
    let request = Request {
        keep_alive: facts.keeps_alive(version),
        expects_continue: version == Version::HTTP_11 && facts.expects_continue && !body.is_done(),
        body,
        head: RequestHead::new(method, version, fields, target, authority),
    };
    Ok(Some((request, length)))
}

/// Where a target leads (RFC 9112, section 3.2): path and query, and the authority if it has one.
fn read_target(
    method: &Method,
    target: &str,
    input: &[u8],
    fields: &mut Fields,
) -> Option<(Span, Option<Span>)> {
    if *method == Method::CONNECT {
        target.parse::<Authority>().ok()?;
        let span = span_of(target.as_bytes(), input)?;
        return Some((span, Some(span)));
    }
    if target.starts_with('/') {
        // A fragment is the client's own matter.
        let target = target.split_once('#').map_or(target, |(target, _)| target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if !path.bytes().all(may_be_in_path) || !query.bytes().all(may_be_in_query) {
            return None;
        }
        return Some((span_of(target.as_bytes(), input)?, None));
    }
    if target == "*" && *method == Method::OPTIONS {
        return Some((span_of(target.as_bytes(), input)?, None));
    }
    let uri: Uri = target.parse().ok()?;
    let (_, authority) = (uri.scheme()?, uri.authority()?);
    let target = uri.path_and_query()?.as_str();
    let root: &[u8] = if target.starts_with('?') { b"/" } else { b"" };
    let target = fields.keep(&[root, target.as_bytes()]);
    let authority = fields.keep(&[authority.as_str().as_bytes()]);
    Some((target, Some(authority)))
}

/// What paths are made of, by the rule of the `http` crate, so that no target that is let in has no form there.
const fn may_be_in_path(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x22 | 0x24..=0x3b | 0x3d | 0x40..=0x5f | 0x61..=0x7e | 0x80..)
}

/// What queries are made of, by the same rule.
const fn may_be_in_query(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x24..=0x3b | 0x3d | 0x3f..=0x7e | 0x80..)
}

/// Reads a response's head, if all of it is there, and says how long it is.
pub(crate) fn response(input: &[u8], asked: Asked) -> Result<Option<(Response, usize)>, Malformed> {
    let mut lines = [const { MaybeUninit::uninit() }; LINES];
    let mut parsed = httparse::Response::new(&mut []);
    let length = match httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        input,
        &mut lines,
    ) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed),
    };
    let status = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(Malformed)?;
    let version = version(parsed.version.ok_or(Malformed)?);
    let (fields, facts) = read(input, length, parsed.headers).ok_or(Malformed)?;
    let none = asked.head
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = match (facts.codings, facts.length) {
        (_, Length::Bad) | (1.., Length::Is(_)) => return Err(Malformed),
        (1.., _) if version == Version::HTTP_10 || !facts.chunked => return Err(Malformed),
        _ if none => Decoder::NONE,
        (1, _) => Decoder::chunked(),
        (2.., _) => return Err(Malformed),
        (0, Length::Is(length)) => Decoder::Length(length),
        (0, Length::None) => Decoder::UntilEnd,
    };
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !asked.upgrade {
        return Err(Malformed);
    }
    let response = Response {
        status,
        fields,
        reusable: facts.keeps_alive(version) && body != Decoder::UntilEnd && !switches,
        body,
    };
    Ok(Some((response, length)))
}

fn version(minor: u8) -> Version {
    if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

/// A part of a head's text.
fn span_of(part: &[u8], input: &[u8]) -> Option<Span> {
    let start = part.as_ptr().addr().checked_sub(input.as_ptr().addr())?;
    Span::new(start..start + part.len())
}

/// Copies a head once, and takes its lines for parts of the copy.
fn read(input: &[u8], length: usize, lines: &[httparse::Header<'_>]) -> Option<(Fields, Facts)> {
    let mut fields = Fields::over(&input[..length]);
    let mut facts = Facts::default();
    for line in lines {
        let name = line.name.as_bytes();
        let known = Known::of(name);
        match known {
            // The same number again says nothing new (RFC 9110, section 8.6).
            Some(Known::ContentLength) if facts.saw_length(line.value) => continue,
            Some(Known::TransferEncoding) => {
                facts.codings += 1;
                facts.chunked = line.value.eq_ignore_ascii_case(b"chunked");
            }
            Some(Known::Connection) => facts.saw_connection(line.value),
            Some(Known::Expect) => {
                facts.expects_continue = line.value.eq_ignore_ascii_case(b"100-continue");
            }
            _ => {}
        }
        fields.push_span(span_of(name, input)?, span_of(line.value, input)?, known);
    }
    Some((fields, facts))
}

/// What the lines say about the message itself.
#[derive(Debug, Default)]
struct Facts {
    length: Length,
    /// Lines of `Transfer-Encoding`.
    codings: usize,
    /// The last of them is `chunked` alone.
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Length {
    #[default]
    None,
    Is(u64),
    Bad,
}

impl Facts {
    /// Takes note of a `Content-Length`. Says whether it was there before, the same.
    fn saw_length(&mut self, value: &[u8]) -> bool {
        let before = self.length;
        // 18 digits are more than anybody has, and nothing overflows.
        let plain = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        let now = if plain {
            Length::Is(
                value
                    .iter()
                    .fold(0, |n, digit| n * 10 + u64::from(digit - b'0')),
            )
        } else {
            Length::Bad
        };
        self.length = if before == Length::None || before == now {
            now
        } else {
            Length::Bad
        };
        before == self.length
    }

    fn saw_connection(&mut self, value: &[u8]) {
        for token in value.split(|b| *b == b',') {
            let token = token.trim_ascii();
            self.close |= token.eq_ignore_ascii_case(b"close");
            self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (version != Version::HTTP_10 || self.keep_alive)
    }
}

/// Writes the head of a request to an instance.
pub(crate) fn write_request(to: &mut Vec<u8>, head: &RequestHead) {
    to.extend_from_slice(head.method.as_str().as_bytes());
    to.push(b' ');
    to.extend_from_slice(head.target().as_bytes());
    to.extend_from_slice(b" HTTP/1.1\r\n");
    head.fields.write(to);
    to.extend_from_slice(b"\r\n");
}

/// Writes a status line.
pub(crate) fn write_status(to: &mut Vec<u8>, status: StatusCode) {
    to.extend_from_slice(b"HTTP/1.1 ");
    to.extend_from_slice(status.as_str().as_bytes());
    to.push(b' ');
    to.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    to.extend_from_slice(b"\r\n");
}

/// Writes a trailer's line.
pub(crate) fn write_line(to: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    to.extend_from_slice(name.as_str().as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value.as_bytes());
    to.extend_from_slice(b"\r\n");
}

/// How the body of a request is written, by its fields. What has no length there is none.
pub(crate) fn coding_of_request(fields: &Fields) -> Coding {
    if fields.has(Known::TransferEncoding) {
        return Coding::Chunked { trailers: true };
    }
    let length = fields
        .get_str(Known::ContentLength)
        .and_then(|length| length.parse().ok());
    Coding::Length(length.unwrap_or(0))
}

/// Whether a head is all there. `from` is where to begin to
/// look, and is moved to where to begin the next time: a head that drips in is not read again and again.
pub(crate) fn is_complete(input: &[u8], from: &mut usize) -> bool {
    while let Some(feed) = input[*from..].iter().position(|b| *b == b'\n') {
        match &input[*from + feed + 1..] {
            [b'\n', ..] | [b'\r', b'\n', ..] => return true,
            [] | [b'\r'] => {
                *from += feed;
                return false;
            }
            _ => *from += feed + 1,
        }
    }
    *from = input.len();
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GET: Asked = Asked {
        head: false,
        upgrade: false,
    };

    fn ask(bytes: &str) -> Result<Request, Refused> {
        let (head, length) = request(bytes.as_bytes(), LINES)?.expect("it is complete");
        assert_eq!(length, bytes.len());
        Ok(head)
    }

    fn answer(bytes: &str, asked: Asked) -> Result<Response, Malformed> {
        let (head, length) = response(bytes.as_bytes(), asked)?.expect("it is complete");
        assert_eq!(length, bytes.len());
        Ok(head)
    }

    #[test]
    fn a_request_is_read() {
        let read = ask("POST /a?b#c HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 7\r\ncontent-length: 7\r\nExpect: 100-continue\r\n\r\n").unwrap();
        assert_eq!(
            (&read.head.method, read.head.target()),
            (&Method::POST, "/a?b")
        );
        assert_eq!((read.head.path(), read.head.host()), ("/a", "h"));
        assert_eq!(read.body, Decoder::Length(7));
        assert!(read.keep_alive && read.expects_continue);
        let fields = [
            ("Host", "h"),
            ("X-A", "1"),
            ("x-a", "2"),
            ("content-length", "7"),
            ("Expect", "100-continue"),
        ];
        assert_eq!(read.head.fields, fields.into());
        assert!(
            !ask("GET / HTTP/1.1\r\nConnection: x, CLOSE\r\n\r\n")
                .unwrap()
                .keep_alive
        );
        assert!(!ask("GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
        assert!(
            ask("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
                .unwrap()
                .keep_alive
        );
        for (target, path) in [
            ("*", "*"),
            ("http://u:1/", "/"),
            ("http://u:1", "/"),
            ("http://u:1?q", "/?q"),
        ] {
            let head = ask(&format!("OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
                .unwrap()
                .head;
            assert_eq!(head.target(), path, "{target}");
            assert_eq!(head.host(), if target == "*" { "h" } else { "u:1" });
        }
        let head = ask("CONNECT h:443 HTTP/1.1\r\n\r\n").unwrap().head;
        assert_eq!(head.authority(), Some("h:443"));
    }

    #[test]
    fn every_target_that_is_let_in_has_a_form_in_the_http_crate() {
        for byte in 0..=u8::MAX {
            for (before, let_in) in [
                (&b"/"[..], may_be_in_path(byte)),
                (b"/?", may_be_in_query(byte)),
            ] {
                // Bytes beyond ASCII come in pairs.
                let second = &[0x80][..usize::from((0xc2..0xe0).contains(&byte))];
                let text = [before, &[byte], second].concat();
                if let Some(text) = String::from_utf8(text).ok().filter(|_| let_in) {
                    assert!(text.parse::<http::uri::PathAndQuery>().is_ok(), "{text:?}");
                }
            }
        }
        for bad in ["/<", "/a b", "/`", "/\u{7f}", "/\n"] {
            assert!(!bad.bytes().all(may_be_in_path), "{bad:?}");
        }
        for bad in ["\"", "a b", "<", "\u{7f}", "\n"] {
            assert!(!bad.bytes().all(may_be_in_query), "{bad:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for bad in [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: 5 5",
            "Content-Length: ",
            "Content-Length: 99999999999999999999",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: \x0bchunked",
            "Transfer-Encoding : chunked",
            " folded: 1",
            "A: b\r\n c",
            "A\x00: b",
            "A: \x00",
            "A b: c",
            ": c",
        ] {
            assert!(
                ask(&format!("POST / HTTP/1.1\r\n{bad}\r\n\r\n")).is_err(),
                "{bad:?}"
            );
        }
        for line in [
            "GET h HTTP/1.1",
            "GET h:80 HTTP/1.1",
            "GET * HTTP/1.1",
            "GET http:/x HTTP/1.1",
            "GET /< HTTP/1.1",
            "CONNECT / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET / HTTP/2.0",
            "GET /\x01 HTTP/1.1",
            "G(T / HTTP/1.1",
        ] {
            assert!(ask(&format!("{line}\r\n\r\n")).is_err(), "{line}");
        }
        assert!(ask("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(TARGET));
        assert_eq!(ask(&long).unwrap_err().status, StatusCode::URI_TOO_LONG);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: 1\r\n".repeat(LINES + 1));
        assert_eq!(ask(&many).unwrap_err(), Refused::TOO_LARGE);
    }

    #[test]
    fn a_responses_end_is_known() {
        let of = |head: &str, asked| answer(&format!("HTTP/1.1 {head}\r\n\r\n"), asked);
        let head = of("200 OK\r\nContent-Length: 3", GET).unwrap();
        assert!(head.reusable && head.body == Decoder::Length(3));
        assert_eq!(
            of("200 OK\r\ntransfer-encoding: Chunked", GET)
                .unwrap()
                .body,
            Decoder::chunked()
        );
        let head = of("200 OK", GET).unwrap();
        assert!(!head.reusable && head.body == Decoder::UntilEnd);
        assert!(
            !of("200 OK\r\nContent-Length: 3\r\nConnection: close", GET)
                .unwrap()
                .reusable
        );
        let asked = Asked {
            head: true,
            upgrade: false,
        };
        assert_eq!(
            of("200 OK\r\nContent-Length: 3", asked).unwrap().body,
            Decoder::NONE
        );
        for status in ["204 No Content", "304 Not Modified", "103 Early Hints"] {
            assert_eq!(of(status, GET).unwrap().body, Decoder::NONE);
        }
        let asked = Asked {
            head: false,
            upgrade: true,
        };
        assert!(!of("101 Switching Protocols", asked).unwrap().reusable);
        let old = answer("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", GET).unwrap();
        assert!(!old.reusable);
    }

    #[test]
    fn malformed_responses_are_refused() {
        for bad in [
            "HTTP/1.1 101 Switching Protocols",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4",
            "HTTP/1.1 200 OK\r\nContent-Length: x",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
            "HTTP/1.1 099 Low",
            "HTTP/1.1 20 OK",
            "HTTP/3.0 200 OK",
            "HTTP/1.1 200 OK\r\nA\x00: b",
            "SSH-2.0-OpenSSH",
        ] {
            assert!(answer(&format!("{bad}\r\n\r\n"), GET).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_requests_head_is_written_as_it_is_read() {
        let text = "PUT /a?b=c HTTP/1.1\r\nHost: h\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        let head = ask(text).unwrap().head;
        let mut written = Vec::new();
        write_request(&mut written, &head);
        assert_eq!(String::from_utf8(written).unwrap(), text);
        assert_eq!(
            coding_of_request(&head.fields),
            Coding::Chunked { trailers: true }
        );
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in prop::collection::vec(
            prop::sample::select(b"GET / HTTP/1.1\r\n:aC0,;\x00\x7f\xff".to_vec()), 0..200)) {
            let _ = request(&bytes, LINES);
            let _ = response(&bytes, GET);
            let status = [b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat();
            let _ = response(&status, GET);
        }

        #[test]
        fn completeness_is_found_however_a_head_is_cut(
            lines in prop::collection::vec("[a-z]{1,9}", 1..9),
            bare in any::<bool>(),
            cuts in prop::collection::vec(1_usize..5, 1..8),
        ) {
            let end = if bare { "\n" } else { "\r\n" };
            let text = lines.join(end) + end + end;
            let (mut have, mut from) = (0, 0);
            for cut in cuts.iter().cycle() {
                let complete = is_complete(&text.as_bytes()[..have], &mut from);
                prop_assert_eq!(complete, have == text.len());
                if complete { break; }
                have = (have + cut).min(text.len());
            }
        }
    }
}
