//! Before and after on the same prompts: the difference, and exact tests that need no distribution.

use super::interval::{self, Interval};
use super::special::{binomial_two_sided, student_two_sided};
use serde::{Deserialize, Serialize};

/// The mean of paired differences, after − before.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Pairs.
    pub n: usize,
    /// Mean before.
    pub before: f64,
    /// Mean after.
    pub after: f64,
    /// Mean difference with Student's 95 % t-interval.
    pub difference: Interval,
    /// Two-sided p value of the paired t-test; 0 differences everywhere give 1.
    pub p_value: f64,
}

/// Paired t-interval and test: d̄ ± t₀.₉₇₅(n − 1)·s_d/√n, after − before.
///
/// `before[i]` and `after[i]` belong to the same prompt; several samples of a prompt are averaged first, so that prompts are
/// what is independent. `None` below two pairs, for different lengths, or where a value is not finite.
pub fn paired_difference(before: &[f64], after: &[f64]) -> Option<PairedDifference> {
    if before.len() != after.len() {
        return None;
    }
    let differences: Vec<f64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
    let difference = interval::mean(&differences)?;
    let n = differences.len() as f64;
    let spread = differences.iter().map(|d| (d - difference.estimate).powi(2)).sum::<f64>() / (n - 1.0);
    let error = (spread / n).sqrt();
    let p_value = match error {
        0.0 if difference.estimate == 0.0 => 1.0,
        0.0 => 0.0,
        error => student_two_sided(difference.estimate / error, n - 1.0),
    };
    Some(PairedDifference {
        n: differences.len(),
        before: before.iter().sum::<f64>() / n,
        after: after.iter().sum::<f64>() / n,
        difference,
        p_value,
    })
}

/// Exact sign test: the two-sided p value of this many wins and losses if both were equally likely; ties are left out by
/// the caller. 1 where there are none.
pub fn sign_test(wins: u64, losses: u64) -> f64 {
    binomial_two_sided(wins, wins + losses)
}

/// Exact McNemar test, McNemar 1947: `b` and `c` are the two kinds of discordant pairs. The same as a [`sign_test`] on them.
pub fn mcnemar(b: u64, c: u64) -> f64 {
    sign_test(b, c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden::*;

    #[test]
    fn paired_difference_matches_scipy() {
        let got = paired_difference(&BEFORE, &AFTER).unwrap();
        let (estimate, low, high) = PAIRED;
        assert!((got.difference.estimate - estimate).abs() < 1e-12);
        assert!(
            (got.difference.low - low).abs() < 1e-9 && (got.difference.high - high).abs() < 1e-9,
            "{got:?}"
        );
        assert!((got.p_value - PAIRED_P).abs() < 1e-9, "{got:?}");
        assert!((got.after - got.before - estimate).abs() < 1e-12);
    }

    #[test]
    fn pairing_sees_what_two_means_do_not() {
        // Prompts differ by far more than the tuning moved each of them.
        let before: Vec<f64> = (0..20).map(|i| f64::from(i) * 10.0).collect();
        let after: Vec<f64> =
            before.iter().enumerate().map(|(i, b)| b + 1.0 + 0.1 * (i % 3) as f64).collect();
        assert!(paired_difference(&before, &after).unwrap().difference.excludes(0.0));
    }

    #[test]
    fn unequal_lengths_and_constants() {
        assert_eq!(paired_difference(&[1.0, 2.0], &[1.0]), None);
        assert_eq!(paired_difference(&[1.0, 2.0], &[1.0, 2.0]).unwrap().p_value, 1.0);
        assert_eq!(paired_difference(&[1.0, 2.0], &[2.0, 3.0]).unwrap().p_value, 0.0);
    }

    #[test]
    fn sign_test_by_hand() {
        assert_eq!(sign_test(0, 0), 1.0);
        assert_eq!(sign_test(5, 5), 1.0);
        // 2 · (1 + 10) / 2^10
        assert!((sign_test(9, 1) - 22.0 / 1024.0).abs() < 1e-12);
        assert!((mcnemar(1, 9) - 22.0 / 1024.0).abs() < 1e-12);
        assert!((sign_test(6, 5) - 1.0).abs() < 1e-12);
    }
}
