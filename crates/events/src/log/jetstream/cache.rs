//! Blocks that were written or read a moment ago. Who follows a stream reads what has just been
//! written, and need not ask the server for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// A stream's number in this process, and the sequence of the block.
type Key = (u64, u64);

/// Blocks up to so many bytes; the oldest go first.
pub(super) struct Cache {
    budget: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    blocks: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Cache {
    pub(super) fn new(budget: usize) -> Self {
        Self {
            budget,
            held: Mutex::default(),
        }
    }

    pub(super) fn get(&self, stream: u64, sequence: u64) -> Option<Bytes> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.blocks.get(&(stream, sequence)).cloned()
    }

    pub(super) fn put(&self, stream: u64, sequence: u64, block: Bytes) {
        let mut guard = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = &mut *guard;
        let size = block.len();
        if held.blocks.insert((stream, sequence), block).is_some() {
            return;
        }
        held.order.push_back((stream, sequence));
        held.bytes += size;
        while held.bytes > self.budget {
            let Some(oldest) = held.order.pop_front() else {
                break;
            };
            let gone = held.blocks.remove(&oldest);
            held.bytes -= gone.map_or(0, |block| block.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let cache = Cache::new(100);
        for sequence in 0..10 {
            cache.put(1, sequence, Bytes::from(vec![0; 30]));
        }
        let held: Vec<u64> = (0..10).filter(|n| cache.get(1, *n).is_some()).collect();
        assert_eq!(held, [7, 8, 9]);
        assert!(cache.get(2, 9).is_none());
        cache.put(1, 10, Bytes::from(vec![0; 101]));
        assert!((0..11).all(|n| cache.get(1, n).is_none()));
    }
}
