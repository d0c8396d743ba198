//! What a subscription writes down, so that the next start goes on where this one was: now and then
//! all of it, and in between what changed.

use bytes::Bytes;
use prost::Message as _;

use crate::log::Position;

/// A record of a subscription's journal.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Entry {
    #[prost(oneof = "Kind", tags = "1, 2")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Kind {
    /// All there is to know. What came before counts no longer.
    #[prost(message, tag = "1")]
    Saved(Saved),
    #[prost(message, tag = "2")]
    Changes(Changes),
}

/// What is done and what is not.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Saved {
    /// Everything before is done.
    #[prost(uint64, tag = "1")]
    pub(crate) done_before: u64,
    /// Done as well: how far each range begins after the end of the one before, and how long it is.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) done: Vec<u64>,
    /// Messages of these keys, from these positions to `upto`, are not done whatever `done` says.
    #[prost(message, repeated, tag = "3")]
    pub(crate) overflow: Vec<Overflow>,
    /// Before what `done` and `overflow` end.
    #[prost(uint64, tag = "4")]
    pub(crate) upto: u64,
    #[prost(message, repeated, tag = "5")]
    pub(crate) failures: Vec<Failures>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) leases: Vec<Lease>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Overflow {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(uint64, tag = "2")]
    pub(crate) from: u64,
}

/// How often a message was given out in vain.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Failures {
    #[prost(uint64, tag = "1")]
    pub(crate) position: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) count: u32,
}

/// A message that is with a client. Written down where delivery is exactly once.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Lease {
    #[prost(uint64, tag = "1")]
    pub(crate) position: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) number: u64,
    /// Until when, in microseconds of the wall clock.
    #[prost(int64, tag = "3")]
    pub(crate) until: i64,
}

/// What changed.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Changes {
    /// Done now: sorted, each as the distance from the one before.
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) done: Vec<u64>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) failures: Vec<Failures>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) leases: Vec<Lease>,
}

impl Kind {
    pub(crate) fn into_record(self) -> Bytes {
        Entry { kind: Some(self) }.encode_to_vec().into()
    }

    /// Reads a record. `None` for a kind that a later version has added.
    pub(crate) fn from_record(record: Bytes) -> Result<Option<Self>, prost::DecodeError> {
        Ok(Entry::decode(record)?.kind)
    }
}

/// Positions as distances.
pub(crate) fn distances(mut positions: Vec<Position>) -> Vec<u64> {
    positions.sort_unstable();
    let mut last = 0;
    positions
        .into_iter()
        .map(|position| {
            let distance = position.0 - last;
            last = position.0;
            distance
        })
        .collect()
}

/// The positions again.
pub(crate) fn positions(distances: &[u64]) -> impl Iterator<Item = Position> {
    distances.iter().scan(0_u64, |last, distance| {
        *last = last.saturating_add(*distance);
        Some(Position(*last))
    })
}
