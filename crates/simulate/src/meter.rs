//! What is counted while a world runs, in bounded memory.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::report::Bucket;

/// Buckets of the timeline; when there are more, two become one.
const BUCKETS: usize = 720;
/// The first width of a bucket.
const WIDTH: Duration = Duration::from_secs(1);

/// A world at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Level {
    pub(crate) instances: u32,
    /// Of them, those that have requests.
    pub(crate) busy: u32,
    pub(crate) starting: u32,
    /// Those that get no further requests.
    pub(crate) leaving: u32,
    pub(crate) in_flight: u32,
    pub(crate) queued: u32,
    pub(crate) busy_cpus: f64,
}

impl Level {
    /// What the maximum is about: who gets requests, or will.
    pub(crate) fn serving(&self) -> u32 {
        self.instances + self.starting - self.leaving
    }
}

/// Levels over time. Its buckets grow as the time does.
#[derive(Debug)]
pub(crate) struct Timeline {
    width: Duration,
    buckets: Vec<Bucket>,
    at: Duration,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self {
            width: WIDTH,
            buckets: Vec::new(),
            at: Duration::ZERO,
        }
    }

    /// It was like this from the last call until `now`.
    pub(crate) fn advance(&mut self, now: Duration, level: &Level) {
        while self.at < now {
            let index = self.index(self.at);
            let end = (self.width * (u32::try_from(index).unwrap_or(u32::MAX) + 1)).min(now);
            let seconds = end.saturating_sub(self.at).as_secs_f64();
            self.bucket(index).add(level, seconds);
            self.at = end;
        }
    }

    /// The bucket of now.
    pub(crate) fn now(&mut self) -> &mut Bucket {
        let index = self.index(self.at);
        self.bucket(index)
    }

    fn index(&mut self, at: Duration) -> usize {
        loop {
            let index = at.as_nanos() / self.width.as_nanos();
            match usize::try_from(index) {
                Ok(index) if index < BUCKETS => return index,
                _ => self.coarsen(),
            }
        }
    }

    fn bucket(&mut self, index: usize) -> &mut Bucket {
        if self.buckets.len() <= index {
            self.buckets.resize_with(index + 1, Bucket::default);
        }
        &mut self.buckets[index]
    }

    fn coarsen(&mut self) {
        self.width *= 2;
        let pairs = self.buckets.chunks(2).map(|pair| {
            let mut both = pair[0].clone();
            for other in &pair[1..] {
                both.merge(other);
            }
            both
        });
        self.buckets = pairs.collect();
    }

    pub(crate) fn finish(self) -> (Duration, Vec<Bucket>) {
        (self.width, self.buckets)
    }
}

/// How long something took, over many, up to a day. Three digits are exact.
#[derive(Debug)]
pub(crate) struct Times(Histogram<u64>);

/// Percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Percentiles {
    /// Half do not exceed it.
    pub p50: f64,
    /// 95 of 100 do not.
    pub p95: f64,
    /// 99 of 100 do not.
    pub p99: f64,
    /// None does.
    pub max: f64,
}

impl Times {
    pub(crate) fn new() -> Self {
        let most = 24 * 3600 * 1_000_000;
        Self(Histogram::new_with_bounds(1, most, 3).expect("three digits are allowed"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    pub(crate) fn percentiles(&self) -> Percentiles {
        #[expect(clippy::cast_precision_loss, reason = "for reading")]
        let millis = |micros: u64| micros as f64 / 1000.0;
        Percentiles {
            p50: millis(self.0.value_at_quantile(0.5)),
            p95: millis(self.0.value_at_quantile(0.95)),
            p99: millis(self.0.value_at_quantile(0.99)),
            max: millis(self.0.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_of_any_length_has_a_bounded_number_of_buckets() {
        let mut timeline = Timeline::new();
        let two = Level {
            instances: 2,
            ..Level::default()
        };
        timeline.advance(Duration::from_millis(2500), &two);
        timeline.now().starts += 1;
        timeline.advance(Duration::from_secs(100_000), &Level::default());
        let (width, buckets) = timeline.finish();
        assert!(buckets.len() <= BUCKETS);
        assert_eq!(width, Duration::from_secs(256));
        assert!((buckets[0].instance_seconds - 5.0).abs() < 1e-9);
        assert_eq!((buckets[0].starts, buckets[0].most_instances), (1, 2));
        let all: f64 = buckets.iter().map(|b| b.instance_seconds).sum();
        assert!((all - 5.0).abs() < 1e-9);
    }

    #[test]
    fn percentiles_are_near() {
        let mut times = Times::new();
        for ms in 1..=1000 {
            times.record(Duration::from_millis(ms));
        }
        let found = times.percentiles();
        assert!((found.p50 / 500.0 - 1.0).abs() < 0.002);
        assert!((found.p99 / 990.0 - 1.0).abs() < 0.002);
    }
}
