//! How long something takes: always the same, lognormal, or as percentiles say.

use std::str::FromStr;
use std::time::Duration;

use crate::random::Random;
use crate::scenario::parse_duration;

/// A distribution of durations.
#[derive(Debug, Clone, PartialEq)]
pub enum Distribution {
    /// Always the same.
    Constant(Duration),
    /// The logarithm of the seconds is normal.
    Lognormal {
        /// The mean of the logarithm.
        mu: f64,
        /// Its standard deviation.
        sigma: f64,
    },
    /// Shares from 0 to 1 and the durations that so many do not exceed, both rising; straight lines in
    /// between.
    Percentiles(Vec<(f64, Duration)>),
}

/// The standard normal distribution's 99th percentile.
const NORMAL_P99: f64 = 2.326_347_874_040_841;

impl Distribution {
    /// Draws one.
    pub(crate) fn draw(&self, random: &mut Random) -> Duration {
        match self {
            Self::Constant(always) => *always,
            Self::Lognormal { mu, sigma } => {
                let seconds = libm::exp(mu + sigma * random.normal());
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
            Self::Percentiles(points) => quantile(points, random.unit()),
        }
    }

    /// As percentiles of durations that were seen. `None` when there are none.
    #[must_use]
    pub fn of(mut seen: Vec<Duration>) -> Option<Self> {
        seen.sort_unstable();
        let last = seen.len().checked_sub(1)?;
        let at = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "an index, between 0 and the last"
            )]
            let index = (share * last as f64).round() as usize;
            (share, seen[index])
        };
        let shares = [
            0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0,
        ];
        Some(Self::Percentiles(shares.map(at).to_vec()))
    }
}

fn quantile(points: &[(f64, Duration)], share: f64) -> Duration {
    let next = points.partition_point(|(s, _)| *s <= share);
    let Some(before) = next.checked_sub(1).and_then(|i| points.get(i)) else {
        return points.first().map_or(Duration::ZERO, |(_, d)| *d);
    };
    let Some(after) = points.get(next) else {
        return before.1;
    };
    let part = (share - before.0) / (after.0 - before.0);
    before.1
        + after
            .1
            .saturating_sub(before.1)
            .mul_f64(part.clamp(0.0, 1.0))
}

/// `120ms`; `lognormal:p50=80ms,p99=1.2s`; `percentiles:p0=10ms,p50=20ms,p90=80ms,p99=1s`.
impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "'{text}': {what}. Write a duration, such as 120ms, or lognormal:p50=80ms,p99=1.2s, or \
                 percentiles:p50=20ms,p90=80ms,p99=1s"
            )
        };
        let Some((kind, rest)) = text.split_once(':') else {
            let always = parse_duration(text).ok_or_else(|| wrong("is not a duration"))?;
            return Ok(Self::Constant(always));
        };
        let mut points = Vec::new();
        for part in rest.split(',') {
            let point = part.trim().split_once('=').and_then(|(name, value)| {
                let percent: f64 = name.trim().strip_prefix('p')?.parse().ok()?;
                let inside = (0.0..=100.0).contains(&percent);
                Some((percent / 100.0, parse_duration(value)?)).filter(|_| inside)
            });
            points.push(point.ok_or_else(|| wrong(&format!("'{part}' is not like p50=20ms")))?);
        }
        let rising = |w: &[(f64, Duration)]| w[0].0 < w[1].0 && w[0].1 <= w[1].1;
        if !points.windows(2).all(rising) {
            return Err(wrong("percentiles and durations must rise"));
        }
        match (kind.trim(), &points[..]) {
            ("lognormal", [(p50, median), (p99, high)])
                if (*p50, *p99) == (0.5, 0.99) && !median.is_zero() =>
            {
                let mu = libm::log(median.as_secs_f64());
                Ok(Self::Lognormal {
                    mu,
                    sigma: (libm::log(high.as_secs_f64()) - mu) / NORMAL_P99,
                })
            }
            ("lognormal", _) => Err(wrong("needs p50, above zero, and p99")),
            ("percentiles", _) => Ok(Self::Percentiles(points)),
            _ => Err(wrong("is of no kind that is known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> Vec<Duration> {
        let distribution: Distribution = text.parse().unwrap();
        let mut random = Random::new(3, crate::random::SERVICE);
        let mut all: Vec<_> = (0..20_000)
            .map(|_| distribution.draw(&mut random))
            .collect();
        all.sort();
        all
    }

    fn near(all: &[Duration], share: f64, millis: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index below 20,000"
        )]
        let index = (share * 20_000.0) as usize;
        let found = all[index].as_secs_f64() * 1000.0;
        assert!((found / millis - 1.0).abs() < 0.06, "p{share}: {found} ms");
    }

    #[test]
    fn what_is_drawn_has_the_percentiles_that_were_said() {
        let all = drawn("lognormal:p50=80ms,p99=1.2s");
        near(&all, 0.5, 80.0);
        near(&all, 0.99, 1200.0);
        let all = drawn("percentiles: p0=10ms, p50=20ms, p90=80ms, p100=100ms");
        near(&all, 0.25, 15.0);
        near(&all, 0.5, 20.0);
        near(&all, 0.9, 80.0);
        assert!(all[0] >= Duration::from_millis(10) && all[19_999] <= Duration::from_millis(100));
        assert_eq!(drawn("120ms")[7], Duration::from_millis(120));
    }

    #[test]
    fn seen_durations_become_their_percentiles() {
        let seen = (1..=1000).map(Duration::from_millis).collect();
        let Some(Distribution::Percentiles(points)) = Distribution::of(seen) else {
            panic!("no percentiles");
        };
        assert_eq!(points[0].1, Duration::from_millis(1));
        assert_eq!(points[6].1, Duration::from_millis(501));
        assert_eq!(Distribution::of(Vec::new()), None);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for text in [
            "",
            "fast",
            "lognormal:p50=1s",
            "percentiles:p50=2s,p99=1s",
            "x:p50=1s",
            "percentiles:p101=1s",
        ] {
            let error = text.parse::<Distribution>().unwrap_err();
            assert!(error.contains("such as 120ms"), "{error}");
        }
    }
}
