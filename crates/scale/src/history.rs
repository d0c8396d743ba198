//! What a revision's load was: enough of the past to average over windows, in bounded memory.

use std::collections::VecDeque;
use std::time::Duration;

/// How many samples span the longest window.
const RESOLUTION: u32 = 60;

/// The load of one revision over time, as samples of its *request time*: the sum, over all requests
/// so far, of how long each has been in flight. The difference between two samples divided by the
/// time between them is the average concurrency. Samples may come at any times; between them the
/// load counts as even.
#[derive(Debug, Clone)]
pub struct History {
    longest: Duration,
    samples: VecDeque<Sample>,
    latest: Option<Sample>,
    last_start: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at: Duration,
    request_time: Duration,
}

impl History {
    /// An empty history that can answer for windows up to `longest`.
    #[must_use]
    pub fn new(longest: Duration) -> Self {
        Self {
            longest,
            samples: VecDeque::new(),
            latest: None,
            last_start: None,
        }
    }

    /// Changes the longest window, as the settings change. What is known stays.
    pub fn set_longest(&mut self, longest: Duration) {
        self.longest = longest;
    }

    /// How far apart samples need to be for the windows to be exact enough.
    #[must_use]
    pub fn spacing(&self) -> Duration {
        self.longest / RESOLUTION
    }

    /// Notes the request time so far. Time that goes back, or load that shrinks, is ignored.
    pub fn record(&mut self, now: Duration, request_time: Duration) {
        let sample = Sample {
            at: now,
            request_time,
        };
        if self
            .latest
            .is_some_and(|l| now < l.at || request_time < l.request_time)
        {
            return;
        }
        self.latest = Some(sample);
        let keep = self
            .samples
            .back()
            .is_none_or(|last| now >= last.at + self.spacing());
        if keep {
            self.samples.push_back(sample);
        }
        // One sample older than the longest window stays, to interpolate from.
        let edge = now.saturating_sub(self.longest);
        while self.samples.get(1).is_some_and(|second| second.at <= edge) {
            self.samples.pop_front();
        }
    }

    /// Notes that an instance was started, for the cooldown.
    pub fn started(&mut self, now: Duration) {
        self.last_start = Some(now);
    }

    /// When the last instance was started.
    #[must_use]
    pub fn last_start(&self) -> Option<Duration> {
        self.last_start
    }

    /// The average concurrency over the `window` before `now`. What lies before the first sample
    /// counts as no load.
    #[must_use]
    pub fn average(&self, now: Duration, window: Duration) -> f64 {
        let (Some(first), Some(latest)) = (self.samples.front(), self.latest) else {
            return 0.0;
        };
        if window.is_zero() {
            return 0.0;
        }
        let edge = now.saturating_sub(window);
        let before = self.at(edge).unwrap_or(first.request_time);
        latest.request_time.saturating_sub(before).as_secs_f64() / window.as_secs_f64()
    }

    /// The request time at a moment, interpolated; `None` before the first sample.
    fn at(&self, moment: Duration) -> Option<Duration> {
        let latest = self.latest?;
        if moment >= latest.at {
            return Some(latest.request_time);
        }
        let next = self.samples.partition_point(|s| s.at <= moment);
        let before = self.samples.get(next.checked_sub(1)?)?;
        let after = self.samples.get(next).copied().unwrap_or(latest);
        let span = after.at.saturating_sub(before.at);
        if span.is_zero() {
            return Some(before.request_time);
        }
        let share = moment.saturating_sub(before.at).as_secs_f64() / span.as_secs_f64();
        let more = after.request_time.saturating_sub(before.request_time);
        Some(before.request_time + more.mul_f64(share.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn an_even_load_averages_to_itself() {
        let mut history = History::new(s(600));
        for t in 0..=1200 {
            history.record(s(t), s(t * 3));
        }
        assert!((history.average(s(1200), s(60)) - 3.0).abs() < 1e-9);
        assert!((history.average(s(1200), s(600)) - 3.0).abs() < 1e-9);
        assert!(history.samples.len() <= 62, "{}", history.samples.len());
    }

    #[test]
    fn a_load_that_ended_fades_from_the_short_window_first() {
        let mut history = History::new(s(600));
        history.record(s(0), s(0));
        history.record(s(300), s(3000));
        history.record(s(360), s(3000));
        assert!(history.average(s(360), s(60)).abs() < 1e-9);
        assert!((history.average(s(360), s(600)) - 5.0).abs() < 1e-9);
        history.record(s(900), s(3000));
        assert!(history.average(s(900), s(600)).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_known_of_a_new_revision() {
        let history = History::new(s(600));
        assert!(history.average(s(5), s(60)).abs() < 1e-9);
    }
}
