//! Many measurements as a few figures, and tables of them.

use std::time::Duration;

use serde_json::{Value, json};

/// Measured times, sorted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Sorts them.
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The time that `percent` of all do not exceed (nearest rank), in milliseconds. Not a number
    /// where nothing was measured. 0 is the least of all.
    pub(crate) fn ms(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0
            .get(rank - 1)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// The figures for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "count": self.len(), "min_ms": self.ms(0), "p50_ms": self.ms(50), "p95_ms": self.ms(95),
            "p99_ms": self.ms(99), "max_ms": self.ms(100),
        })
    }

    /// `min p50 p95 p99 max` as columns of a table.
    pub(crate) fn columns(&self) -> String {
        [0, 50, 95, 99, 100]
            .map(|percent| format!("{:>10.2}", self.ms(percent)))
            .concat()
    }
}

/// How many a second.
pub(crate) fn rate(count: usize, time: Duration) -> anyhow::Result<f64> {
    Ok(f64::from(u32::try_from(count)?) / time.as_secs_f64())
}

/// The middle one of several figures. Not a number where there are none.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The heading above [`Times::columns`].
pub(crate) fn heading(first: &str) -> String {
    let names = ["min ms", "p50 ms", "p95 ms", "p99 ms", "max ms"];
    format!(
        "{first:<28}{}",
        names.map(|name| format!("{name:>10}")).concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let times = Times::new((1..=100).rev().map(Duration::from_millis).collect());
        let of = |percent| times.ms(percent).round();
        assert_eq!(
            [of(0), of(50), of(95), of(99), of(100)],
            [1.0, 50.0, 95.0, 99.0, 100.0]
        );
        let one = Times::new(vec![Duration::from_millis(7)]);
        assert_eq!([one.ms(0).round(), one.ms(99).round()], [7.0, 7.0]);
        assert!(Times::default().ms(50).is_nan());
    }
}
