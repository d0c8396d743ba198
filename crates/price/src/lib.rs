//! What a use of Cloud Run costs: its published rates, its rounding and its free tier, in whole numbers,
//! so that every figure is exact.
//!
//! In: seconds of CPU and memory as they are billed ([`Usage`]), and by what they are billed
//! ([`Billing`]). Out: [`Money`]. The rates are those of Tier 1 (such as us-central1) as published in
//! September 2026; they are Google's, and Lauf itself bills nobody.
//!
//! Laws: no floating point; what is rounded is rounded once, where the rules say so.
#![forbid(unsafe_code)]

mod money;

use std::time::Duration;

pub use money::Money;

/// What a use is billed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Billing {
    /// Services with CPU during requests only: while an instance starts, serves, or stops.
    Requests,
    /// Services with CPU always, and jobs: the instance's whole life.
    Instances,
    /// Worker pools.
    WorkerPools,
    /// Jobs that may be put off by up to 12 hours.
    DelayedJobs,
}

/// What something costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// A second of one CPU.
    pub cpu_second: Money,
    /// A second of one GiB.
    pub gib_second: Money,
    /// A request.
    pub request: Money,
    /// What each billing account has free in a month.
    pub free: Usage,
}

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Thousandths of a CPU, times milliseconds.
    pub cpu: u128,
    /// Bytes of memory, times milliseconds.
    pub memory: u128,
    /// Requests.
    pub requests: u64,
}

const GIB: u128 = 1 << 30;
/// Units of [`Usage::cpu`] in a second of one CPU.
const CPU_SECOND: u128 = 1_000_000;
/// Units of [`Usage::memory`] in a second of one GiB.
const GIB_SECOND: u128 = 1000 * GIB;

impl Usage {
    /// So many whole seconds of CPU and GiB, and requests.
    #[must_use]
    pub const fn seconds(cpu: u64, gib: u64, requests: u64) -> Self {
        Self {
            cpu: cpu as u128 * CPU_SECOND,
            memory: gib as u128 * GIB_SECOND,
            requests,
        }
    }

    /// Adds the time of an instance of so many thousandths of a CPU and bytes of memory.
    pub fn add(&mut self, time: Duration, cpu_millis: u32, memory_bytes: u64) {
        let millis = time.as_millis();
        self.cpu += millis * u128::from(cpu_millis);
        self.memory += millis * u128::from(memory_bytes);
    }

    /// Seconds of one CPU, for reading.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        ratio(self.cpu, CPU_SECOND)
    }

    /// Seconds of one GiB, for reading.
    #[must_use]
    pub fn gib_seconds(&self) -> f64 {
        ratio(self.memory, GIB_SECOND)
    }

    fn less(&self, free: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(free.cpu),
            memory: self.memory.saturating_sub(free.memory),
            requests: self.requests.saturating_sub(free.requests),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for reading only")]
fn ratio(part: u128, whole: u128) -> f64 {
    part as f64 / whole as f64
}

impl Billing {
    /// The rates of Tier 1.
    #[must_use]
    pub const fn rates(self) -> Rates {
        match self {
            Self::Requests => Rates {
                cpu_second: Money::nanos(24_000),
                gib_second: Money::nanos(2_500),
                request: Money::nanos(400),
                free: Usage::seconds(180_000, 360_000, 2_000_000),
            },
            Self::Instances => Rates {
                cpu_second: Money::nanos(18_000),
                gib_second: Money::nanos(2_000),
                request: Money::nanos(0),
                free: Usage::seconds(240_000, 450_000, 0),
            },
            Self::WorkerPools => Rates {
                cpu_second: Money::nanos(11_244),
                gib_second: Money::nanos(1_235),
                request: Money::nanos(0),
                free: Usage::seconds(384_204, 728_744, 0),
            },
            // Nothing is published of a free tier.
            Self::DelayedJobs => Rates {
                cpu_second: Money::nanos(12_600),
                gib_second: Money::nanos(1_400),
                request: Money::nanos(0),
                free: Usage::seconds(0, 0, 0),
            },
        }
    }

    /// The time that is billed for an instance that was billable for `time` without a break: rounded up
    /// to 100 ms, and at least a minute where whole lives are billed.
    #[must_use]
    pub fn billed(self, time: Duration) -> Duration {
        const STEP: u128 = 100_000_000;
        let steps = u64::try_from(time.as_nanos().div_ceil(STEP)).unwrap_or(u64::MAX);
        let rounded = Duration::from_millis(steps.saturating_mul(100));
        match self {
            Self::Requests => rounded,
            Self::Instances | Self::WorkerPools | Self::DelayedJobs => {
                rounded.max(Duration::from_secs(60))
            }
        }
    }
}

impl Rates {
    /// What a use costs, before anything is free.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Money {
        self.cpu_second.times(usage.cpu, CPU_SECOND)
            + self.gib_second.times(usage.memory, GIB_SECOND)
            + self.request.times(u128::from(usage.requests), 1)
    }

    /// What a month's use costs an account that uses nothing else.
    #[must_use]
    pub fn cost_after_free(&self, usage: &Usage) -> Money {
        self.cost(&usage.less(&self.free))
    }
}

/// What the CPU and memory of an idle instance cost that is kept by a minimum while requests are billed.
/// (Google's page has a lower rate for it; this figure is not verified.)
#[must_use]
pub const fn idle_rates() -> Rates {
    Rates {
        cpu_second: Money::nanos(2_500),
        gib_second: Money::nanos(2_500),
        request: Money::nanos(0),
        free: Usage::seconds(0, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: u64 = 30 * 24 * 3600;

    fn cents(money: Money) -> String {
        money.to_string()
    }

    #[test]
    fn a_service_that_is_always_there_for_a_month() {
        let usage = Usage::seconds(MONTH, MONTH, 0);
        assert_eq!(cents(Billing::Instances.rates().cost(&usage)), "$51.84");
        assert_eq!(cents(Billing::WorkerPools.rates().cost(&usage)), "$32.35");
        // 2,352,000 s and 2,142,000 s are not free.
        let after = Billing::Instances.rates().cost_after_free(&usage);
        assert_eq!(cents(after), "$46.62");
    }

    #[test]
    fn requests_are_billed_with_their_seconds() {
        let rates = Billing::Requests.rates();
        let usage = Usage::seconds(1_000_000, 500_000, 10_000_000);
        assert_eq!(cents(rates.cost(&usage)), "$29.25");
        // 820,000 s, 140,000 s and 8,000,000 requests are not free.
        assert_eq!(cents(rates.cost_after_free(&usage)), "$23.23");
        let free = Usage::seconds(180_000, 360_000, 2_000_000);
        assert_eq!(cents(rates.cost_after_free(&free)), "$0.00");
        let one_more = Usage::seconds(180_001, 360_000, 2_000_000);
        assert_eq!(rates.cost_after_free(&one_more), Money::nanos(24_000));
    }

    #[test]
    fn time_is_rounded_up_and_lives_have_a_minimum() {
        let ms = Duration::from_millis;
        for (time, billed) in [(0, 0), (1, 100), (100, 100), (101, 200), (90_050, 90_100)] {
            assert_eq!(Billing::Requests.billed(ms(time)), ms(billed), "{time}");
        }
        assert_eq!(Billing::Requests.billed(Duration::from_nanos(1)), ms(100));
        assert_eq!(Billing::Instances.billed(ms(1)), ms(60_000));
        assert_eq!(Billing::Instances.billed(ms(60_001)), ms(60_100));
    }

    #[test]
    fn parts_of_a_cpu_and_of_a_gib_count_as_parts() {
        let mut usage = Usage::default();
        usage.add(Duration::from_secs(1000), 80, 128 << 20);
        usage.add(Duration::from_secs(10), 2000, 1 << 30);
        assert!((usage.cpu_seconds() - 100.0).abs() < 1e-9);
        assert!((usage.gib_seconds() - 135.0).abs() < 1e-9);
        let cost = Billing::Requests.rates().cost(&usage);
        assert_eq!(cost, Money::nanos(100 * 24_000 + 135 * 2_500));
    }
}
