//! How long a thing that failed waits: doubling at first, then growing evenly, up to a bound. Scheduler
//! and Tasks share the rule.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// After the first failure.
    pub minimum: Duration,
    /// At most.
    pub maximum: Duration,
    /// How often it doubles; then it grows by what it was last.
    pub doublings: u32,
}

impl Backoff {
    /// How long to wait after so many failures, the first being 1.
    #[must_use]
    pub fn wait(&self, failures: u32) -> Duration {
        let steps = failures.saturating_sub(1);
        let doublings = steps.min(self.doublings);
        let doubled = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
        let last = self.minimum.saturating_mul(doubled);
        last.saturating_mul(steps - doublings + 1).min(self.maximum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_doubles_then_grows_evenly_then_stays() {
        let backoff = Backoff {
            minimum: Duration::from_secs(10),
            maximum: Duration::from_secs(300),
            doublings: 3,
        };
        let waits: Vec<u64> = (1..=8).map(|n| backoff.wait(n).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 240, 300, 300]);
    }

    proptest! {
        #[test]
        fn it_never_shrinks_nor_passes_its_bound(minimum in 0..1_000_u64, more in 0..10_000_u64, doublings in 0..40_u32, n in 1..u32::MAX - 1) {
            let backoff = Backoff {
                minimum: Duration::from_secs(minimum),
                maximum: Duration::from_secs(minimum + more),
                doublings,
            };
            prop_assert!(backoff.wait(n) <= backoff.wait(n + 1));
            prop_assert!(backoff.wait(n) <= backoff.maximum);
        }
    }
}
