//! What a trained model says about held-out pairs, with intervals over prompts: pairs of one prompt are not independent.

use super::data::{DpoSummary, Estimate, Part, RewardSummary, SftSummary};
use rlaif_core::stats::Interval;
use rlaif_core::stats::calibration;
use rlaif_core::stats::interval::{cluster_mean, cluster_share};
use rlaif_core::stats::paired::paired_difference;
use rlaif_train::{HoldoutPair, HoldoutRow};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// As `evaluate.bootstrap`'s default.
const RESAMPLES: usize = 2000;
/// At least this many pairs a bin of the reliability diagram, or its dots are noise.
const PAIRS_A_BIN: usize = 8;
/// Lengths that differ by at most this share of the longer one are alike.
const ALIKE: f64 = 0.1;
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
            watch: None,
        }
    }
}

impl RewardSummary {
    /// Accuracy, margin and calibration on held-out pairs.
    pub fn of(train_pairs: usize, pairs: &[HoldoutPair], seed: u64) -> Self {
        // "Chosen" is always the better one; both orientations of each pair make the labels tell something.
        let (margins, labels): (Vec<f64>, Vec<f64>) = pairs.iter().map(|pair| (pair.margin, pair.p)).unzip();
        let temperature = calibration::temperature(&margins, &labels);
        let predictions: Vec<f64> = margins.iter().map(|margin| logistic(*margin)).collect();
        let (predictions, labels) = calibration::symmetric(&predictions, &labels);
        let bins = (pairs.len() / PAIRS_A_BIN).clamp(1, BINS);
        Self {
            train_pairs: train_pairs as u64,
            accuracy: accuracy(pairs, seed),
            margin: margin(pairs, seed),
            ece: calibration::ece(&predictions, &labels, bins),
            brier: calibration::brier(&predictions, &labels),
            bins: calibration::reliability(&predictions, &labels, bins).unwrap_or_default(),
            temperature,
            ece_calibrated: ece_calibrated(pairs, bins),
            longer_wins: longer_wins(pairs, seed),
            parts: parts(pairs, seed),
            ..Self::default()
        }
    }

    /// Adds the accuracy of each member of an ensemble by itself.
    pub fn add_members(&mut self, members: &[Vec<HoldoutPair>], seed: u64) {
        self.parts.extend(members.iter().enumerate().filter_map(|(number, pairs)| {
            let name = format!("{} of {}", number + 1, members.len());
            Some(Part { by: "member".into(), name, accuracy: accuracy(pairs, seed)? })
        }));
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Calibration error where the margins of each half of the prompts are divided by the temperature of the other half: a T is not
/// judged on what it was fitted to. `None` where a half has no finite T.
fn ece_calibrated(pairs: &[HoldoutPair], bins: usize) -> Option<f64> {
    let prompts: BTreeSet<&str> = pairs.iter().map(|pair| pair.prompt_id.as_str()).collect();
    let half: BTreeMap<&str, usize> = prompts.into_iter().enumerate().map(|(i, p)| (p, i % 2)).collect();
    let mut of_half: [(Vec<f64>, Vec<f64>); 2] = Default::default();
    for pair in pairs {
        let (margins, labels) = &mut of_half[half[pair.prompt_id.as_str()]];
        margins.push(pair.margin);
        labels.push(pair.p);
    }
    let [first, second] = of_half;
    let temperature = |(margins, labels): &(Vec<f64>, Vec<f64>)| calibration::temperature(margins, labels);
    let (of_first, of_second) = (temperature(&first)?, temperature(&second)?);
    let scaled = |margins: &[f64], t: f64| margins.iter().map(|m| logistic(m / t)).collect::<Vec<_>>();
    let predictions = [scaled(&first.0, of_second), scaled(&second.0, of_first)].concat();
    let (predictions, labels) = calibration::symmetric(&predictions, &[first.1, second.1].concat());
    calibration::ece(&predictions, &labels, bins)
}

/// How often the longer response, in tokens, is the preferred one; equally long ones count half.
fn longer_wins(pairs: &[HoldoutPair], seed: u64) -> Option<Estimate> {
    let longer = |pair: &HoldoutPair| match pair.chosen_tokens.cmp(&pair.rejected_tokens) {
        Ordering::Greater => 1.0,
        Ordering::Equal => 0.5,
        Ordering::Less => 0.0,
    };
    over_prompts(pairs, longer, |shares| cluster_share(shares, RESAMPLES, seed))
}

/// Accuracy by strength and margin of the label, by length and by source; only where there is more than one part.
fn parts(pairs: &[HoldoutPair], seed: u64) -> Vec<Part> {
    let by_label = |pair: &HoldoutPair| match pair.p {
        p if p < 0.6 => "p below 0.6",
        p if p < 0.75 => "p 0.6 to 0.75",
        p if p < 0.9 => "p 0.75 to 0.9",
        _ => "p from 0.9",
    };
    let mut sizes: Vec<f64> = pairs.iter().map(|pair| pair.label_margin.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let third = |k: usize| sizes.get(k * sizes.len() / 3).copied().unwrap_or_default();
    let (small, large) = (third(1), third(2));
    let by_margin = |pair: &HoldoutPair| match pair.label_margin.abs() {
        m if m < small => format!("below {small}"),
        m if m < large => format!("{small} to {large}"),
        _ => format!("from {}", large.max(small)),
    };
    let mut doubts: Vec<f64> = pairs.iter().filter_map(|pair| pair.uncertainty).collect();
    doubts.sort_by(f64::total_cmp);
    let median = doubts.get(doubts.len() / 2).copied();
    let by_disagreement = |pair: &HoldoutPair| match pair.uncertainty.zip(median) {
        Some((doubt, median)) if doubt >= median => "from the median",
        Some(_) => "below the median",
        None => "unknown",
    };
    let by_length = |pair: &HoldoutPair| {
        let (chosen, rejected) = (pair.chosen_tokens as f64, pair.rejected_tokens as f64);
        match (chosen - rejected) / chosen.max(rejected) {
            gap if gap.abs() <= ALIKE => "within 10 %",
            gap if gap > 0.0 => "chosen longer",
            _ => "chosen shorter",
        }
    };
    [
        part_by("label", pairs, seed, |pair| by_label(pair).into()),
        part_by("margin", pairs, seed, by_margin),
        part_by("length", pairs, seed, |pair| by_length(pair).into()),
        part_by("source", pairs, seed, |pair| pair.source.clone()),
        part_by("disagreement", pairs, seed, |pair| by_disagreement(pair).into()),
    ]
    .concat()
}

fn part_by(by: &str, pairs: &[HoldoutPair], seed: u64, name: impl Fn(&HoldoutPair) -> String) -> Vec<Part> {
    let mut parts: BTreeMap<String, Vec<HoldoutPair>> = BTreeMap::new();
    for pair in pairs {
        parts.entry(name(pair)).or_default().push(pair.clone());
    }
    if parts.len() < 2 {
        return Vec::new();
    }
    parts
        .into_iter()
        .filter_map(|(name, pairs)| Some(Part { by: by.into(), name, accuracy: accuracy(&pairs, seed)? }))
        .collect()
}

impl DpoSummary {
    /// Accuracy and margin of the implicit rewards on held-out pairs.
    pub fn of(train_pairs: usize, pairs: &[HoldoutPair], seed: u64) -> Self {
        Self {
            train_pairs: train_pairs as u64,
            accuracy: accuracy(pairs, seed),
            margin: margin(pairs, seed),
            ..Self::default()
        }
    }

    /// Of single responses: how many fall on their side of the reference point, and how far.
    pub fn of_responses(train_responses: usize, responses: &[HoldoutPair], seed: u64) -> Self {
        Self { train_responses: Some(train_responses as u64), ..Self::of(0, responses, seed) }
    }
}

/// Share of the pairs ranked as labelled.
fn accuracy(pairs: &[HoldoutPair], seed: u64) -> Option<Estimate> {
    over_prompts(
        pairs,
        |pair| if pair.is_right() { 1.0 } else { 0.0 },
        |right| cluster_share(right, RESAMPLES, seed),
    )
}

/// Mean reward of chosen minus rejected.
fn margin(pairs: &[HoldoutPair], seed: u64) -> Option<Estimate> {
    over_prompts(pairs, |pair| pair.margin, |margins| cluster_mean(margins, RESAMPLES, seed))
}

fn over_prompts(
    pairs: &[HoldoutPair],
    value: impl Fn(&HoldoutPair) -> f64,
    interval: impl FnOnce(&[Vec<f64>]) -> Option<Interval>,
) -> Option<Estimate> {
    let mut prompts: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for pair in pairs {
        prompts.entry(&pair.prompt_id).or_default().push(value(pair));
    }
    let clusters: Vec<Vec<f64>> = prompts.into_values().collect();
    match interval(&clusters) {
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
        HoldoutPair { prompt_id: format!("p{prompt}"), p: 0.9, margin, ..HoldoutPair::default() }
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

    #[test]
    fn the_longer_response_is_the_baseline_and_parts_have_their_own_numbers() {
        let pairs: Vec<HoldoutPair> = (0..40)
            .map(|i| HoldoutPair {
                chosen_tokens: if i % 4 == 0 { 20 } else { 10 },
                rejected_tokens: if i % 4 == 3 { 10 } else { 15 },
                p: if i < 20 { 0.95 } else { 0.55 },
                source: if i % 2 == 0 { "human" } else { "tone" }.into(),
                ..pair(i / 4, if i % 4 == 0 { 1.0 } else { -0.5 })
            })
            .collect();
        let summary = RewardSummary::of(160, &pairs, 0);
        assert_eq!(summary.longer_wins.unwrap().value, 0.25 + 0.5 * 0.25);
        let told: Vec<_> = summary
            .parts
            .iter()
            .map(|p| (p.by.as_str(), p.name.as_str(), p.accuracy.value, p.accuracy.n.unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("label", "p below 0.6", 0.25, 20),
                ("label", "p from 0.9", 0.25, 20),
                ("length", "chosen longer", 1.0, 10),
                ("length", "chosen shorter", 0.0, 20),
                ("length", "within 10 %", 0.0, 10),
                ("source", "human", 0.5, 20),
                ("source", "tone", 0.0, 20),
            ]
        );
    }

    #[test]
    fn a_model_that_is_twice_too_sure_is_told_so_and_its_calibration_mended() {
        let pairs: Vec<HoldoutPair> = (0..400)
            .map(|i| {
                let margin = 0.02 * f64::from(i) - 3.0;
                HoldoutPair { p: logistic(margin / 2.0), ..pair(i as usize, margin) }
            })
            .collect();
        let summary = RewardSummary::of(0, &pairs, 0);
        assert!((summary.temperature.unwrap() - 2.0).abs() < 1e-6);
        assert!(summary.ece.unwrap() > 0.05, "{:?}", summary.ece);
        assert!(summary.ece_calibrated.unwrap() < 1e-6, "{:?}", summary.ece_calibrated);
    }
}
