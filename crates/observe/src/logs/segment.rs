//! One file of the log and its index.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::block::{self, Block};
use crate::LogEntry;

/// A file of entries, one a line.
pub(crate) struct Segment {
    pub(super) id: u32,
    path: PathBuf,
    file: File,
    /// Only what is wholly written is in the index, so readers see whole lines.
    blocks: RwLock<Vec<Block>>,
}

/// What is beside a finished segment.
#[derive(Serialize, Deserialize)]
struct Index {
    /// Of the segment; one of another length has another index.
    length: u64,
    blocks: Vec<Block>,
}

impl Segment {
    pub(super) fn create(dir: &Path, id: u32) -> io::Result<Self> {
        let path = dir.join(format!("log-{id:010}.jsonl"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Self {
            id,
            path,
            file,
            blocks: RwLock::new(Vec::new()),
        })
    }

    /// Opens a segment, with the index beside it if that fits, or else by reading it through.
    fn open(path: PathBuf, id: u32) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let length = file.metadata()?.len();
        let known = fs::read(path.with_extension("idx"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Index>(&bytes).ok())
            .filter(|index| index.length == length);
        let blocks = match known {
            Some(index) => index.blocks,
            None => scan(&file)?,
        };
        let segment = Self {
            id,
            path,
            file,
            blocks: RwLock::new(blocks),
        };
        // What a crash tore goes, so that nothing of it stands behind the next line.
        if segment.end() < length {
            segment.file.set_len(segment.end())?;
        }
        Ok(segment)
    }

    /// Up to where there are whole lines.
    pub(super) fn end(&self) -> u64 {
        self.read_blocks(|blocks| blocks.last().map_or(0, |block| block.end))
    }

    /// When its last entry came.
    pub(super) fn received(&self) -> Option<Timestamp> {
        self.read_blocks(|blocks| blocks.iter().map(|block| block.received).max())
    }

    pub(super) fn read_blocks<T>(&self, read: impl FnOnce(&[Block]) -> T) -> T {
        read(&self.blocks.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Appends lines and then lets readers see them. What was half written by a failure is written
    /// over by the next.
    pub(super) fn append(&self, bytes: &[u8], entries: &[(u64, &LogEntry)]) -> io::Result<()> {
        let mut at = self.end();
        self.file.write_all_at(bytes, at)?;
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        for (length, entry) in entries {
            block::append(&mut blocks, at, *length, entry);
            at += length;
        }
        Ok(())
    }

    pub(super) fn read(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(end - start).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    /// Ends it: what was torn goes, what is there reaches the disk, and the index is put beside it.
    pub(super) fn finish(&self) -> io::Result<()> {
        let length = self.end();
        self.file.set_len(length)?;
        self.file.sync_all()?;
        let blocks = self.read_blocks(<[Block]>::to_vec);
        let index = serde_json::to_vec(&Index { length, blocks })?;
        let new = self.path.with_extension("idx.new");
        fs::write(&new, index)?;
        fs::rename(new, self.path.with_extension("idx"))
    }

    /// Removes its files. Who reads it still can.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        match fs::remove_file(self.path.with_extension("idx")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// All segments of a folder, the oldest first.
pub(super) fn open_all(dir: &Path) -> io::Result<VecDeque<Arc<Segment>>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let id = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| {
                name.strip_prefix("log-")?
                    .strip_suffix(".jsonl")?
                    .parse()
                    .ok()
            });
        if let Some(id) = id {
            found.push((id, path));
        }
    }
    found.sort_unstable();
    found
        .into_iter()
        .map(|(id, path)| Segment::open(path, id).map(Arc::new))
        .collect()
}

/// Makes the index of a file. A last line without an end was torn by a crash; a line that is no
/// entry was damaged. Neither is in the index.
fn scan(file: &File) -> io::Result<Vec<Block>> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut blocks = Vec::new();
    let mut line = Vec::new();
    let mut at = 0;
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)? as u64;
        if line.last() != Some(&b'\n') {
            return Ok(blocks);
        }
        if let Ok(entry) = serde_json::from_slice(&line) {
            block::append(&mut blocks, at, length, &entry);
        }
        at += length;
    }
}
