//! How a record stands in a segment: length, checksum, time, body.

use bytes::{BufMut as _, Bytes};

/// Length and checksum of four bytes, the time in microseconds of eight.
pub(super) const HEADER: usize = 16;

/// Writes a record at the end of `out`.
pub(super) fn encode(time: i64, body: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.put_u32_le(length);
    out.put_u32_le(checksum(length, time, body));
    out.put_i64_le(time);
    out.put_slice(body);
}

/// What stands at the head of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the body.
    pub(super) length: usize,
    /// When it was appended.
    pub(super) time: i64,
    sum: u32,
}

impl Head {
    /// The head that begins `bytes`, if all of it is there.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (time, _) = rest.split_first_chunk()?;
        Some(Self {
            length: usize::try_from(u32::from_le_bytes(*length)).ok()?,
            sum: u32::from_le_bytes(*sum),
            time: i64::from_le_bytes(*time),
        })
    }

    /// Bytes of the whole record.
    pub(super) fn whole(&self) -> usize {
        HEADER + self.length
    }

    /// The body, from the bytes that begin with this head; `None` if it is not what was written.
    pub(super) fn body(&self, bytes: &Bytes) -> Option<Bytes> {
        if bytes.len() < self.whole() {
            return None;
        }
        let body = bytes.slice(HEADER..self.whole());
        let length = u32::try_from(self.length).ok()?;
        (checksum(length, self.time, &body) == self.sum).then_some(body)
    }
}

fn checksum(length: u32, time: i64, body: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length.to_le_bytes());
    sum.update(&time.to_le_bytes());
    sum.update(body);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_comes_back(time in any::<i64>(), body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = Vec::new();
            encode(time, &body, &mut bytes);
            bytes.push(7);
            let head = Head::read(&bytes).unwrap();
            prop_assert_eq!(head.time, time);
            prop_assert_eq!(head.whole() + 1, bytes.len());
            prop_assert_eq!(head.body(&Bytes::from(bytes)), Some(Bytes::from(body)));
        }

        #[test]
        fn a_wrong_byte_is_found(at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut bytes = Vec::new();
            encode(1, b"a body of some length", &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let read = Head::read(&bytes).and_then(|head| head.body(&Bytes::from(bytes)));
            prop_assert_eq!(read, None);
        }
    }
}
