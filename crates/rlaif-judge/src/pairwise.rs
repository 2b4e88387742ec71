//! Orders in which a pair is shown, and what all verdicts on it add up to.

use rand::RngExt;
use rlaif_core::config::LabelConfig;
use rlaif_core::records::{Choice, Fate, NoVerdict, Order, Pair, Preference, Verdict};
use std::collections::BTreeMap;

/// The orders in which a pair is shown to a judge: both for a share of `position_check_rate`, else one at random.
/// The same (seed, pair) always gives the same orders, whatever the other pairs are.
pub fn orders(run_seed: u64, pair_id: &str, position_check_rate: f64) -> Vec<Order> {
    let mut rng = rlaif_core::seed::stream(run_seed, &format!("order/{pair_id}"), 0);
    let first = if rng.random::<bool>() { Order::Ab } else { Order::Ba };
    // random() is in [0, 1): a rate of 1 always checks, a rate of 0 never.
    if rng.random::<f64>() < position_check_rate { vec![Order::Ab, Order::Ba] } else { vec![first] }
}

/// One verdict, with who gave it and which order they saw. Judges without an order (contrastive) say `Ab` once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgeVerdict<'a> {
    /// Name of the judge.
    pub judge: &'a str,
    /// Weight of the judge in the mean of p.
    pub weight: f64,
    /// Which response stood first.
    pub order: Order,
    /// What they said.
    pub verdict: &'a Verdict,
}

/// Adds the verdicts on one pair up to a preference.
///
/// 1. Each judge's p(a beats b) is the mean of its mean in either order: p = ½[p(first | a first) + 1 − p(first | b first)]
///    (Lee et al. 2023, section 2.1). Because the sums are taken over p − ½, p(a, b) + p(b, a) = 1 exactly.
/// 2. A judge that was asked in both orders and could be read in one only has no vote: the rest is position bias.
/// 3. A judge that picks the same *position* in both orders contradicts itself; so does one without probabilities that
///    calls a tie in one order only. It has no vote unless `keep_inconsistent`.
/// 4. p is the weighted mean over the judges with a vote; within `tie_margin` of ½ it is a tie.
///
/// Without any vote the fate is that of the judges: `Inconsistent` (p is then their mean, for reports), `Failed`,
/// `SetAside`, `NoVerdict`.
pub fn aggregate(pair: &Pair, verdicts: &[JudgeVerdict<'_>], config: &LabelConfig) -> Preference {
    let mut by_judge: BTreeMap<&str, Vec<&JudgeVerdict<'_>>> = BTreeMap::new();
    for verdict in verdicts.iter().filter(|v| v.weight > 0.0) {
        by_judge.entry(verdict.judge).or_default().push(verdict);
    }
    let opinions: Vec<Opinion<'_>> = by_judge.into_values().map(opinion).collect();
    let voting: Vec<&Opinion<'_>> = opinions.iter().filter(|o| o.stands(config.keep_inconsistent)).collect();
    let flipped: Vec<&Opinion<'_>> =
        opinions.iter().filter(|o| matches!(o.state, State::Flipped(_))).collect();

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
        if opinions.iter().any(|o| matches!(o.state, State::Failed)) {
            preference.fate = Fate::Failed;
        } else if verdicts.iter().any(|v| matches!(v.verdict.choice, Err(NoVerdict::SetAside(_)))) {
            preference.fate = Fate::SetAside;
        }
        return preference;
    };

    let margin = weighted_mean(&sources);
    let p = complement_exact(margin);
    preference.p = Some(p);
    preference.spread = spread(&sources);
    preference.judges = sources.iter().map(|o| o.judge.to_owned()).collect();
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

/// What one judge says about a pair over all orders and votes.
struct Opinion<'a> {
    judge: &'a str,
    weight: f64,
    state: State,
    verdicts: Vec<&'a JudgeVerdict<'a>>,
}

/// Margins are p(a beats b) − ½: negating one swaps the responses without rounding.
enum State {
    Stands(f64),
    Flipped(f64),
    NoVerdict,
    Failed,
}

impl Opinion<'_> {
    fn stands(&self, keep_inconsistent: bool) -> bool {
        matches!(self.state, State::Stands(_)) || keep_inconsistent && matches!(self.state, State::Flipped(_))
    }

    fn margin(&self) -> f64 {
        match self.state {
            State::Stands(margin) | State::Flipped(margin) => margin,
            State::NoVerdict | State::Failed => 0.0,
        }
    }
}

fn opinion<'a>(verdicts: Vec<&'a JudgeVerdict<'a>>) -> Opinion<'a> {
    let in_order = |order: Order| verdicts.iter().filter(move |v| v.order == order);
    let margin_of = |order: Order| {
        let margins: Vec<f64> = in_order(order).filter_map(|v| margin(v)).collect();
        (!margins.is_empty()).then(|| sum(margins.clone()) / margins.len() as f64)
    };
    let (ab, ba) = (margin_of(Order::Ab), margin_of(Order::Ba));
    let asked_both = in_order(Order::Ab).next().is_some() && in_order(Order::Ba).next().is_some();
    let failed = verdicts.iter().any(|v| matches!(v.verdict.choice, Err(NoVerdict::Failed(_))));
    let hard = verdicts.iter().any(|v| v.verdict.p_first.is_none());
    let state = match (ab, ba) {
        (Some(ab), Some(ba)) => {
            let same_position = ab * ba < 0.0 || (ab > 0.0) != (ba > 0.0) && ab != 0.0 && ba != 0.0;
            let half_a_tie = hard && (ab == 0.0) != (ba == 0.0);
            let mean = sum(vec![ab, ba]) / 2.0;
            if same_position || half_a_tie { State::Flipped(mean) } else { State::Stands(mean) }
        }
        (Some(margin), None) | (None, Some(margin)) if !asked_both => State::Stands(margin),
        _ if failed => State::Failed,
        _ => State::NoVerdict,
    };
    let (judge, weight) = (verdicts[0].judge, verdicts[0].weight);
    Opinion { judge, weight, state, verdicts }
}

/// p(a beats b) − ½ of one verdict.
fn margin(verdict: &JudgeVerdict<'_>) -> Option<f64> {
    verdict.verdict.choice.as_ref().ok()?;
    let margin = verdict.verdict.p_first_or_choice()? - 0.5;
    Some(if verdict.order == Order::Ab { margin } else { -margin })
}

fn weighted_mean(opinions: &[&Opinion<'_>]) -> f64 {
    let weight = sum(opinions.iter().map(|o| o.weight).collect());
    sum(opinions.iter().map(|o| o.weight * o.margin()).collect()) / weight
}

/// ½ + margin in [½, 1] and its exact complement below.
fn complement_exact(margin: f64) -> f64 {
    let upper = (0.5 + margin.abs()).min(1.0);
    if margin >= 0.0 { upper } else { 1.0 - upper }
}

/// A sum that does not depend on the order of its terms and changes only its sign when all of them do.
fn sum(terms: Vec<f64>) -> f64 {
    let side = |sign: f64| {
        let mut side: Vec<f64> = terms.iter().map(|t| t * sign).filter(|&t| t > 0.0).collect();
        side.sort_by(f64::total_cmp);
        side.iter().sum::<f64>()
    };
    side(1.0) - side(-1.0)
}

/// Population standard deviation of p over the verdicts; `None` for a single one.
fn spread(opinions: &[&Opinion<'_>]) -> Option<f64> {
    let margins: Vec<f64> =
        opinions.iter().flat_map(|o| o.verdicts.iter().filter_map(|v| margin(v))).collect();
    if margins.len() < 2 {
        return None;
    }
    let mean = sum(margins.clone()) / margins.len() as f64;
    let variance = sum(margins.iter().map(|m| (m - mean).powi(2)).collect()) / margins.len() as f64;
    Some(variance.sqrt())
}

/// An explanation that argues for the outcome; if there is a choice, one that saw the winner first, so that "response 1"
/// means the chosen one.
fn explanation(opinions: &[&Opinion<'_>], p: f64) -> Option<String> {
    let winner_first = if p >= 0.5 { Order::Ab } else { Order::Ba };
    let agrees = |v: &JudgeVerdict<'_>| {
        let wanted = match (p == 0.5, v.order == winner_first) {
            (true, _) => Choice::Tie,
            (false, true) => Choice::First,
            (false, false) => Choice::Second,
        };
        v.verdict.choice == Ok(wanted)
    };
    let mut candidates: Vec<&&JudgeVerdict<'_>> = opinions
        .iter()
        .flat_map(|o| o.verdicts.iter())
        .filter(|v| agrees(v) && v.verdict.explanation.is_some())
        .collect();
    candidates.sort_by_key(|v| v.order != winner_first);
    candidates.first().and_then(|v| v.verdict.explanation.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> Pair {
        Pair { id: "q/0-1".into(), prompt_id: "q".into(), a: "q/0".into(), b: "q/1".into() }
    }

    fn soft(p_first: f64) -> Verdict {
        let choice = if p_first >= 0.5 { Choice::First } else { Choice::Second };
        Verdict { p_first: Some(p_first), ..Verdict::choice(choice) }
    }

    fn fate_of(list: &[(&str, Order, Verdict)], config: &LabelConfig) -> (Option<f64>, Fate) {
        let verdicts: Vec<JudgeVerdict<'_>> = list
            .iter()
            .map(|(judge, order, verdict)| JudgeVerdict { judge, weight: 1.0, order: *order, verdict })
            .collect();
        let preference = aggregate(&pair(), &verdicts, config);
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
        let verdict = |judge, weight, order, verdict| JudgeVerdict { judge, weight, order, verdict };
        let verdicts = [
            verdict("strong", 3.0, Ab, &a_wins),
            verdict("weak", 1.0, Ab, &b_wins),
            verdict("biased", 9.0, Ab, &same),
            verdict("biased", 9.0, Ba, &same),
        ];
        let preference = aggregate(&pair(), &verdicts, &LabelConfig::default());
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
        let verdicts = [
            JudgeVerdict { judge: "j", weight: 1.0, order: Ab, verdict: &ab },
            JudgeVerdict { judge: "j", weight: 1.0, order: Ba, verdict: &ba },
        ];
        let preference = aggregate(&pair(), &verdicts, &LabelConfig::default());
        assert_eq!((preference.p, preference.explanation.as_deref()), (Some(0.0), Some("1 is better")));
    }

    #[test]
    fn orders_are_both_for_the_share_that_is_checked_and_balanced_elsewhere() {
        let ids: Vec<String> = (0..4000).map(|i| format!("p{i}/0-1")).collect();
        assert!(ids.iter().all(|id| orders(1, id, 1.0) == [Ab, Ba]));
        let never: Vec<Vec<Order>> = ids.iter().map(|id| orders(1, id, 0.0)).collect();
        assert!(never.iter().all(|o| o.len() == 1));
        let a_first = never.iter().filter(|o| o[0] == Ab).count();
        assert!((1800..2200).contains(&a_first), "{a_first} of 4000");
        let both = ids.iter().filter(|id| orders(1, id, 0.25).len() == 2).count();
        assert!((850..1150).contains(&both), "{both} of 4000");
        assert!(ids.iter().all(|id| orders(1, id, 0.25) == orders(1, id, 0.25)));
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
        /// Calling a b and b a turns every order round and must give the complement, to the last bit.
        #[test]
        fn swapping_the_pair_gives_the_complement_exactly(
            list in prop::collection::vec((0..3_usize, any::<bool>(), any_verdict()), 0..12),
            keep in any::<bool>(),
        ) {
            let config = LabelConfig { keep_inconsistent: keep, ..LabelConfig::default() };
            let names = ["x", "y", "z"];
            let view = |swap: bool| -> Vec<JudgeVerdict<'_>> {
                list.iter().map(|(judge, ab, verdict)| JudgeVerdict {
                    judge: names[*judge],
                    weight: 1.0 + *judge as f64 / 3.0,
                    order: if *ab != swap { Ab } else { Ba },
                    verdict,
                }).collect()
            };
            let (straight, swapped) = (aggregate(&pair(), &view(false), &config), aggregate(&pair(), &view(true), &config));
            prop_assert_eq!(straight.fate, swapped.fate);
            match (straight.p, swapped.p) {
                (Some(p), Some(q)) => prop_assert_eq!(p + q, 1.0),
                (p, q) => prop_assert_eq!(p, q),
            }
        }
    }
}
