//! What each judge said through each template, by the place of the responses.

use crate::pairwise::{State, Voter};
use rlaif_core::records::{Order, Verdict};
use rlaif_core::stats::interval::{Interval, wilson};
use rlaif_core::stats::paired::sign_test;
use rlaif_core::stats::position::{PositionReport, position_report};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one judge said through one template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoterReport {
    /// Name of the judge.
    pub judge: String,
    /// Name of the template.
    pub template: String,
    /// Pairs that it was asked about.
    pub pairs: u64,
    /// Pairs that came to a vote.
    pub votes: u64,
    /// Pairs on which it contradicted itself under swapping.
    pub flips: u64,
    /// Pairs without a verdict in an order that was asked.
    pub no_verdict: u64,
    /// Pairs whose request failed for good.
    pub failed: u64,
    /// Single verdicts by order: a first, then b first. Judges without an order have one row.
    pub orders: Vec<OrderCounts>,
    /// How its choices depend on the order; `None` for judges without one, and where no pair was read in both.
    pub position: Option<PositionReport>,
    /// Is its bias to one place? Exact McNemar test on pairs read in both orders; where there are none, an exact binomial test of first
    /// against second, whose order was drawn at random. `None` for judges without an order.
    pub direction_p_value: Option<f64>,
}

/// Single verdicts given in one order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderCounts {
    /// Which response stood first.
    pub order: Order,
    /// Verdicts for the first place.
    pub first: u64,
    /// Verdicts for the second place.
    pub second: u64,
    /// Verdicts for neither.
    pub tie: u64,
    /// Replies that hold none, and requests that failed.
    pub none: u64,
    /// first / (first + second).
    pub first_rate: Option<Interval>,
}

/// One report a judge and template, in the order of their names. `pairs` are the [`crate::voters`] of each pair.
pub fn voter_reports(pairs: &[Vec<Voter<'_>>]) -> Vec<VoterReport> {
    let mut by_name: BTreeMap<(&str, &str), Vec<&Voter<'_>>> = BTreeMap::new();
    for voter in pairs.iter().flatten() {
        by_name.entry((voter.judge, voter.template)).or_default().push(voter);
    }
    by_name.into_iter().map(|((judge, template), voters)| report(judge, template, &voters)).collect()
}

fn report(judge: &str, template: &str, voters: &[&Voter<'_>]) -> VoterReport {
    let count = |wanted: fn(State) -> bool| voters.iter().filter(|v| wanted(v.state)).count() as u64;
    let has_order = voters.iter().any(|voter| voter.has_order);
    let orders: Vec<OrderCounts> =
        [Order::Ab, Order::Ba].into_iter().filter_map(|order| order_counts(order, voters)).collect();
    let choices: Vec<_> = voters.iter().filter_map(|voter| voter.choices()).collect();
    let position = if has_order { position_report(&choices) } else { None };
    let (first, second) = orders.iter().fold((0, 0), |(f, s), counts| (f + counts.first, s + counts.second));
    let direction = position.map_or_else(|| sign_test(first, second), |position| position.p_value);
    VoterReport {
        judge: judge.into(),
        template: template.into(),
        pairs: voters.len() as u64,
        votes: count(|state| matches!(state, State::Stands(_))),
        flips: count(|state| matches!(state, State::Flipped(_))),
        no_verdict: count(|state| state == State::NoVerdict),
        failed: count(|state| state == State::Failed),
        orders,
        position,
        direction_p_value: has_order.then_some(direction),
    }
}

fn order_counts(order: Order, voters: &[&Voter<'_>]) -> Option<OrderCounts> {
    use rlaif_core::records::Choice::{First, Second, Tie};
    let verdicts = || voters.iter().flat_map(|v| &v.verdicts).filter(|v| v.order == order);
    let count = |wanted: &dyn Fn(&Verdict) -> bool| verdicts().filter(|v| wanted(v.verdict)).count() as u64;
    let [first, second, tie] = [First, Second, Tie].map(|choice| count(&|v| v.choice == Ok(choice)));
    verdicts().next()?;
    Some(OrderCounts {
        order,
        first,
        second,
        tie,
        none: count(&|v| v.choice.is_err()),
        first_rate: wilson(first, first + second),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairwise::{JudgeVerdict, voters};
    use rlaif_core::records::{Choice, NoVerdict};

    #[test]
    fn counts_by_judge_template_and_place() {
        let (first, second) = (Verdict::choice(Choice::First), Verdict::choice(Choice::Second));
        let unread = Verdict::none(NoVerdict::Ambiguous);
        let of = |template, order, verdict| JudgeVerdict {
            judge: "j",
            template,
            weight: 1.0,
            order,
            has_order: template != "contrastive",
            verdict,
        };
        use Order::{Ab, Ba};
        let pairs = [
            vec![of("t", Ab, &first), of("t", Ba, &first), of("contrastive", Ab, &second)],
            vec![of("t", Ab, &first), of("t", Ba, &second), of("contrastive", Ab, &second)],
            vec![of("t", Ab, &first), of("t", Ba, &unread)],
        ];
        let of_pairs: Vec<_> = pairs.iter().map(|verdicts| voters(verdicts, 0.5)).collect();
        let [contrastive, t] = &voter_reports(&of_pairs)[..] else { panic!("two voters") };
        assert_eq!((t.pairs, t.votes, t.flips, t.no_verdict, t.failed), (3, 1, 1, 1, 0));
        let [ab, ba] = &t.orders[..] else { panic!("two orders") };
        assert_eq!((ab.first, ab.second, ab.none, ba.first, ba.second, ba.none), (3, 0, 0, 1, 1, 1));
        assert_eq!(ab.first_rate.map(|rate| rate.estimate), Some(1.0));
        assert_eq!(t.position.map(|p| (p.pairs, p.both_first)), Some((2, 1)));
        assert_eq!(t.direction_p_value, Some(1.0), "one pair shows no direction");
        assert_eq!((contrastive.votes, contrastive.orders.len()), (2, 1));
        assert_eq!((contrastive.position, contrastive.direction_p_value), (None, None));
        let json = serde_json::to_value(contrastive).unwrap();
        assert_eq!(json["orders"][0]["second"], 2);
        assert_eq!(serde_json::from_value::<VoterReport>(json).unwrap().votes, 2);
    }
}
