//! What a revision's load was: enough of the past to average over windows, in bounded memory.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Settings;

/// The load of one revision over time.
#[derive(Debug, Clone)]
pub struct History {
    /// The sum, over all requests so far, of how long each has been in flight: its rate is the average
    /// concurrency.
    pub(crate) request_time: Series,
    /// The CPU time that instances have used: its rate is how many CPUs are busy.
    pub(crate) cpu_time: Series,
    /// Requests that have begun.
    pub(crate) requests: Series,
    last_start: Option<Duration>,
}

impl History {
    /// An empty history that can answer for the windows of `settings`.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut history = Self {
            request_time: Series::default(),
            cpu_time: Series::default(),
            requests: Series::default(),
            last_start: None,
        };
        history.configure(settings);
        history
    }

    /// Changes the windows, as the settings change. What is known stays.
    pub fn configure(&mut self, settings: &Settings) {
        let (short, long) = (settings.short_window(), settings.long_window());
        // 60 samples over the longest window, and not fewer than 6 over the shortest.
        let spacing = (long / 60).min(short / 6);
        for series in [
            &mut self.request_time,
            &mut self.cpu_time,
            &mut self.requests,
        ] {
            series.longest = long;
            series.spacing = spacing;
        }
    }

    /// Notes how much request time there was until now, and how many requests have begun.
    pub fn record(&mut self, now: Duration, request_time: Duration, requests: u64) {
        self.request_time.record(now, request_time.as_secs_f64());
        #[expect(
            clippy::cast_precision_loss,
            reason = "exact up to 2^53, which no revision reaches"
        )]
        self.requests.record(now, requests as f64);
    }

    /// Notes how much CPU time instances had used at `now`.
    pub fn record_cpu(&mut self, now: Duration, cpu_time: Duration) {
        self.cpu_time.record(now, cpu_time.as_secs_f64());
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

    /// The average number of requests at once over the `window` before `now`.
    #[must_use]
    pub fn concurrency(&self, now: Duration, window: Duration) -> f64 {
        self.request_time.rate(now, window)
    }

    /// The average number of busy CPUs over the `window` before `now`.
    #[must_use]
    pub fn busy_cpus(&self, now: Duration, window: Duration) -> f64 {
        self.cpu_time.rate(now, window)
    }
}

/// A quantity that only grows, sampled at any times; between samples it counts as growing evenly.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    longest: Duration,
    spacing: Duration,
    samples: VecDeque<Sample>,
    latest: Option<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at: Duration,
    sum: f64,
}

impl Series {
    /// Notes the sum so far. Time that goes back, or a sum that shrinks, is ignored.
    pub(crate) fn record(&mut self, now: Duration, sum: f64) {
        let sample = Sample { at: now, sum };
        if self.latest.is_some_and(|l| now < l.at || sum < l.sum) {
            return;
        }
        self.latest = Some(sample);
        let keep = self
            .samples
            .back()
            .is_none_or(|last| now >= last.at + self.spacing);
        if keep {
            self.samples.push_back(sample);
        }
        // One sample older than the longest window stays, to interpolate from.
        let edge = now.saturating_sub(self.longest);
        while self.samples.get(1).is_some_and(|second| second.at <= edge) {
            self.samples.pop_front();
        }
    }

    /// How fast it grew over the `window` before `now`. What lies before the first sample counts as
    /// nothing.
    pub(crate) fn rate(&self, now: Duration, window: Duration) -> f64 {
        let (Some(first), Some(latest)) = (self.samples.front(), self.latest) else {
            return 0.0;
        };
        if window.is_zero() {
            return 0.0;
        }
        let before = self.at(now.saturating_sub(window)).unwrap_or(first.sum);
        (latest.sum - before).max(0.0) / window.as_secs_f64()
    }

    /// As [`rate`](Self::rate), over as much of the window as is known.
    pub(crate) fn known_rate(&self, now: Duration, window: Duration) -> f64 {
        let known = self
            .samples
            .front()
            .map_or(window, |first| now.saturating_sub(first.at).min(window));
        self.rate(now, known)
    }

    /// The sum at a moment, interpolated; `None` before the first sample.
    fn at(&self, moment: Duration) -> Option<f64> {
        let latest = self.latest?;
        if moment >= latest.at {
            return Some(latest.sum);
        }
        let next = self.samples.partition_point(|s| s.at <= moment);
        let before = self.samples.get(next.checked_sub(1)?)?;
        let after = self.samples.get(next).copied().unwrap_or(latest);
        let span = after.at.saturating_sub(before.at);
        if span.is_zero() {
            return Some(before.sum);
        }
        let share = moment.saturating_sub(before.at).as_secs_f64() / span.as_secs_f64();
        Some(before.sum + (after.sum - before.sum) * share.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn fresh() -> History {
        History::new(&Settings::default())
    }

    #[test]
    fn an_even_load_averages_to_itself() {
        let mut history = fresh();
        for t in 0..=1200 {
            history.record(s(t), s(t * 3), t * 5);
        }
        assert!((history.concurrency(s(1200), s(60)) - 3.0).abs() < 1e-9);
        assert!((history.concurrency(s(1200), s(600)) - 3.0).abs() < 1e-9);
        assert!((history.requests.rate(s(1200), s(60)) - 5.0).abs() < 1e-9);
        assert!(history.request_time.samples.len() <= 62);
    }

    #[test]
    fn a_load_that_ended_fades_from_the_short_window_first() {
        let mut history = fresh();
        history.record(s(0), s(0), 0);
        history.record(s(300), s(3000), 0);
        history.record(s(360), s(3000), 0);
        assert!(history.concurrency(s(360), s(60)).abs() < 1e-9);
        assert!((history.concurrency(s(360), s(600)) - 5.0).abs() < 1e-9);
        history.record(s(900), s(3000), 0);
        assert!(history.concurrency(s(900), s(600)).abs() < 1e-9);
    }

    #[test]
    fn nothing_is_known_of_a_new_revision() {
        assert!(fresh().concurrency(s(5), s(60)).abs() < 1e-9);
        let mut history = fresh();
        history.record(s(100), s(0), 0);
        history.record(s(110), s(40), 0);
        assert!((history.concurrency(s(110), s(60)) - 40.0 / 60.0).abs() < 1e-9);
        assert!((history.request_time.known_rate(s(110), s(60)) - 4.0).abs() < 1e-9);
    }
}
