//! The concurrency slots of one instance: a counter that all threads share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use lauf_engine::Instance;

/// Set when an instance may get no further requests.
const CLOSED: u32 = 1 << 31;

/// An instance with its slots.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) instance: Arc<Instance>,
    /// Names this instance in the threads' connection pools.
    pub(crate) serial: u64,
    limit: u32,
    /// Requests in flight, and [`CLOSED`].
    state: AtomicU32,
    /// The sum of the ends of all requests less the sum of the beginnings, in microseconds. With
    /// `n` in flight at `t`, `n * t` more is the request time so far.
    ends_less_starts: AtomicI64,
    /// Requests that have begun.
    requests: AtomicU64,
    /// When the last request ended, in microseconds.
    idle_since: AtomicU64,
    /// The fleet has asked for its end.
    stopped: AtomicBool,
}

/// What giving a slot back means for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    /// A slot is free again.
    Free,
    /// The last request of a closed instance is done.
    Drained,
    /// The instance is closed and has further requests.
    Draining,
}

impl Slots {
    pub(crate) fn new(instance: Arc<Instance>, serial: u64, limit: u32, now: Duration) -> Self {
        Self {
            instance,
            serial,
            limit: limit.clamp(1, CLOSED - 1),
            state: AtomicU32::new(0),
            ends_less_starts: AtomicI64::new(0),
            requests: AtomicU64::new(0),
            idle_since: AtomicU64::new(micros(now)),
            stopped: AtomicBool::new(false),
        }
    }

    /// Takes a slot if there are fewer than `below` requests, and a slot.
    pub(crate) fn try_acquire(&self, now: Duration, below: u32) -> bool {
        let limit = self.limit.min(below);
        // SeqCst here, in `release` and around the pool's `waiting` makes sure that of a request
        // that finds nothing and queues, and one that gives a slot back, one sees the other.
        let taken = self
            .state
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| {
                (state < limit).then_some(state + 1)
            })
            .is_ok();
        if taken {
            self.ends_less_starts
                .fetch_sub(signed_micros(now), Ordering::Relaxed);
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Gives a slot back.
    pub(crate) fn release(&self, now: Duration) -> Released {
        self.ends_less_starts
            .fetch_add(signed_micros(now), Ordering::Relaxed);
        self.idle_since.fetch_max(micros(now), Ordering::Relaxed);
        let before = self.state.fetch_sub(1, Ordering::SeqCst);
        match (before & CLOSED != 0, before & !CLOSED) {
            (false, _) => Released::Free,
            (true, 1) => Released::Drained,
            (true, _) => Released::Draining,
        }
    }

    /// No further requests from now on. Says how many are in flight.
    pub(crate) fn close(&self) -> u32 {
        self.state.fetch_or(CLOSED, Ordering::SeqCst) & !CLOSED
    }

    /// Closes it only if nothing is in flight.
    pub(crate) fn close_if_idle(&self) -> bool {
        self.state
            .compare_exchange(0, CLOSED, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.state.load(Ordering::SeqCst) & !CLOSED
    }

    /// Whether it may get no further requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Notes that its end was asked for. `false` if it was before.
    pub(crate) fn mark_stopped(&self) -> bool {
        !self.stopped.swap(true, Ordering::Relaxed)
    }

    /// Whether the fleet has asked for its end.
    pub(crate) fn instance_was_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Requests that have begun.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Since when it has had no request; `None` while it has one.
    pub(crate) fn idle_since(&self) -> Option<Duration> {
        (self.in_flight() == 0)
            .then(|| Duration::from_micros(self.idle_since.load(Ordering::Relaxed)))
    }

    /// The request time so far. The two counters it is made from are not read at one moment, so the
    /// result is kept between what it was before (`last`) and the most it can have become.
    pub(crate) fn request_time(
        &self,
        now: Duration,
        last: Duration,
        elapsed: Duration,
    ) -> Duration {
        let most = last + elapsed.saturating_mul(self.limit);
        let read = || {
            let running = i64::from(self.in_flight());
            let ended = self.ends_less_starts.load(Ordering::Relaxed);
            let sum = ended.wrapping_add(running.wrapping_mul(signed_micros(now)));
            Duration::from_micros(u64::try_from(sum).unwrap_or(0))
        };
        for _ in 0..4 {
            let time = read();
            if time >= last && time <= most {
                return time;
            }
        }
        read().clamp(last, most)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn signed_micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
