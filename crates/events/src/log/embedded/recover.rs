//! Opening a log: whatever state the machine left it in, afterwards the segments hold exactly what
//! the journal says.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;

use super::super::Position;
use super::checkpoint::{self, Dirty};
use super::files::{At as _, Folder, gone, numbered};
use super::frame::{self, Data, Kind, Row, Table};
use super::journal::Journal;
use super::segment;
use super::stream::{Segment, Stream, Streams};
use super::{EmbeddedConfig, OpenError};

/// Opens the log in `dir`. The file is its lock.
pub(super) fn open(
    dir: &Path,
    config: &EmbeddedConfig,
) -> Result<(Streams, Journal, File), OpenError> {
    let folder = Folder::new(dir);
    fs::create_dir_all(folder.journal_dir()).at(dir)?;
    fs::create_dir_all(folder.streams_dir()).at(dir)?;
    let path = folder.lock();
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .at(&path)?;
    if lock.try_lock().is_err() {
        return Err(OpenError::InUse(dir.to_owned()));
    }

    let journal_dir = folder.journal_dir();
    let mut spare = numbered(&journal_dir, "spare").at(&journal_dir)?;
    let (played, unused) = which(&folder)?;
    let mut play = Play::new(&folder, config.segment_bytes);
    let newest = played.last().copied();
    for sequence in &played {
        play.file(*sequence, Some(*sequence) == newest)?;
    }
    let (streams, next_id, dirty) = play.finish()?;
    remove_strangers(&folder, &streams)?;

    // Everything is in the segments; once they are durable no journal file is needed.
    checkpoint::sync(&folder, &dirty).at(&folder.streams_dir())?;
    let streams = Streams::new(streams, next_id);
    let sequence = [&played, &unused, &spare].into_iter().flatten().max();
    let sequence = sequence.copied().unwrap_or(0);
    let mut journal = Journal::new(
        folder.clone(),
        config.journal_bytes,
        config.journal_files,
        sequence,
        keep_spares(&folder, config, &mut spare)?,
    );
    if !played.is_empty() || !unused.is_empty() {
        journal.begin(streams.table(true)).at(&journal_dir)?;
        for sequence in unused.into_iter().chain(played) {
            checkpoint::free(&folder, sequence).at(&journal_dir)?;
            if fits(&folder, config, sequence) {
                journal.freed(sequence);
            }
        }
    }
    Ok((streams, journal, lock))
}

/// Which journal files have to be played, in order, and which are not needed: those from before a
/// table that was whole, and one that was being begun when the machine stopped.
fn which(folder: &Folder) -> Result<(Vec<u64>, Vec<u64>), OpenError> {
    let dir = folder.journal_dir();
    let mut unused = Vec::new();
    let mut played: Vec<u64> = Vec::new();
    for sequence in numbered(&dir, "journal").at(&dir)? {
        match table(folder, sequence)? {
            Some(table) => {
                if table.whole {
                    unused.append(&mut played);
                }
                played.push(sequence);
            }
            None => unused.push(sequence),
        }
    }
    Ok((played, unused))
}

/// The table that begins a journal file; `None` where the file had not been begun for good.
pub(super) fn table(folder: &Folder, sequence: u64) -> Result<Option<Table>, OpenError> {
    let path = folder.journal(sequence);
    let first = Frames::open(folder, sequence).and_then(|mut frames| frames.next());
    match first.at(&path)?.and_then(|ops| ops.into_iter().next()) {
        Some(Kind::Table(table)) => Ok(Some(table)),
        _ => Ok(None),
    }
}

/// The frames of a journal file, read one by one: the file is large and mostly left from earlier use.
struct Frames {
    file: File,
    length: u64,
    sequence: u64,
    offset: u64,
}

impl Frames {
    fn open(folder: &Folder, sequence: u64) -> io::Result<Self> {
        let file = File::open(folder.journal(sequence))?;
        Ok(Self {
            length: file.metadata()?.len(),
            file,
            sequence,
            offset: 0,
        })
    }

    /// The next frame's operations; `None` where no further whole frame is.
    fn next(&mut self) -> io::Result<Option<Vec<Kind>>> {
        let left = self.length - self.offset;
        let mut head = [0; frame::HEADER];
        if left < head.len() as u64 {
            return Ok(None);
        }
        self.file.read_exact_at(&mut head, self.offset)?;
        let Some(length) = frame::length(self.sequence, &head).filter(|length| *length <= left)
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, self.offset)?;
        self.offset += length;
        Ok(frame::decode(self.sequence, &Bytes::from(bytes)))
    }
}

/// Spare files that are of use; others go.
fn keep_spares(
    folder: &Folder,
    config: &EmbeddedConfig,
    spare: &mut Vec<u64>,
) -> Result<Vec<u64>, OpenError> {
    let mut kept = Vec::new();
    for sequence in spare.drain(..) {
        if kept.len() + 1 < config.journal_files && fits(folder, config, sequence) {
            kept.push(sequence);
        } else {
            let path = folder.spare(sequence);
            gone(fs::remove_file(&path)).at(&path)?;
        }
    }
    Ok(kept)
}

fn fits(folder: &Folder, config: &EmbeddedConfig, sequence: u64) -> bool {
    fs::metadata(folder.spare(sequence)).is_ok_and(|found| found.len() == config.journal_bytes)
}

/// Removes folders of streams that are no more.
fn remove_strangers(folder: &Folder, streams: &BTreeMap<u64, Stream>) -> Result<(), OpenError> {
    let dir = folder.streams_dir();
    for id in numbered(&dir, "").at(&dir)? {
        if !streams.contains_key(&id) {
            let path = folder.stream_dir(id);
            gone(fs::remove_dir_all(&path)).at(&path)?;
        }
    }
    Ok(())
}

/// Playing the journal.
struct Play<'a> {
    folder: &'a Folder,
    segment_bytes: u64,
    begun: bool,
    streams: BTreeMap<u64, Replayed>,
    next_id: u64,
    dirty: Dirty,
}

struct Replayed {
    name: String,
    next: Position,
    time: i64,
    segments: VecDeque<Segment>,
    /// The segment that grows.
    file: Option<File>,
    /// Its folder or its last segment is not there. That is right only if the journal goes on to
    /// say that it was deleted.
    lost: bool,
}

impl<'a> Play<'a> {
    fn new(folder: &'a Folder, segment_bytes: u64) -> Self {
        Self {
            folder,
            segment_bytes,
            begun: false,
            streams: BTreeMap::new(),
            next_id: 1,
            dirty: Dirty::new(),
        }
    }

    fn file(&mut self, sequence: u64, newest: bool) -> Result<(), OpenError> {
        let path = self.folder.journal(sequence);
        let mut frames = Frames::open(self.folder, sequence).at(&path)?;
        let mut ended = false;
        while let Some(ops) = frames.next().at(&path)? {
            for op in ops {
                ended |= matches!(op, Kind::End(_));
                self.op(op, &path)?;
            }
        }
        if !ended && !newest {
            return Err(damaged(&path, "its end is missing"));
        }
        Ok(())
    }

    fn op(&mut self, op: Kind, path: &Path) -> Result<(), OpenError> {
        match op {
            Kind::Table(table) if !self.begun => {
                self.begun = true;
                self.next_id = table.next_id;
                for row in table.streams {
                    self.row(row)?;
                }
            }
            // The table of a later file says what playing the earlier ones has led to.
            Kind::Table(_) | Kind::End(_) => {}
            Kind::Create(create) => {
                self.next_id = self.next_id.max(create.id + 1);
                let stream = Replayed::new(create.name);
                self.cut(create.id, None)?;
                self.streams.insert(create.id, stream);
            }
            Kind::Delete(id) => {
                self.streams.remove(&id);
            }
            Kind::Data(data) => self.data(&data, path)?,
        }
        Ok(())
    }

    /// A stream as it was when the journal begins: what its segments hold beyond that is not
    /// certain, and comes again.
    fn row(&mut self, row: Row) -> Result<(), OpenError> {
        let last = (row.length > 0).then_some(Position(row.base));
        let mut stream = Replayed::new(row.name);
        stream.next = Position(row.next);
        stream.time = row.time;
        stream.segments = self.cut(row.id, last)?;
        if let Some(last) = stream.segments.back_mut().filter(|s| Some(s.base) == last) {
            let path = self.folder.segment(row.id, last.base);
            let file = File::options().write(true).open(&path).at(&path)?;
            if file.metadata().at(&path)?.len() < row.length {
                return Err(damaged(&path, "it is shorter than it was"));
            }
            file.set_len(row.length).at(&path)?;
            last.length = row.length;
            self.dirty.insert((row.id, last.base));
            stream.file = Some(file);
        } else {
            stream.lost = last.is_some();
        }
        self.streams.insert(row.id, stream);
        Ok(())
    }

    /// Removes the segments after `last`, all without one, and lists the others.
    fn cut(&self, id: u64, last: Option<Position>) -> Result<VecDeque<Segment>, OpenError> {
        let dir = self.folder.stream_dir(id);
        let mut kept = VecDeque::new();
        for base in numbered(&dir, "seg").at(&dir)? {
            let base = Position(base);
            let path = self.folder.segment(id, base);
            if last.is_some_and(|last| base <= last) {
                kept.push_back(Segment {
                    base,
                    length: fs::metadata(&path).at(&path)?.len(),
                    begun: 0,
                });
            } else {
                gone(fs::remove_file(&path)).at(&path)?;
            }
        }
        Ok(kept)
    }

    fn data(&mut self, data: &Data, path: &Path) -> Result<(), OpenError> {
        // Nothing is appended to a stream that is not, so that it was deleted: skip it.
        let Some(stream) = self.streams.get_mut(&data.stream).filter(|s| !s.lost) else {
            return Ok(());
        };
        let first = Position(data.first);
        if stream.next != first {
            return Err(damaged(
                path,
                &format!(
                    "stream '{}' goes on at {first} where it ends at {}",
                    stream.name, stream.next
                ),
            ));
        }
        let grows = stream
            .segments
            .back()
            .is_some_and(|last| last.length < self.segment_bytes);
        if !grows {
            fs::create_dir_all(self.folder.stream_dir(data.stream)).at(path)?;
            let path = self.folder.segment(data.stream, first);
            stream.file = Some(segment::create(&path, data.stream, first).at(&path)?);
            stream.segments.push_back(Segment::empty(first));
        }
        if let (Some(file), Some(last)) = (&stream.file, stream.segments.back_mut()) {
            file.write_all_at(&data.records, last.length).at(path)?;
            last.length += data.records.len() as u64;
            self.dirty.insert((data.stream, last.base));
        }
        stream.next = first.plus(data.count);
        stream.time = data.time;
        Ok(())
    }

    fn finish(self) -> Result<(BTreeMap<u64, Stream>, u64, Dirty), OpenError> {
        let mut streams = BTreeMap::new();
        for (id, stream) in self.streams {
            if stream.lost {
                let dir = self.folder.stream_dir(id);
                let problem = format!("the segments of stream '{}' are missing", stream.name);
                return Err(damaged(&dir, &problem));
            }
            let folder = self.folder.clone();
            let stream = Stream::with(
                id,
                stream.name,
                folder,
                stream.segments,
                stream.next,
                stream.time,
            );
            streams.insert(id, stream);
        }
        Ok((streams, self.next_id, self.dirty))
    }
}

impl Replayed {
    fn new(name: String) -> Self {
        Self {
            name,
            next: Position(0),
            time: 0,
            segments: VecDeque::new(),
            file: None,
            lost: false,
        }
    }
}

fn damaged(path: &Path, problem: &str) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}
