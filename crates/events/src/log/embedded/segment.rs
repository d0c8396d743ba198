//! One file of records: its head, and finding a position in it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;

use super::super::{Limit, Position, Record};
use super::record::{self, Head};

/// The bytes before the first record.
pub(super) const HEADER: u64 = 24;
const MAGIC: &[u8; 8] = b"LAUFSEG1";

/// What is read at once, at least.
const READ: u64 = 256 << 10;
/// A position is remembered for so many bytes of records.
const STEP: u64 = 64 << 10;

/// Makes an empty segment, in place of a file that may be there.
pub(super) fn create(path: &Path, stream: u64, base: Position) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all_at(&head(stream, base), 0)?;
    Ok(file)
}

fn head(stream: u64, base: Position) -> [u8; 24] {
    let mut head = [0; 24];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&stream.to_le_bytes());
    head[16..].copy_from_slice(&base.0.to_le_bytes());
    head
}

/// A segment that is being read.
pub(super) struct SegmentReader {
    file: File,
    /// Some positions, in order, and where they are. Grows as the file is read.
    index: Vec<(Position, u64)>,
    /// Where the last read ended, and so where the next one mostly begins.
    last: (Position, u64),
}

impl SegmentReader {
    pub(super) fn open(path: &Path, stream: u64, base: Position) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut found = [0; 24];
        file.read_exact(&mut found)?;
        if found != head(stream, base) {
            return Err(damaged(&format!(
                "{} is not the segment that it is called",
                path.display()
            )));
        }
        Ok(Self {
            file,
            index: vec![(base, HEADER)],
            last: (base, HEADER),
        })
    }

    /// Reads records from `from` on, of the file's first `length` bytes, at most to before `end`.
    /// Gives up to `limit` of them to `out`; the position to go on from is returned.
    pub(super) fn read(
        &mut self,
        from: Position,
        end: Position,
        length: u64,
        limit: &mut Limit,
        out: &mut Vec<Record>,
    ) -> io::Result<Position> {
        let mut offset = self.find(from, length)?;
        let mut position = from;
        while position < end && limit.records > 0 && (limit.bytes > 0 || out.is_empty()) {
            let wanted = (limit.bytes as u64)
                .saturating_add(READ / 4)
                .clamp(READ / 4, 4 * READ);
            let bytes = Bytes::from(self.load(offset, wanted, length)?);
            let mut at = 0;
            while position < end {
                let rest = bytes.slice(at..);
                let Some(head) = Head::read(&rest).filter(|head| head.whole() <= rest.len()) else {
                    break;
                };
                if limit.records == 0 || (head.length > limit.bytes && !out.is_empty()) {
                    self.remember(position, offset);
                    return Ok(position);
                }
                let body = head
                    .body(&rest)
                    .ok_or_else(|| damaged(&format!("the record at position {position}")))?;
                limit.records -= 1;
                limit.bytes = limit.bytes.saturating_sub(head.length);
                out.push(Record {
                    position,
                    time: timestamp(head.time)?,
                    body,
                });
                at += head.whole();
                offset += head.whole() as u64;
                position = position.plus(1);
                self.remember(position, offset);
            }
            if at == 0 {
                return Err(damaged(&format!("no record at position {position}")));
            }
        }
        Ok(position)
    }

    /// The time of the record at `position`.
    pub(super) fn time(&mut self, position: Position, length: u64) -> io::Result<i64> {
        let offset = self.find(position, length)?;
        let bytes = self.load(offset, record::HEADER as u64, length)?;
        Head::read(&bytes)
            .map(|head| head.time)
            .ok_or_else(|| damaged(&format!("no record at position {position}")))
    }

    /// Where a position is: from the nearest one that is known, record by record.
    fn find(&mut self, position: Position, length: u64) -> io::Result<u64> {
        if self.last.0 == position {
            return Ok(self.last.1);
        }
        let after = self.index.partition_point(|(known, _)| *known <= position);
        let (mut at, mut offset) = self.index[after.saturating_sub(1)];
        let mut window = Vec::new();
        let mut window_at = offset;
        while at < position {
            let skip = usize::try_from(offset - window_at).unwrap_or(usize::MAX);
            let Some(head) = window.get(skip..).and_then(Head::read) else {
                window = self.load(offset, READ, length)?;
                window_at = offset;
                if window.len() < record::HEADER {
                    return Err(damaged(&format!("no record at position {at}")));
                }
                continue;
            };
            offset += head.whole() as u64;
            at = at.plus(1);
            self.remember(at, offset);
        }
        Ok(offset)
    }

    fn remember(&mut self, position: Position, offset: u64) {
        let newest = self.index[self.index.len() - 1];
        if position > newest.0 && offset >= newest.1 + STEP {
            self.index.push((position, offset));
        }
        self.last = (position, offset);
    }

    /// Bytes from `offset` on: `wanted`, or to the end of one record that is longer; fewer where the
    /// file ends.
    fn load(&self, offset: u64, wanted: u64, length: u64) -> io::Result<Vec<u8>> {
        let get = |count: u64| {
            let count = count.min(length.saturating_sub(offset));
            let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
            self.file.read_exact_at(&mut bytes, offset)?;
            Ok::<_, io::Error>(bytes)
        };
        let bytes = get(wanted)?;
        match Head::read(&bytes) {
            Some(head) if head.whole() > bytes.len() => get(head.whole() as u64),
            _ => Ok(bytes),
        }
    }
}

fn timestamp(micros: i64) -> io::Result<jiff::Timestamp> {
    jiff::Timestamp::from_microsecond(micros).map_err(|e| damaged(&e.to_string()))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged: {what}"))
}
