//! How long to wait before another start of a revision whose starts keep failing.

use std::time::Duration;

/// An instance that ends by itself sooner than this counts as a failed start.
pub const LIVED_TOO_SHORT: Duration = Duration::from_secs(10);
/// The longest pause between starts of a revision whose instances keep failing.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The first pause, and the one for troubles of the host's own.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// How starts have failed lately.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    in_a_row: u32,
    pause_until: Option<Duration>,
}

impl Failures {
    /// The container could not be started, or did not live. Starts that failed together count once.
    pub fn add(&mut self, now: Duration) {
        if self.pause(now).is_some() {
            return;
        }
        let pause = match self.in_a_row {
            0 => SHORTEST_PAUSE,
            n => Duration::from_secs(1 << (n - 1).min(6)).min(LONGEST_PAUSE),
        };
        self.in_a_row += 1;
        self.pause_until = Some(now + pause);
    }

    /// The host's own trouble says nothing of the container: a short pause, never a longer one.
    pub fn add_host(&mut self, now: Duration) {
        let until = now + SHORTEST_PAUSE;
        self.pause_until = Some(self.pause_until.map_or(until, |paused| paused.max(until)));
    }

    /// An instance was ready or ended `lived` after its start, and by no fault of its own.
    pub fn survived(&mut self, lived: Duration) {
        if lived >= LIVED_TOO_SHORT {
            *self = Self::default();
        }
    }

    /// An instance ended by itself, `lived` after its start.
    pub fn ended(&mut self, now: Duration, lived: Duration) {
        if lived < LIVED_TOO_SHORT {
            self.add(now);
        } else {
            self.survived(lived);
        }
    }

    /// Until when nothing is to be started.
    #[must_use]
    pub fn pause(&self, now: Duration) -> Option<Duration> {
        self.pause_until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_loop_slows_down_and_is_forgiven() {
        let mut failures = Failures::default();
        let mut now = Duration::from_secs(100);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            failures.add(now);
            let until = failures.pause(now).unwrap_or(now);
            pauses.push((until - now).as_secs());
            // Failing again during the pause changes nothing.
            failures.add(now);
            now = until;
        }
        assert_eq!(pauses[0], 0);
        assert!(pauses.windows(2).all(|w| w[0] <= w[1]), "{pauses:?}");
        assert_eq!(pauses.last(), Some(&60), "{pauses:?}");
        failures.ended(now, LIVED_TOO_SHORT);
        assert_eq!(failures.pause(now), None);
        failures.ended(now, Duration::ZERO);
        assert_eq!(failures.pause(now), Some(now + SHORTEST_PAUSE));
    }
}
