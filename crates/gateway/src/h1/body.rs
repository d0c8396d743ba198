//! A message's body: where it ends, and its two codings (RFC 9112, sections 6 and 7).

use bytes::{Buf, Bytes, BytesMut};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::out::Out;

/// Bytes of a line that begins a chunk.
const CHUNK_LINE: usize = 4 * 1024;
/// Bytes of all chunk extensions of a body: they mean nothing to us, and cost time.
const EXTENSIONS: usize = 16 * 1024;
/// Bytes of a trailer section.
const TRAILER_BYTES: usize = 16 * 1024;
/// Lines of a trailer section.
const TRAILER_LINES: usize = 64;

/// The bytes are no body as announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What decoding brought.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// A part of the body, not empty.
    Data(Bytes),
    /// What came after it.
    Trailers(HeaderMap),
    /// That was all.
    End,
    /// More bytes are needed.
    Starved,
}

/// Takes a body out of a stream of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked(Chunks),
    /// To the end of the connection; responses only.
    UntilEnd,
    /// It was to the end of the connection, and that is reached.
    Ended,
}

/// Where in a chunked body the decoder is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Chunks {
    at: At,
    extensions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    End,
}

impl Decoder {
    /// There is no body.
    pub(crate) const NONE: Self = Self::Length(0);

    /// A body in chunks, at its beginning.
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunks::default())
    }

    /// Whether all of the body has been taken.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.at == At::End,
            Self::UntilEnd => false,
            Self::Ended => true,
        }
    }

    /// How many bytes are left, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Ended => Some(0),
            Self::Chunked(_) | Self::UntilEnd => None,
        }
    }

    /// Takes the next part of the body off the front of `input`.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Step, Malformed> {
        match self {
            Self::Length(left) => Ok(if *left == 0 {
                Step::End
            } else {
                take(input, left)
            }),
            Self::Chunked(chunks) => chunks.decode(input),
            Self::UntilEnd => {
                let mut all = u64::MAX;
                Ok(take(input, &mut all))
            }
            Self::Ended => Ok(Step::End),
        }
    }

    /// The connection has ended.
    pub(crate) fn ended(&mut self) -> Result<(), Malformed> {
        if *self == Self::UntilEnd {
            *self = Self::Ended;
        }
        if self.is_done() {
            Ok(())
        } else {
            Err(Malformed("the connection ended before the body did"))
        }
    }
}

fn take(input: &mut BytesMut, left: &mut u64) -> Step {
    if input.is_empty() {
        return Step::Starved;
    }
    let n = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    *left -= u64::try_from(n).unwrap_or(*left);
    Step::Data(input.split_to(n).freeze())
}

impl Chunks {
    fn decode(&mut self, input: &mut BytesMut) -> Result<Step, Malformed> {
        loop {
            match &mut self.at {
                At::Size => {
                    let Some((size, line)) = chunk_size(input, &mut self.extensions)? else {
                        return Ok(Step::Starved);
                    };
                    input.advance(line);
                    self.at = if size == 0 {
                        At::Trailers
                    } else {
                        At::Data(size)
                    };
                }
                At::Data(left) => {
                    let step = take(input, left);
                    if *left == 0 {
                        self.at = At::DataEnd;
                    }
                    return Ok(step);
                }
                At::DataEnd => {
                    if input.len() < 2 {
                        return Ok(Step::Starved);
                    }
                    if !input.starts_with(b"\r\n") {
                        return Err(Malformed("a chunk is longer than it says"));
                    }
                    input.advance(2);
                    self.at = At::Size;
                }
                At::Trailers => {
                    if input.starts_with(b"\r\n") {
                        input.advance(2);
                        self.at = At::End;
                        return Ok(Step::End);
                    }
                    let Some((trailers, section)) = trailers(input)? else {
                        return Ok(Step::Starved);
                    };
                    input.advance(section);
                    self.at = At::End;
                    if !trailers.is_empty() {
                        return Ok(Step::Trailers(trailers));
                    }
                }
                At::End => return Ok(Step::End),
            }
        }
    }
}

/// The size that a chunk's first line gives, and the line's length.
fn chunk_size(input: &[u8], extensions: &mut usize) -> Result<Option<(u64, usize)>, Malformed> {
    const BAD: Malformed = Malformed("a chunk's size is no number");
    let window = &input[..input.len().min(CHUNK_LINE)];
    let Some(feed) = window.iter().position(|b| *b == b'\n') else {
        return if window.len() < CHUNK_LINE {
            Ok(None)
        } else {
            Err(Malformed("a chunk's first line is too long"))
        };
    };
    let line = window[..feed].strip_suffix(b"\r").ok_or(BAD)?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    // 15 digits are more than anybody has, and no sum of sizes overflows.
    if digits == 0 || digits > 15 {
        return Err(BAD);
    }
    let (digits, rest) = line.split_at(digits);
    let size = digits.iter().fold(0, |size, digit| {
        size << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or(0))
    });
    let extension = rest.trim_ascii_start();
    let plain = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
    if !(extension.is_empty() || extension.starts_with(b";")) || !extension.iter().all(plain) {
        return Err(BAD);
    }
    *extensions += rest.len();
    if *extensions > EXTENSIONS {
        return Err(Malformed("there are too many chunk extensions"));
    }
    Ok(Some((size, feed + 1)))
}

/// A trailer section that is not empty, and its length.
fn trailers(input: &[u8]) -> Result<Option<(HeaderMap, usize)>, Malformed> {
    const BAD: Malformed = Malformed("the trailers are malformed");
    let window = &input[..input.len().min(TRAILER_BYTES)];
    if !window.windows(4).any(|end| end == b"\r\n\r\n") {
        return if window.len() < TRAILER_BYTES {
            Ok(None)
        } else {
            Err(Malformed("there are too many trailers"))
        };
    }
    let mut lines = [httparse::EMPTY_HEADER; TRAILER_LINES];
    let Ok(httparse::Status::Complete((length, lines))) =
        httparse::parse_headers(window, &mut lines)
    else {
        return Err(BAD);
    };
    let mut trailers = HeaderMap::new();
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BAD)?;
        let value = HeaderValue::from_bytes(line.value).map_err(|_| BAD)?;
        if may_trail(&name) {
            trailers.append(name, value);
        }
    }
    Ok(Some((trailers, length)))
}

/// Whether a field may come after the body: not if whoever merges it into the headers would frame, route or
/// admit the message by it (RFC 9110, section 6.5.1).
fn may_trail(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 13] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        HOST,
        MAX_FORWARDS,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
    ];
    let text = name.as_str();
    !NEVER.contains(name)
        && !["connection", "forwarded", "keep-alive", "upgrade"].contains(&text)
        && !text.starts_with("x-forwarded-")
        && !text.starts_with("proxy-")
        && text != "x-serverless-authorization"
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it is; so many bytes are left.
    Length(u64),
    /// In chunks; trailers are welcome or dropped.
    Chunked {
        /// Whether the other side asked for trailers.
        trailers: bool,
    },
    /// As it is, and the connection's end is its end.
    UntilEnd,
}

/// Writes a body.
#[derive(Debug)]
pub(crate) struct Encoder {
    coding: Coding,
    /// A chunk's line end comes after a piece that is not written yet.
    owes_line_end: bool,
}

impl Encoder {
    pub(crate) fn new(coding: Coding) -> Self {
        Self {
            coding,
            owes_line_end: false,
        }
    }

    /// Whether all that was announced has been written.
    pub(crate) fn is_done(&self) -> bool {
        self.coding == Coding::Length(0)
    }

    /// Appends a part of the body, not empty. There must be room.
    pub(crate) fn data(&mut self, data: Bytes, out: &mut Out) -> Result<(), Malformed> {
        match &mut self.coding {
            Coding::UntilEnd => {
                out.push(data);
            }
            Coding::Length(left) => {
                *left = u64::try_from(data.len())
                    .ok()
                    .and_then(|n| left.checked_sub(n))
                    .ok_or(Malformed("the body is longer than announced"))?;
                out.push(data);
            }
            Coding::Chunked { .. } => {
                let buffer = out.buffer();
                if self.owes_line_end {
                    buffer.extend_from_slice(b"\r\n");
                }
                write_chunk_size(buffer, data.len());
                self.owes_line_end = !out.push(data);
                if !self.owes_line_end {
                    out.buffer().extend_from_slice(b"\r\n");
                }
            }
        }
        Ok(())
    }

    /// Appends the end. There must be room.
    pub(crate) fn end(
        &mut self,
        trailers: Option<&HeaderMap>,
        out: &mut Out,
    ) -> Result<(), Malformed> {
        match self.coding {
            Coding::Length(0) | Coding::UntilEnd => Ok(()),
            Coding::Length(_) => Err(Malformed("the body is shorter than announced")),
            Coding::Chunked { trailers: welcome } => {
                if std::mem::take(&mut self.owes_line_end) {
                    out.buffer().extend_from_slice(b"\r\n");
                }
                write_end(out.buffer(), trailers.filter(|_| welcome));
                self.coding = Coding::Length(0);
                Ok(())
            }
        }
    }
}

/// The line that begins a chunk.
fn write_chunk_size(to: &mut Vec<u8>, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        to.push(b"0123456789abcdef"[(size >> (4 * digit)) & 0xf]);
    }
    to.extend_from_slice(b"\r\n");
}

/// The end of a chunked body.
fn write_end(to: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    to.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if may_trail(name) {
            super::head::write_line(to, name, value);
        }
    }
    to.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes bytes that come in parts of the given sizes.
    fn decode(
        mut decoder: Decoder,
        bytes: &[u8],
        parts: &[usize],
    ) -> Result<(Vec<u8>, Option<HeaderMap>, BytesMut), Malformed> {
        let (mut input, mut body, mut trailers) = (BytesMut::new(), Vec::new(), None);
        let mut rest = bytes;
        let mut sizes = parts.iter().cycle();
        loop {
            match decoder.decode(&mut input)? {
                Step::Data(data) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(&data);
                }
                Step::Trailers(map) => trailers = Some(map),
                Step::End => {
                    assert!(decoder.is_done());
                    input.extend_from_slice(rest);
                    return Ok((body, trailers, input));
                }
                Step::Starved if rest.is_empty() => decoder.ended()?,
                Step::Starved => {
                    let n = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
                    input.extend_from_slice(&rest[..n]);
                    rest = &rest[n..];
                }
            }
        }
    }

    fn chunked(bytes: &[u8]) -> Result<(Vec<u8>, Option<HeaderMap>, BytesMut), Malformed> {
        decode(Decoder::chunked(), bytes, &[usize::MAX])
    }

    #[test]
    fn what_follows_a_body_stays() {
        let (body, _, rest) = decode(Decoder::Length(3), b"abcdef", &[9]).unwrap();
        assert_eq!((&body[..], &rest[..]), (&b"abc"[..], &b"def"[..]));
        let (body, trailers, rest) =
            chunked(b"3;x=\"1\"\r\nabc\r\n0 \r\nX-Sum: 1\r\nContent-Length: 9\r\nX-Forwarded-For: h\r\n\r\nGET").unwrap();
        assert_eq!((&body[..], &rest[..]), (&b"abc"[..], &b"GET"[..]));
        let trailers = trailers.unwrap();
        assert_eq!(
            (trailers.len(), &trailers["x-sum"]),
            (1, &HeaderValue::from_static("1"))
        );
        let (body, ..) = decode(Decoder::UntilEnd, b"to the end", &[3]).unwrap();
        assert_eq!(body, b"to the end");
    }

    #[test]
    fn ambiguous_and_endless_chunks_are_refused() {
        for bad in [
            &b"\r\n"[..],
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3 3\r\nabc\r\n0\r\n\r\n",
            b"3;\rx\r\nabc\r\n0\r\n\r\n",
            b"1000000000000000\r\n",
            b"ffffffffffffffffff\r\n",
            b"3\r\nabc\r\n0\r\n",
            b"3\r\nabc\r\n",
            b"3\r\nab",
            b"0\r\nbad header\r\n\r\n",
            b"0\r\na: b\x00\r\n\r\n",
        ] {
            assert!(chunked(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        let long = [&b"1;"[..], &[b'x'; CHUNK_LINE]].concat();
        assert!(chunked(&long).is_err());
        let many = [&b"1;"[..], &[b'x'; 999], b"\r\na\r\n"].concat().repeat(17);
        assert!(chunked(&many).is_err());
        let trailers = [&b"0\r\n"[..], &b"a: b\r\n".repeat(TRAILER_BYTES / 6 + 1)].concat();
        assert!(chunked(&trailers).is_err());
    }

    proptest! {
        #[test]
        fn a_chunked_body_survives_any_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..6),
            cuts in prop::collection::vec(1_usize..40, 1..8),
            trailer in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            for piece in &pieces {
                write_chunk_size(&mut bytes, piece.len());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            let mut map = HeaderMap::new();
            map.insert("x-sum", HeaderValue::from_static("1"));
            write_end(&mut bytes, trailer.then_some(&map));
            bytes.extend_from_slice(b"rest");
            let (body, trailers, rest) = decode(Decoder::chunked(), &bytes, &cuts).unwrap();
            prop_assert_eq!(body, pieces.concat());
            prop_assert_eq!(trailers, trailer.then_some(map));
            prop_assert_eq!(&rest[..], b"rest");
        }

        #[test]
        fn noise_never_panics_and_means_the_same_however_it_is_cut(
            bytes in prop::collection::vec(prop::sample::select(b"0123aF\r\n; :x\x00\xff".to_vec()), 0..60),
            cuts in prop::collection::vec(1_usize..7, 1..8),
        ) {
            prop_assert_eq!(
                decode(Decoder::chunked(), &bytes, &cuts),
                decode(Decoder::chunked(), &bytes, &[usize::MAX])
            );
        }
    }
}
