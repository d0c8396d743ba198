//! A change that happens wholly or not at all.

use bytes::Bytes;

use crate::{Key, Version};

/// The largest body of one object, in bytes. etcd draws the line for a whole request at 1.5 MiB.
pub const MAX_BODY: usize = 1_500_000;

/// The most operations, and the most conditions, in one transaction.
pub const MAX_OPS: usize = 1_000;

/// What must hold for a transaction to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key was last written at exactly this version.
    Version(Key, Version),
    /// There is no such key.
    Absent(Key),
    /// There is such a key, at whatever version.
    Exists(Key),
}

impl Condition {
    pub(crate) fn key(&self) -> &Key {
        let (Self::Version(key, _) | Self::Absent(key) | Self::Exists(key)) = self;
        key
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Creates the key or replaces its body.
    Put(Key, Bytes),
    /// Removes the key. Nothing happens where there is none.
    Delete(Key),
}

impl Op {
    pub(crate) fn key(&self) -> &Key {
        let (Self::Put(key, _) | Self::Delete(key)) = self;
        key
    }
}

/// Conditions, and the operations that happen if all of them hold. A key may stand in at most one
/// operation; the order of operations is the order in which a watcher sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// All are applied.
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction, to be filled with the methods below.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates `key`; a conflict if it exists.
    #[must_use]
    pub fn create(key: Key, body: impl Into<Bytes>) -> Self {
        Self::new()
            .require(Condition::Absent(key.clone()))
            .put(key, body)
    }

    /// Replaces the body of `key`; a conflict if it is no longer at `version`.
    #[must_use]
    pub fn replace(key: Key, version: Version, body: impl Into<Bytes>) -> Self {
        Self::new()
            .require(Condition::Version(key.clone(), version))
            .put(key, body)
    }

    /// Adds a condition.
    #[must_use]
    pub fn require(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Adds a put.
    #[must_use]
    pub fn put(mut self, key: Key, body: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put(key, body.into()));
        self
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.ops.push(Op::Delete(key));
        self
    }

    /// Why this can never be applied, if so.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.ops.len() > MAX_OPS || self.conditions.len() > MAX_OPS {
            return Some(format!(
                "a transaction has {} operations and {} conditions; at most {MAX_OPS} of each are \
                 allowed: split it",
                self.ops.len(),
                self.conditions.len()
            ));
        }
        let keys = self
            .conditions
            .iter()
            .map(Condition::key)
            .chain(self.ops.iter().map(Op::key));
        if let Some(problem) = keys.into_iter().find_map(Key::problem) {
            return Some(problem);
        }
        for op in &self.ops {
            if let Op::Put(key, body) = op
                && body.len() > MAX_BODY
            {
                return Some(format!(
                    "the body of {key} has {} bytes; at most {MAX_BODY} are allowed",
                    body.len()
                ));
            }
        }
        let mut keys: Vec<&Key> = self.ops.iter().map(Op::key).collect();
        keys.sort_unstable();
        let twice = keys.windows(2).find(|pair| pair[0] == pair[1])?;
        Some(format!("a transaction changes {} more than once", twice[0]))
    }

    /// What it holds in memory while it waits, in bytes, roughly.
    pub(crate) fn weight(&self) -> usize {
        let key = |key: &Key| key.scope.len() + key.name.len() + 128;
        let conditions: usize = self.conditions.iter().map(|c| key(c.key())).sum();
        let ops: usize = self
            .ops
            .iter()
            .map(|op| {
                key(op.key())
                    + match op {
                        Op::Put(_, body) => body.len(),
                        Op::Delete(_) => 0,
                    }
            })
            .sum();
        128 + conditions + ops
    }
}
