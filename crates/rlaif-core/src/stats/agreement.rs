//! Whether two judges, or a judge and people, say the same.

use super::interval::{self, Interval};
use std::collections::BTreeMap;

/// Share of items on which both say the same, with Wilson's interval; `None` for none or for different lengths.
pub fn accuracy<T: PartialEq>(a: &[T], b: &[T]) -> Option<Interval> {
    if a.len() != b.len() {
        return None;
    }
    let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
    interval::wilson(same as u64, a.len() as u64)
}

/// Cohen's kappa, Cohen 1960: agreement beyond what both would reach by chance.
///
/// κ = (p_o − p_e) / (1 − p_e), p_e = Σ_k p_a(k)·p_b(k)
///
/// `None` for nothing, for different lengths, and where both always say one and the same thing (chance agreement is then 1 and κ
/// undefined; agreement there is no evidence of judging).
pub fn cohen_kappa<T: Ord>(a: &[T], b: &[T]) -> Option<f64> {
    if a.len() != b.len() || a.is_empty() {
        return None;
    }
    let n = a.len() as f64;
    let mut counts: BTreeMap<&T, (f64, f64)> = BTreeMap::new();
    for (a, b) in a.iter().zip(b) {
        counts.entry(a).or_default().0 += 1.0;
        counts.entry(b).or_default().1 += 1.0;
    }
    let expected = counts.values().map(|(a, b)| a / n * (b / n)).sum::<f64>();
    let observed = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / n;
    // All on one label: a product of ones, exact in floating point.
    (expected < 1.0).then(|| (observed - expected) / (1.0 - expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden::*;

    #[test]
    fn kappa_matches_scikit_learn() {
        let got = cohen_kappa(&RATER_A, &RATER_B).unwrap();
        assert!((got - KAPPA).abs() < 1e-12, "{got}");
    }

    #[test]
    fn kappa_at_its_ends() {
        assert_eq!(cohen_kappa(&[1, 2, 1, 2], &[1, 2, 1, 2]), Some(1.0));
        assert_eq!(cohen_kappa(&[1, 1, 2, 2], &[1, 2, 1, 2]), Some(0.0));
        assert_eq!(cohen_kappa(&[1, 2], &[2, 1]), Some(-1.0));
        assert_eq!(
            cohen_kappa(&[1, 1, 1], &[1, 1, 1]),
            None,
            "a judge that always says A agrees with itself by chance"
        );
        assert_eq!(cohen_kappa::<u8>(&[], &[]), None);
        assert_eq!(cohen_kappa(&[1], &[1, 2]), None);
    }

    #[test]
    fn accuracy_counts() {
        assert_eq!(accuracy(&["a", "b", "c", "d"], &["a", "b", "c", "x"]).unwrap().estimate, 0.75);
        assert_eq!(accuracy::<u8>(&[], &[]), None);
    }
}
