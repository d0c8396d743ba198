//! A set of positions, kept as ranges.

use std::collections::BTreeMap;

use crate::log::Position;

/// Positions as ranges that neither touch nor overlap: where each begins, and before what it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<Position, Position>);

impl Ranges {
    /// Adds the positions from `begin` to before `end`.
    pub(super) fn insert(&mut self, begin: Position, end: Position) {
        if begin >= end {
            return;
        }
        let (mut begin, mut end) = (begin, end);
        if let Some((&before, &until)) = self.0.range(..=begin).next_back()
            && until >= begin
        {
            begin = before;
            end = end.max(until);
        }
        while let Some((&inside, &until)) = self.0.range(begin..=end).next() {
            end = end.max(until);
            self.0.remove(&inside);
        }
        self.0.insert(begin, end);
    }

    pub(super) fn contains(&self, position: Position) -> bool {
        self.end_of(position).is_some()
    }

    /// Before what the range ends that holds `position`, if one does.
    pub(super) fn end_of(&self, position: Position) -> Option<Position> {
        let (_, &end) = self.0.range(..=position).next_back()?;
        (end > position).then_some(end)
    }

    /// Forgets what lies before `position`, but for the range that reaches over it.
    pub(super) fn forget_before(&mut self, position: Position) {
        while let Some(first) = self.0.first_entry() {
            if *first.get() > position {
                return;
            }
            first.remove();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Position, Position)> {
        self.0.iter().map(|(begin, end)| (*begin, *end))
    }

    /// How many ranges there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(pieces in prop::collection::vec((0..60_u64, 0..9_u64), 0..30), cut in 0..70_u64) {
            let mut ranges = Ranges::default();
            let mut set = BTreeSet::new();
            for (begin, length) in pieces {
                ranges.insert(Position(begin), Position(begin + length));
                set.extend(begin..begin + length);
            }
            ranges.forget_before(Position(cut));
            for n in cut..80 {
                prop_assert_eq!(ranges.contains(Position(n)), set.contains(&n));
                if let Some(end) = ranges.end_of(Position(n)) {
                    prop_assert!(!ranges.contains(end));
                }
            }
            let all: Vec<_> = ranges.iter().collect();
            prop_assert!(all.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
