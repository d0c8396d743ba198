//! Reading: one object, or many in order.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::Semaphore;

use crate::{Key, Kind, Object, OpenError, ReadError, Version, schema};

/// The most objects on one page of a list.
pub const MAX_PAGE: usize = 1_000;

/// A page also ends when its bodies hold this many bytes.
const MAX_PAGE_BYTES: usize = 16 << 20;

/// Which scopes of a kind to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    #[default]
    All,
    /// Those that start with this text, such as `PROJECT/`.
    Prefix(String),
    /// This one only.
    Exact(String),
}

/// Which objects to list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Their kind.
    pub kind: Kind,
    /// Their scopes.
    pub scope: Scope,
    /// Only those after this scope and name: those of the last object of the page before.
    pub after: Option<(String, String)>,
    /// How many at most; never more than [`MAX_PAGE`]. Zero asks for the version alone.
    pub limit: usize,
}

impl ListQuery {
    /// The first page of all objects of a kind.
    pub fn all(kind: impl Into<Kind>) -> Self {
        Self {
            kind: kind.into(),
            scope: Scope::All,
            after: None,
            limit: MAX_PAGE,
        }
    }

    /// The first page of the objects of a kind in one scope.
    pub fn scope(kind: impl Into<Kind>, scope: impl Into<String>) -> Self {
        Self {
            scope: Scope::Exact(scope.into()),
            ..Self::all(kind)
        }
    }
}

/// Some objects, by scope and name, all as they were at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Object>,
    /// When this was so. Watching from here continues the first page without a gap.
    pub version: Version,
    /// Whether there are more after the last of these.
    pub more: bool,
}

/// The connections that read.
#[derive(Clone)]
pub(crate) struct Readers {
    source: Source,
    permits: Arc<Semaphore>,
}

#[derive(Clone)]
enum Source {
    /// As many as there are permits, each on the same file.
    Pool(Arc<Mutex<Vec<Connection>>>),
    /// A database in memory has one connection, shared with the writer.
    Shared(Arc<Mutex<Connection>>),
}

impl Readers {
    pub(crate) fn open(path: &Path, count: usize) -> Result<Self, OpenError> {
        let pool = (0..count)
            .map(|_| schema::open_reader(path))
            .collect::<Result<Vec<_>, OpenError>>()?;
        Ok(Self {
            source: Source::Pool(Arc::new(Mutex::new(pool))),
            permits: Arc::new(Semaphore::new(count)),
        })
    }

    pub(crate) fn shared(conn: Arc<Mutex<Connection>>) -> Self {
        Self {
            source: Source::Shared(conn),
            permits: Arc::new(Semaphore::new(1)),
        }
    }

    /// Runs `read` on a connection, off the threads that serve requests: it may wait for the disk.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| ReadError::Io("the store is closed".to_owned()))?;
        let source = self.source.clone();
        let result = tokio::task::spawn_blocking(move || {
            let result = match source {
                Source::Pool(pool) => {
                    let conn = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    // A read that panicked took its connection with it; its permit is back though.
                    let Some(conn) = conn else {
                        return Err(ReadError::Io("a reader was lost".to_owned()));
                    };
                    let result = read(&conn);
                    pool.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(conn);
                    result
                }
                Source::Shared(conn) => read(&conn.lock().unwrap_or_else(PoisonError::into_inner)),
            };
            drop(permit);
            result.map_err(|error| ReadError::Io(error.to_string()))
        });
        match result.await {
            Ok(result) => result,
            Err(error) => Err(ReadError::Io(error.to_string())),
        }
    }
}

pub(crate) fn get(conn: &Connection, key: &Key) -> rusqlite::Result<Option<Object>> {
    conn.prepare_cached(
        "SELECT version, created, body FROM resource WHERE kind = $1 AND scope = $2 AND name = $3",
    )?
    .query_row((key.kind.as_str(), &key.scope, &key.name), |row| {
        Ok(Object {
            key: key.clone(),
            version: Version::from_sql(row.get(0)?),
            created: Version::from_sql(row.get(1)?),
            body: bytes(row, 2)?,
        })
    })
    .optional()
}

pub(crate) fn list(conn: &Connection, query: &ListQuery) -> rusqlite::Result<Page> {
    // One transaction, so that the objects and the version are of one moment.
    let txn = conn.unchecked_transaction()?;
    let version = schema::meta(&txn, "version")?;
    let limit = query.limit.min(MAX_PAGE);
    let mut page = Page {
        objects: Vec::new(),
        version,
        more: false,
    };

    // Everything becomes one range of (scope, name): from a bound, exclusive or not, to a bound of
    // scope, exclusive or none.
    let (from, to) = match &query.scope {
        Scope::All => (String::new(), None),
        Scope::Prefix(prefix) => (prefix.clone(), after_prefix(prefix)),
        // The scope that comes next is this one and a NUL, which no key may contain.
        Scope::Exact(scope) => (scope.clone(), Some(format!("{scope}\0"))),
    };
    // No name is empty, so "after the empty name" takes in the first one.
    let mut start = (from, String::new());
    if let Some(after) = &query.after {
        start = start.max(after.clone());
    }
    let mut select = txn.prepare_cached(
        "SELECT scope, name, version, created, body FROM resource
         WHERE kind = $1 AND (scope, name) > ($2, $3) AND ($4 IS NULL OR scope < $4)
         ORDER BY scope, name LIMIT $5",
    )?;
    let most = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut rows = select.query(params![query.kind.as_str(), start.0, start.1, to, most])?;
    let mut bytes_so_far = 0;
    while let Some(row) = rows.next()? {
        if page.objects.len() == limit || bytes_so_far > MAX_PAGE_BYTES {
            page.more = true;
            break;
        }
        let body = bytes(row, 4)?;
        bytes_so_far += body.len();
        page.objects.push(Object {
            key: Key {
                kind: query.kind.clone(),
                scope: row.get(0)?,
                name: row.get(1)?,
            },
            version: Version::from_sql(row.get(2)?),
            created: Version::from_sql(row.get(3)?),
            body,
        });
    }
    Ok(page)
}

pub(crate) fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(column)?.as_blob()?))
}

/// The first text after all those that start with `prefix`; `None` where there is none.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // The order of bytes in UTF-8 is the order of characters. Surrogates are none.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            _ => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_after_a_prefix() {
        assert_eq!(after_prefix("p/"), Some("p0".to_owned()));
        assert_eq!(after_prefix(""), None);
        assert_eq!(after_prefix("a\u{10ffff}"), Some("b".to_owned()));
        assert_eq!(after_prefix("\u{d7ff}"), Some("\u{e000}".to_owned()));
        assert_eq!(after_prefix("\u{10ffff}"), None);
    }
}
