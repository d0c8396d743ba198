//! What is stored under a key.

use std::fmt;

use bytes::Bytes;

use crate::Key;

/// A point in the one order of all writes. The empty store is at [`Version::ZERO`]; each
/// transaction that changes something takes the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// Before the first write.
    pub const ZERO: Self = Self(0);

    /// A version read back from where [`Version::get`] put it, such as an etag or a page token.
    #[must_use]
    pub const fn new(version: u64) -> Self {
        Self(version)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// As SQL keeps it. A version beyond `i64::MAX` was never given out, so it may stand for one
    /// that no row has.
    pub(crate) fn to_sql(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    pub(crate) fn from_sql(version: i64) -> Self {
        Self(u64::try_from(version).unwrap_or(0))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An object as it was at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub key: Key,
    /// The version of the write that gave it this body.
    pub version: Version,
    /// The version of the write that created it. A key that was deleted and put again starts anew.
    pub created: Version,
    /// What the caller stored.
    pub body: Bytes,
}
