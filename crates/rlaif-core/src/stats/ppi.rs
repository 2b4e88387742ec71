//! What people would say of all pairs, from a judge's verdicts on all and people's on some: prediction-powered inference.
//!
//! Angelopoulos et al. 2023, "Prediction-powered inference", <https://arxiv.org/abs/2301.09633>; the tuned form is PPI++,
//! Angelopoulos, Duchi & Zrnic 2023, <https://arxiv.org/abs/2311.01453>.
//!
//! Usable where the pairs that people judged are a *random* sample of all pairs: then the judge may be wrong in any way. Not for pairs
//! that were chosen because judges disagreed on them. With few labels, and where people and judge never
//! differed on them, the interval is too narrow: of simulated studies it held the truth in 94.0 % with 100 labels and in 90.3 % with 30
//! (`full_simulation` in `tests/suite/coverage.rs`). Where the labelled pairs are no random sample but the judge's errors on them are those
//! it makes everywhere, [`super::rogan_gladen`] is the one to use.

use super::interval::{Interval, Z, unanimous};

/// How much the judge is trusted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tuning {
    /// λ = 1, the first paper.
    Full,
    /// The λ in [0, 1] at which the interval is narrowest, estimated (PPI++): a judge that knows nothing gets 0, and people's labels alone
    /// remain.
    Power,
}

/// A rate that a judge measured, corrected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Corrected {
    /// What people would have said of all pairs.
    pub rate: Interval,
    /// What the judge said, on average over all pairs.
    pub judge: f64,
    /// λ
    pub lambda: f64,
    /// Pairs that people judged.
    pub labelled: usize,
    /// Pairs that only the judge saw.
    pub unlabelled: usize,
}

/// The mean of people's verdicts, prediction-powered:
///
/// θ = λ·mean(f_unlabelled) + mean(y − λ·f),  variance Var(λ·f_unlabelled)/N + Var(y − λ·f)/n, interval θ ± z·√variance
///
/// Where y − λ·f is the same on all labelled pairs, its variance of 0 proves nothing: its interval is then [`unanimous`], and its ends are put
/// together with the judge's by the square root of the sum of squares (Zou & Donner 2008).
///
/// λ of [`Tuning::Power`] is Cov(y, f) / ((1 + n/N)·Var(f)), cut off at 0 and 1.
///
/// `labelled` holds (y, f): p of people and of the judge on pairs that both saw, such as 1, ½ and 0 for a win rate, or whether the label
/// was right and how probable the judge held that; `unlabelled` is f on the others. Pairs of one prompt are averaged first, so
/// that what is passed in is independent. The ends are not cut off at 0 and 1: an end beyond them says that labels are too few.
///
/// `None` below two labelled or two unlabelled pairs, or where a value is not finite.
pub fn prediction_powered(labelled: &[(f64, f64)], unlabelled: &[f64], tuning: Tuning) -> Option<Corrected> {
    let finite = labelled.iter().all(|(y, f)| y.is_finite() && f.is_finite());
    if labelled.len() < 2 || unlabelled.len() < 2 || !finite || unlabelled.iter().any(|f| !f.is_finite()) {
        return None;
    }
    let (n, rest) = (labelled.len() as f64, unlabelled.len() as f64);
    let people = mean(labelled.iter().map(|(y, _)| *y));
    let judge = mean(labelled.iter().map(|(_, f)| *f));
    let alone = mean(unlabelled.iter().copied());
    let everywhere = (n * judge + rest * alone) / (n + rest);
    let lambda = match tuning {
        Tuning::Full => 1.0,
        Tuning::Power => {
            let covariance = mean(labelled.iter().map(|(y, f)| (y - people) * (f - judge)));
            let all = labelled.iter().map(|(_, f)| f).chain(unlabelled);
            let variance = all.map(|f| (f - everywhere).powi(2)).sum::<f64>() / (n + rest - 1.0);
            if variance > 0.0 { (covariance / ((1.0 + n / rest) * variance)).clamp(0.0, 1.0) } else { 0.0 }
        }
    };
    let rectifier = people - lambda * judge;
    let of_rectifier = mean(labelled.iter().map(|(y, f)| (y - lambda * f - rectifier).powi(2)));
    let of_judge = mean(unlabelled.iter().map(|f| (lambda * (f - alone)).powi(2)));
    let estimate = lambda * alone + rectifier;
    let half = Z * (of_rectifier / n).sqrt();
    let bare = Interval { estimate: rectifier, low: rectifier - half, high: rectifier + half };
    let rectified = unanimous(bare, labelled.len() as u64, [-lambda, 1.0]);
    let half = |of_rectifier: f64| (Z * Z * of_judge / rest + of_rectifier.powi(2)).sqrt();
    Some(Corrected {
        rate: Interval {
            estimate,
            low: estimate - half(rectifier - rectified.low),
            high: estimate + half(rectified.high - rectifier),
        },
        judge: everywhere,
        lambda,
        labelled: labelled.len(),
        unlabelled: unlabelled.len(),
    })
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden_audit::*;
    use crate::stats::interval::tests::close;

    #[test]
    fn matches_ppi_python() {
        let labelled: Vec<(f64, f64)> = HUMAN.into_iter().zip(JUDGE).collect();
        close(prediction_powered(&labelled, &JUDGE_ALONE, Tuning::Full).unwrap().rate, PPI);
        let tuned = prediction_powered(&labelled, &JUDGE_ALONE, Tuning::Power).unwrap();
        close(tuned.rate, PPI_TUNED);
        assert!(0.0 < tuned.lambda && tuned.lambda < 1.0, "{tuned:?}");
    }

    #[test]
    fn a_judge_that_is_always_wrong_is_not_listened_to() {
        let labelled: Vec<(f64, f64)> = HUMAN.into_iter().zip(JUDGE.map(|p| 1.0 - p)).collect();
        let alone = JUDGE_ALONE.map(|p| 1.0 - p);
        let got = prediction_powered(&labelled, &alone, Tuning::Power).unwrap();
        close(got.rate, PPI_USELESS);
        assert_eq!(got.lambda, 0.0);
    }

    #[test]
    fn a_judge_with_one_opinion_leaves_people_alone() {
        let labelled: Vec<(f64, f64)> = HUMAN.into_iter().map(|y| (y, 0.7)).collect();
        let got = prediction_powered(&labelled, &[0.7; 50], Tuning::Power).unwrap();
        assert!((got.rate.estimate - mean(HUMAN.into_iter())).abs() < 1e-12);
        assert!((got.judge - 0.7).abs() < 1e-12);
    }

    /// Judge and people agree on all 20: up to 16 % of the others may be otherwise.
    #[test]
    fn a_judge_that_was_always_right_is_not_certain_to_be() {
        let labelled: Vec<(f64, f64)> = (0..20).map(|i| f64::from(i % 2)).map(|f| (f, f)).collect();
        let alone: Vec<f64> = (0..10_000).map(|i| f64::from(i % 2)).collect();
        let got = prediction_powered(&labelled, &alone, Tuning::Full).unwrap().rate;
        let w = crate::stats::interval::wilson(0, 20).unwrap().high;
        let half = (w * w + Z * Z * 0.25 / 10_000.0).sqrt();
        close(got, (0.5, 0.5 - half, 0.5 + half));
    }

    #[test]
    fn too_little_is_none() {
        assert_eq!(prediction_powered(&[(1.0, 1.0)], &[0.0, 1.0], Tuning::Power), None);
        assert_eq!(prediction_powered(&[(1.0, 1.0), (0.0, 1.0)], &[0.0], Tuning::Power), None);
        assert_eq!(prediction_powered(&[(1.0, f64::NAN), (0.0, 1.0)], &[0.0, 1.0], Tuning::Power), None);
    }
}
