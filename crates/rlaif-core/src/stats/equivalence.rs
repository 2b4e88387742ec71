//! Equivalence: whether a difference is *small*, and not only not found.
//!
//! Two one-sided tests (TOST), Schuirmann 1987, <https://doi.org/10.1007/BF01068419>. The bounds are the largest difference that would not
//! matter, chosen before looking. Its hypothesis is that the difference lies outside; a small p value says that it lies within. With few
//! data nothing is shown to be equivalent, where a plain test would "find no bias".

use super::special::{binomial_at_least, binomial_at_most, normal_cdf, student_cdf};
use serde::{Deserialize, Serialize};

/// The outcome of two one-sided tests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Equivalence {
    /// What was measured.
    pub estimate: f64,
    /// p value of "it is at or below the lower bound".
    pub p_low: f64,
    /// p value of "it is at or above the upper bound".
    pub p_high: f64,
}

impl Equivalence {
    /// The p value of both together: the larger one.
    pub fn p_value(&self) -> f64 {
        self.p_low.max(self.p_high)
    }

    /// Whether equivalence is shown at the 5 % level.
    pub fn shown(&self) -> bool {
        self.p_value() < 0.05
    }
}

/// Whether a share lies between the bounds: exact binomial tests. For example how often a judge picks the first place, within
/// 0.45 and 0.55. `None` of nothing, or for bounds that are none.
pub fn share(successes: u64, n: u64, low: f64, high: f64) -> Option<Equivalence> {
    let shares = (0.0..=1.0).contains(&low) && (0.0..=1.0).contains(&high);
    (n > 0 && successes <= n && shares && low < high).then(|| Equivalence {
        estimate: successes as f64 / n as f64,
        p_low: binomial_at_least(successes, n, low),
        p_high: binomial_at_most(successes, n, high),
    })
}

/// Whether the mean of paired differences, after − before, lies between the bounds: t-tests with n − 1 degrees of freedom. For example
/// a score with one name and with another put in its place. Differences without any spread are certain.
///
/// `None` below two pairs, for different lengths, values that are not finite, or bounds that are none.
pub fn paired(before: &[f64], after: &[f64], low: f64, high: f64) -> Option<Equivalence> {
    let got = super::paired::paired_difference(before, after)?;
    let (n, estimate) = (got.n as f64, got.difference.estimate);
    let differences = before.iter().zip(after).map(|(before, after)| after - before);
    let variance = differences.map(|d| (d - estimate).powi(2)).sum::<f64>() / (n - 1.0);
    of_mean(estimate, (variance / n).sqrt(), n - 1.0, low, high)
}

/// Whether a mean with this standard error lies between the bounds: t-tests with so many degrees of freedom. A mean without any error is
/// certain. `None` for bounds that are none.
pub fn of_mean(estimate: f64, error: f64, freedom: f64, low: f64, high: f64) -> Option<Equivalence> {
    let above = |value: f64| match error {
        0.0 if estimate > value => 0.0,
        0.0 => 1.0,
        error => student_cdf(-(estimate - value) / error, freedom),
    };
    let below = |value: f64| match error {
        0.0 if estimate < value => 0.0,
        0.0 => 1.0,
        error => student_cdf((estimate - value) / error, freedom),
    };
    (low < high).then(|| Equivalence { estimate, p_low: above(low), p_high: below(high) })
}

/// Whether the difference of two independent shares lies between the bounds: z-tests on (k + 1)/(n + 2), Agresti & Caffo 2000,
/// <https://doi.org/10.1080/00031305.2000.10474560>. The estimate is the plain difference, first − second. `None` of nothing, or for
/// bounds that are none.
pub fn shares(first: (u64, u64), second: (u64, u64), low: f64, high: f64) -> Option<Equivalence> {
    let sane = |(k, n): (u64, u64)| n > 0 && k <= n;
    if !sane(first) || !sane(second) || low >= high {
        return None;
    }
    let pulled = |(k, n): (u64, u64)| {
        let n = n as f64 + 2.0;
        let p = (k as f64 + 1.0) / n;
        (p, p * (1.0 - p) / n)
    };
    let ((p1, v1), (p2, v2)) = (pulled(first), pulled(second));
    let error = (v1 + v2).sqrt();
    Some(Equivalence {
        estimate: first.0 as f64 / first.1 as f64 - second.0 as f64 / second.1 as f64,
        p_low: normal_cdf(-(p1 - p2 - low) / error),
        p_high: normal_cdf((p1 - p2 - high) / error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden_audit::*;

    #[test]
    fn shares_match_statsmodels() {
        for (k, n, low, high, overall, p_low, p_high) in TOST_SHARE {
            let got = share(k, n, low, high).unwrap();
            let errors = [got.p_value() - overall, got.p_low - p_low, got.p_high - p_high];
            assert!(errors.iter().all(|error| error.abs() < 1e-9), "{k} of {n}: {got:?}");
        }
        for (k1, n1, k2, n2, low, high, overall) in TOST_SHARES {
            let got = shares((k1, n1), (k2, n2), low, high).unwrap();
            assert!((got.p_value() - overall).abs() < 1e-9, "{got:?} {overall}");
        }
    }

    #[test]
    fn paired_differences_match_statsmodels() {
        let (low, high, overall, p_low, p_high) = TOST_PAIRED;
        let got = paired(&TOST_BEFORE, &TOST_AFTER, low, high).unwrap();
        let errors = [got.p_value() - overall, got.p_low - p_low, got.p_high - p_high];
        assert!(errors.iter().all(|error| error.abs() < 1e-9), "{got:?}");
    }

    #[test]
    fn few_data_show_nothing_and_many_do() {
        assert!(!share(5, 10, 0.45, 0.55).unwrap().shown());
        assert!(share(5000, 10_000, 0.45, 0.55).unwrap().shown());
        assert!(!share(5400, 10_000, 0.45, 0.54).unwrap().shown());
    }

    #[test]
    fn certain_differences_and_bounds_that_are_none() {
        assert!(paired(&[1.0, 2.0], &[1.0, 2.0], -0.1, 0.1).unwrap().shown());
        assert!(!paired(&[1.0, 2.0], &[2.0, 3.0], -0.1, 0.1).unwrap().shown());
        assert_eq!(paired(&[1.0, 2.0], &[1.0, 2.0], 0.1, -0.1), None);
        assert_eq!(share(0, 0, 0.4, 0.6), None);
        assert_eq!(share(1, 2, 0.6, 0.4), None);
        assert_eq!(shares((0, 0), (1, 2), -0.1, 0.1), None);
    }
}
