//! The one thread that writes.

use std::{
    fs::File,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use crate::{
    Condition, Key, Object, Op, Txn, Version, WriteError,
    history::Kept,
    read, schema,
    watch::{Change, Event, Feed},
};

/// The most transactions, and bytes of them, in one commit.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 8 << 20;

/// What the writer is asked.
pub(crate) enum Request {
    Write(Write),
    /// Finish what has queued, then end.
    Close,
}

pub(crate) struct Write {
    pub(crate) txn: Txn,
    pub(crate) reply: oneshot::Sender<Result<Version, WriteError>>,
    /// Its share of the queue's bytes, given back when it is done.
    pub(crate) permit: OwnedSemaphorePermit,
}

pub(crate) struct Writer {
    pub(crate) conn: Arc<Mutex<Connection>>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) feed: Arc<Feed>,
    pub(crate) published: watch::Sender<Version>,
    pub(crate) kept: Kept,
    pub(crate) version: Version,
    /// Held for as long as this thread writes.
    pub(crate) lock: Option<File>,
}

/// A transaction's place in a commit.
struct Applied {
    result: Result<Version, WriteError>,
    changes: Vec<Arc<Change>>,
}

impl Writer {
    pub(crate) fn run(mut self) {
        while let Some(first) = self.requests.blocking_recv() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Write(write) => {
                        bytes += write.permit.num_permits();
                        batch.push(write);
                    }
                    // Nothing more comes in; what is in the queue still comes out.
                    Request::Close => self.requests.close(),
                }
                next = if batch.len() < BATCH && bytes < BATCH_BYTES {
                    self.requests.try_recv().ok()
                } else {
                    None
                };
            }
            self.commit(batch);
        }
        let conn = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            tracing::warn!(%error, "the store's log could not be folded in; it will be at the next start");
        }
        drop(conn);
        // The file is free before `published` goes, which tells whoever closes that it is.
        drop(self.lock);
        drop(self.published);
    }

    fn commit(&mut self, batch: Vec<Write>) {
        if batch.is_empty() {
            return;
        }
        match self.apply_all(&batch) {
            Ok(applied) => self.publish(batch, applied),
            // Let no transaction fail for what another one met (say, a full disk).
            Err(_) if batch.len() > 1 => {
                for write in batch {
                    self.commit(vec![write]);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a write to the store failed");
                for write in batch {
                    let _ = write.reply.send(Err(WriteError::Io(error.to_string())));
                }
            }
        }
    }

    /// One commit, one sync.
    fn apply_all(&mut self, batch: &[Write]) -> rusqlite::Result<Vec<Applied>> {
        let conn = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
        // Rolls back when it is dropped before the commit.
        let txn =
            rusqlite::Transaction::new_unchecked(&conn, rusqlite::TransactionBehavior::Immediate)?;
        let excess = self.kept.excess();
        if let Some(upto) = excess {
            txn.prepare_cached("DELETE FROM change WHERE version <= $1")?
                .execute([upto.to_sql()])?;
            schema::set_meta(&txn, "compacted", upto)?;
        }
        let mut version = self.version;
        let mut applied = Vec::with_capacity(batch.len());
        for write in batch {
            let result = apply(&txn, &write.txn, version.next())?;
            applied.push(match result {
                Ok(changes) => {
                    if !changes.is_empty() {
                        version = version.next();
                    }
                    Applied {
                        result: Ok(version),
                        changes,
                    }
                }
                Err(conflict) => Applied {
                    result: Err(conflict),
                    changes: Vec::new(),
                },
            });
        }
        if version > self.version {
            schema::set_meta(&txn, "version", version)?;
        }
        if version == self.version && excess.is_none() {
            return Ok(applied);
        }
        txn.commit()?;
        drop(conn);
        self.version = version;
        if let Some(upto) = excess {
            self.kept.drop_upto(upto);
        }
        Ok(applied)
    }

    fn publish(&mut self, batch: Vec<Write>, applied: Vec<Applied>) {
        let mut replies = Vec::with_capacity(batch.len());
        let mut changes = Vec::new();
        for (write, applied) in batch.into_iter().zip(applied) {
            if let Some(first) = applied.changes.first() {
                let bytes: usize = applied
                    .changes
                    .iter()
                    .map(|change| body(change).len())
                    .sum();
                self.kept
                    .add(first.version, applied.changes.len() as u64, bytes as u64);
            }
            changes.extend(applied.changes);
            replies.push((write.reply, applied.result));
        }
        if !changes.is_empty() {
            self.feed
                .recent
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(changes);
            self.published.send_replace(self.version);
        }
        for (reply, result) in replies {
            // Whoever asked may have gone; it is written all the same.
            let _ = reply.send(result);
        }
    }
}

fn body(change: &Change) -> &Bytes {
    let (Event::Put(object) | Event::Deleted(object)) = &change.event;
    &object.body
}

/// Applies one transaction as `version`, if its conditions hold.
fn apply(
    conn: &Connection,
    txn: &Txn,
    version: Version,
) -> rusqlite::Result<Result<Vec<Arc<Change>>, WriteError>> {
    for condition in &txn.conditions {
        let actual = current(conn, condition.key())?;
        let (holds, expected) = match condition {
            Condition::Version(_, expected) => (actual == Some(*expected), Some(*expected)),
            Condition::Absent(_) => (actual.is_none(), None),
            Condition::Exists(_) => (actual.is_some(), Some(Version::ZERO)),
        };
        if !holds {
            return Ok(Err(WriteError::Conflict {
                key: condition.key().clone(),
                expected,
                actual,
            }));
        }
    }
    let mut changes = Vec::with_capacity(txn.ops.len());
    for op in &txn.ops {
        let event = match op {
            Op::Put(key, body) => Some(Event::Put(put(conn, key, body, version)?)),
            Op::Delete(key) => delete(conn, key)?.map(Event::Deleted),
        };
        if let Some(event) = event {
            let change = Change {
                version,
                key: op.key().clone(),
                event,
            };
            record(conn, &change, changes.len())?;
            changes.push(Arc::new(change));
        }
    }
    Ok(Ok(changes))
}

fn current(conn: &Connection, key: &Key) -> rusqlite::Result<Option<Version>> {
    conn.prepare_cached(
        "SELECT version FROM resource WHERE kind = $1 AND scope = $2 AND name = $3",
    )?
    .query_row((key.kind.as_str(), &key.scope, &key.name), |row| row.get(0))
    .optional()
    .map(|version| version.map(Version::from_sql))
}

fn put(conn: &Connection, key: &Key, body: &Bytes, version: Version) -> rusqlite::Result<Object> {
    let created = conn
        .prepare_cached(
            "INSERT INTO resource (kind, scope, name, version, created, body)
             VALUES ($1, $2, $3, $4, $4, $5)
             ON CONFLICT (kind, scope, name)
             DO UPDATE SET version = excluded.version, body = excluded.body
             RETURNING created",
        )?
        .query_row(
            params![
                key.kind.as_str(),
                key.scope,
                key.name,
                version.to_sql(),
                &body[..]
            ],
            |row| row.get(0),
        )?;
    Ok(Object {
        key: key.clone(),
        version,
        created: Version::from_sql(created),
        body: body.clone(),
    })
}

fn delete(conn: &Connection, key: &Key) -> rusqlite::Result<Option<Object>> {
    let Some(object) = read::get(conn, key)? else {
        return Ok(None);
    };
    conn.prepare_cached("DELETE FROM resource WHERE kind = $1 AND scope = $2 AND name = $3")?
        .execute((key.kind.as_str(), &key.scope, &key.name))?;
    Ok(Some(object))
}

fn record(conn: &Connection, change: &Change, seq: usize) -> rusqlite::Result<()> {
    let (object, deleted) = match &change.event {
        Event::Put(object) => (object, 0),
        Event::Deleted(object) => (object, 1),
    };
    conn.prepare_cached(
        "INSERT INTO change
         (version, seq, deleted, kind, scope, name, object_version, created, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )?
    .execute(params![
        change.version.to_sql(),
        i64::try_from(seq).unwrap_or(i64::MAX),
        deleted,
        change.key.kind.as_str(),
        change.key.scope,
        change.key.name,
        object.version.to_sql(),
        object.created.to_sql(),
        &object.body[..],
    ])
    .map(drop)
}
