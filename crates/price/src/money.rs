//! Amounts of US dollars.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

/// An amount, in whole billionths of a dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Money(u128);

impl Money {
    /// So many billionths of a dollar.
    #[must_use]
    pub const fn nanos(nanos: u128) -> Self {
        Self(nanos)
    }

    /// In billionths of a dollar.
    #[must_use]
    pub const fn as_nanos(self) -> u128 {
        self.0
    }

    /// `part / whole` times as much, rounded to the nearest billionth.
    pub(crate) fn times(self, part: u128, whole: u128) -> Self {
        Self((self.0 * part + whole / 2) / whole)
    }
}

impl Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// `$12.34`, rounded to the nearest cent; with more digits after the point if asked for.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2).min(9);
        let unit = 10_u128.pow(u32::try_from(9 - digits).unwrap_or(0));
        let rounded = (self.0 + unit / 2) / unit;
        let whole = 10_u128.pow(u32::try_from(digits).unwrap_or(0));
        let (dollars, rest) = (rounded / whole, rounded % whole);
        match digits {
            0 => write!(f, "${dollars}"),
            _ => write!(f, "${dollars}.{rest:0digits$}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_to_the_nearest_cent() {
        assert_eq!(Money::nanos(4_999_999).to_string(), "$0.00");
        assert_eq!(Money::nanos(5_000_000).to_string(), "$0.01");
        assert_eq!(Money::nanos(12_345_678_901).to_string(), "$12.35");
        assert_eq!(format!("{:.4}", Money::nanos(12_345_678_901)), "$12.3457");
        assert_eq!(format!("{:.0}", Money::nanos(12_345_678_901)), "$12");
    }
}
