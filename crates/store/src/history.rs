//! The changes that are kept: the newest in memory, more of them on disk.

use std::{collections::VecDeque, sync::Arc};

use rusqlite::Connection;

use crate::{
    Key, Kind, Object, Version,
    read::bytes,
    schema,
    watch::{Change, Event, WatchQuery},
};

/// How many changes a watcher takes at a time; more where one transaction has more.
const BATCH: usize = 256;

/// How many bytes of bodies it takes at a time; more where one transaction has more.
const BATCH_BYTES: usize = 4 << 20;

/// What a watcher gets for a version it stands at.
pub(crate) enum Next {
    /// The changes it asked for, and the version up to which it has now seen everything.
    Changes(VecDeque<Arc<Change>>, Version),
    /// They are no longer kept here; the oldest start after this version.
    Gone(Version),
}

/// The newest changes, in memory.
pub(crate) struct Recent {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// All changes after this version are here.
    floor: Version,
    max_changes: usize,
    max_bytes: usize,
}

impl Recent {
    pub(crate) fn new(floor: Version, max_changes: usize, max_bytes: usize) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            floor,
            max_changes,
            max_bytes,
        }
    }

    pub(crate) fn push(&mut self, changes: impl IntoIterator<Item = Arc<Change>>) {
        for change in changes {
            self.bytes += change.weight();
            self.changes.push_back(change);
        }
        // A version is kept whole or not at all.
        while let Some(front) = self.changes.front()
            && (front.version == self.floor
                || self.changes.len() > self.max_changes
                || self.bytes > self.max_bytes)
        {
            self.floor = front.version;
            self.bytes -= front.weight();
            self.changes.pop_front();
        }
    }

    pub(crate) fn after(&self, at: Version, query: &WatchQuery) -> Next {
        if at < self.floor {
            return Next::Gone(self.floor);
        }
        let start = self.changes.partition_point(|change| change.version <= at);
        let mut batch = Batch::new(at);
        for change in self.changes.range(start..) {
            if batch.full_before(change.version) {
                break;
            }
            if query.matches(&change.key) {
                batch.take(Arc::clone(change));
            }
        }
        batch.done()
    }
}

/// The kept changes, on disk. Reads like [`Recent::after`].
pub(crate) fn after(conn: &Connection, at: Version, query: &WatchQuery) -> rusqlite::Result<Next> {
    let txn = conn.unchecked_transaction()?;
    let compacted = schema::meta(&txn, "compacted")?;
    if at < compacted {
        return Ok(Next::Gone(compacted));
    }
    let mut select = txn.prepare_cached(
        "SELECT version, kind, scope, name, deleted, object_version, created, body FROM change
         WHERE version > $1 ORDER BY version, seq",
    )?;
    let mut rows = select.query([at.to_sql()])?;
    let mut batch = Batch::new(at);
    while let Some(row) = rows.next()? {
        let version = Version::from_sql(row.get(0)?);
        if batch.full_before(version) {
            break;
        }
        let key = Key {
            kind: Kind::from(row.get::<_, String>(1)?),
            scope: row.get(2)?,
            name: row.get(3)?,
        };
        if !query.matches(&key) {
            continue;
        }
        let object = Object {
            key: key.clone(),
            version: Version::from_sql(row.get(5)?),
            created: Version::from_sql(row.get(6)?),
            body: bytes(row, 7)?,
        };
        let deleted = row.get::<_, i64>(4)? != 0;
        let event = if deleted {
            Event::Deleted(object)
        } else {
            Event::Put(object)
        };
        batch.take(Arc::new(Change {
            version,
            key,
            event,
        }));
    }
    Ok(batch.done())
}

/// Collects changes until it has enough, and stops only between versions.
struct Batch {
    changes: VecDeque<Arc<Change>>,
    seen: usize,
    bytes: usize,
    upto: Version,
}

impl Batch {
    fn new(at: Version) -> Self {
        Self {
            changes: VecDeque::new(),
            seen: 0,
            bytes: 0,
            upto: at,
        }
    }

    fn full_before(&mut self, version: Version) -> bool {
        if version > self.upto {
            if self.seen >= BATCH || self.bytes >= BATCH_BYTES {
                return true;
            }
            self.upto = version;
        }
        self.seen += 1;
        false
    }

    fn take(&mut self, change: Arc<Change>) {
        self.bytes += change.weight();
        self.changes.push_back(change);
    }

    fn done(self) -> Next {
        Next::Changes(self.changes, self.upto)
    }
}

/// How much is kept on disk, so that the writer knows what to let go.
pub(crate) struct Kept {
    versions: VecDeque<KeptVersion>,
    changes: u64,
    bytes: u64,
    max_changes: u64,
    max_bytes: u64,
}

struct KeptVersion {
    version: Version,
    changes: u64,
    bytes: u64,
}

impl Kept {
    pub(crate) fn load(
        conn: &Connection,
        max_changes: u64,
        max_bytes: u64,
    ) -> rusqlite::Result<Self> {
        let mut kept = Self {
            versions: VecDeque::new(),
            changes: 0,
            bytes: 0,
            max_changes,
            max_bytes,
        };
        let mut select = conn.prepare(
            "SELECT version, count(*), sum(length(body)) FROM change GROUP BY version ORDER BY version",
        )?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let count = |column| -> rusqlite::Result<u64> {
                Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
            };
            kept.add(Version::from_sql(row.get(0)?), count(1)?, count(2)?);
        }
        Ok(kept)
    }

    pub(crate) fn add(&mut self, version: Version, changes: u64, bytes: u64) {
        self.changes += changes;
        self.bytes += bytes;
        self.versions.push_back(KeptVersion {
            version,
            changes,
            bytes,
        });
    }

    /// The version up to which changes should go, if it is time. A little too much is let grow, so
    /// that letting go happens now and then and not at every write.
    pub(crate) fn excess(&self) -> Option<Version> {
        let slack = |max: u64| max.saturating_add(max / 64);
        if self.changes <= slack(self.max_changes) && self.bytes <= slack(self.max_bytes) {
            return None;
        }
        let (mut changes, mut bytes, mut upto) = (self.changes, self.bytes, None);
        for kept in &self.versions {
            if changes <= self.max_changes && bytes <= self.max_bytes {
                break;
            }
            changes -= kept.changes;
            bytes -= kept.bytes;
            upto = Some(kept.version);
        }
        upto
    }

    /// They have gone.
    pub(crate) fn drop_upto(&mut self, upto: Version) {
        while let Some(front) = self.versions.front()
            && front.version <= upto
        {
            self.changes -= front.changes;
            self.bytes -= front.bytes;
            self.versions.pop_front();
        }
    }
}
