//! Random transactions against a map that does the same.

use std::collections::BTreeMap;

use lauf_store::{
    Condition, Event, Key, ListQuery, Scope, Store, StoreConfig, Txn, Version, WatchQuery,
    WriteError,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Model {
    objects: BTreeMap<Key, (Version, Version, Vec<u8>)>,
    version: u64,
}

impl Model {
    /// What the store should answer, and the (version, key, deleted) it should tell watchers.
    fn write(&mut self, txn: &Txn) -> Result<Vec<(Version, Key, bool)>, Key> {
        let at = |key: &Key| self.objects.get(key).map(|(version, ..)| *version);
        for condition in &txn.conditions {
            let (key, holds) = match condition {
                Condition::Version(key, version) => (key, at(key) == Some(*version)),
                Condition::Absent(key) => (key, at(key).is_none()),
                Condition::Exists(key) => (key, at(key).is_some()),
            };
            if !holds {
                return Err(key.clone());
            }
        }
        let next = Version::new(self.version + 1);
        let mut changes = Vec::new();
        for op in &txn.ops {
            match op {
                lauf_store::Op::Put(key, body) => {
                    let created = self
                        .objects
                        .get(key)
                        .map_or(next, |(_, created, _)| *created);
                    self.objects
                        .insert(key.clone(), (next, created, body.to_vec()));
                    changes.push((next, key.clone(), false));
                }
                lauf_store::Op::Delete(key) => {
                    if self.objects.remove(key).is_some() {
                        changes.push((next, key.clone(), true));
                    }
                }
            }
        }
        if !changes.is_empty() {
            self.version += 1;
        }
        Ok(changes)
    }
}

fn key() -> impl Strategy<Value = Key> {
    let kind = prop_oneof![Just("Service"), Just("Revision")];
    let scope = prop_oneof![
        Just(""),
        Just("p"),
        Just("p/a"),
        Just("p/b"),
        Just("\u{10ffff}")
    ];
    let name = prop_oneof![Just("a"), Just("b"), Just("ab"), Just("\u{e000}")];
    (kind, scope, name).prop_map(|(kind, scope, name)| Key::new(kind, scope, name))
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        (key(), 1..40_u64).prop_map(|(key, at)| Condition::Version(key, Version::new(at))),
        key().prop_map(Condition::Absent),
        key().prop_map(Condition::Exists),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    let op = (
        key(),
        any::<bool>(),
        proptest::collection::vec(any::<u8>(), 0..8),
    );
    (
        proptest::option::weighted(0.4, condition()),
        proptest::collection::btree_map(key(), op, 0..4),
    )
        .prop_map(|(condition, ops)| {
            let txn = ops
                .into_iter()
                .fold(Txn::new(), |txn, (key, (_, delete, body))| {
                    if delete {
                        txn.delete(key)
                    } else {
                        txn.put(key, body)
                    }
                });
            condition.into_iter().fold(txn, Txn::require)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_map_does(
        txns in proptest::collection::vec(txn(), 1..60),
        prefix in prop_oneof![Just(""), Just("p"), Just("p/"), Just("\u{10ffff}")],
        limit in 1..5_usize,
        recent in 0..8_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let config = StoreConfig { recent_changes: recent, ..StoreConfig::default() };
            let store = Store::in_memory_with(&config).unwrap();
            let mut model = Model { objects: BTreeMap::new(), version: 0 };
            let mut changes = Vec::new();
            for txn in txns {
                let expected = model.write(&txn);
                match (store.write(txn).await, expected) {
                    (Ok(version), Ok(made)) => {
                        prop_assert_eq!(version.get(), model.version);
                        changes.extend(made);
                    }
                    (Err(WriteError::Conflict { key, .. }), Err(expected)) => {
                        prop_assert_eq!(key, expected);
                    }
                    (got, expected) => prop_assert!(false, "{:?} is not {:?}", got, expected),
                }
            }

            // Every object, one by one and by pages of a prefix.
            for (key, (version, created, body)) in &model.objects {
                let object = store.get(key).await.unwrap().unwrap();
                prop_assert_eq!(
                    (object.version, object.created, &object.body[..]),
                    (*version, *created, &body[..])
                );
            }
            for kind in ["Service", "Revision"] {
                let mut listed = Vec::new();
                let mut query = ListQuery {
                    scope: Scope::Prefix(prefix.to_owned()), limit, ..ListQuery::all(kind)
                };
                loop {
                    let page = store.list(&query).await.unwrap();
                    listed.extend(page.objects.into_iter().map(|object| object.key));
                    query.after = listed.last().map(|k: &Key| (k.scope.clone(), k.name.clone()));
                    if !page.more { break }
                }
                let expected: Vec<Key> = model.objects.keys()
                    .filter(|key| key.kind.as_str() == kind && key.scope.starts_with(prefix))
                    .cloned().collect();
                prop_assert_eq!(listed, expected);
            }

            // The whole story, from the start.
            let mut watch = store.watch(WatchQuery::default(), Version::ZERO);
            for expected in changes {
                let change = watch.next().await.unwrap().unwrap();
                let deleted = matches!(change.event, Event::Deleted(_));
                prop_assert_eq!((change.version, change.key.clone(), deleted), expected);
            }
            store.close().await;
            prop_assert!(watch.next().await.is_none());
            Ok(())
        })?;
    }
}
