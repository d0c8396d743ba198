//! What survives, and what is refused at the door.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use lauf_store::{Key, ListQuery, OpenError, Store, StoreConfig, Txn, Version, WatchQuery};

const DIR: &str = "LAUF_STORE_CRASH_TEST_DIR";

/// Not a test of its own: the process that is killed below. It writes as fast as it can, from eight
/// tasks, and says what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as the child of kill_9_loses_nothing_acknowledged"]
async fn child() {
    let Some(path) = std::env::var_os(DIR) else {
        return;
    };
    let store = Store::open(path).unwrap();
    let start = store.version().get();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let name = format!("{start}-{task}-{n}");
                    // Two keys a transaction: both or none must be there.
                    let txn = Txn::create(Key::new("A", "p", &name), vec![b'x'; 3_000])
                        .put(Key::new("B", "p", &name), name.clone());
                    store.write(txn).await.unwrap();
                    println!("acknowledged {name}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn kill_9_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(DIR, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 100 + 61 * round {
            let line = lines.next().unwrap().unwrap();
            if let Some(name) = line.strip_prefix("acknowledged ") {
                acknowledged.push(name.to_owned());
                seen += 1;
            }
        }
        // SIGKILL. What it still said before it died counts as well.
        child.kill().unwrap();
        acknowledged.extend(
            lines.filter_map(|line| line.ok()?.strip_prefix("acknowledged ").map(str::to_owned)),
        );
        child.wait().unwrap();

        let store = Store::open(&path).unwrap();
        for name in &acknowledged {
            for kind in ["A", "B"] {
                let found = store.get(&Key::new(kind, "p", name)).await.unwrap();
                assert!(found.is_some(), "round {round}: {kind} {name} is lost");
            }
        }
        let (a, b) = (count(&store, "A").await, count(&store, "B").await);
        assert_eq!(a, b, "a transaction was torn");
        assert!(a >= acknowledged.len());
        store.close().await;
        assert_eq!(check(&path), "ok");
    }
}

async fn count(store: &Store, kind: &'static str) -> usize {
    let mut query = ListQuery::all(kind);
    let mut count = 0;
    loop {
        let page = store.list(&query).await.unwrap();
        count += page.objects.len();
        query.after = page
            .objects
            .last()
            .map(|o| (o.key.scope.clone(), o.key.name.clone()));
        if !page.more {
            return count;
        }
    }
}

fn check(path: &std::path::Path) -> String {
    let conn = rusqlite::Connection::open(path).unwrap();
    conn.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn reopening_continues_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let key = Key::new("Service", "p/r", "a");
    let store = Store::open(&path).unwrap();
    let first = store.write(Txn::create(key.clone(), "1")).await.unwrap();
    store.write(Txn::new().put(key.clone(), "2")).await.unwrap();
    store.close().await;

    let store = Store::open(&path).unwrap();
    assert_eq!(store.version(), Version::new(2));
    assert_eq!(store.get(&key).await.unwrap().unwrap().body, "2");
    // A controller that was away catches up.
    let mut watch = store.watch(WatchQuery::default(), first);
    assert_eq!(
        watch.next().await.unwrap().unwrap().version,
        Version::new(2)
    );
    let third = store.write(Txn::new().put(key, "3")).await.unwrap();
    assert_eq!(third, Version::new(3));
    assert_eq!(watch.next().await.unwrap().unwrap().version, third);
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Store::open(&path).unwrap();
    let mut watch = store.watch(WatchQuery::default(), Version::ZERO);
    drop(store);
    assert!(watch.next().await.is_none());
    Store::open(&path).unwrap();
}

#[tokio::test]
async fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let _store = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(OpenError::InUse { .. })));
}

#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();

    let newer = dir.path().join("newer.db");
    Store::open(&newer).unwrap().close().await;
    let conn = rusqlite::Connection::open(&newer).unwrap();
    conn.execute("UPDATE meta SET value = 99 WHERE name = 'schema'", [])
        .unwrap();
    drop(conn);
    let error = Store::open(&newer).err().unwrap();
    assert!(
        matches!(
            error,
            OpenError::Newer {
                found: 99,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("use the newer program"));

    let foreign = dir.path().join("foreign.db");
    let conn = rusqlite::Connection::open(&foreign).unwrap();
    conn.execute("CREATE TABLE meta (something TEXT)", [])
        .unwrap();
    drop(conn);
    assert!(matches!(
        Store::open(&foreign),
        Err(OpenError::Foreign { .. })
    ));

    let text = dir.path().join("text.db");
    std::fs::write(
        &text,
        "this is no database, and it is long enough to be read as one".repeat(40),
    )
    .unwrap();
    let error = Store::open(&text).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("restore it from a backup"));

    let nowhere = dir.path().join("no/such/folder/state.db");
    assert!(matches!(Store::open(nowhere), Err(OpenError::Io { .. })));
}

#[tokio::test]
async fn a_damaged_file_is_an_error_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Store::open(&path).unwrap();
    for n in 0..200 {
        let key = Key::new("Service", "p", n.to_string());
        store
            .write(Txn::create(key, vec![b'x'; 2_000]))
            .await
            .unwrap();
    }
    store.close().await;
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in bytes.iter_mut().skip(4096) {
        *byte = 0x5a;
    }
    std::fs::write(&path, bytes).unwrap();
    let error = Store::open(&path).err().unwrap();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn only_the_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let store = Store::open_with(&path, &StoreConfig::default()).unwrap();
    store
        .write(Txn::create(Key::new("Secret", "p", "a"), "s"))
        .await
        .unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.file_name());
    }
}
