//! A bounded window in which requests are put in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Arrival;

/// Gives what it gets in order of time, as far as its window reaches.
#[derive(Debug)]
pub(super) struct Reorder {
    window: usize,
    /// By time, and of the same time in the order they came.
    heap: BinaryHeap<Reverse<(Duration, u64, Option<Duration>)>>,
    serial: u64,
    last: Duration,
    late: u64,
}

impl Reorder {
    pub(super) fn new(window: usize) -> Self {
        Self {
            window,
            heap: BinaryHeap::new(),
            serial: 0,
            last: Duration::ZERO,
            late: 0,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.heap.len() > self.window
    }

    pub(super) fn push(&mut self, arrival: Arrival) {
        self.serial += 1;
        let entry = (arrival.at, self.serial, arrival.service_time);
        self.heap.push(Reverse(entry));
    }

    pub(super) fn pop(&mut self) -> Option<Arrival> {
        let Reverse((at, _, service_time)) = self.heap.pop()?;
        self.late += u64::from(at < self.last);
        self.last = self.last.max(at);
        Some(Arrival {
            at: self.last,
            service_time,
        })
    }

    /// How many came too late for the window.
    pub(super) fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_the_window_is_in_order_and_the_rest_is_counted() {
        let mut reorder = Reorder::new(2);
        let mut out = Vec::new();
        for second in [3, 1, 2, 5, 4, 0, 6] {
            reorder.push(Arrival {
                at: Duration::from_secs(second),
                service_time: None,
            });
            while reorder.is_full() {
                out.extend(reorder.pop().map(|a| a.at.as_secs()));
            }
        }
        while let Some(arrival) = reorder.pop() {
            out.push(arrival.at.as_secs());
        }
        assert_eq!(out, [1, 2, 3, 3, 4, 5, 6]);
        assert_eq!(reorder.late(), 1);
    }
}
