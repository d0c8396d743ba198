//! Cheap random numbers for one thread: traffic splits and trace ids, nothing secret.

use std::cell::Cell;

/// A SplitMix64 generator: one addition and a few multiplications a number.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

impl Random {
    /// Seeded by the operating system; by a constant where that fails, since nothing here is secret.
    pub(crate) fn new() -> Self {
        let mut seed = [0; 8];
        let _ = getrandom::fill(&mut seed);
        Self(Cell::new(u64::from_le_bytes(seed)))
    }

    pub(crate) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&self, bound: u32) -> u32 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u32::try_from(wide >> 64).unwrap_or(0)
    }
}
