//! The tables, and opening the database they are in.
//!
//! The SQL of this crate is what SQLite and PostgreSQL have in common: `$1, $2` in order, `BIGINT`,
//! `TEXT`, `BYTEA` (SQLite gives an unknown type no rules, so bytes stay bytes), `ON CONFLICT DO
//! UPDATE`, `RETURNING`. On PostgreSQL the text columns need `COLLATE "C"`, which is how SQLite
//! orders anyway. Taking the write lock, waking watchers and the pragmas below are the rest of what
//! differs.

use std::{fs::OpenOptions, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use rusqlite::{Connection, Error, ErrorCode, OpenFlags, OptionalExtension as _};

use crate::{OpenError, Version};

/// Raised whenever an older program could not read, or could harm, what this one writes.
pub(crate) const SCHEMA: i64 = 1;

/// `resource` is the present, `change` the kept past, `meta` three numbers: `schema`, `version` (of
/// the last write) and `compacted` (changes up to here are gone).
const TABLES: &str = "
CREATE TABLE meta (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
CREATE TABLE resource (
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (kind, scope, name)
);
CREATE TABLE change (
    version BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    kind TEXT NOT NULL,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    object_version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (version, seq)
);
";

pub(crate) fn open_file(path: &Path) -> Result<Connection, OpenError> {
    // Bodies may hold what only the owner may read; SQLite gives its side files the same mode.
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| OpenError::Io {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .and_then(|mut conn| {
        let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        // FULL syncs the log at every commit: what was acknowledged survives loss of power.
        conn.execute_batch(
            "PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 4000;
             PRAGMA journal_size_limit = 67108864;",
        )?;
        Ok((prepare(&mut conn, path)?, mode, conn))
    });
    match conn {
        Ok((prepared, mode, conn)) => {
            prepared?;
            if mode != "wal" {
                return Err(OpenError::Io {
                    path: path.to_owned(),
                    reason: format!(
                        "its file system cannot do write-ahead logging (mode {mode}): use a local disk"
                    ),
                });
            }
            Ok(conn)
        }
        Err(error) => Err(open_error(path, &error)),
    }
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let open = || {
        let conn = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.busy_timeout(Duration::from_secs(5))?;
        Ok(conn)
    };
    open().map_err(|error| open_error(path, &error))
}

pub(crate) fn open_memory() -> Result<Connection, OpenError> {
    let path = Path::new(":memory:");
    let mut conn = Connection::open_in_memory().map_err(|error| open_error(path, &error))?;
    prepare(&mut conn, path).map_err(|error| open_error(path, &error))??;
    Ok(conn)
}

/// Makes the tables in an empty database; checks that a filled one is ours and not newer than us.
fn prepare(conn: &mut Connection, path: &Path) -> rusqlite::Result<Result<(), OpenError>> {
    let txn = conn.transaction()?;
    let tables: i64 = txn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        txn.execute_batch(TABLES)?;
        for (name, value) in [("schema", SCHEMA), ("version", 0), ("compacted", 0)] {
            txn.execute(
                "INSERT INTO meta (name, value) VALUES ($1, $2)",
                (name, value),
            )?;
        }
        txn.commit()?;
        return Ok(Ok(()));
    }
    let ours: Option<i64> = txn
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    let found = match ours {
        Some(_) => txn
            .query_row("SELECT value FROM meta WHERE name = 'schema'", [], |row| {
                row.get(0)
            })
            .optional(),
        None => Ok(None),
    };
    let found = match found {
        Ok(found) => found,
        // Another program's table of that name has other columns.
        Err(Error::SqlInputError { .. } | Error::InvalidColumnType(..)) => None,
        Err(error) => return Err(error),
    };
    Ok(match found {
        Some(SCHEMA) => Ok(()),
        Some(found) if found > SCHEMA => Err(OpenError::Newer {
            path: path.to_owned(),
            found,
            known: SCHEMA,
        }),
        _ => Err(OpenError::Foreign {
            path: path.to_owned(),
        }),
    })
}

pub(crate) fn open_error(path: &Path, error: &Error) -> OpenError {
    let path = path.to_owned();
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            OpenError::Corrupt { path, reason }
        }
        _ => OpenError::Io { path, reason },
    }
}

/// One of the three numbers.
pub(crate) fn meta(conn: &Connection, name: &str) -> rusqlite::Result<Version> {
    conn.prepare_cached("SELECT value FROM meta WHERE name = $1")?
        .query_row([name], |row| row.get(0))
        .map(Version::from_sql)
}

pub(crate) fn set_meta(conn: &Connection, name: &str, value: Version) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE meta SET value = $1 WHERE name = $2")?
        .execute((value.to_sql(), name))
        .map(drop)
}
