//! What can go wrong, by what the caller should do about it.

use std::path::PathBuf;

use crate::{Key, Version};

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it. Stop that one first.
    #[error(
        "the store {path} is in use by another process: stop that process, or choose another folder"
    )]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// A later program wrote it. Use that program.
    #[error(
        "the store {path} has schema version {found}, and this program knows versions up to \
         {known}: use the newer program that wrote it"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// What the file says.
        found: i64,
        /// What this program writes.
        known: i64,
    },
    /// The file is something else.
    #[error("{path} is a database, but not one of Lauf's: choose another file")]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// The file is damaged. Restore it from a backup.
    #[error(
        "the store {path} is damaged ({reason}): restore it from a backup, or move it away to start empty"
    )]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// The file or its folder cannot be read or written.
    #[error("cannot open the store {path}: {reason}")]
    Io {
        /// The database file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// A read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The disk or the database failed; trying again may help.
    #[error("cannot read the store: {0}")]
    Io(String),
}

/// A transaction was not applied. Nothing of it happened, except where `Io` says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A condition did not hold. Read again, decide again.
    #[error("{key} is {}, expected {}", at(*.actual), expected_text(*.expected))]
    Conflict {
        /// The key of the condition.
        key: Key,
        /// The version that was expected; `None` for [`crate::Condition::Absent`], and
        /// [`Version::ZERO`] for [`crate::Condition::Exists`].
        expected: Option<Version>,
        /// The version the key has; `None` where there is no such key.
        actual: Option<Version>,
    },
    /// Too much waits to be written. Try again later.
    #[error("the store has too many writes waiting: try again in a moment")]
    QueueFull,
    /// The transaction can never be applied as it is.
    #[error("invalid transaction: {0}")]
    Invalid(String),
    /// The store is closing or closed.
    #[error("the store is closed")]
    Closed,
    /// The disk or the database failed. The transaction was rolled back, unless the failure was
    /// that of the disk to confirm it, so read before trying again.
    #[error("cannot write the store: {0}")]
    Io(String),
}

fn at(version: Option<Version>) -> String {
    version.map_or_else(
        || "absent".to_owned(),
        |version| format!("at version {version}"),
    )
}

fn expected_text(version: Option<Version>) -> String {
    match version {
        None => "absent".to_owned(),
        Some(Version::ZERO) => "present".to_owned(),
        Some(version) => format!("at version {version}"),
    }
}

/// A watch cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The changes after `from` are no longer kept. List again and watch from the list's version.
    #[error(
        "changes after version {from} are no longer kept, the oldest start after {oldest}: list again and watch from there"
    )]
    Compacted {
        /// Where the watch stood.
        from: Version,
        /// The oldest version from which a watch can start.
        oldest: Version,
    },
    /// `from` has not happened yet: it is from another store or from before a restored backup. List
    /// again and watch from the list's version.
    #[error(
        "version {from} is ahead of the store, which is at {current}: list again and watch from there"
    )]
    Ahead {
        /// Where the watch was to start.
        from: Version,
        /// Where the store is.
        current: Version,
    },
    /// The kept changes could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
