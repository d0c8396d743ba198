//! A token bucket: how fast tasks may leave a queue. Pure: time is passed in.

use std::time::Duration;

/// Tokens that come at a rate and are kept up to a bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    since: Duration,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(rate: f64, burst: u32, now: Duration) -> Self {
        let burst = f64::from(burst).max(1.0);
        Self {
            rate,
            burst,
            tokens: burst,
            since: now,
        }
    }

    /// Takes on another rate and bound; what is in it stays, as far as it fits.
    pub(super) fn change(&mut self, rate: f64, burst: u32, now: Duration) {
        self.fill(now);
        self.rate = rate;
        self.burst = f64::from(burst).max(1.0);
        self.tokens = self.tokens.min(self.burst);
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        self.since = self.since.max(now);
    }

    /// Takes a token, or says how long until there is one.
    pub(super) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        // What is short of a whole token by rounding alone is one.
        if self.tokens >= 1.0 - 1e-9 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - self.tokens) / self.rate;
        Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(rate in 0.1..500.0_f64, burst in 1..50_u32, gaps in prop::collection::vec(0..3_000_u64, 1..200)) {
            let mut now = Duration::ZERO;
            let mut bucket = Bucket::new(rate, burst, now);
            let mut taken = 0_u32;
            for gap in gaps {
                now += Duration::from_millis(gap);
                while let Ok(()) = bucket.take(now) {
                    taken += 1;
                    prop_assert!(taken < 1_000_000);
                }
                let most = f64::from(burst) + now.as_secs_f64() * rate;
                prop_assert!(f64::from(taken) <= most + 1e-3);
                // When it says there is one, there is one.
                let wait = bucket.take(now).unwrap_err();
                let mut later = bucket;
                prop_assert!(later.take(now + wait + Duration::from_micros(1)).is_ok());
            }
        }
    }
}
