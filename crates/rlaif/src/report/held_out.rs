//! What a trained model says about held-out pairs, with intervals over prompts: pairs of one prompt are not independent.

use super::data::{DpoSummary, Estimate, RewardSummary, SftSummary};
use rlaif_core::stats::{calibration, interval, paired::paired_difference};
use rlaif_train::{HoldoutPair, HoldoutRow};
use std::collections::BTreeMap;

/// As `evaluate.bootstrap`'s default.
const RESAMPLES: usize = 2000;
/// At least this many pairs a bin of the reliability diagram, or its dots are noise.
const PAIRS_A_BIN: usize = 8;
/// Most bins of the diagram.
const BINS: usize = 8;

impl SftSummary {
    /// Loss before and after on held-out rows, each prompt once.
    pub fn of(train_rows: usize, rows: &[HoldoutRow]) -> Self {
        let mut prompts: BTreeMap<&str, Vec<&HoldoutRow>> = BTreeMap::new();
        rows.iter().for_each(|row| prompts.entry(&row.prompt_id).or_default().push(row));
        let means = |of: fn(&HoldoutRow) -> f64| -> Vec<f64> {
            prompts
                .values()
                .map(|rows| rows.iter().map(|row| of(row)).sum::<f64>() / rows.len() as f64)
                .collect()
        };
        let (before, after) = (means(|row| row.before), means(|row| row.after));
        let mean =
            |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        Self {
            train_rows: train_rows as u64,
            held_out_rows: rows.len() as u64,
            loss_before: mean(&before),
            loss: mean(&after),
            change: paired_difference(&before, &after)
                .map(|paired| Estimate::of(paired.difference, paired.n)),
        }
    }
}

impl RewardSummary {
    /// Accuracy, margin and calibration on held-out pairs.
    pub fn of(train_pairs: usize, pairs: &[HoldoutPair], seed: u64) -> Self {
        // "Chosen" is always the better one; both orientations of each pair make the labels tell something.
        let predictions: Vec<f64> = pairs.iter().map(|pair| 1.0 / (1.0 + (-pair.margin).exp())).collect();
        let labels: Vec<f64> = pairs.iter().map(|pair| pair.p).collect();
        let (predictions, labels) = calibration::symmetric(&predictions, &labels);
        let bins = (pairs.len() / PAIRS_A_BIN).clamp(1, BINS);
        Self {
            train_pairs: train_pairs as u64,
            accuracy: accuracy(pairs, seed),
            margin: margin(pairs, seed),
            ece: calibration::ece(&predictions, &labels, bins),
            brier: calibration::brier(&predictions, &labels),
            bins: calibration::reliability(&predictions, &labels, bins).unwrap_or_default(),
        }
    }
}

impl DpoSummary {
    /// Accuracy and margin of the implicit rewards on held-out pairs.
    pub fn of(train_pairs: usize, pairs: &[HoldoutPair], seed: u64) -> Self {
        Self { train_pairs: train_pairs as u64, accuracy: accuracy(pairs, seed), margin: margin(pairs, seed) }
    }
}

/// Share of the pairs ranked as labelled.
fn accuracy(pairs: &[HoldoutPair], seed: u64) -> Option<Estimate> {
    over_prompts(pairs, seed, |pair| if pair.is_right() { 1.0 } else { 0.0 })
}

/// Mean reward of chosen minus rejected.
fn margin(pairs: &[HoldoutPair], seed: u64) -> Option<Estimate> {
    over_prompts(pairs, seed, |pair| pair.margin)
}

fn over_prompts(pairs: &[HoldoutPair], seed: u64, value: impl Fn(&HoldoutPair) -> f64) -> Option<Estimate> {
    let mut prompts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for pair in pairs {
        prompts.entry(&pair.prompt_id).or_default().push(value(pair));
    }
    let clusters: Vec<Vec<f64>> = prompts.into_values().collect();
    match interval::cluster_mean(&clusters, RESAMPLES, seed) {
        Some(interval) => Some(Estimate::of(interval, pairs.len())),
        // One prompt has no spread: the number stands alone.
        None if pairs.is_empty() => None,
        None => {
            let sum: f64 = pairs.iter().map(value).sum();
            Some(Estimate { n: Some(pairs.len() as u64), ..Estimate::point(sum / pairs.len() as f64) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(prompt: usize, margin: f64) -> HoldoutPair {
        HoldoutPair { prompt_id: format!("p{prompt}"), p: 0.9, margin }
    }

    #[test]
    fn held_out_numbers_have_intervals_over_prompts() {
        let pairs: Vec<HoldoutPair> =
            (0..40).map(|i| pair(i / 4, if i % 4 == 0 && i < 20 { -0.5 } else { 1.0 })).collect();
        let summary = RewardSummary::of(160, &pairs, 0);
        let accuracy = summary.accuracy.unwrap();
        assert_eq!((accuracy.value, accuracy.n), (0.875, Some(40)));
        let (low, high) = accuracy.interval().unwrap();
        assert!((0.75..0.875).contains(&low) && (0.876..=1.0).contains(&high), "{low} {high}");
        assert_eq!(summary.margin.unwrap().value, (35.0 - 2.5) / 40.0);
        assert_eq!(summary.bins.iter().map(|bin| bin.n).sum::<usize>(), 80, "both orientations of 40 pairs");
        assert_eq!(DpoSummary::of(160, &pairs, 0).accuracy, summary.accuracy);
    }

    #[test]
    fn a_loss_is_compared_with_itself_prompt_by_prompt() {
        let row = |prompt: usize, before: f64, after: f64| HoldoutRow {
            prompt_id: format!("p{prompt}"),
            tokens: 3,
            before,
            after,
        };
        let rows = [row(0, 3.0, 2.0), row(0, 5.0, 4.0), row(1, 2.0, 1.5), row(2, 6.0, 5.0)];
        let summary = SftSummary::of(9, &rows);
        assert_eq!((summary.loss_before, summary.loss), (Some(4.0), Some((3.0 + 1.5 + 5.0) / 3.0)));
        let change = summary.change.unwrap();
        assert!((change.value + 2.5 / 3.0).abs() < 1e-12 && change.n == Some(3));
        assert_eq!(SftSummary::of(9, &rows[..1]).change, None, "one prompt has no spread");
        assert_eq!(SftSummary::of(9, &[]).loss, None);
    }

    #[test]
    fn nothing_held_out_is_no_number() {
        let summary = RewardSummary::of(10, &[], 0);
        assert_eq!((summary.accuracy, summary.margin, summary.brier), (None, None, None));
        assert!(summary.bins.is_empty());
    }

    #[test]
    fn one_prompt_has_a_number_without_an_interval() {
        let accuracy = DpoSummary::of(10, &[pair(0, 1.0), pair(0, -1.0)], 0).accuracy.unwrap();
        assert_eq!((accuracy.value, accuracy.interval()), (0.5, None));
    }
}
