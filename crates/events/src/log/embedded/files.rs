//! Where the log's files are, and what the system has to be told so that they stay.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::super::Position;
use super::OpenError;

/// The folder of the log.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub(super) fn journal_dir(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// A journal file in use. The number is the order in which they were begun.
    pub(super) fn journal(&self, sequence: u64) -> PathBuf {
        self.journal_dir().join(format!("{sequence:016x}.journal"))
    }

    /// A journal file that waits to be used again.
    pub(super) fn spare(&self, sequence: u64) -> PathBuf {
        self.journal_dir().join(format!("{sequence:016x}.spare"))
    }

    pub(super) fn streams_dir(&self) -> PathBuf {
        self.0.join("streams")
    }

    /// The folder of one stream's segments. By number, so that a stream made again under an old
    /// name has nothing to do with the files of the old one.
    pub(super) fn stream_dir(&self, id: u64) -> PathBuf {
        self.streams_dir().join(format!("{id:016x}"))
    }

    pub(super) fn segment(&self, id: u64, base: Position) -> PathBuf {
        self.stream_dir(id).join(format!("{:016x}.seg", base.0))
    }
}

/// The numbers of files called `NUMBER.EXTENSION` in a folder, sorted; none where there is no such
/// folder.
pub(super) fn numbered(dir: &Path, extension: &str) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let number = match extension {
            "" => Some(name.as_ref()),
            _ => name
                .strip_suffix(extension)
                .and_then(|n| n.strip_suffix('.')),
        };
        if let Some(number) = number.and_then(|n| u64::from_str_radix(n, 16).ok()) {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Makes what a folder lists as durable as the files themselves.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes a file or folder that may be gone already.
pub(super) fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Adds the path to an error of the system.
pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T, OpenError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Io {
            path: path.to_owned(),
            source,
        })
    }
}
