//! Calibration: whether a predicted probability means what it says.
//!
//! Of a reward model, p = σ(r_chosen − r_rejected) and the label is 1 (or the soft p of the judges). Since "chosen" is always the
//! better one, orient pairs at random or by id first (or use [`symmetric`]), or the labels are constant and no model can look
//! badly calibrated from below.

use serde::{Deserialize, Serialize};

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Predictions in it.
    pub n: usize,
    /// Their mean prediction.
    pub predicted: f64,
    /// The mean label: how often it was so.
    pub observed: f64,
}

/// Bins of equal mass for a reliability diagram: predictions in order, cut into `bins` groups whose sizes differ by at most
/// one (the first ones are larger, as `numpy.array_split` does). Equal predictions are ordered by nothing but their place in
/// the input. `None` for nothing, different lengths, or values outside [0, 1].
pub fn reliability(predictions: &[f64], labels: &[f64], bins: usize) -> Option<Vec<Bin>> {
    check(predictions, labels)?;
    let mut order: Vec<usize> = (0..predictions.len()).collect();
    order.sort_by(|a, b| predictions[*a].total_cmp(&predictions[*b]));
    let bins = bins.clamp(1, order.len());
    let (size, larger) = (order.len() / bins, order.len() % bins);
    let mut rest = order.as_slice();
    let mut diagram = Vec::with_capacity(bins);
    for bin in 0..bins {
        let (members, after) = rest.split_at(size + usize::from(bin < larger));
        rest = after;
        let mean = |values: &[f64]| members.iter().map(|i| values[*i]).sum::<f64>() / members.len() as f64;
        diagram.push(Bin { n: members.len(), predicted: mean(predictions), observed: mean(labels) });
    }
    Some(diagram)
}

/// Expected calibration error over bins of equal mass, Naeini et al. 2015 and Nixon et al. 2019:
/// Σ_b n_b/N · |observed_b − predicted_b|. 15 bins are usual; it is biased upward where bins hold few.
pub fn ece(predictions: &[f64], labels: &[f64], bins: usize) -> Option<f64> {
    let n = predictions.len() as f64;
    let diagram = reliability(predictions, labels, bins)?;
    Some(diagram.iter().map(|bin| bin.n as f64 / n * (bin.observed - bin.predicted).abs()).sum())
}

/// Brier score, Brier 1950: mean (p − y)². ¼ for a model that always says ½ of hard labels.
pub fn brier(predictions: &[f64], labels: &[f64]) -> Option<f64> {
    check(predictions, labels)?;
    let n = predictions.len() as f64;
    Some(predictions.iter().zip(labels).map(|(p, y)| (p - y).powi(2)).sum::<f64>() / n)
}

/// Negative log-likelihood: −mean(y·ln p + (1 − y)·ln(1 − p)); ln 2 for a model that always says ½. Infinite where
/// the model was certain and wrong: it is not clipped.
pub fn nll(predictions: &[f64], labels: &[f64]) -> Option<f64> {
    check(predictions, labels)?;
    let n = predictions.len() as f64;
    // 0·ln 0 is 0: what did not happen and was called impossible costs nothing.
    let cost = |weight: f64, p: f64| if weight == 0.0 { 0.0 } else { -weight * p.ln() };
    Some(predictions.iter().zip(labels).map(|(p, y)| cost(*y, *p) + cost(1.0 - y, 1.0 - p)).sum::<f64>() / n)
}

/// Each prediction and label twice, once from the other side (1 − p, 1 − y): what a pair is like when which response is called
/// "chosen" says nothing. Brier and NLL do not change; ECE and reliability become honest.
pub fn symmetric(predictions: &[f64], labels: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let both = |values: &[f64]| values.iter().flat_map(|value| [*value, 1.0 - value]).collect();
    (both(predictions), both(labels))
}

/// The temperature T that makes σ(margin / T) fit the labels best: the minimum of the NLL, which is convex in a = 1/T (Guo et al. 2017,
/// section 4.2, <https://arxiv.org/abs/1706.04599>, with one scalar).
///
/// d NLL / da = mean((σ(a·margin) − label) · margin) rises with a; its root is bracketed by doubling and bisected to the last bits.
///
/// `None` where there is no finite one: nothing to fit, margins that say no more than chance (T → ∞), or margins that are never
/// wrong about certain labels (T → 0).
pub fn temperature(margins: &[f64], labels: &[f64]) -> Option<f64> {
    const LARGEST: f64 = 1e6; // of a: beyond it a margin of 1e-4 is a certainty
    check(labels, labels)?;
    if margins.len() != labels.len() || margins.iter().any(|margin| !margin.is_finite()) {
        return None;
    }
    let fits = |(m, y): (&f64, &f64)| *m == 0.0 || (*m > 0.0 && *y == 1.0) || (*m < 0.0 && *y == 0.0);
    if margins.iter().zip(labels).all(fits) {
        return None;
    }
    let slope = |a: f64| -> f64 {
        margins.iter().zip(labels).map(|(m, y)| (1.0 / (1.0 + (-a * m).exp()) - y) * m).sum()
    };
    if slope(0.0) >= 0.0 {
        return None;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while slope(high) < 0.0 {
        (low, high) = (high, 2.0 * high);
        if high > LARGEST {
            return None;
        }
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if slope(middle) < 0.0 { low = middle } else { high = middle }
    }
    Some(2.0 / (low + high))
}

fn check(predictions: &[f64], labels: &[f64]) -> Option<()> {
    let inside = |values: &[f64]| values.iter().all(|value| (0.0..=1.0).contains(value));
    let fits =
        !predictions.is_empty() && predictions.len() == labels.len() && inside(predictions) && inside(labels);
    fits.then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden::*;

    #[test]
    fn matches_scikit_learn() {
        assert!((brier(&PREDICTIONS, &LABELS).unwrap() - BRIER).abs() < 1e-12);
        assert!((nll(&PREDICTIONS, &LABELS).unwrap() - NLL).abs() < 1e-12);
        assert!((ece(&PREDICTIONS, &LABELS, 5).unwrap() - ECE_5).abs() < 1e-12);
    }

    #[test]
    fn bins_hold_equally_many_and_all() {
        let predictions: Vec<f64> = (0..23).map(|i| f64::from(i) / 23.0).collect();
        let diagram = reliability(&predictions, &predictions, 5).unwrap();
        assert_eq!(diagram.iter().map(|bin| bin.n).collect::<Vec<_>>(), [5, 5, 5, 4, 4]);
        assert!(ece(&predictions, &predictions, 5).unwrap() < 1e-12);
        assert_eq!(reliability(&[0.5], &[1.0], 15).unwrap().len(), 1);
    }

    #[test]
    fn certainty_that_was_wrong_is_infinitely_bad_and_right_costs_nothing() {
        assert_eq!(nll(&[1.0], &[0.0]), Some(f64::INFINITY));
        assert_eq!(nll(&[1.0, 0.0], &[1.0, 0.0]), Some(0.0));
    }

    #[test]
    fn overconfidence_shows_only_when_sides_are_symmetric() {
        // Always certain, right three times of four.
        let (p, y) = symmetric(&[0.99; 4], &[1.0, 1.0, 1.0, 0.0]);
        let error = ece(&p, &y, 2).unwrap();
        assert!((error - 0.24).abs() < 1e-12, "{error}");
        assert!((brier(&p, &y).unwrap() - brier(&[0.99; 4], &[1.0, 1.0, 1.0, 0.0]).unwrap()).abs() < 1e-12);
    }

    #[test]
    fn temperature_is_where_the_likelihood_is_highest() {
        // Margins twice as sure as they may be: labels are σ(margin / 2).
        let margins: Vec<f64> = (-20..=20).map(|i| 0.3 * f64::from(i)).collect();
        let labels: Vec<f64> = margins.iter().map(|m| 1.0 / (1.0 + (-m / 2.0).exp())).collect();
        assert!((temperature(&margins, &labels).unwrap() - 2.0).abs() < 1e-9);

        let (margins, labels) = ([2.0, -1.0, 0.5, 3.0, -0.2], [1.0, 0.0, 0.0, 1.0, 1.0]);
        let t = temperature(&margins, &labels).unwrap();
        let at = |t: f64| {
            let p: Vec<f64> = margins.iter().map(|m| 1.0 / (1.0 + (-m / t).exp())).collect();
            nll(&p, &labels).unwrap()
        };
        assert!(at(t) < at(t * 1.001) && at(t) < at(t / 1.001), "{t}");
    }

    #[test]
    fn a_temperature_that_would_be_none_is_none() {
        assert_eq!(temperature(&[], &[]), None);
        assert_eq!(temperature(&[1.0, 2.0], &[1.0, 1.0]), None, "never wrong");
        assert_eq!(temperature(&[-1.0, -2.0], &[1.0, 1.0]), None, "never right");
        assert_eq!(temperature(&[0.0, 0.0], &[1.0, 0.0]), None, "no opinion");
        assert_eq!(temperature(&[f64::NAN], &[1.0]), None);
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        assert_eq!(brier(&[], &[]), None);
        assert_eq!(brier(&[0.5], &[0.5, 1.0]), None);
        assert_eq!(ece(&[f64::NAN], &[1.0], 5), None);
        assert_eq!(nll(&[1.5], &[1.0]), None);
    }
}
