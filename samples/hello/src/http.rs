//! As much of HTTP/1.1 as a small server needs: heads, bodies by length or in chunks, keep-alive, pipelining.

/// The largest head accepted; a longer one is answered with 431.
pub(crate) const MAX_HEAD: usize = 32 * 1024;
/// The largest body accepted; a longer one is answered with 413.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// One request, complete with its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) wants_html: bool,
    pub(crate) keep_alive: bool,
    pub(crate) body: Vec<u8>,
}

/// What a buffer held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not a whole request yet. `expects_continue` is set when the peer waits for a `100 Continue`.
    Partial { expects_continue: bool },
    /// A request, and how many bytes of the buffer it took.
    Whole(Box<Request>, usize),
    /// Not HTTP, or more of it than is accepted: the status to answer with before closing.
    Refused(u16),
}

/// How the length of a body is told.
enum Framing {
    Length(usize),
    Chunked,
}

/// Reads the request at the start of `buffer`.
pub(crate) fn parse(buffer: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; 96];
    let mut head = httparse::Request::new(&mut headers);
    let head_len = match head.parse(buffer) {
        Ok(httparse::Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(httparse::Status::Partial) if buffer.len() <= MAX_HEAD => {
            return Parsed::Partial {
                expects_continue: false,
            };
        }
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Parsed::Refused(431),
        Err(_) => return Parsed::Refused(400),
    };

    let mut framing = Framing::Length(0);
    let mut framed = false;
    let mut keep_alive = head.version == Some(1);
    let mut wants_html = false;
    let mut expects_continue = false;
    for header in head.headers.iter() {
        let Ok(value) = std::str::from_utf8(header.value) else {
            continue;
        };
        let value = value.trim();
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            match value.parse::<usize>() {
                _ if framed => return Parsed::Refused(400),
                Ok(len) if len <= MAX_BODY => framing = Framing::Length(len),
                Ok(_) => return Parsed::Refused(413),
                Err(_) => return Parsed::Refused(400),
            }
            framed = true;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            // Both lengths at once is how requests are smuggled.
            if framed {
                return Parsed::Refused(400);
            }
            if !value.eq_ignore_ascii_case("chunked") {
                return Parsed::Refused(501);
            }
            framing = Framing::Chunked;
            framed = true;
        } else if name.eq_ignore_ascii_case("connection") {
            if value.eq_ignore_ascii_case("close") {
                keep_alive = false;
            } else if value.eq_ignore_ascii_case("keep-alive") {
                keep_alive = true;
            }
        } else if name.eq_ignore_ascii_case("accept") {
            wants_html = value.contains("text/html");
        } else if name.eq_ignore_ascii_case("expect") {
            expects_continue = value.eq_ignore_ascii_case("100-continue");
        }
    }

    let rest = &buffer[head_len..];
    let (body, body_len) = match framing {
        Framing::Length(len) if rest.len() >= len => (rest[..len].to_vec(), len),
        Framing::Length(_) => {
            return Parsed::Partial {
                expects_continue: expects_continue && rest.is_empty(),
            };
        }
        Framing::Chunked => match dechunk(rest) {
            Chunks::Whole(body, len) => (body, len),
            Chunks::Partial => {
                return Parsed::Partial {
                    expects_continue: expects_continue && rest.is_empty(),
                };
            }
            Chunks::Refused(status) => return Parsed::Refused(status),
        },
    };
    let target = head.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: head.method.unwrap_or("GET").to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        wants_html,
        keep_alive,
        body,
    };
    Parsed::Whole(Box::new(request), head_len + body_len)
}

/// What a chunked body turned out to be.
enum Chunks {
    Partial,
    Whole(Vec<u8>, usize),
    Refused(u16),
}

fn dechunk(bytes: &[u8]) -> Chunks {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (start, size) = match httparse::parse_chunk_size(&bytes[at..]) {
            Ok(httparse::Status::Complete((used, size))) => (at + used, size),
            Ok(httparse::Status::Partial) => return Chunks::Partial,
            Err(_) => return Chunks::Refused(400),
        };
        let Some(size) = usize::try_from(size)
            .ok()
            .filter(|size| body.len() + size <= MAX_BODY)
        else {
            return Chunks::Refused(413);
        };
        if size == 0 {
            return trailers(bytes, start, body);
        }
        let Some(chunk) = bytes.get(start..start + size) else {
            return Chunks::Partial;
        };
        match bytes.get(start + size..start + size + 2) {
            None => return Chunks::Partial,
            Some(b"\r\n") => body.extend_from_slice(chunk),
            Some(_) => return Chunks::Refused(400),
        }
        at = start + size + 2;
    }
}

/// Skips the trailer fields after the last chunk, up to the empty line.
fn trailers(bytes: &[u8], mut at: usize, body: Vec<u8>) -> Chunks {
    loop {
        let Some(end) = bytes[at..].windows(2).position(|pair| pair == b"\r\n") else {
            let long = bytes.len() - at > MAX_HEAD;
            return if long {
                Chunks::Refused(431)
            } else {
                Chunks::Partial
            };
        };
        at += end + 2;
        if end == 0 {
            return Chunks::Whole(body, at);
        }
    }
}

/// Writes an answer with a body of known length.
pub(crate) fn answer(out: &mut Vec<u8>, status: u16, content_type: &str, body: &[u8], keep: bool) {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        _ => "Service Unavailable",
    };
    let connection = if keep { "" } else { "connection: close\r\n" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n{connection}\r\n",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> (Request, usize) {
        match parse(bytes) {
            Parsed::Whole(request, used) => (*request, used),
            other => panic!("not a whole request: {other:?}"),
        }
    }

    #[test]
    fn pipelined_requests_are_told_apart() {
        let two =
            b"GET /a?x=1 HTTP/1.1\r\nhost: h\r\n\r\nGET /b HTTP/1.1\r\nconnection: close\r\n\r\n";
        let (first, used) = whole(two);
        assert_eq!(
            (first.path.as_str(), first.query.as_str(), first.keep_alive),
            ("/a", "x=1", true)
        );
        let (second, rest) = whole(&two[used..]);
        assert_eq!((second.path.as_str(), second.keep_alive), ("/b", false));
        assert_eq!(used + rest, two.len());
    }

    #[test]
    fn a_chunked_body_is_joined_and_its_trailers_are_skipped() {
        let bytes = b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: 1\r\n\r\n";
        let (request, used) = whole(bytes);
        assert_eq!(
            (request.body.as_slice(), used),
            (&b"abcde"[..], bytes.len())
        );
        for cut in 1..bytes.len() {
            assert!(
                matches!(parse(&bytes[..cut]), Parsed::Partial { .. }),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn ambiguous_lengths_and_oversized_input_are_refused() {
        let both = b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(parse(both), Parsed::Refused(400));
        assert_eq!(
            parse(b"POST / HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n"),
            Parsed::Refused(413)
        );
        assert_eq!(parse(b"\x16\x03\x01\x02\x00"), Parsed::Refused(400));
        let long = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &vec![b'a'; MAX_HEAD]].concat();
        assert_eq!(parse(&long), Parsed::Refused(431));
    }
}
