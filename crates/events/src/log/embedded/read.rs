//! Reading streams: which segment, and keeping some of them open.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::{Chunk, Limit, Position};
use super::segment::SegmentReader;
use super::stream::{Segment, Stream};

/// How many segments are held open for reading.
const OPEN: usize = 256;

type Shared = Arc<Mutex<SegmentReader>>;

/// Segments that are open for reading, those used last.
pub(super) struct Readers(Mutex<Open>);

#[derive(Default)]
struct Open {
    segments: HashMap<(u64, Position), (u64, Shared)>,
    uses: u64,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Open::default()))
    }

    pub(super) fn read(
        &self,
        stream: &Stream,
        from: Position,
        mut limit: Limit,
    ) -> io::Result<Chunk> {
        let mut records = Vec::new();
        let mut next = from;
        while let Some(place) = stream.place(next) {
            let reader = match self.open(stream, place.segment) {
                Ok(reader) => reader,
                Err(error) if trimmed(stream, place.segment, &error) => continue,
                Err(error) => return Err(error),
            };
            let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            next = reader.read(
                place.from,
                place.end,
                place.segment.length,
                &mut limit,
                &mut records,
            )?;
            if next < place.end {
                break;
            }
            if limit.records == 0 || (limit.bytes == 0 && !records.is_empty()) {
                break;
            }
        }
        Ok(Chunk { records, next })
    }

    /// The first position whose record is not earlier than `time`.
    pub(super) fn position_at(&self, stream: &Stream, time: i64) -> io::Result<Position> {
        // Which segment: the last one that begins earlier. All later ones begin too late.
        let segments = stream.segments();
        let mut low = 0;
        let mut high = segments.len();
        while low < high {
            let middle = usize::midpoint(low, high);
            if self
                .time(stream, segments[middle].base)?
                .is_none_or(|t| t < time)
            {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let Some(within) = low.checked_sub(1) else {
            return Ok(segments.first().map_or(stream.next(), |s| s.base));
        };
        let mut low = segments[within].base;
        let mut high = segments.get(within + 1).map_or(stream.next(), |s| s.base);
        while low < high {
            let middle = Position(u64::midpoint(low.0, high.0));
            if self.time(stream, middle)?.is_none_or(|t| t < time) {
                low = middle.plus(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The time of the record at `position`; `None` where it has been trimmed meanwhile.
    fn time(&self, stream: &Stream, position: Position) -> io::Result<Option<i64>> {
        let Some(place) = stream.place(position).filter(|p| p.from == position) else {
            return Ok(None);
        };
        match self.open(stream, place.segment) {
            Ok(reader) => {
                let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
                reader.time(position, place.segment.length).map(Some)
            }
            Err(error) if trimmed(stream, place.segment, &error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open(&self, stream: &Stream, segment: Segment) -> io::Result<Shared> {
        let key = (stream.id, segment.base);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.uses += 1;
        let uses = open.uses;
        if let Some((used, reader)) = open.segments.get_mut(&key) {
            *used = uses;
            return Ok(Arc::clone(reader));
        }
        drop(open);
        let path = stream.folder.segment(stream.id, segment.base);
        let reader = SegmentReader::open(&path, stream.id, segment.base)?;
        let reader = Arc::new(Mutex::new(reader));
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.segments.len() >= OPEN {
            let oldest = open.segments.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                open.segments.remove(&oldest);
            }
        }
        open.segments.insert(key, (uses, Arc::clone(&reader)));
        Ok(reader)
    }
}

/// Whether a segment cannot be opened because it has just been trimmed, or its stream deleted.
fn trimmed(stream: &Stream, segment: Segment, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        && !stream.is_deleted()
        && stream.extent().first > segment.base
}
