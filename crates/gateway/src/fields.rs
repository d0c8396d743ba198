//! Header fields as they pass through: in their order, as they were written, in one buffer. A request to a
//! service has a dozen of them and the gateway asks for a few that it knows, so they are found by comparing
//! lengths and one bit each, not by hashing; and what is not asked for is copied once in and once out.

use std::cell::RefCell;
use std::fmt;
use std::ops::{BitOr, Range};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Buffers that wait for the thread's next message.
const SPARE: usize = 32;
/// A larger buffer is given back to the system.
const SPARE_BYTES: usize = 16 * 1024;

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A field that means something to the gateway.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Known { $($name,)* }

        impl Known {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name, in lower case.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

known! {
    Authorization = "authorization",
    CacheControl = "cache-control",
    CloudTrace = "x-cloud-trace-context",
    Connection = "connection",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Expect = "expect",
    Forwarded = "forwarded",
    Host = "host",
    Http2Settings = "http2-settings",
    KeepAlive = "keep-alive",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    Referer = "referer",
    ServerlessAuthorization = "x-serverless-authorization",
    SetCookie = "set-cookie",
    Te = "te",
    TraceParent = "traceparent",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    WwwAuthenticate = "www-authenticate",
    XForwardedFor = "x-forwarded-for",
    XForwardedProto = "x-forwarded-proto",
}

/// The longest known name is shorter.
const LENGTHS: usize = 32;

/// The known fields by the length of their names: most names are told apart by that alone.
const BY_LENGTH: [&[Known]; LENGTHS] = {
    use Known::*;
    let mut table: [&[Known]; LENGTHS] = [&[]; LENGTHS];
    table[2] = &[Te];
    table[4] = &[Host, Date];
    table[6] = &[Cookie, Expect];
    table[7] = &[Referer, Upgrade, Trailer];
    table[9] = &[Forwarded];
    table[10] = &[UserAgent, Connection, SetCookie, KeepAlive];
    table[11] = &[TraceParent];
    table[12] = &[ContentType];
    table[13] = &[CacheControl, Authorization];
    table[14] = &[ContentLength, Http2Settings];
    table[15] = &[XForwardedFor];
    table[16] = &[ProxyConnection, WwwAuthenticate];
    table[17] = &[TransferEncoding, XForwardedProto];
    table[18] = &[ProxyAuthenticate];
    table[19] = &[ProxyAuthorization];
    table[21] = &[CloudTrace];
    table[26] = &[ServerlessAuthorization];
    table
};

impl Known {
    /// The known field of a name, whatever its case.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        let mut candidates = BY_LENGTH.get(name.len())?.iter();
        candidates
            .find(|known| known.name().as_bytes().eq_ignore_ascii_case(name))
            .copied()
    }
}

/// Several known fields.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set(u32);

impl Set {
    /// Of all of these.
    pub(crate) const fn of(fields: &[Known]) -> Self {
        let (mut set, mut i) = (0, 0);
        while i < fields.len() {
            set |= 1 << fields[i] as u32;
            i += 1;
        }
        Self(set)
    }

    fn has(self, known: Known) -> bool {
        self.0 & Self::of(&[known]).0 != 0
    }
}

impl BitOr for Set {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A part of a buffer of at most 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// `None` when the buffer is too large for it.
    pub(crate) fn new(range: Range<usize>) -> Option<Self> {
        Some(Self {
            start: u32::try_from(range.start).ok()?,
            end: u32::try_from(range.end).ok()?,
        })
    }

    /// The part of `buffer`.
    pub(crate) fn of(self, buffer: &[u8]) -> &[u8] {
        let at = |n| usize::try_from(n).unwrap_or(usize::MAX);
        buffer.get(at(self.start)..at(self.end)).unwrap_or(&[])
    }
}

#[derive(Debug, Clone, Copy)]
struct Field {
    name: Span,
    value: Span,
    known: Option<Known>,
}

/// The fields of a message. Its buffers come from the thread's spare ones and go back there.
#[derive(Default)]
pub(crate) struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
    present: Set,
}

thread_local! {
    static POOL: RefCell<Vec<Fields>> = const { RefCell::new(Vec::new()) };
}

impl Fields {
    /// None, with buffers that were used before if there are any.
    pub(crate) fn new() -> Self {
        POOL.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// None yet, over a head's text, of which [`text`](Self::text) and [`push_span`](Self::push_span) take
    /// parts.
    pub(crate) fn over(text: &[u8]) -> Self {
        let mut fields = Self::new();
        fields.text.extend_from_slice(text);
        fields
    }

    /// A part of what they were made over.
    pub(crate) fn text(&self, span: Span) -> &[u8] {
        span.of(&self.text)
    }

    /// Adds bytes that belong to the message and are no field.
    pub(crate) fn keep(&mut self, bytes: &[&[u8]]) -> Span {
        let start = self.text.len();
        for part in bytes {
            self.text.extend_from_slice(part);
        }
        Span::new(start..self.text.len()).unwrap_or_default()
    }

    /// Adds a field of which both parts are in the text already.
    pub(crate) fn push_span(&mut self, name: Span, value: Span, known: Option<Known>) {
        self.add(Field { name, value, known });
    }

    fn add(&mut self, field: Field) {
        if let Some(known) = field.known {
            self.present = self.present | Set::of(&[known]);
        }
        self.list.push(field);
    }

    /// Adds a field. Name and value must be such as HTTP allows.
    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        let known = Known::of(name);
        let (name, value) = (self.keep(&[name]), self.keep(&[value]));
        self.push_span(name, value, known);
    }

    /// Adds a known field, its value in parts.
    pub(crate) fn append(&mut self, known: Known, value: &[&[u8]]) {
        let field = Field {
            name: self.keep(&[known.name().as_bytes()]),
            value: self.keep(value),
            known: Some(known),
        };
        self.add(field);
    }

    /// Adds a known field instead of those of its name.
    pub(crate) fn set(&mut self, known: Known, value: &[u8]) {
        self.remove(Set::of(&[known]));
        self.append(known, &[value]);
    }

    /// Whether a field is there.
    pub(crate) fn has(&self, known: Known) -> bool {
        self.present.has(known)
    }

    /// The first value of a field.
    pub(crate) fn get(&self, known: Known) -> Option<&[u8]> {
        self.get_all(known).next()
    }

    /// The first value of a field, if it is ASCII.
    pub(crate) fn get_str(&self, known: Known) -> Option<&str> {
        self.get(known)
            .filter(|value| value.is_ascii())
            .and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of a field, in order.
    pub(crate) fn get_all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let list: &[Field] = if self.has(known) { &self.list } else { &[] };
        list.iter()
            .filter(move |field| field.known == Some(known))
            .map(|field| self.text(field.value))
    }

    /// The elements of a field whose value is a list (RFC 9110, section 5.6.1).
    pub(crate) fn elements(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.get_all(known)
            .flat_map(|value| value.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Whether a list has an element, whatever its case.
    pub(crate) fn lists(&self, known: Known, element: &str) -> bool {
        self.elements(known)
            .any(|e| e.eq_ignore_ascii_case(element.as_bytes()))
    }

    /// Removes all fields of these names.
    pub(crate) fn remove(&mut self, set: Set) {
        if self.present.0 & set.0 != 0 {
            self.list
                .retain(|field| !field.known.is_some_and(|known| set.has(known)));
            self.present.0 &= !set.0;
        }
    }

    /// Removes all fields but those that `keep` tells to, which is asked with the name of each.
    pub(crate) fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let (text, present) = (&self.text, &mut self.present);
        self.list.retain(|field| {
            let stays = keep(field.name.of(text));
            if let (false, Some(known)) = (stays, field.known) {
                present.0 &= !Set::of(&[known]).0;
            }
            stays
        });
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.list
            .iter()
            .map(|field| (self.text(field.name), self.text(field.value)))
    }

    /// Writes them as lines.
    pub(crate) fn write(&self, to: &mut Vec<u8>) {
        to.reserve(self.text.len() + 4 * self.list.len());
        for (name, value) in self.iter() {
            to.extend_from_slice(name);
            to.extend_from_slice(b": ");
            to.extend_from_slice(value);
            to.extend_from_slice(b"\r\n");
        }
    }

    /// As hyper and the face have them.
    pub(crate) fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.list.len());
        for (name, value) in self.iter() {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                map.append(name, value);
            }
        }
        map
    }
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::new();
        for (name, value) in map {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
        fields
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        if self.text.capacity() == 0 || self.text.capacity() > SPARE_BYTES {
            return;
        }
        // At the end of a thread there may be no pool any more.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < SPARE {
                let mut spare = Self {
                    text: std::mem::take(&mut self.text),
                    list: std::mem::take(&mut self.list),
                    present: Set::default(),
                };
                spare.text.clear();
                spare.list.clear();
                pool.push(spare);
            }
        });
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (text(name), text(value))))
            .finish()
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Fields {
    fn from(pairs: [(&str, &str); N]) -> Self {
        let mut fields = Self::new();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_field_is_found_by_its_name() {
        for known in Known::ALL {
            assert_eq!(
                Known::of(known.name().to_uppercase().as_bytes()),
                Some(*known)
            );
        }
        for unknown in ["", "x", "hosts", "x-forwarded-fox", &"x".repeat(99)] {
            assert_eq!(Known::of(unknown.as_bytes()), None);
        }
        assert!(Known::ALL.len() <= 32, "a set has 32 bits");
    }

    #[test]
    fn fields_keep_their_order_and_case_and_are_found() {
        let mut fields = Fields::from([
            ("Host", "h"),
            ("X-A", "1"),
            ("Connection", "close, x-a"),
            ("connection", " , Upgrade"),
            ("x-a", "2"),
        ]);
        assert_eq!(fields.get(Known::Host), Some(&b"h"[..]));
        assert!(fields.lists(Known::Connection, "upgrade"));
        assert_eq!(fields.elements(Known::Connection).count(), 3);
        fields.remove(Set::of(&[Known::Connection, Known::Te]));
        assert!(!fields.has(Known::Connection) && fields.get(Known::Connection).is_none());
        fields.set(Known::Host, b"other");
        let mut text = Vec::new();
        fields.write(&mut text);
        assert_eq!(text, b"X-A: 1\r\nx-a: 2\r\nhost: other\r\n");
        fields.retain(|name| !name.eq_ignore_ascii_case(b"host"));
        assert!(!fields.has(Known::Host));
        assert_eq!(fields.to_map().get_all("x-a").iter().count(), 2);
        assert_eq!(
            Fields::from(&fields.to_map()),
            [("x-a", "1"), ("x-a", "2")].into()
        );
    }

    #[test]
    fn buffers_that_were_used_before_are_empty() {
        drop(Fields::from([("a", "b"), ("host", "h")]));
        let fields = Fields::new();
        assert!(fields.iter().next().is_none() && !fields.has(Known::Host));
        drop(
            (0..2 * SPARE)
                .map(|_| Fields::from([("a", "b")]))
                .collect::<Vec<_>>(),
        );
        assert!(POOL.with_borrow(Vec::len) <= SPARE);
    }
}
