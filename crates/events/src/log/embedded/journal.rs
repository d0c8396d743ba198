//! The journal's files: one that is written, those that are full and still needed, and spare ones.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;

use super::files::{Folder, sync_dir};
use super::frame::{self, Kind, Table};

/// Room that is kept for the frame that ends a file.
const END_ROOM: u64 = 64;
const ZEROS: usize = 1 << 20;

/// The journal, for the writer.
pub(super) struct Journal {
    folder: Folder,
    size: u64,
    most: usize,
    current: Option<Current>,
    /// The number of the last file that was begun.
    sequence: u64,
    /// Full files, the oldest first, whose records may not be safe in segments yet.
    full: VecDeque<u64>,
    spare: Vec<u64>,
    buffer: Vec<u8>,
}

/// What became of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// They are durable.
    Written,
    /// They had no room. The file is full and has been ended.
    Ended,
    /// There is no file yet.
    NotBegun,
}

struct Current {
    file: File,
    offset: u64,
}

impl Journal {
    pub(super) fn new(
        folder: Folder,
        size: u64,
        most: usize,
        sequence: u64,
        spare: Vec<u64>,
    ) -> Self {
        Self {
            folder,
            size,
            most,
            current: None,
            sequence,
            full: VecDeque::new(),
            spare,
            buffer: Vec::new(),
        }
    }

    /// The number of the file being written.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The number of the oldest file that a start would play.
    pub(super) fn oldest(&self) -> u64 {
        self.full.front().copied().unwrap_or(self.sequence)
    }

    /// Writes operations and syncs them, if there is a file with room for them; otherwise
    /// [`Journal::begin`] has to come next.
    pub(super) fn append(&mut self, ops: Vec<Kind>) -> io::Result<Room> {
        let Some(current) = &mut self.current else {
            return Ok(Room::NotBegun);
        };
        self.buffer.clear();
        frame::encode(self.sequence, ops, &mut self.buffer);
        if current.offset + self.buffer.len() as u64 + END_ROOM > self.size {
            self.buffer.clear();
            frame::encode(self.sequence, vec![Kind::End(true)], &mut self.buffer);
            current.file.write_all_at(&self.buffer, current.offset)?;
            current.file.sync_data()?;
            self.full.push_back(self.sequence);
            self.current = None;
            return Ok(Room::Ended);
        }
        current.file.write_all_at(&self.buffer, current.offset)?;
        current.file.sync_data()?;
        current.offset += self.buffer.len() as u64;
        // A rare large append must not hold its memory for ever.
        self.buffer.shrink_to(8 << 20);
        Ok(Room::Written)
    }

    /// Whether a file can be begun now; otherwise one has to become free first.
    pub(super) fn has_room(&self) -> bool {
        !self.spare.is_empty() || self.full.len() < self.most
    }

    /// Begins the next file.
    pub(super) fn begin(&mut self, table: Table) -> io::Result<()> {
        let sequence = self.sequence + 1;
        let path = self.folder.journal(sequence);
        let file = if let Some(spare) = self.spare.pop() {
            fs::rename(self.folder.spare(spare), &path)?;
            File::options().read(true).write(true).open(&path)?
        } else {
            zeroed(&path, self.size)?
        };
        self.buffer.clear();
        frame::encode(sequence, vec![Kind::Table(table)], &mut self.buffer);
        if self.buffer.len() as u64 + END_ROOM > self.size {
            return Err(io::Error::other("too many streams for a journal file"));
        }
        file.write_all_at(&self.buffer, 0)?;
        file.sync_all()?;
        sync_dir(&self.folder.journal_dir())?;
        self.sequence = sequence;
        self.current = Some(Current {
            file,
            offset: self.buffer.len() as u64,
        });
        Ok(())
    }

    /// Takes back a full file that is not needed any longer.
    pub(super) fn freed(&mut self, sequence: u64) {
        self.full.retain(|full| *full != sequence);
        self.spare.push(sequence);
    }
}

/// A file of zeros. Its blocks are given out and written once here, so that writing them again
/// changes nothing but their contents.
fn zeroed(path: &std::path::Path, size: u64) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let zeros = vec![0; ZEROS];
    let mut offset = 0;
    while offset < size {
        let count = usize::try_from(size - offset).unwrap_or(ZEROS).min(ZEROS);
        file.write_all_at(&zeros[..count], offset)?;
        offset += count as u64;
    }
    file.sync_all()?;
    Ok(file)
}
