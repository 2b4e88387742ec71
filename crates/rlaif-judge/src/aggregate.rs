//! What all verdicts on a pair add up to: one preference.

use crate::pairwise::{JudgeVerdict, State, Voter, sum, voters};
use crate::panel::FittedPanel;
use rlaif_core::config::{Aggregation, LabelConfig};
use rlaif_core::records::{Choice, Fate, NoVerdict, Order, Pair, Preference};
use std::collections::BTreeMap;

/// Adds the verdicts on one pair up to a preference.
///
/// 1. Each judge and template comes to one p(a beats b), or contradicts itself, or has no verdict: see [`voters`]. Those that
///    contradict themselves have no vote unless `keep_inconsistent`.
/// 2. The rest come to one p by `label.aggregation`:
///    * `mean`: the mean over a judge's templates, then the mean over judges by their weights;
///    * `majority`: the share of judges, by their weights, whose mean is for a; one at exactly ½ is half for each;
///    * `dawid_skene`, `bradley_terry`: P(a is better | verdicts) under the `fitted` panel. Weights are then what was fitted.
///      Without a fitted panel these two are a mean: callers fit one first.
/// 3. p within `tie_margin` of ½ is a tie.
///
/// Sums are taken over p − ½, sorted: p(a, b) + p(b, a) = 1 exactly, whichever aggregation.
///
/// `spread` is the population standard deviation of p over the presentations that made it: one value a judge, template and order,
/// with all its votes as one. It is 0 where all say the same, and holds the judges' disagreement and what is left of position
/// bias alike; `None` for a single presentation. It is not the error of p.
///
/// Without any vote the fate is that of the judges: `Inconsistent` (p is then their mean, for reports), `Failed`,
/// `SetAside`, `NoVerdict`.
pub fn aggregate(
    pair: &Pair,
    verdicts: &[JudgeVerdict<'_>],
    config: &LabelConfig,
    fitted: Option<&FittedPanel>,
) -> Preference {
    let voters = voters(verdicts, config.vote_smoothing);
    let voting: Vec<&Voter<'_>> = voters.iter().filter(|v| v.stands(config.keep_inconsistent)).collect();
    let flipped: Vec<&Voter<'_>> = voters.iter().filter(|v| v.flipped()).collect();

    let mut preference = Preference {
        pair_id: pair.id.clone(),
        prompt_id: pair.prompt_id.clone(),
        p: None,
        spread: None,
        fate: Fate::NoVerdict,
        judges: Vec::new(),
        explanation: None,
    };
    let (sources, fate) = if !voting.is_empty() {
        (voting, Fate::Kept)
    } else if !flipped.is_empty() {
        (flipped, Fate::Inconsistent)
    } else {
        if voters.iter().any(|v| v.state == State::Failed) {
            preference.fate = Fate::Failed;
        } else if verdicts.iter().any(|v| matches!(v.verdict.choice, Err(NoVerdict::SetAside(_)))) {
            preference.fate = Fate::SetAside;
        }
        return preference;
    };

    let margin = match (config.aggregation, fitted) {
        (Aggregation::Majority, _) => mean_of_judges(&sources, sign) / 2.0,
        (Aggregation::DawidSkene | Aggregation::BradleyTerry, Some(panel)) => panel.margin(&sources),
        _ => mean_of_judges(&sources, |margin| margin),
    };
    let p = complement_exact(margin);
    preference.p = Some(p);
    preference.spread = spread(&sources);
    preference.judges = sources.iter().map(|v| v.judge.to_owned()).collect();
    preference.judges.dedup(); // voters stand in the order of their judges
    preference.fate = fate;
    if fate == Fate::Kept {
        preference.explanation = explanation(&sources, p);
        if margin == 0.0 || margin.abs() < config.tie_margin {
            preference.fate = if config.keep_ties { Fate::Kept } else { Fate::Tie };
            preference.p = Some(if config.keep_ties { 0.5 } else { p });
        }
    }
    preference
}

/// 1, 0 or −1; the standard library's calls 0 positive.
fn sign(margin: f64) -> f64 {
    if margin == 0.0 { 0.0 } else { margin.signum() }
}

/// The weighted mean over judges of something of each judge's mean margin over its templates.
fn mean_of_judges(voters: &[&Voter<'_>], of: impl Fn(f64) -> f64) -> f64 {
    let mut judges: BTreeMap<&str, (f64, Vec<f64>)> = BTreeMap::new();
    for voter in voters {
        judges.entry(voter.judge).or_insert((voter.weight, Vec::new())).1.push(voter.margin());
    }
    let weight = sum(judges.values().map(|(weight, _)| *weight).collect());
    let margins = judges.into_values().map(|(weight, margins)| {
        let n = margins.len() as f64;
        weight * of(sum(margins) / n)
    });
    sum(margins.collect()) / weight
}

/// ½ + margin in [½, 1] and its exact complement below.
fn complement_exact(margin: f64) -> f64 {
    let upper = (0.5 + margin.abs()).min(1.0);
    if margin >= 0.0 { upper } else { 1.0 - upper }
}

/// Population standard deviation of p over the presentations; `None` for a single one.
fn spread(voters: &[&Voter<'_>]) -> Option<f64> {
    let margins: Vec<f64> =
        voters.iter().flat_map(|v| v.presentations.iter().filter_map(|p| p.margin)).collect();
    if margins.len() < 2 {
        return None;
    }
    let mean = sum(margins.clone()) / margins.len() as f64;
    let variance = sum(margins.iter().map(|m| (m - mean).powi(2)).collect()) / margins.len() as f64;
    Some(variance.sqrt())
}

/// An explanation that argues for the outcome; if there is a choice, one that saw the winner first, so that "response 1"
/// means the chosen one.
fn explanation(voters: &[&Voter<'_>], p: f64) -> Option<String> {
    let winner_first = if p >= 0.5 { Order::Ab } else { Order::Ba };
    let agrees = |v: &JudgeVerdict<'_>| {
        let wanted = match (p == 0.5, v.order == winner_first) {
            (true, _) => Choice::Tie,
            (false, true) => Choice::First,
            (false, false) => Choice::Second,
        };
        v.verdict.choice == Ok(wanted)
    };
    let mut candidates: Vec<&&JudgeVerdict<'_>> = voters
        .iter()
        .flat_map(|v| v.verdicts.iter())
        .filter(|v| agrees(v) && v.verdict.explanation.is_some())
        .collect();
    candidates.sort_by_key(|v| v.order != winner_first);
    candidates.first().and_then(|v| v.verdict.explanation.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::FitItem;
    use proptest::prelude::*;
    use rlaif_core::records::Verdict;

    fn pair() -> Pair {
        Pair { id: "q/0-1".into(), prompt_id: "q".into(), a: "q/0".into(), b: "q/1".into() }
    }

    fn of<'a>(judge: &'a str, weight: f64, order: Order, verdict: &'a Verdict) -> JudgeVerdict<'a> {
        JudgeVerdict { judge, template: "t", weight, order, has_order: true, verdict }
    }

    fn soft(p_first: f64) -> Verdict {
        let choice = if p_first >= 0.5 { Choice::First } else { Choice::Second };
        Verdict { p_first: Some(p_first), ..Verdict::choice(choice) }
    }

    fn fate_of(list: &[(&str, Order, Verdict)], config: &LabelConfig) -> (Option<f64>, Fate) {
        let verdicts: Vec<JudgeVerdict<'_>> =
            list.iter().map(|(judge, order, verdict)| of(judge, 1.0, *order, verdict)).collect();
        let preference = aggregate(&pair(), &verdicts, config, None);
        (preference.p, preference.fate)
    }

    use Choice::{First, Second, Tie};
    use Order::{Ab, Ba};

    /// `docs/parity.md`, section 7: logp("1"), logp("2") = −.2, −1.9 with a first and −.9, −.6 with b first.
    #[test]
    fn golden_average_over_both_orders() {
        let ab = crate::local::verdict_from_logprobs(&[-0.2], &[-1.9]);
        let ba = crate::local::verdict_from_logprobs(&[-0.9], &[-0.6]);
        assert!((ab.p_first.unwrap() - 0.845_534_734_9).abs() < 1e-7);
        assert!((1.0 - ba.p_first.unwrap() - 0.574_442_516_8).abs() < 1e-7);
        let (p, fate) = fate_of(&[("j", Ab, ab), ("j", Ba, ba)], &LabelConfig::default());
        assert!((p.unwrap() - 0.709_988_625_9).abs() < 1e-7, "{p:?}");
        assert_eq!(fate, Fate::Kept);
    }

    #[test]
    fn hard_verdicts_that_agree_are_kept_and_flips_are_not() {
        let config = LabelConfig::default();
        let hard = Verdict::choice;
        let table = [
            ((First, Second), Some(1.0), Fate::Kept),
            ((Second, First), Some(0.0), Fate::Kept),
            ((First, First), Some(0.5), Fate::Inconsistent),
            ((Second, Second), Some(0.5), Fate::Inconsistent),
            ((Tie, Tie), Some(0.5), Fate::Tie),
            ((First, Tie), Some(0.75), Fate::Inconsistent),
            ((Tie, First), Some(0.25), Fate::Inconsistent),
        ];
        for ((ab, ba), p, fate) in table {
            assert_eq!(
                fate_of(&[("j", Ab, hard(ab)), ("j", Ba, hard(ba))], &config),
                (p, fate),
                "{ab:?} {ba:?}"
            );
        }
    }

    #[test]
    fn soft_verdicts_for_the_same_position_are_inconsistent_unless_kept() {
        let list = [("j", Ab, soft(0.9)), ("j", Ba, soft(0.6))];
        let (p, fate) = fate_of(&list, &LabelConfig::default());
        assert!((p.unwrap() - 0.65).abs() < 1e-12);
        assert_eq!(fate, Fate::Inconsistent);
        let keep = LabelConfig { keep_inconsistent: true, ..LabelConfig::default() };
        assert_eq!(fate_of(&list, &keep).1, Fate::Kept);
    }

    #[test]
    fn a_missing_verdict_is_missing_never_a_tie() {
        let config = LabelConfig::default();
        let truncated = Verdict::none(NoVerdict::Truncated);
        let failed = Verdict::none(NoVerdict::Failed("timeout".into()));
        assert_eq!(fate_of(&[], &config), (None, Fate::NoVerdict));
        let set_aside = Verdict::none(NoVerdict::SetAside("too long".into()));
        assert_eq!(fate_of(&[("rule", Ab, set_aside)], &config), (None, Fate::SetAside));
        assert_eq!(fate_of(&[("j", Ab, truncated.clone())], &config), (None, Fate::NoVerdict));
        // Asked in both orders, read in one: what is left would be position bias.
        let half = [("j", Ab, Verdict::choice(First)), ("j", Ba, truncated.clone())];
        assert_eq!(fate_of(&half, &config), (None, Fate::NoVerdict));
        let half = [("j", Ab, Verdict::choice(First)), ("j", Ba, failed.clone())];
        assert_eq!(fate_of(&half, &config), (None, Fate::Failed));
        // Another judge's verdict stands on its own.
        let panel = [("j", Ab, truncated), ("j", Ba, failed), ("k", Ba, Verdict::choice(First))];
        assert_eq!(fate_of(&panel, &config), (Some(0.0), Fate::Kept));
    }

    #[test]
    fn judges_are_weighted_and_contradicting_ones_have_no_vote() {
        let (a_wins, b_wins, same) = (soft(0.8), soft(0.4), soft(0.9));
        let verdicts = [
            of("strong", 3.0, Ab, &a_wins),
            of("weak", 1.0, Ab, &b_wins),
            of("biased", 9.0, Ab, &same),
            of("biased", 9.0, Ba, &same),
        ];
        let preference = aggregate(&pair(), &verdicts, &LabelConfig::default(), None);
        assert!((preference.p.unwrap() - 0.7).abs() < 1e-12, "(3·0.8 + 1·0.4) / 4");
        assert_eq!(preference.judges, ["strong", "weak"]);
        assert!((preference.spread.unwrap() - 0.2).abs() < 1e-12, "of 0.8 and 0.4");
    }

    #[test]
    fn near_a_half_is_a_tie() {
        let config = LabelConfig { tie_margin: 0.1, ..LabelConfig::default() };
        assert_eq!(fate_of(&[("j", Ab, soft(0.59))], &config).1, Fate::Tie);
        assert_eq!(fate_of(&[("j", Ab, soft(0.61))], &config).1, Fate::Kept);
        let keep = LabelConfig { keep_ties: true, ..config };
        assert_eq!(fate_of(&[("j", Ab, soft(0.59))], &keep), (Some(0.5), Fate::Kept));
    }

    #[test]
    fn the_explanation_is_of_the_order_that_saw_the_winner_first() {
        let said = |choice, text: &str| Verdict { explanation: Some(text.into()), ..Verdict::choice(choice) };
        let (ab, ba) = (said(Second, "2 is better"), said(First, "1 is better"));
        let verdicts = [of("j", 1.0, Ab, &ab), of("j", 1.0, Ba, &ba)];
        let preference = aggregate(&pair(), &verdicts, &LabelConfig::default(), None);
        assert_eq!((preference.p, preference.explanation.as_deref()), (Some(0.0), Some("1 is better")));
    }

    #[test]
    fn majority_counts_judges_and_a_mean_counts_how_sure_they_are() {
        let (sure, unsure) = (soft(0.05), soft(0.6));
        let verdicts = [of("x", 1.0, Ab, &unsure), of("y", 1.0, Ab, &unsure), of("z", 1.0, Ab, &sure)];
        let by = |aggregation| {
            let config = LabelConfig { aggregation, ..LabelConfig::default() };
            aggregate(&pair(), &verdicts, &config, None).p.unwrap()
        };
        assert!((by(Aggregation::Mean) - (0.05 + 0.6 + 0.6) / 3.0).abs() < 1e-12);
        assert!((by(Aggregation::Majority) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_judge_asked_through_three_templates_has_one_vote() {
        let (a, b) = (soft(0.9), soft(0.2));
        let through = |template| JudgeVerdict { template, ..of("x", 1.0, Ab, &a) };
        let verdicts = [through("1"), through("2"), through("3"), of("y", 1.0, Ab, &b)];
        let preference = aggregate(&pair(), &verdicts, &LabelConfig::default(), None);
        assert!((preference.p.unwrap() - 0.55).abs() < 1e-12);
        assert_eq!(preference.judges, ["x", "y"]);
    }

    fn any_verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            (0.0..=1.0_f64).prop_map(soft),
            Just(Verdict::choice(First)),
            Just(Verdict::choice(Second)),
            Just(Verdict::choice(Tie)),
            Just(Verdict::none(NoVerdict::Ambiguous)),
        ]
    }

    proptest! {
        /// Calling a b and b a turns every order round and must give the complement, to the last bit, whichever the aggregation.
        #[test]
        fn swapping_the_pair_gives_the_complement_exactly(
            list in prop::collection::vec((0..3_usize, 0..2_usize, any::<bool>(), any_verdict()), 0..16),
            keep in any::<bool>(),
            which in 0..4_usize,
        ) {
            let aggregation =
                [Aggregation::Mean, Aggregation::Majority, Aggregation::DawidSkene, Aggregation::BradleyTerry][which];
            let config = LabelConfig { keep_inconsistent: keep, aggregation, ..LabelConfig::default() };
            let (names, templates) = (["x", "y", "z"], ["t", "u"]);
            let view = |swap: bool| -> Vec<JudgeVerdict<'_>> {
                list.iter().map(|(judge, template, ab, verdict)| JudgeVerdict {
                    template: templates[*template],
                    ..of(names[*judge], 1.0 + *judge as f64 / 3.0, if *ab != swap { Ab } else { Ba }, verdict)
                }).collect()
            };
            let preference = |swap: bool| {
                let verdicts = view(swap);
                let panel = FittedPanel::fit(&[FitItem { verdicts: &verdicts, a_better: None }], &config);
                aggregate(&pair(), &verdicts, &config, panel.as_ref())
            };
            let (straight, swapped) = (preference(false), preference(true));
            prop_assert_eq!(straight.fate, swapped.fate);
            prop_assert_eq!(straight.spread, swapped.spread);
            match (straight.p, swapped.p) {
                (Some(p), Some(q)) => prop_assert_eq!(p + q, 1.0),
                (p, q) => prop_assert_eq!(p, q),
            }
        }
    }
}
