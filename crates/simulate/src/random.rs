//! Numbers that only look random: the same seed gives the same ones, on every machine.

use oorandom::Rand64;

/// Which numbers are drawn from which stream, so that one draw more here changes nothing there.
pub(crate) const SERVICE: u64 = 1;
pub(crate) const STARTS: u64 = 2;
pub(crate) const FAILURES: u64 = 3;
pub(crate) const PLACES: u64 = 4;

/// One stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(Rand64);

impl Random {
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let both = (u128::from(stream) << 64) | u128::from(seed);
        Self(Rand64::new(both))
    }

    /// From 0 (included) to 1 (not).
    pub(crate) fn unit(&mut self) -> f64 {
        self.0.rand_float()
    }

    /// Of the standard normal distribution (Box and Muller). `libm`, since the system's functions may
    /// differ in the last digit.
    pub(crate) fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.unit(), self.unit());
        libm::sqrt(-2.0 * libm::log(u)) * libm::cos(std::f64::consts::TAU * v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut random = Random::new(1, SERVICE);
        let first: Vec<_> = (0..3).map(|_| random.0.rand_u64()).collect();
        let mut again = Random::new(1, SERVICE);
        assert_eq!(
            first,
            (0..3).map(|_| again.0.rand_u64()).collect::<Vec<_>>()
        );
        let other = Random::new(1, STARTS).0.rand_u64();
        assert_ne!(first[0], other);
    }

    #[test]
    fn normal_numbers_are_normal() {
        let mut random = Random::new(7, SERVICE);
        let all: Vec<_> = (0..100_000).map(|_| random.normal()).collect();
        let count = f64::from(u32::try_from(all.len()).unwrap());
        let mean = all.iter().sum::<f64>() / count;
        let variance = all.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
    }
}
