//! What instances wrote, on disk until the server has read it.
//!
//! The keeper appends records to segment files (`0000000000000001.seg` and up); the server reads them from a position that
//! it stores, and deletes the segments it is done with. Neither needs the other to be alive. A record cut short by a crash
//! ends its segment: the writer always begins a new one, and the reader goes on there. The total is bounded: beyond it the
//! writer drops the oldest segment and leaves a record that says how many bytes went.
//!
//! A record is: length of the rest and checksum of the rest (`u32` each), time in nanoseconds (`u64`), stream, flags,
//! length of the instance id (`u8` each), the id, the bytes. All little-endian.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A place in the spool: everything before it has been read, or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    /// The segment's number.
    pub segment: u64,
    /// The byte in it.
    pub offset: u64,
}

/// Where a record's bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The spool itself: unread records were dropped. The bytes are their total size as decimal text; no instance.
    Dropped,
}

/// One record, borrowed, as it is written.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When it was read from the instance, in nanoseconds since the epoch.
    pub time: u64,
    /// Where from.
    pub stream: Stream,
    /// The line goes on in the next record of this stream.
    pub cut: bool,
    /// The record continues a line that was cut.
    pub continues: bool,
    /// Which instance.
    pub instance: &'a str,
    /// The line without its newline.
    pub bytes: &'a [u8],
}

/// One record, owned, as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was read from the instance, in nanoseconds since the epoch.
    pub time: u64,
    /// Where from.
    pub stream: Stream,
    /// The line goes on in the next record of this stream.
    pub cut: bool,
    /// The record continues a line that was cut.
    pub continues: bool,
    /// Which instance.
    pub instance: String,
    /// The line without its newline.
    pub bytes: Vec<u8>,
}

const HEADER: usize = 8;
const FIXED: usize = 11;
const CUT: u8 = 1;
const CONTINUES: u8 = 2;
/// No honest record is longer: a line's bound, an id, and room.
const MAX_RECORD: usize = crate::lines::MAX_LINE + 4096;
/// What gathers in memory before it is written anyway.
const WRITE_AT: usize = 1 << 20;

fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

fn encode(record: &Record<'_>, out: &mut Vec<u8>) {
    let stream = match record.stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
        Stream::Dropped => 3,
    };
    let flags = if record.cut { CUT } else { 0 } | if record.continues { CONTINUES } else { 0 };
    let id = &record.instance.as_bytes()[..record.instance.len().min(255)];
    let start = out.len();
    out.extend_from_slice(&[0; HEADER]);
    out.extend_from_slice(&record.time.to_le_bytes());
    out.extend_from_slice(&[stream, flags, u8::try_from(id.len()).unwrap_or(u8::MAX)]);
    out.extend_from_slice(id);
    out.extend_from_slice(record.bytes);
    let rest = &out[start + HEADER..];
    let (length, sum) = (
        u32::try_from(rest.len()).unwrap_or(u32::MAX),
        checksum(rest),
    );
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEADER].copy_from_slice(&sum.to_le_bytes());
}

enum Decoded {
    Entry(Entry, usize),
    /// The bytes end before the record does.
    Short,
    /// Not a record; nothing behind it in this segment can be trusted.
    Torn,
}

fn decode(bytes: &[u8]) -> Decoded {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Decoded::Short;
    };
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if !(FIXED..=MAX_RECORD).contains(&length) {
        return Decoded::Torn;
    }
    let Some(body) = rest.get(..length) else {
        return Decoded::Short;
    };
    if checksum(body) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Decoded::Torn;
    }
    let (fixed, tail) = body.split_at(FIXED);
    let time = u64::from_le_bytes(fixed[..8].try_into().unwrap_or_default());
    let stream = match fixed[8] {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        3 => Stream::Dropped,
        _ => return Decoded::Torn,
    };
    let Some((id, line)) = tail.split_at_checked(usize::from(fixed[10])) else {
        return Decoded::Torn;
    };
    let entry = Entry {
        time,
        stream,
        cut: fixed[9] & CUT != 0,
        continues: fixed[9] & CONTINUES != 0,
        instance: String::from_utf8_lossy(id).into_owned(),
        bytes: line.to_vec(),
    };
    Decoded::Entry(entry, HEADER + length)
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.seg"))
}

/// The segments there are, in order, with their sizes.
fn segments(dir: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_suffix(".seg"))
            .and_then(|n| u64::from_str_radix(n, 16).ok());
        if let Some(number) = number {
            // Gone meanwhile: the reader deletes what it has read.
            if let Ok(meta) = entry.metadata() {
                found.push((number, meta.len()));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The keeper's end.
#[derive(Debug)]
pub struct SpoolWriter {
    dir: PathBuf,
    max_bytes: u64,
    segment_bytes: u64,
    file: File,
    position: Position,
    buffer: Vec<u8>,
    dropped: u64,
}

impl SpoolWriter {
    /// Opens a spool for writing, beginning a new segment.
    ///
    /// # Errors
    /// When the directory or the segment cannot be made.
    pub fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let number = segments(dir)?.last().map_or(1, |(number, _)| number + 1);
        let file = File::options()
            .create(true)
            .append(true)
            .open(segment_path(dir, number))?;
        Ok(Self {
            dir: dir.to_owned(),
            max_bytes,
            segment_bytes: (max_bytes / 16).clamp(4 << 10, 16 << 20),
            file,
            position: Position {
                segment: number,
                offset: 0,
            },
            buffer: Vec::new(),
            dropped: 0,
        })
    }

    /// Takes a record. It is on its way to disk after [`Self::commit`] at the latest.
    pub fn append(&mut self, record: &Record<'_>) {
        encode(record, &mut self.buffer);
        if self.buffer.len() >= WRITE_AT {
            self.commit();
        }
    }

    /// Writes what was taken, and tells up to where the spool now goes. What the disk refuses is dropped and counted.
    pub fn commit(&mut self) -> Position {
        if self.buffer.is_empty() {
            return self.position;
        }
        let size = self.buffer.len() as u64;
        match self.file.write_all(&self.buffer) {
            Ok(()) => {
                self.position.offset += size;
                if self.position.offset >= self.segment_bytes {
                    self.rotate();
                }
            }
            Err(_) => {
                // A full disk. The segment may end in half a record, so a new one is begun when there is room again.
                self.dropped += size;
                self.rotate();
            }
        }
        self.buffer.clear();
        if self.buffer.capacity() > 2 * WRITE_AT {
            self.buffer = Vec::new();
        }
        self.position
    }

    fn rotate(&mut self) {
        let next = self.position.segment + 1;
        if let Ok(file) = File::options()
            .create(true)
            .append(true)
            .open(segment_path(&self.dir, next))
        {
            self.file = file;
            self.position = Position {
                segment: next,
                offset: 0,
            };
        }
        let Ok(all) = segments(&self.dir) else { return };
        let mut total: u64 = all.iter().map(|(_, size)| size).sum();
        for (number, size) in all {
            if total + self.segment_bytes <= self.max_bytes || number >= self.position.segment {
                break;
            }
            if fs::remove_file(segment_path(&self.dir, number)).is_ok() {
                self.dropped += size;
            }
            total -= size;
        }
        if self.dropped > 0 {
            let text = self.dropped.to_string();
            let record = Record {
                time: crate::clock::wall_nanos(),
                stream: Stream::Dropped,
                cut: false,
                continues: false,
                instance: "",
                bytes: text.as_bytes(),
            };
            let mut bytes = Vec::new();
            encode(&record, &mut bytes);
            if self.file.write_all(&bytes).is_ok() {
                self.position.offset += bytes.len() as u64;
                self.dropped = 0;
            }
        }
    }
}

/// The server's end.
#[derive(Debug)]
pub struct SpoolReader {
    dir: PathBuf,
    position: Position,
    file: Option<(u64, File)>,
}

impl SpoolReader {
    /// Opens a spool at a stored position; `Position::default()` is the oldest record there is.
    #[must_use]
    pub fn open(dir: &Path, position: Position) -> Self {
        Self {
            dir: dir.to_owned(),
            position,
            file: None,
        }
    }

    /// Up to where entries have been handed out. Store this once they are safe elsewhere.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Reads on: entries of about `max_bytes` together, none when there is nothing new.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn read(&mut self, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut budget = max_bytes.max(1);
        loop {
            if !self.open_segment()? {
                return Ok(entries);
            }
            let Some((_, file)) = &mut self.file else {
                return Ok(entries);
            };
            file.seek(SeekFrom::Start(self.position.offset))?;
            let mut chunk = Vec::new();
            let want = budget.max(HEADER + MAX_RECORD) as u64;
            file.take(want).read_to_end(&mut chunk)?;
            let (mut at, mut torn) = (0, false);
            while budget > 0 {
                match decode(&chunk[at..]) {
                    Decoded::Entry(entry, size) => {
                        entries.push(entry);
                        at += size;
                        budget = budget.saturating_sub(size);
                    }
                    Decoded::Short => break,
                    Decoded::Torn => {
                        torn = true;
                        break;
                    }
                }
            }
            self.position.offset += at as u64;
            if budget == 0 {
                return Ok(entries);
            }
            if at > 0 && !torn {
                continue;
            }
            // Nothing more here. With a later segment, this one is finished, torn tail or not; else the writer is at work.
            let later = segments(&self.dir)?
                .into_iter()
                .find(|(number, _)| *number > self.position.segment);
            match later {
                Some((number, _)) if torn || !self.grew(chunk.len())? => {
                    self.position = Position {
                        segment: number,
                        offset: 0,
                    };
                }
                Some(_) => {}
                None => return Ok(entries),
            }
        }
    }

    /// Whether the segment got longer between the read that came to its end and the look for a later one.
    fn grew(&self, seen: usize) -> io::Result<bool> {
        let Some((_, file)) = &self.file else {
            return Ok(false);
        };
        Ok(file.metadata()?.len() > self.position.offset + seen as u64)
    }

    fn open_segment(&mut self) -> io::Result<bool> {
        if self
            .file
            .as_ref()
            .is_some_and(|(number, _)| *number == self.position.segment)
        {
            return Ok(true);
        }
        self.file = None;
        let found = match segments(&self.dir) {
            Ok(all) => all
                .into_iter()
                .find(|(number, _)| *number >= self.position.segment),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let Some((number, _)) = found else {
            return Ok(false);
        };
        if number != self.position.segment {
            self.position = Position {
                segment: number,
                offset: 0,
            };
        }
        match File::open(segment_path(&self.dir, number)) {
            Ok(file) => {
                self.file = Some((number, file));
                Ok(true)
            }
            // Dropped by the writer this instant; the next call finds the one behind it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Deletes the segments that lie wholly before the position.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn release(&self) -> io::Result<()> {
        self.release_before(self.position)
    }

    /// Deletes the segments that lie wholly before `position`: for a server that stores positions later than it reads.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn release_before(&self, position: Position) -> io::Result<()> {
        for (number, _) in segments(&self.dir)? {
            if number >= position.segment {
                break;
            }
            // Another hand may have been faster; gone is gone.
            let _ = fs::remove_file(segment_path(&self.dir, number));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(bytes: &[u8]) -> Record<'_> {
        Record {
            time: 7,
            stream: Stream::Stderr,
            cut: true,
            continues: false,
            instance: "i-1",
            bytes,
        }
    }

    fn texts(entries: &[Entry]) -> Vec<String> {
        entries
            .iter()
            .filter(|e| e.stream != Stream::Dropped)
            .map(|e| String::from_utf8_lossy(&e.bytes).into_owned())
            .collect()
    }

    #[test]
    fn what_is_written_is_read_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::open(dir.path(), 1 << 20).unwrap();
        let mut reader = SpoolReader::open(dir.path(), Position::default());
        assert!(reader.read(1000).unwrap().is_empty());
        writer.append(&record(b"one"));
        writer.append(&record(b""));
        let end = writer.commit();
        let got = reader.read(1000).unwrap();
        assert_eq!(texts(&got), ["one", ""]);
        assert_eq!(
            (got[0].time, got[0].stream, got[0].cut, got[0].continues),
            (7, Stream::Stderr, true, false)
        );
        assert_eq!(got[0].instance, "i-1");
        assert_eq!(reader.position(), end);
        // A server that starts anew with the stored position sees only what is new.
        writer.append(&record(b"two"));
        writer.commit();
        let mut again = SpoolReader::open(dir.path(), end);
        assert_eq!(texts(&again.read(1000).unwrap()), ["two"]);
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_and_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = SpoolWriter::open(dir.path(), 64 << 10).unwrap();
        for i in 0..1000 {
            writer.append(&record(format!("{i:0200}").as_bytes()));
            writer.commit();
        }
        let total: u64 = segments(dir.path()).unwrap().iter().map(|s| s.1).sum();
        assert!(total <= 64 << 10, "{total}");
        let mut reader = SpoolReader::open(dir.path(), Position::default());
        let got = reader.read(1 << 20).unwrap();
        assert!(
            got.iter()
                .any(|e| e.stream == Stream::Dropped && e.bytes.iter().all(u8::is_ascii_digit))
        );
        assert_eq!(texts(&got).last().unwrap(), &format!("{:0200}", 999));
        reader.release().unwrap();
        assert_eq!(segments(dir.path()).unwrap().len(), 1);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
        #[test]
        fn a_torn_tail_costs_only_itself(lines in proptest::collection::vec("[a-z]{0,30}", 1..20), torn in 0_usize..200, flip in proptest::bool::ANY) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = SpoolWriter::open(dir.path(), 1 << 20).unwrap();
            let first = writer.position.segment;
            for line in &lines {
                writer.append(&record(line.as_bytes()));
            }
            writer.commit();
            // The machine stops in the middle of a write.
            let path = segment_path(dir.path(), first);
            let mut bytes = fs::read(&path).unwrap();
            let keep = bytes.len().saturating_sub(torn);
            if flip && keep < bytes.len() { bytes[keep] ^= 0x55 } else { bytes.truncate(keep) }
            fs::write(&path, &bytes).unwrap();
            // The next keeper goes on.
            let mut writer = SpoolWriter::open(dir.path(), 1 << 20).unwrap();
            writer.append(&record(b"AFTER"));
            writer.commit();
            let mut reader = SpoolReader::open(dir.path(), Position::default());
            let mut got = Vec::new();
            loop {
                let more = reader.read(64).unwrap();
                if more.is_empty() { break }
                got.extend(texts(&more));
            }
            proptest::prop_assert_eq!(got.pop().unwrap(), "AFTER");
            proptest::prop_assert_eq!(&lines[..got.len()], &got[..]);
        }

        #[test]
        fn rotation_keeps_order(lines in proptest::collection::vec("[a-z]{0,900}", 1..60), batch in 1_usize..5000) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = SpoolWriter::open(dir.path(), 16 << 20).unwrap();
            writer.segment_bytes = 4096;
            for line in &lines {
                writer.append(&record(line.as_bytes()));
                writer.commit();
            }
            let mut reader = SpoolReader::open(dir.path(), Position::default());
            let mut got = Vec::new();
            loop {
                let more = reader.read(batch).unwrap();
                if more.is_empty() { break }
                got.extend(texts(&more));
                reader.release().unwrap();
            }
            proptest::prop_assert_eq!(got, lines);
        }
    }
}
