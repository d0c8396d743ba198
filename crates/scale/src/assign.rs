//! Which instance gets the next request.
//!
//! Instances are tried in the order they became ready, so that load gathers on the first ones and the
//! others can go idle; but each only up to its *share*, the load at which the autoscaler means it to
//! run, as long as another has not reached its own. When all have, they are filled to twice the share,
//! and so on, so that none is full while others are not half as busy.

use std::ops::Range;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// The index of the instance.
    pub index: usize,
    /// Where the next search may begin: below this index nobody had room within his share.
    pub first_free: usize,
}

/// Finds a slot among `instances` that have `slots` each, beginning at `first_free`.
/// `take(instance, limit)` takes a slot of an instance that has fewer than `limit` requests, or says that
/// it cannot. `None`: every slot is taken.
pub fn assign<I>(
    instances: &[I],
    first_free: usize,
    share: u32,
    slots: u32,
    mut take: impl FnMut(&I, u32) -> bool,
) -> Option<Assigned> {
    let hint = first_free.min(instances.len());
    let mut search = |range: Range<usize>, limit: u32| {
        let begin = range.start;
        let mut found = instances.get(range)?.iter();
        found
            .position(|instance| take(instance, limit))
            .map(|at| begin + at)
    };
    let mut limit = share.clamp(1, slots.max(1));
    if let Some(index) = search(hint..instances.len(), limit).or_else(|| search(0..hint, limit)) {
        return Some(Assigned {
            index,
            first_free: index,
        });
    }
    while limit < slots {
        limit = limit.saturating_mul(2).min(slots);
        if let Some(index) = search(0..instances.len(), limit) {
            return Some(Assigned {
                index,
                first_free: hint,
            });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn place(loads: &[Cell<u32>], hint: usize, share: u32, slots: u32) -> Option<Assigned> {
        assign(loads, hint, share, slots, |load, limit| {
            let room = load.get() < limit;
            if room {
                load.set(load.get() + 1);
            }
            room
        })
    }

    fn order(share: u32, slots: u32) -> Vec<usize> {
        let loads = [Cell::new(0), Cell::new(0)];
        let mut hint = 0;
        let mut order = Vec::new();
        while let Some(found) = place(&loads, hint, share, slots) {
            hint = found.first_free;
            order.push(found.index);
        }
        order
    }

    #[test]
    fn shares_are_filled_first_in_order_then_the_rest_evenly() {
        assert_eq!(order(3, 4), [0, 0, 0, 1, 1, 1, 0, 1]);
        assert_eq!(order(1, 4), [0, 1, 0, 1, 0, 0, 1, 1]);
        assert_eq!(order(9, 2), [0, 0, 1, 1]);
    }

    #[test]
    fn a_hint_that_is_out_of_date_does_no_harm() {
        let loads = [Cell::new(0), Cell::new(4)];
        assert_eq!(place(&loads, 9, 4, 4).map(|a| a.index), Some(0));
        assert_eq!(place(&[], 9, 4, 4), None);
        assert_eq!(place(&[Cell::new(0)], 0, 0, 0).map(|a| a.index), Some(0));
    }
}
