//! How long and in what company a request may wait for an instance.

use std::time::Duration;

/// The shortest time a request is allowed to wait (Cloud Run, "Container contract", pending queue).
const SHORTEST_WAIT: Duration = Duration::from_secs(10);

/// How long a request may wait for a slot: `max(10 s, 3.5 x average start)`.
#[must_use]
pub fn queue_deadline(average_start: Duration) -> Duration {
    SHORTEST_WAIT.max(average_start.saturating_mul(7) / 2)
}

/// How many requests of one revision may wait at once: as many as all its instances together could
/// serve, within bounds that keep a burst on a small revision from failing needlessly (100) and the
/// memory of the gateway bounded (10,000).
#[must_use]
pub fn queue_limit(max_instances: u32, concurrency: u32) -> usize {
    let slots = u64::from(max_instances) * u64::from(concurrency);
    usize::try_from(slots.clamp(100, 10_000)).unwrap_or(10_000)
}

/// The average time a start takes, once another one took `took`: the newest counts a quarter, and the
/// first counts whole.
#[must_use]
pub fn average_start(average: Duration, took: Duration) -> Duration {
    if average.is_zero() {
        took
    } else {
        average / 4 * 3 + took / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_ten_seconds_or_three_and_a_half_starts() {
        let s = Duration::from_secs;
        assert_eq!(queue_deadline(Duration::ZERO), s(10));
        assert_eq!(queue_deadline(s(2)), s(10));
        assert_eq!(queue_deadline(s(8)), s(28));
        assert!(queue_deadline(Duration::MAX) > s(1 << 40));
    }

    #[test]
    fn the_queue_is_bounded_both_ways() {
        assert_eq!(queue_limit(1, 1), 100);
        assert_eq!(queue_limit(10, 80), 800);
        assert_eq!(queue_limit(u32::MAX, u32::MAX), 10_000);
    }

    #[test]
    fn the_average_start_follows_the_newest() {
        let s = Duration::from_secs;
        assert_eq!(average_start(Duration::ZERO, s(8)), s(8));
        assert_eq!(average_start(s(8), s(4)), s(7));
    }
}
