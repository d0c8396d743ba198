//! What one NATS message of a stream holds: a *block* of records.
//!
//! Small appends that wait at the same time share a block, so that the server syncs once for all of
//! them. An append that is too large for one message is cut into parts, which are consecutive messages;
//! it is there once the last of them is.
//!
//! A block is a head and a body, all numbers little-endian: version (1 byte), writer (8), number (8),
//! microseconds since 1970 (8), part (2), parts (2); then the body, or the part of it: how many records
//! (4), the length of each (4 each), and the records.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;

use super::super::{LogError, MAX_APPEND_RECORDS};

/// The bytes of a head.
pub(super) const HEAD: usize = 29;
const VERSION: u8 = 1;

/// What is known of a block without its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Which process wrote it: a random number.
    pub(super) writer: u64,
    /// The how manieth of this writer it is in its stream; a writer's blocks are consecutive.
    pub(super) number: u64,
    /// When its records were appended.
    pub(super) time: Timestamp,
    /// Which part of a large append it is, from 0.
    pub(super) part: u16,
    /// Of how many; 1 for a block that is whole.
    pub(super) parts: u16,
}

/// A block as it is sent.
pub(super) fn seal(head: Head, body: &[u8]) -> Bytes {
    let mut block = BytesMut::with_capacity(HEAD + body.len());
    block.put_u8(VERSION);
    block.put_u64_le(head.writer);
    block.put_u64_le(head.number);
    block.put_i64_le(head.time.as_microsecond());
    block.put_u16_le(head.part);
    block.put_u16_le(head.parts);
    block.put_slice(body);
    block.freeze()
}

/// A block as it is found.
pub(super) fn open(mut block: Bytes) -> Result<(Head, Bytes), LogError> {
    if block.len() < HEAD || block.get_u8() != VERSION {
        return Err(foreign("its head is another"));
    }
    let head = Head {
        writer: block.get_u64_le(),
        number: block.get_u64_le(),
        time: Timestamp::from_microsecond(block.get_i64_le())
            .map_err(|_| foreign("its time is none"))?,
        part: block.get_u16_le(),
        parts: block.get_u16_le(),
    };
    if head.part >= head.parts {
        return Err(foreign("its parts do not count"));
    }
    Ok((head, block))
}

/// How long the body of these records is.
pub(super) fn body_len(records: usize, bytes: usize) -> usize {
    4 + 4 * records + bytes
}

/// The body of these records.
pub(super) fn body<'a>(records: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let count = records.clone().count();
    let bytes = records.clone().map(Bytes::len).sum();
    let mut body = BytesMut::with_capacity(body_len(count, bytes));
    // An append is bounded far below what 32 bits hold.
    let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    body.put_u32_le(short(count));
    for record in records.clone() {
        body.put_u32_le(short(record.len()));
    }
    for record in records {
        body.put_slice(record);
    }
    body.freeze()
}

/// The records of a body. They share its memory.
pub(super) fn records(mut body: Bytes) -> Result<Vec<Bytes>, LogError> {
    let short = || foreign("its records do not add up");
    let count = body.try_get_u32_le().map_err(|_| short())? as usize;
    if count > MAX_APPEND_RECORDS || body.len() < 4 * count {
        return Err(short());
    }
    let mut lengths = body.split_to(4 * count);
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let length = lengths.get_u32_le() as usize;
        if length > body.len() {
            return Err(short());
        }
        records.push(body.split_to(length));
    }
    if body.is_empty() {
        Ok(records)
    } else {
        Err(short())
    }
}

fn foreign(what: &str) -> LogError {
    LogError::Failed(format!(
        "a message in a stream of Lauf's was not written by Lauf: {what}; keep other programs from the subjects 'lauf.>'"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            writer: u64, number: u64, time in 0..4_000_000_000_000_000_i64, part in 0..9_u16,
        ) {
            let bodies: Vec<Bytes> = bodies.into_iter().map(Bytes::from).collect();
            let time = Timestamp::from_microsecond(time).unwrap();
            let head = Head { writer, number, time, part, parts: 9 };
            let body = body(bodies.iter());
            prop_assert_eq!(body.len(), body_len(bodies.len(), bodies.iter().map(Bytes::len).sum()));
            let (found, rest) = open(seal(head, &body)).unwrap();
            prop_assert_eq!(found, head);
            prop_assert_eq!(records(rest).unwrap(), bodies);
        }

        #[test]
        fn anything_else_is_refused_or_read_but_never_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..80), first in 0..3_u8,
        ) {
            let mut bytes = bytes;
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            if let Ok((_, body)) = open(Bytes::from(bytes)) {
                let _ = records(body);
            }
        }
    }
}
