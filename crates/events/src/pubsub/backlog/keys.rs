//! Ordering keys: of each, which messages wait, which are with a consumer, and where those begin that
//! are not remembered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{ConsumerId, KEY_WINDOW};
use crate::log::Position;

#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: HashMap<Arc<str>, Key>,
    /// Keys of which more messages were seen than are remembered.
    overflow: BTreeMap<Arc<str>, Overflow>,
    /// Where the reading again goes on that fills keys that overflowed.
    pass: Option<Position>,
}

#[derive(Debug, Default)]
struct Key {
    waiting: BTreeSet<Position>,
    leased: BTreeSet<Position>,
    /// Who has the leased ones.
    owner: Option<ConsumerId>,
    /// The waiting one that may be taken.
    offered: Option<Position>,
}

#[derive(Clone, Copy, Debug)]
struct Overflow {
    /// All messages of the key from here on, up to the frontier, are not remembered.
    from: Position,
    /// Whether the pass under way has left some of them out.
    missed: bool,
}

/// The first message of a key that waits.
pub(super) struct Head {
    pub(super) position: Position,
    /// How many of the key are with a consumer.
    pub(super) leased: usize,
    pub(super) owner: Option<ConsumerId>,
}

impl Key {
    fn len(&self) -> usize {
        self.waiting.len() + self.leased.len()
    }
}

impl Keys {
    /// Lets a message of a key wait. `None` if there are too many: where they begin is remembered.
    pub(super) fn enter(&mut self, name: &str, position: Position) -> Option<Arc<str>> {
        if let Some(overflow) = self.overflow.get(name)
            && position != overflow.from
        {
            return None;
        }
        let name = match self.keys.get_key_value(name) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(name),
        };
        let key = self.keys.entry(Arc::clone(&name)).or_default();
        if key.len() >= KEY_WINDOW {
            let overflow = Overflow {
                from: position,
                missed: true,
            };
            self.overflow.entry(name).or_insert(overflow).missed = true;
            return None;
        }
        key.waiting.insert(position);
        Some(name)
    }

    pub(super) fn lease(&mut self, name: &str, position: Position, owner: Option<ConsumerId>) {
        if let Some(key) = self.keys.get_mut(name) {
            key.waiting.remove(&position);
            key.leased.insert(position);
            key.owner = owner;
            if key.offered == Some(position) {
                key.offered = None;
            }
        }
    }

    /// A message waits again, and so do those after it that are with a consumer: they are returned.
    pub(super) fn give_back(&mut self, name: &str, position: Position) -> Vec<Position> {
        let Some(key) = self.keys.get_mut(name) else {
            return Vec::new();
        };
        let mut later = key.leased.split_off(&position);
        later.remove(&position);
        key.waiting.insert(position);
        key.waiting.extend(&later);
        if key.leased.is_empty() {
            key.owner = None;
        }
        later.into_iter().collect()
    }

    pub(super) fn finish(&mut self, name: &str, position: Position) {
        if let Some(key) = self.keys.get_mut(name) {
            key.waiting.remove(&position);
            key.leased.remove(&position);
            if key.offered == Some(position) {
                key.offered = None;
            }
            if key.leased.is_empty() {
                key.owner = None;
            }
        }
    }

    /// Takes out which message may be taken.
    pub(super) fn offered(&mut self, name: &str) -> Option<Position> {
        self.keys.get_mut(name)?.offered.take()
    }

    pub(super) fn set_offered(&mut self, name: &str, position: Position) {
        if let Some(key) = self.keys.get_mut(name) {
            key.offered = Some(position);
        }
    }

    /// The first message of a key that is remembered.
    pub(super) fn first(&self, name: &str) -> Option<Position> {
        let key = self.keys.get(name)?;
        let (waiting, leased) = (key.waiting.first(), key.leased.first());
        waiting.into_iter().chain(leased).min().copied()
    }

    pub(super) fn head(&self, name: &str) -> Option<Head> {
        let key = self.keys.get(name)?;
        Some(Head {
            position: *key.waiting.first()?,
            leased: key.leased.len(),
            owner: key.owner,
        })
    }

    pub(super) fn remove_if_empty(&mut self, name: &str) {
        let empty = self.keys.get(name).is_some_and(|key| key.len() == 0);
        if empty {
            self.keys.remove(name);
        }
    }

    // --- Keys with more messages than are remembered.

    /// The first message that is not remembered.
    pub(super) fn overflow_from(&self) -> Option<Position> {
        self.overflow.values().map(|overflow| overflow.from).min()
    }

    /// The keys, and where their messages begin that are not remembered.
    pub(super) fn overflowing(&self) -> impl Iterator<Item = (&str, Position)> {
        self.overflow
            .iter()
            .map(|(name, overflow)| (&**name, overflow.from))
    }

    /// Where to read on, if a key has room again for half of what may wait.
    pub(super) fn refill_from(&mut self) -> Option<Position> {
        let keys = &self.keys;
        let thirsty = self.overflow.iter().filter(|(name, _)| {
            keys.get(*name)
                .is_none_or(|key| key.len() <= KEY_WINDOW / 2)
        });
        let Some(from) = thirsty.map(|(_, overflow)| overflow.from).min() else {
            self.pass = None;
            return None;
        };
        if let Some(pass) = self.pass {
            return Some(pass);
        }
        for overflow in self.overflow.values_mut() {
            overflow.missed = overflow.from < from;
        }
        self.pass = Some(from);
        Some(from)
    }

    /// Whether a message read again is one that was not remembered and is now, if there is `room`.
    pub(super) fn wants_again(&mut self, name: &str, position: Position, room: bool) -> bool {
        let Some(overflow) = self.overflow.get_mut(name) else {
            return false;
        };
        if position < overflow.from || overflow.missed {
            return false;
        }
        let full = !room
            || self
                .keys
                .get(name)
                .is_some_and(|key| key.len() >= KEY_WINDOW);
        overflow.from = position;
        overflow.missed = full;
        !full
    }

    /// The pass has come to `next`.
    pub(super) fn refilled(&mut self, next: Position, frontier: Position) {
        for overflow in self.overflow.values_mut() {
            // Nothing of the key was left out on the way.
            if !overflow.missed {
                overflow.from = overflow.from.max(next);
            }
        }
        if next < frontier {
            self.pass = Some(next);
            return;
        }
        self.pass = None;
        self.overflow.retain(|_, overflow| overflow.missed);
    }
}
