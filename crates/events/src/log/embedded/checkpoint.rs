//! The thread that makes segments durable behind the writer's back, so that full journal files
//! become free.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::sync::mpsc::{Receiver, Sender};

use super::super::Position;
use super::files::{Folder, sync_dir};

/// Segments that were written: stream and base.
pub(super) type Dirty = BTreeSet<(u64, Position)>;

/// A full journal file, and what was written while it was the current one.
pub(super) struct Full {
    pub(super) sequence: u64,
    pub(super) dirty: Dirty,
}

/// Works until the writer ends. Answers with the number of each file that became spare; the first
/// failure is the last answer.
pub(super) fn run(folder: &Folder, work: &Receiver<Full>, done: &Sender<io::Result<u64>>) {
    while let Ok(full) = work.recv() {
        let result = sync(folder, &full.dirty)
            .and_then(|()| free(folder, full.sequence))
            .map(|()| full.sequence);
        let failed = result.is_err();
        if done.send(result).is_err() || failed {
            return;
        }
    }
}

/// Makes segments durable, and that their folders list them.
pub(super) fn sync(folder: &Folder, dirty: &Dirty) -> io::Result<()> {
    let mut streams = BTreeSet::new();
    for (stream, base) in dirty {
        match File::open(folder.segment(*stream, *base)) {
            Ok(file) => file.sync_all()?,
            // Trimmed, or its stream was deleted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        streams.insert(*stream);
    }
    for stream in &streams {
        match sync_dir(&folder.stream_dir(*stream)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    if streams.is_empty() {
        return Ok(());
    }
    sync_dir(&folder.streams_dir())
}

/// Makes a journal file spare.
pub(super) fn free(folder: &Folder, sequence: u64) -> io::Result<()> {
    fs::rename(folder.journal(sequence), folder.spare(sequence))?;
    sync_dir(&folder.journal_dir())
}
