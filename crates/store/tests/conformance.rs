//! What every store must do, run against the one on disk and the one in memory.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use lauf_store::{
    Condition, Event, Key, Kind, ListQuery, Scope, Store, StoreConfig, Txn, Version, WatchError,
    WatchQuery, WriteError,
};

const SERVICE: Kind = Kind::new("Service");
const REVISION: Kind = Kind::new("Revision");

fn service(scope: &str, name: &str) -> Key {
    Key::new(SERVICE, scope, name)
}

/// Gives each test a store on disk and a store in memory.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod on_disk {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let dir = tempfile::tempdir().unwrap();
                super::$test(&|config| {
                    lauf_store::Store::open_with(dir.path().join("state.db"), &config).unwrap()
                }).await;
            }
        )*}
        mod in_memory {$(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(&|config| lauf_store::Store::in_memory_with(&config).unwrap()).await;
            }
        )*}
    };
}

conformance! {
    an_object_comes_back_as_it_was_put,
    conditions_decide,
    a_transaction_is_whole_or_not_at_all,
    lists_are_ordered_and_paged,
    scopes_select,
    one_writer_wins_each_version,
    a_watch_sees_all_in_order,
    a_watch_starts_in_the_past_and_reads_from_disk,
    a_watch_from_too_far_back_is_told,
    a_watch_from_the_future_is_told,
    list_then_watch_misses_nothing,
    invalid_transactions_are_refused,
    a_full_queue_says_so,
    closing_finishes_what_waits,
}

type Open<'a> = &'a (dyn Fn(StoreConfig) -> Store + Sync);

async fn an_object_comes_back_as_it_was_put(open: Open<'_>) {
    let store = open(StoreConfig::default());
    let key = service("p/europe-west1", "hello");
    assert_eq!(store.get(&key).await.unwrap(), None);
    assert_eq!(store.version(), Version::ZERO);

    let first = store.write(Txn::create(key.clone(), "one")).await.unwrap();
    let second = store
        .write(Txn::new().put(key.clone(), &b"\0\xff"[..]))
        .await
        .unwrap();
    assert!(second > first);
    let object = store.get(&key).await.unwrap().unwrap();
    assert_eq!((object.created, object.version), (first, second));
    assert_eq!(&object.body[..], b"\0\xff");

    store.write(Txn::new().delete(key.clone())).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap(), None);
    let again = store
        .write(Txn::create(key.clone(), Bytes::new()))
        .await
        .unwrap();
    let object = store.get(&key).await.unwrap().unwrap();
    assert_eq!(
        (object.created, object.version, object.body),
        (again, again, Bytes::new())
    );
    assert_eq!(store.version(), again);
}

async fn conditions_decide(open: Open<'_>) {
    let store = open(StoreConfig::default());
    let key = service("p/r", "a");
    let at = |version| Condition::Version(key.clone(), version);
    let conflict = |expected, actual| {
        Err(WriteError::Conflict {
            key: key.clone(),
            expected,
            actual,
        })
    };
    let check = |condition| store.write(Txn::new().require(condition).put(key.clone(), "x"));

    assert_eq!(
        check(Condition::Exists(key.clone())).await,
        conflict(Some(Version::ZERO), None)
    );
    assert_eq!(
        check(at(Version::new(7))).await,
        conflict(Some(Version::new(7)), None)
    );
    let first = check(Condition::Absent(key.clone())).await.unwrap();
    assert_eq!(
        check(Condition::Absent(key.clone())).await,
        conflict(None, Some(first))
    );
    let second = check(at(first)).await.unwrap();
    assert_eq!(check(at(first)).await, conflict(Some(first), Some(second)));
    assert!(check(Condition::Exists(key.clone())).await.is_ok());
    let lost = check(at(first)).await.unwrap_err().to_string();
    assert_eq!(lost, "Service p/r/a is at version 3, expected at version 1");

    // Nothing to change: no version is taken, but the conditions count.
    let before = store.version();
    let nothing = Txn::new().require(Condition::Exists(key.clone()));
    assert_eq!(store.write(nothing).await, Ok(before));
    let none_such = Txn::new().delete(service("p/r", "none"));
    assert_eq!(store.write(none_such).await, Ok(before));
    assert_eq!(store.version(), before);
}

async fn a_transaction_is_whole_or_not_at_all(open: Open<'_>) {
    let store = open(StoreConfig::default());
    let (a, b, c) = (
        service("p/r", "a"),
        service("p/r", "b"),
        service("p/r", "c"),
    );
    let version = store
        .write(Txn::new().put(a.clone(), "1").put(b.clone(), "1"))
        .await
        .unwrap();
    let refused = Txn::new()
        .require(Condition::Absent(c.clone()))
        .require(Condition::Absent(b.clone()))
        .put(a.clone(), "2")
        .put(c.clone(), "2");
    assert!(
        matches!(store.write(refused).await, Err(WriteError::Conflict { key, .. }) if key == b)
    );
    let objects = store.list(&ListQuery::all(SERVICE)).await.unwrap().objects;
    assert_eq!(objects.len(), 2);
    assert!(
        objects
            .iter()
            .all(|o| o.version == version && o.body == "1")
    );

    let mut watch = store.watch(WatchQuery::default(), Version::ZERO);
    let both = [
        watch.next().await.unwrap().unwrap(),
        watch.next().await.unwrap().unwrap(),
    ];
    assert_eq!(both.each_ref().map(|change| &change.key), [&a, &b]);
    assert!(both.iter().all(|change| change.version == version));
    assert_eq!(watch.version(), version);
}

async fn lists_are_ordered_and_paged(open: Open<'_>) {
    let store = open(StoreConfig::default());
    let mut expected = BTreeSet::new();
    for scope in ["p/b", "p/a", "q/a", "p", "ä"] {
        for name in ["z", "a", "a-1", "a1", "ö"] {
            store
                .write(Txn::create(service(scope, name), name))
                .await
                .unwrap();
            store
                .write(Txn::create(Key::new(REVISION, scope, name), name))
                .await
                .unwrap();
            expected.insert((scope.to_owned(), name.to_owned()));
        }
    }
    for limit in [1, 3, 7, 24, 25, 26] {
        let mut query = ListQuery {
            limit,
            ..ListQuery::all(SERVICE)
        };
        let mut seen = Vec::new();
        loop {
            let page = store.list(&query).await.unwrap();
            assert_eq!(page.version, store.version());
            assert!(page.objects.len() <= limit);
            seen.extend(page.objects.into_iter().map(|o| (o.key.scope, o.key.name)));
            query.after = seen.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, expected.iter().cloned().collect::<Vec<_>>());
    }
    let none = store
        .list(&ListQuery {
            limit: 0,
            ..ListQuery::all(SERVICE)
        })
        .await
        .unwrap();
    assert!(none.objects.is_empty() && none.more);
    let empty = store.list(&ListQuery::all("Job")).await.unwrap();
    assert!(empty.objects.is_empty() && !empty.more);
}

async fn scopes_select(open: Open<'_>) {
    let store = open(StoreConfig::default());
    for scope in ["p/a", "p/b", "p", "p0", "pp/a", ""] {
        store
            .write(Txn::create(service(scope, "s"), ""))
            .await
            .unwrap();
    }
    let scopes = async |scope: Scope, after: Option<(String, String)>| {
        let query = ListQuery {
            scope,
            after,
            ..ListQuery::all(SERVICE)
        };
        let page = store.list(&query).await.unwrap();
        page.objects
            .into_iter()
            .map(|object| object.key.scope)
            .collect::<Vec<_>>()
    };
    let prefix = |text: &str| Scope::Prefix(text.to_owned());
    let exact = |text: &str| Scope::Exact(text.to_owned());
    assert_eq!(scopes(prefix("p/"), None).await, ["p/a", "p/b"]);
    assert_eq!(
        scopes(prefix("p"), None).await,
        ["p", "p/a", "p/b", "p0", "pp/a"]
    );
    assert_eq!(scopes(prefix(""), None).await.len(), 6);
    assert_eq!(scopes(exact("p"), None).await, ["p"]);
    assert_eq!(scopes(exact(""), None).await, [""]);
    assert_eq!(scopes(exact("x"), None).await, [""; 0]);
    let after = Some(("p/a".to_owned(), "s".to_owned()));
    assert_eq!(scopes(prefix("p/"), after.clone()).await, ["p/b"]);
    assert_eq!(scopes(exact("p"), after).await, [""; 0]);
}

async fn one_writer_wins_each_version(open: Open<'_>) {
    let store = open(StoreConfig::default());
    let key = service("p/r", "counter");
    store.write(Txn::create(key.clone(), "0")).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (store, key) = (store.clone(), key.clone());
        tasks.spawn(async move {
            let mut wins = Vec::new();
            while wins.len() < 10 {
                let object = store.get(&key).await.unwrap().unwrap();
                let count: u64 = std::str::from_utf8(&object.body).unwrap().parse().unwrap();
                let next = Txn::replace(key.clone(), object.version, (count + 1).to_string());
                match store.write(next).await {
                    Ok(_) => wins.push(object.version),
                    Err(WriteError::Conflict { actual, .. }) => {
                        assert!(actual > Some(object.version));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            wins
        });
    }
    let mut won = BTreeSet::new();
    while let Some(wins) = tasks.join_next().await {
        for version in wins.unwrap() {
            assert!(won.insert(version), "two writers won version {version}");
        }
    }
    assert_eq!(store.get(&key).await.unwrap().unwrap().body, "160");
}

async fn a_watch_sees_all_in_order(open: Open<'_>) {
    let store = open(StoreConfig::default());
    let mut all = store.watch(WatchQuery::default(), store.version());
    let mut some = store.watch(
        WatchQuery {
            kind: Some(SERVICE),
            scope_prefix: "p/".to_owned(),
        },
        store.version(),
    );
    let key = service("p/r", "a");
    let put = store.write(Txn::create(key.clone(), "1")).await.unwrap();
    store
        .write(Txn::create(service("q/r", "a"), "other"))
        .await
        .unwrap();
    store
        .write(Txn::create(Key::new(REVISION, "p/r", "a"), "other"))
        .await
        .unwrap();
    let gone = store.write(Txn::new().delete(key.clone())).await.unwrap();

    let change = some.next().await.unwrap().unwrap();
    assert_eq!((change.version, &change.key), (put, &key));
    let Event::Put(object) = &change.event else {
        panic!("{change:?}")
    };
    assert_eq!(
        (object.created, object.version, &object.body[..]),
        (put, put, &b"1"[..])
    );
    let change = some.next().await.unwrap().unwrap();
    assert_eq!((change.version, &change.key), (gone, &key));
    assert!(matches!(&change.event, Event::Deleted(last) if last.version == put));
    assert_eq!(some.version(), gone);

    let mut versions = Vec::new();
    for _ in 0..4 {
        versions.push(all.next().await.unwrap().unwrap().version.get());
    }
    assert_eq!(versions, [1, 2, 3, 4]);
    store.close().await;
    assert!(all.next().await.is_none());
    assert!(some.next().await.is_none());
}

async fn a_watch_starts_in_the_past_and_reads_from_disk(open: Open<'_>) {
    // Memory holds four changes only: a reader that is behind reads the tables.
    let store = open(StoreConfig {
        recent_changes: 4,
        ..StoreConfig::default()
    });
    for n in 0..1_000 {
        let key = service(if n % 2 == 0 { "even" } else { "odd" }, &format!("s{n}"));
        store.write(Txn::create(key, n.to_string())).await.unwrap();
    }
    let query = WatchQuery {
        kind: Some(SERVICE),
        scope_prefix: "odd".to_owned(),
    };
    let mut watch = store.watch(query, Version::new(100));
    for n in (101..1_000).step_by(2) {
        let change = watch.next().await.unwrap().unwrap();
        assert_eq!(change.key.name, format!("s{n}"));
        assert_eq!(change.version.get(), n + 1);
        let Event::Put(object) = &change.event else {
            panic!("{change:?}")
        };
        assert_eq!(object.body, n.to_string());
    }
    store
        .write(Txn::create(service("odd", "live"), ""))
        .await
        .unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().key.name, "live");
}

async fn a_watch_from_too_far_back_is_told(open: Open<'_>) {
    let store = open(StoreConfig {
        history_changes: 20,
        recent_changes: 5,
        ..StoreConfig::default()
    });
    let key = service("p/r", "a");
    let mut idle = store.watch(WatchQuery::default(), Version::ZERO);
    for n in 0..100 {
        store
            .write(Txn::new().put(key.clone(), n.to_string()))
            .await
            .unwrap();
    }
    let Err(WatchError::Compacted { from, oldest }) = idle.next().await.unwrap() else {
        panic!()
    };
    assert_eq!(from, Version::ZERO);
    assert!(idle.next().await.is_none());
    assert!((75..=80).contains(&oldest.get()), "{oldest}");
    let mut watch = store.watch(WatchQuery::default(), oldest);
    assert_eq!(
        watch.next().await.unwrap().unwrap().version.get(),
        oldest.get() + 1
    );
    // The history bound leaves the present alone.
    assert_eq!(store.get(&key).await.unwrap().unwrap().body, "99");
}

async fn a_watch_from_the_future_is_told(open: Open<'_>) {
    let store = open(StoreConfig::default());
    store
        .write(Txn::create(service("p/r", "a"), ""))
        .await
        .unwrap();
    let mut watch = store.watch(WatchQuery::default(), Version::new(9));
    assert_eq!(
        watch.next().await,
        Some(Err(WatchError::Ahead {
            from: Version::new(9),
            current: Version::new(1)
        }))
    );
}

async fn list_then_watch_misses_nothing(open: Open<'_>) {
    let store = open(StoreConfig {
        recent_changes: 16,
        ..StoreConfig::default()
    });
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..200 {
                    let name = format!("s{}", (n * 7 + writer) % 50);
                    let key = service("p/r", &name);
                    let txn = if n % 3 == 0 {
                        Txn::new().delete(key)
                    } else {
                        Txn::new().put(key, format!("{writer}/{n}"))
                    };
                    store.write(txn).await.unwrap();
                }
            })
        })
        .collect();
    // Start in the middle, follow until the end, and hold the same as a list does.
    while store.version() < Version::new(100) {
        tokio::task::yield_now().await;
    }
    let page = store.list(&ListQuery::all(SERVICE)).await.unwrap();
    let mut mirror: std::collections::BTreeMap<_, _> = page
        .objects
        .into_iter()
        .map(|o| (o.key.clone(), o))
        .collect();
    let mut watch = store.watch(WatchQuery::kind(SERVICE), page.version);
    for writer in writers {
        writer.await.unwrap();
    }
    let last = store.version();
    while watch.version() < last {
        let change = watch.next().await.unwrap().unwrap();
        match &change.event {
            Event::Put(object) => {
                mirror.insert(change.key.clone(), object.clone());
            }
            Event::Deleted(object) => {
                assert_eq!(mirror.remove(&change.key).as_ref(), Some(object));
            }
        }
    }
    let page = store.list(&ListQuery::all(SERVICE)).await.unwrap();
    assert_eq!(mirror.into_values().collect::<Vec<_>>(), page.objects);
}

async fn invalid_transactions_are_refused(open: Open<'_>) {
    let store = open(StoreConfig::default());
    let key = service("p/r", "a");
    let long = "x".repeat(lauf_store::MAX_KEY_PART + 1);
    let many = (0..=lauf_store::MAX_OPS).fold(Txn::new(), |txn, n| {
        txn.put(service("p", &n.to_string()), "")
    });
    for (txn, says) in [
        (
            Txn::create(service("p/r", ""), ""),
            "the name of key Service p/r/ is empty",
        ),
        (
            Txn::create(service(&long, "a"), ""),
            "the scope of a key has 1025 bytes",
        ),
        (Txn::create(service("p\0", "a"), ""), "contains a NUL"),
        (
            Txn::new().delete(key.clone()).put(key.clone(), ""),
            "more than once",
        ),
        (
            Txn::create(key.clone(), vec![0; lauf_store::MAX_BODY + 1]),
            "at most 1500000",
        ),
        (many, "split it"),
    ] {
        let error = store.write(txn).await.unwrap_err();
        assert!(matches!(error, WriteError::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(store.version(), Version::ZERO);
}

async fn a_full_queue_says_so(open: Open<'_>) {
    let store = open(StoreConfig {
        queue_bytes: 100_000,
        ..StoreConfig::default()
    });
    let body = Bytes::from(vec![b'x'; 60_000]);
    let store = Arc::new(store);
    let txn = |n: u32| Txn::new().put(service("p/r", &n.to_string()), body.clone());
    // Both are asked before the first can be done: only one fits.
    let (first, second) = tokio::join!(biased; store.write(txn(1)), store.write(txn(2)));
    assert!(first.is_ok());
    assert!(second.is_ok() || second == Err(WriteError::QueueFull));
    // It is free again afterwards.
    while store.write(txn(3)).await == Err(WriteError::QueueFull) {
        tokio::task::yield_now().await;
    }
    let too_much = Txn::new().put(service("p/r", "a"), vec![0; 110_000]);
    assert!(matches!(
        store.write(too_much).await,
        Err(WriteError::Invalid(_))
    ));
}

async fn closing_finishes_what_waits(open: Open<'_>) {
    let store = open(StoreConfig::default());
    let writes: Vec<_> = (0..100)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .write(Txn::create(service("p/r", &n.to_string()), ""))
                    .await
            })
        })
        .collect();
    tokio::join!(store.close(), store.close());
    let mut written = 0;
    for write in writes {
        match write.await.unwrap() {
            Ok(_) => written += 1,
            Err(error) => assert_eq!(error, WriteError::Closed),
        }
    }
    assert_eq!(
        store.write(Txn::create(service("p/r", "late"), "")).await,
        Err(WriteError::Closed)
    );
    // What is stored stays readable through the handle.
    let page = store.list(&ListQuery::all(SERVICE)).await.unwrap();
    assert_eq!(page.objects.len(), written);
}
