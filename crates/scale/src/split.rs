//! A service's instance counts divided over its revisions.

/// Divides `total` by `percents`: whole instances, nobody far from his exact share, and the sum kept
/// (Cloud Run, `ServiceScaling`: divided among all revisions with specified traffic, by its percent).
/// Who has traffic gets at least `least` of a total that is not zero, even if the sum grows by that: a
/// revision that may have no instance would answer nothing.
#[must_use]
pub fn split(total: u32, percents: &[u32], least: u32) -> Vec<u32> {
    let sum: u64 = percents.iter().map(|p| u64::from(*p)).sum();
    if sum == 0 || total == 0 {
        return vec![0; percents.len()];
    }
    // The largest remainders get what rounding down leaves; of equal ones, the first.
    let exact = |percent: u32| u64::from(total) * u64::from(percent);
    let mut shares: Vec<u64> = percents.iter().map(|p| exact(*p) / sum).collect();
    let mut by_remainder: Vec<usize> = (0..percents.len()).collect();
    by_remainder.sort_by_key(|i| std::cmp::Reverse(exact(percents[*i]) % sum));
    let left = u64::from(total) - shares.iter().sum::<u64>();
    for i in by_remainder
        .into_iter()
        .take(usize::try_from(left).unwrap_or(usize::MAX))
    {
        shares[i] += 1;
    }
    // Who gets less than the least is given it by those who have most to spare.
    for i in 0..shares.len() {
        while percents[i] > 0 && shares[i] < u64::from(least) {
            let richest = (0..shares.len()).max_by_key(|j| (shares[*j], std::cmp::Reverse(*j)));
            if let Some(richest) = richest.filter(|j| shares[*j] > u64::from(least)) {
                shares[richest] -= 1;
            }
            shares[i] += 1;
        }
    }
    shares
        .into_iter()
        .map(|share| u32::try_from(share).unwrap_or(u32::MAX))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_sum_is_kept() {
        assert_eq!(split(10, &[33, 33, 34], 0), [3, 3, 4]);
        assert_eq!(split(4, &[50, 50], 0), [2, 2]);
        assert_eq!(split(1, &[50, 50], 0), [1, 0]);
        assert_eq!(split(1, &[10, 90], 0), [0, 1]);
        assert_eq!(split(0, &[10, 90], 1), [0, 0]);
    }

    #[test]
    fn who_has_traffic_has_an_instance() {
        assert_eq!(split(2, &[34, 33, 33, 0], 1), [1, 1, 1, 0]);
        assert_eq!(split(10, &[99, 1], 1), [9, 1]);
        assert_eq!(split(1, &[50, 50], 1), [1, 1]);
    }

    proptest! {
        #[test]
        fn shares_are_exact_to_one(total in 0_u32..2000, percents in proptest::collection::vec(0_u32..=100, 1..6)) {
            let shares = split(total, &percents, 0);
            let sum: u32 = percents.iter().sum();
            prop_assert_eq!(shares.iter().sum::<u32>(), if sum == 0 { 0 } else { total });
            for (share, percent) in shares.iter().zip(&percents) {
                let exact = f64::from(total) * f64::from(*percent) / f64::from(sum.max(1));
                prop_assert!((f64::from(*share) - exact).abs() < 1.0);
                prop_assert!(*percent > 0 || *share == 0);
            }
        }
    }
}
