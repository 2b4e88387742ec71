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

/// What a disagreement of two ordered categories costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// |c − k|
    Linear,
    /// (c − k)²
    Quadratic,
}

/// Cohen's weighted kappa, Cohen 1968, for ordered categories from 0, such as b, tie, a: a tie against a is half a disagreement.
///
/// κ_w = 1 − Σ_ck w_ck·O_ck / Σ_ck w_ck·E_ck, O the counts, E those expected of independent judges with the same margins
///
/// `None` as [`cohen_kappa`], and where a category is not below `categories`.
pub fn weighted_kappa(a: &[usize], b: &[usize], categories: usize, weights: Weights) -> Option<f64> {
    if a.len() != b.len() || a.iter().chain(b).any(|category| *category >= categories) {
        return None;
    }
    let cost = |c: usize, k: usize| match weights {
        Weights::Linear => c.abs_diff(k) as f64,
        Weights::Quadratic => c.abs_diff(k).pow(2) as f64,
    };
    let observed: f64 = a.iter().zip(b).map(|(a, b)| cost(*a, *b)).sum();
    let margin = |said: &[usize]| {
        let mut counts = vec![0.0; categories];
        said.iter().for_each(|category| counts[*category] += 1.0);
        counts
    };
    let (of_a, of_b) = (margin(a), margin(b));
    let mut expected = 0.0;
    for (c, in_a) in of_a.iter().enumerate() {
        for (k, in_b) in of_b.iter().enumerate() {
            expected += cost(c, k) * in_a * in_b / a.len() as f64;
        }
    }
    (expected > 0.0).then(|| 1.0 - observed / expected)
}

/// [`cohen_kappa`] with its bootstrap interval; `prompts[i]` is what both say of each pair of prompt i.
pub fn kappa_over_prompts<T: Ord>(
    prompts: &[Vec<(T, T)>],
    resamples: usize,
    run_seed: u64,
) -> Option<Interval> {
    interval::bootstrap_items(prompts, resamples, run_seed, |pairs| {
        let (a, b): (Vec<&T>, Vec<&T>) = pairs.iter().map(|(a, b)| (a, b)).unzip();
        cohen_kappa(&a, &b)
    })
}

/// [`weighted_kappa`] with its bootstrap interval, as [`kappa_over_prompts`].
pub fn weighted_kappa_over_prompts(
    prompts: &[Vec<(usize, usize)>],
    categories: usize,
    weights: Weights,
    resamples: usize,
    run_seed: u64,
) -> Option<Interval> {
    interval::bootstrap_items(prompts, resamples, run_seed, |pairs| {
        let (a, b): (Vec<usize>, Vec<usize>) = pairs.iter().copied().copied().unzip();
        weighted_kappa(&a, &b, categories, weights)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden::*;
    use crate::stats::golden_audit::{COMPLETE, WEIGHTED_KAPPA};

    #[test]
    fn weighted_kappa_matches_scikit_learn() {
        let said = |rater: usize| COMPLETE.iter().map(|row| row[rater] as usize).collect::<Vec<_>>();
        let (a, b) = (said(0), said(1));
        let (plain, linear, quadratic) = WEIGHTED_KAPPA;
        for (got, want) in [
            (cohen_kappa(&a, &b), plain),
            (weighted_kappa(&a, &b, 3, Weights::Linear), linear),
            (weighted_kappa(&a, &b, 3, Weights::Quadratic), quadratic),
        ] {
            assert!((got.unwrap() - want).abs() < 1e-9, "{got:?} {want}");
        }
        let prompts: Vec<Vec<(usize, usize)>> = a.iter().zip(&b).map(|(a, b)| vec![(*a, *b)]).collect();
        let interval = kappa_over_prompts(&prompts, 500, 0).unwrap();
        assert!((interval.estimate - plain).abs() < 1e-9 && interval.low < plain && plain < interval.high);
        let interval = weighted_kappa_over_prompts(&prompts, 3, Weights::Linear, 500, 0).unwrap();
        assert!((interval.estimate - linear).abs() < 1e-9 && interval.low < linear && linear < interval.high);
    }

    #[test]
    fn weighted_kappa_of_nothing_is_none() {
        assert_eq!(weighted_kappa(&[], &[], 3, Weights::Linear), None);
        assert_eq!(weighted_kappa(&[1, 1], &[1, 1], 3, Weights::Linear), None);
        assert_eq!(weighted_kappa(&[3], &[0], 3, Weights::Linear), None);
        assert_eq!(weighted_kappa(&[1], &[0, 1], 3, Weights::Linear), None);
        assert_eq!(weighted_kappa(&[0, 1, 2], &[0, 1, 2], 3, Weights::Quadratic), Some(1.0));
    }

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
