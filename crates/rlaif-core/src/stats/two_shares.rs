//! The difference of two independent shares, or other estimates.

use super::interval::{self, Interval};

/// p₁ − p₂ with Newcombe's hybrid score interval, Newcombe 1998, method 10, <https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C873::AID-SIM779%3E3.0.CO;2-I>:
///
/// low = d − √((p₁ − l₁)² + (u₂ − p₂)²), high = d + √((u₁ − p₁)² + (p₂ − l₂)²), with Wilson's l and u
///
/// Each share is (count, of how many); the two groups have no pair or prompt in common, otherwise see [`super::paired`]. `None` where one
/// is of nothing.
pub fn difference(first: (u64, u64), second: (u64, u64)) -> Option<Interval> {
    let first = interval::wilson(first.0, first.1)?;
    let second = interval::wilson(second.0, second.1)?;
    Some(of_intervals(first, second))
}

/// The difference of two independent estimates, whatever they are of, from their intervals: the same formula with any l and u (MOVER, Zou
/// and Donner 2008, <https://doi.org/10.1002/sim.3095>).
pub fn of_intervals(first: Interval, second: Interval) -> Interval {
    let estimate = first.estimate - second.estimate;
    let below = (first.estimate - first.low).hypot(second.high - second.estimate);
    let above = (first.high - first.estimate).hypot(second.estimate - second.low);
    Interval { estimate, low: estimate - below, high: estimate + above }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden_audit::NEWCOMBE;

    #[test]
    fn matches_statsmodels() {
        for (k1, n1, k2, n2, estimate, low, high) in NEWCOMBE {
            let got = difference((k1, n1), (k2, n2)).unwrap();
            let errors = [got.estimate - estimate, got.low - low, got.high - high];
            assert!(errors.iter().all(|error| error.abs() < 1e-9), "{k1}/{n1} {k2}/{n2}: {got:?}");
        }
        assert_eq!(difference((0, 0), (1, 2)), None);
        assert_eq!(difference((1, 2), (3, 2)), None);
    }
}
