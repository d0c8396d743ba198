//! Reading and writing the small text files that cgroups are made of.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{CgroupError, Result};

/// Attaches the path to an I/O error.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> CgroupError + '_ {
    move |source| CgroupError::File {
        path: path.to_owned(),
        source,
    }
}

/// Writes one value in one `write` call, as cgroup files want it. Never creates the file.
pub(super) fn write(dir: &Path, file: &str, value: &str) -> Result<()> {
    let path = dir.join(file);
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut f| f.write_all(value.as_bytes()))
        .map_err(at(&path))
}

/// A control file that is kept open, since finding it takes longer than writing to it.
#[derive(Debug)]
pub(super) struct Knob {
    file: fs::File,
    path: PathBuf,
}

impl Knob {
    pub(super) fn open(dir: &Path, file: &str) -> Result<Self> {
        let path = dir.join(file);
        match fs::OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(e) => Err(at(&path)(e)),
        }
    }

    /// `None` where the kernel has no such file.
    pub(super) fn open_if_there(dir: &Path, file: &str) -> Result<Option<Self>> {
        match Self::open(dir, file) {
            Err(e) if e.io().is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => Ok(None),
            other => other.map(Some),
        }
    }

    pub(super) fn set(&self, value: &str) -> Result<()> {
        self.file
            .write_all_at(value.as_bytes(), 0)
            .map_err(at(&self.path))
    }

    /// What the file holds now, if that is one number.
    pub(super) fn number(&self) -> Option<u64> {
        fs::read_to_string(&self.path).ok()?.trim().parse().ok()
    }
}

/// Like [`write`], but a file that this kernel does not have is no error. Says whether it was there.
pub(super) fn write_if_there(dir: &Path, file: &str, value: &str) -> Result<bool> {
    match write(dir, file, value) {
        Ok(()) => Ok(true),
        Err(error)
            if error
                .io()
                .is_some_and(|e| e.kind() == io::ErrorKind::NotFound) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Reads a file. The kernel gives those that we ask for in one piece, so one call is enough unless the piece was full.
pub(super) fn read(dir: &Path, file: &str) -> io::Result<String> {
    const PIECE: usize = 4096;
    let mut file = fs::File::open(dir.join(file))?;
    let mut bytes = vec![0; PIECE];
    let count = file.read(&mut bytes)?;
    bytes.truncate(count);
    if count == PIECE {
        file.read_to_end(&mut bytes)?;
    }
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A file that holds one number; `max` and anything unreadable is `None`.
pub(super) fn number(dir: &Path, file: &str) -> Option<u64> {
    read(dir, file).ok()?.trim().parse().ok()
}

/// The value of `key` in a file of `key value` lines.
pub(super) fn keyed(dir: &Path, file: &str, key: &str) -> Option<u64> {
    let text = read(dir, file).ok()?;
    keyed_in(&text, key)
}

pub(super) fn keyed_in(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// Creates one folder; one that exists is fine.
pub(super) fn make_dir(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(at(dir)(e)),
        _ => Ok(()),
    }
}

/// Removes one group with the groups below it, deepest first. One that is gone is fine; control files vanish with their folder.
pub(super) fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // An instance may have made groups of its own below (nested container tools); EBUSY is the kernel's word for that too.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {
            let below = children(dir);
            if below.is_empty() {
                return Err(at(dir)(e));
            }
            for child in below {
                remove_dir(&dir.join(child))?;
            }
            fs::remove_dir(dir).map_err(at(dir))
        }
        Err(e) => Err(at(dir)(e)),
    }
}

/// The names of the folders in `dir`; empty when it cannot be read.
pub(super) fn children(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            entry
                .file_type()
                .ok()?
                .is_dir()
                .then(|| entry.file_name().into_string().ok())
                .flatten()
        })
        .collect()
}

/// A path made ready for use in a forked child.
pub(super) fn c_path(path: &Path) -> CString {
    // Names are checked and mount points come from the kernel's own table, so there is no zero byte; an empty path fails on open.
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// Moves the caller into the group whose `cgroup.procs` this is, without allocating.
pub(super) fn enter(procs: &CStr) -> io::Result<()> {
    let fd = rustix::fs::open(procs, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&fd, b"0")?;
    Ok(())
}

/// Kernel quirk: a process that is gone by the time its id is written is reported as ESRCH, which is what we wanted.
pub(super) fn pids(dir: &Path) -> Vec<u32> {
    read(dir, "cgroup.procs")
        .map(|text| text.lines().filter_map(|l| l.parse().ok()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_files_are_matched_by_whole_key() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(keyed_in(text, "oom"), Some(3));
        assert_eq!(keyed_in(text, "oom_kill"), Some(2));
        assert_eq!(keyed_in(text, "oom_kil"), None);
    }
}
