//! What the journal is made of. A *frame* is what was synced at once: a length, a checksum, the
//! number of its journal file, and operations. The number tells a frame from what an earlier use of
//! the file left behind it.

use bytes::{BufMut as _, Bytes};
use prost::Message as _;

/// Length, checksum and number of the file.
pub(super) const HEADER: usize = 16;

/// What was synced at once.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Frame {
    #[prost(message, repeated, tag = "1")]
    pub(super) ops: Vec<Op>,
}

/// One operation.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Op {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5")]
    pub(super) kind: Option<Kind>,
}

/// The operations.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    /// How all streams were when the file was begun. First in each file.
    #[prost(message, tag = "1")]
    Table(Table),
    /// A stream begins.
    #[prost(message, tag = "2")]
    Create(Create),
    /// A stream ends.
    #[prost(uint64, tag = "3")]
    Delete(u64),
    /// Records at the end of a stream.
    #[prost(message, tag = "4")]
    Data(Data),
    /// The file is full; the next one goes on. Last in each file but the one being written.
    #[prost(bool, tag = "5")]
    End(bool),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Table {
    #[prost(message, repeated, tag = "1")]
    pub(super) streams: Vec<Row>,
    /// The number that the next stream will get.
    #[prost(uint64, tag = "2")]
    pub(super) next_id: u64,
    /// Whether the segments hold for certain all that this table says: no earlier journal file is
    /// needed, nor may one be played.
    #[prost(bool, tag = "3")]
    pub(super) whole: bool,
}

/// A stream, and how much of it the segments hold for certain.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Row {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    /// The position after its last record.
    #[prost(uint64, tag = "3")]
    pub(super) next: u64,
    /// The time of its last record, in microseconds.
    #[prost(int64, tag = "4")]
    pub(super) time: i64,
    /// The base of its last segment, and the length of that; a length of 0 where there is none.
    #[prost(uint64, tag = "5")]
    pub(super) base: u64,
    #[prost(uint64, tag = "6")]
    pub(super) length: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Create {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(string, tag = "2")]
    pub(super) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Data {
    #[prost(uint64, tag = "1")]
    pub(super) stream: u64,
    /// The position of the first record.
    #[prost(uint64, tag = "2")]
    pub(super) first: u64,
    #[prost(uint64, tag = "3")]
    pub(super) count: u64,
    #[prost(int64, tag = "4")]
    pub(super) time: i64,
    /// The records as they stand in the segment.
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) records: Bytes,
}

/// Writes a frame of the journal file `sequence` at the end of `out`.
pub(super) fn encode(sequence: u64, ops: Vec<Kind>, out: &mut Vec<u8>) {
    let frame = Frame {
        ops: ops
            .into_iter()
            .map(|kind| Op { kind: Some(kind) })
            .collect(),
    };
    let begin = out.len();
    out.put_bytes(0, 8);
    out.put_u64_le(sequence);
    frame.encode_raw(out);
    let length = u32::try_from(out.len() - begin - HEADER).unwrap_or(u32::MAX);
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(length, &out[begin + 8..]);
    out[begin + 4..begin + 8].copy_from_slice(&sum.to_le_bytes());
}

/// How long the frame is that has this head, if it is one of that file.
pub(super) fn length(sequence: u64, head: &[u8; HEADER]) -> Option<u64> {
    let (length, rest) = head.split_first_chunk()?;
    let length = u64::from(u32::from_le_bytes(*length));
    rest.ends_with(&sequence.to_le_bytes())
        .then_some(length + HEADER as u64)
}

/// Reads a frame; `None` where the bytes are not a whole frame of that file.
pub(super) fn decode(sequence: u64, bytes: &Bytes) -> Option<Vec<Kind>> {
    let head = bytes.first_chunk()?;
    if length(sequence, head)? != bytes.len() as u64 {
        return None;
    }
    let (length, rest) = head.split_first_chunk()?;
    let (sum, _) = rest.split_first_chunk()?;
    if checksum(u32::from_le_bytes(*length), &bytes[8..]) != u32::from_le_bytes(*sum) {
        return None;
    }
    let frame = Frame::decode(bytes.slice(HEADER..)).ok()?;
    Some(frame.ops.into_iter().filter_map(|op| op.kind).collect())
}

fn checksum(length: u32, rest: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length.to_le_bytes());
    sum.update(rest);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_ops() -> Vec<Kind> {
        vec![
            Kind::Create(Create {
                id: 3,
                name: "topics/orders".to_owned(),
            }),
            Kind::Data(Data {
                stream: 3,
                first: 7,
                count: 1,
                time: 9,
                records: Bytes::from_static(b"records"),
            }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_no_frame_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(1, &Bytes::from(bytes)).is_none());
        }

        #[test]
        fn one_wrong_byte_or_a_missing_end_is_found(at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<bool>()) {
            let mut bytes = Vec::new();
            encode(5, some_ops(), &mut bytes);
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= flip;
            }
            prop_assert!(decode(5, &Bytes::from(bytes)).is_none());
        }
    }

    #[test]
    fn frames_of_an_earlier_use_do_not_count() {
        let mut bytes = Vec::new();
        encode(5, some_ops(), &mut bytes);
        let bytes = Bytes::from(bytes);
        assert_eq!(decode(5, &bytes), Some(some_ops()));
        assert_eq!(decode(6, &bytes), None);
    }
}
