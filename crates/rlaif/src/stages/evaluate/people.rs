//! The win rate as people would see it, from the judges' verdicts on all comparisons and people's on some: prediction-powered inference.
//!
//! People are shown comparisons in a random order (`rlaif review`, queue `evaluation`), so those that they have judged are a random sample
//! whenever they stop. What is independent are prompts: the comparisons of one are averaged first. Two responses that are the same text
//! are ties that nobody is asked about; they are a part of their own, of which nothing is unknown.

use super::compared::{Compared, Met};
use crate::report::comparison::{ENOUGH_LABELS, PeopleRate};
use crate::report::data::Estimate;
use rlaif_core::stats::Interval;
use rlaif_core::stats::interval::{self, cluster_share};
use rlaif_core::stats::ppi::{Tuning, prediction_powered};
use std::collections::BTreeMap;

/// Φ⁻¹(0.975)
const Z: f64 = 1.959_963_984_540_054;

/// One prompt's comparisons of different texts.
#[derive(Default)]
struct OfPrompt {
    /// Points by people and by judges, where both have spoken.
    both: Vec<(f64, f64)>,
    /// Points by judges where people have not.
    judges: Vec<f64>,
}

/// The corrected win rate; `None` where people have judged nothing.
pub fn rate(compared: &Compared, resamples: usize, run_seed: u64) -> Option<PeopleRate> {
    let mut prompts: BTreeMap<&str, OfPrompt> = BTreeMap::new();
    let (mut same, mut all) = (0_u32, 0_u32);
    for Met { prompt, outcome, same_text, people, .. } in &compared.met {
        let Some(outcome) = outcome else { continue };
        all += 1;
        if *same_text {
            same += 1;
            continue;
        }
        let of_prompt = prompts.entry(prompt).or_default();
        match people {
            Some(people) => of_prompt.both.push((people.points(), outcome.points())),
            None => of_prompt.judges.push(outcome.points()),
        }
    }
    let labelled: Vec<&OfPrompt> = prompts.values().filter(|it| !it.both.is_empty()).collect();
    if labelled.is_empty() {
        return None;
    }
    let agreed: Vec<Vec<f64>> = labelled
        .iter()
        .map(|it| it.both.iter().map(|(people, judges)| f64::from(u8::from(people == judges))).collect())
        .collect();
    let agreement = cluster_share(&agreed, resamples, run_seed)
        .map(|it| Estimate::of(it, agreed.iter().map(Vec::len).sum()));
    let labels = labelled.len() as u64;
    let means: Vec<(f64, f64)> = labelled
        .iter()
        .map(|it| (mean(it.both.iter().map(|(people, _)| *people)), mean(it.both.iter().map(|(_, f)| *f))))
        .collect();
    let alone: Vec<f64> =
        prompts.values().filter(|it| it.both.is_empty()).map(|it| mean(it.judges.iter().copied())).collect();
    let corrected = corrected(&means, &alone).filter(|_| labels >= ENOUGH_LABELS);
    let same = f64::from(same) / f64::from(all);
    let n = prompts.len() as f64;
    Some(PeopleRate {
        labels,
        win_rate: corrected.map(|(it, _)| Estimate::of(with_same_texts(it, same, n), labelled.len())),
        more_needed: ENOUGH_LABELS.saturating_sub(labels),
        lambda: corrected.map(|(_, lambda)| lambda),
        agreement,
    })
}

/// PPI++ and its λ; people's own mean where they have judged every prompt, so that there is nothing to predict.
fn corrected(labelled: &[(f64, f64)], alone: &[f64]) -> Option<(Interval, f64)> {
    if alone.len() < 2 {
        let people: Vec<f64> = labelled.iter().map(|(people, _)| *people).collect();
        return Some((interval::mean(&people)?, 0.0));
    }
    prediction_powered(labelled, alone, Tuning::Power).map(|it| (it.rate, it.lambda))
}

/// The rate of all comparisons, of which a share `same` are ties for certain: ½·same + (1 − same)·rate. The share is one of `n` prompts'
/// and varies with them: (rate − ½)²·same·(1 − same)/n is added to the variance.
fn with_same_texts(rate: Interval, same: f64, n: f64) -> Interval {
    let estimate = 0.5 * same + (1.0 - same) * rate.estimate;
    let of_share = Z * (rate.estimate - 0.5).abs() * (same * (1.0 - same) / n).sqrt();
    let half = |end: f64| ((1.0 - same) * (end - rate.estimate)).hypot(of_share);
    Interval { estimate, low: estimate - half(rate.low), high: estimate + half(rate.high) }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;
    use rlaif_core::seed;
    use rlaif_core::stats::winrate::Outcome::{self, Loss, Tie, Win};

    /// Of `prompts`, the first `labelled` by people; `said` draws (people, judges).
    fn compared(
        prompts: usize,
        labelled: usize,
        same: usize,
        said: &mut dyn FnMut() -> (Outcome, Outcome),
    ) -> Compared {
        let met = (0..prompts).map(|i| {
            let (people, judges) = said();
            let same_text = i >= prompts - same;
            Met {
                prompt: format!("q{i:04}"),
                chars: 1,
                other_chars: 1,
                outcome: Some(if same_text { Tie } else { judges }),
                same_text,
                by_judge: vec![],
                scores: BTreeMap::new(),
                people: (i < labelled).then_some(people),
            }
        });
        Compared {
            policy: "ppo".into(),
            other: "baseline".into(),
            preferences: BTreeMap::new(),
            met: met.collect(),
        }
    }

    /// People prefer the policy in 40 %; the judges say so in 70 %, since they take half of its losses for wins.
    #[test]
    fn the_interval_covers_what_people_would_say_where_the_judges_does_not() {
        let (mut hits, mut raw) = (0, 0);
        let truth = 0.25 * 0.5 + 0.75 * 0.4; // a quarter are the same text
        for study in 0..200 {
            let mut random = seed::stream(study, "test", 0);
            let mut said = || match (random.random_bool(0.4), random.random_bool(0.5)) {
                (true, _) => (Win, Win),
                (false, true) => (Loss, Win),
                (false, false) => (Loss, Loss),
            };
            let study = compared(400, 100, 100, &mut said);
            let got = rate(&study, 100, 0).unwrap();
            assert_eq!((got.labels, got.more_needed), (100, 0));
            let (low, high) = got.win_rate.unwrap().interval().unwrap();
            hits += u32::from(low <= truth && truth <= high);
            let points: Vec<Vec<f64>> =
                study.met.iter().map(|met| vec![met.outcome.unwrap().points()]).collect();
            raw += u32::from(!cluster_share(&points, 200, 0).unwrap().excludes(truth));
        }
        assert!((180..=198).contains(&hits), "{hits} of 200");
        assert!(raw < 5, "the raw rate's interval held the truth in {raw} of 200");
    }

    #[test]
    fn too_few_labels_say_how_many_are_missing() {
        let mut said = || (Win, Loss);
        assert!(rate(&compared(50, 0, 0, &mut said), 100, 0).is_none());
        let few = rate(&compared(50, 12, 0, &mut said), 100, 0).unwrap();
        assert_eq!((few.labels, few.more_needed, few.win_rate), (12, 18, None));
        assert_eq!(few.agreement.unwrap().value, 0.0);
    }

    #[test]
    fn where_people_judged_all_it_is_theirs() {
        let mut i = 0;
        let mut said = || {
            i += 1;
            (if i % 4 == 0 { Loss } else { Win }, Loss)
        };
        let all = rate(&compared(40, 40, 0, &mut said), 100, 0).unwrap();
        assert!((all.win_rate.unwrap().value - 0.75).abs() < 1e-12);
        assert_eq!(all.lambda, Some(0.0));
    }

    #[test]
    fn the_share_of_same_texts_pulls_to_a_half_and_widens() {
        let rate = Interval { estimate: 0.7, low: 0.6, high: 0.8 };
        assert_eq!(with_same_texts(rate, 0.0, 100.0), rate);
        let got = with_same_texts(rate, 0.5, 100.0);
        assert!((got.estimate - 0.6).abs() < 1e-12);
        // By hand: √(0.05² + (1.96 · 0.2 · 0.05)²) = √(0.0025 + 0.000384)
        assert!((got.high - got.estimate - 0.053_704).abs() < 1e-5, "{got}");
    }
}
