//! From what was written down to a backlog, and back.

use std::time::Duration;

use super::journal::{Changes, Failures, Lease, Overflow, Saved, distances, positions};
use super::{Backlog, Rules, State, Unsaved};
use crate::log::Position;

/// Two clocks at one moment: the wall's, in microseconds, and the one that never goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) wall: i64,
    pub(crate) now: Duration,
}

impl Clocks {
    fn to_wall(self, time: Duration) -> i64 {
        let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        if time >= self.now {
            self.wall.saturating_add(micros(time - self.now))
        } else {
            self.wall.saturating_sub(micros(self.now - time))
        }
    }

    fn until_wall(self, wall: i64) -> Duration {
        match u64::try_from(wall.saturating_sub(self.wall)) {
            Ok(ahead) => self.now + Duration::from_micros(ahead),
            Err(_) => self.now,
        }
    }
}

impl Unsaved {
    /// As it is written down.
    pub(crate) fn to_changes(&self, clocks: Clocks) -> Changes {
        Changes {
            done: distances(self.done.clone()),
            failures: self
                .failures
                .iter()
                .map(|(position, count)| Failures {
                    position: position.0,
                    count: *count,
                })
                .collect(),
            leases: self
                .leases
                .iter()
                .map(|(position, number, until)| Lease {
                    position: position.0,
                    number: *number,
                    until: clocks.to_wall(*until),
                })
                .collect(),
        }
    }
}

impl Backlog {
    /// A subscription from what was saved of it. What changed afterwards is added with
    /// [`Backlog::replay`].
    pub(crate) fn restore(rules: Rules, saved: &Saved, clocks: Clocks, first_number: u64) -> Self {
        let mut backlog = Self::new(rules, Position(saved.done_before), first_number);
        backlog.restored_upto = Position(saved.upto.max(saved.done_before));
        let mut at = saved.done_before;
        for pair in saved.done.chunks_exact(2) {
            let begin = at.saturating_add(pair[0]);
            at = begin.saturating_add(pair[1]);
            backlog.done.insert(Position(begin), Position(at));
        }
        backlog.restored_overflow = saved
            .overflow
            .iter()
            .map(|overflow| (overflow.key.clone(), Position(overflow.from)))
            .collect();
        backlog.carry(&saved.failures, &saved.leases, clocks);
        backlog
    }

    /// Adds what changed after it was saved.
    pub(crate) fn replay(&mut self, changes: &Changes, clocks: Clocks) {
        self.carry(&changes.failures, &changes.leases, clocks);
        for position in positions(&changes.done) {
            self.carried.remove(&position);
            if position >= self.frontier {
                self.done.insert(position, position.plus(1));
                self.restored_upto = self.restored_upto.max(position.plus(1));
            }
        }
    }

    fn carry(&mut self, failures: &[Failures], leases: &[Lease], clocks: Clocks) {
        for failure in failures {
            let carried = self.carried.entry(Position(failure.position)).or_default();
            carried.failures = failure.count;
            // Whoever had it has failed.
            carried.lease = None;
        }
        for lease in leases {
            let position = Position(lease.position);
            let carried = self.carried.entry(position).or_default();
            carried.lease = Some((lease.number, clocks.until_wall(lease.until)));
            self.restored_upto = self.restored_upto.max(position.plus(1));
            self.first_number = self.first_number.max(lease.number + 1);
            self.next_number = self.next_number.max(self.first_number);
        }
    }

    /// All there is to know.
    pub(crate) fn save(&self, clocks: Clocks) -> Saved {
        let done_before = self.done_before();
        let mut done = Vec::new();
        let mut last = done_before;
        let mut range = |begin: Position, end: Position| {
            if begin < end {
                done.extend([begin.0 - last.0, end.0 - begin.0]);
                last = end;
            }
        };
        // Between what is remembered, all is done.
        let mut at = done_before;
        for position in self.seen.keys() {
            range(at, *position);
            at = position.plus(1);
        }
        range(at, self.frontier);
        for (begin, end) in self.done.iter() {
            range(begin.max(self.frontier), end);
        }
        let mut overflow: Vec<Overflow> = self
            .keys
            .overflowing()
            .map(|(key, from)| Overflow {
                key: key.to_owned(),
                from: from.0,
            })
            .collect();
        for (key, from) in &self.restored_overflow {
            // What has not been looked at again. A key may be in both: the earlier one counts.
            match overflow.iter_mut().find(|other| other.key == *key) {
                Some(other) => other.from = other.from.min(from.0.max(self.frontier.0)),
                None => overflow.push(Overflow {
                    key: key.clone(),
                    from: from.0.max(self.frontier.0),
                }),
            }
        }
        let mut failures = Vec::new();
        let mut leases = Vec::new();
        let mut note = |position: &Position, count: u32, lease: Option<(u64, Duration)>| {
            if count > 0 {
                failures.push(Failures {
                    position: position.0,
                    count,
                });
            }
            if let Some((number, until)) = lease.filter(|_| self.rules.exactly_once) {
                leases.push(Lease {
                    position: position.0,
                    number,
                    until: clocks.to_wall(until),
                });
            }
        };
        for (position, seen) in &self.seen {
            let lease = match seen.state {
                State::Leased { until, number, .. } => Some((number, until)),
                _ => None,
            };
            note(position, seen.failures, lease);
        }
        for (position, carried) in &self.carried {
            note(position, carried.failures, carried.lease);
        }
        Saved {
            done_before: done_before.0,
            done,
            overflow,
            upto: self.frontier.max(self.restored_upto).0,
            failures,
            leases,
        }
    }
}
