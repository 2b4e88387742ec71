//! Position bias: whether a judge chooses the place instead of the response.

use super::interval::{self, Interval};
use super::paired::mcnemar;
use crate::records::Choice;
use serde::{Deserialize, Serialize};

/// What a judge does with pairs that it saw in both orders.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PositionReport {
    /// Pairs with a verdict in both orders.
    pub pairs: u64,
    /// Pairs on which it chose the first place both times.
    pub both_first: u64,
    /// Pairs on which it chose the second place both times.
    pub both_second: u64,
    /// Pairs on which it chose the same response, or a tie, both times.
    pub consistent: u64,
    /// Pairs on which one order gave a tie and the other did not.
    pub half_ties: u64,
    /// Share of pairs on which it chose the same place both times: 0 for a judge that reads, 1 for one that only looks where.
    pub same_position: Interval,
    /// Share of the verdicts that are not ties that chose the first place, ½ without bias; clustered, so that the two verdicts of a
    /// pair are not taken for independent. `None` where all are ties or there is but one pair.
    pub first_picked: Option<Interval>,
    /// Exact McNemar test of `both_first` against `both_second`: is the bias to one side?
    pub p_value: f64,
}

/// The position report of one judge; each item is its choice in order a-b and in order b-a, as *places*. Pairs that lack a verdict
/// in one order are not passed in. `None` for none.
///
/// Same place both times means that it chose different responses (Wang et al. 2023, "Large language models are not fair
/// evaluators").
pub fn position_report(choices: &[(Choice, Choice)]) -> Option<PositionReport> {
    use Choice::{First, Second, Tie};
    let count = |wanted: fn(&(Choice, Choice)) -> bool| choices.iter().filter(|c| wanted(c)).count() as u64;
    let pairs = choices.len() as u64;
    let both_first = count(|c| matches!(c, (First, First)));
    let both_second = count(|c| matches!(c, (Second, Second)));
    let consistent = count(|c| matches!(c, (First, Second) | (Second, First) | (Tie, Tie)));
    let verdicts: Vec<Vec<f64>> = choices
        .iter()
        .map(|(ab, ba)| {
            [ab, ba].into_iter().filter(|c| **c != Tie).map(|c| if *c == First { 1.0 } else { 0.0 }).collect()
        })
        .collect();
    Some(PositionReport {
        pairs,
        both_first,
        both_second,
        consistent,
        half_ties: pairs - both_first - both_second - consistent,
        same_position: interval::wilson(both_first + both_second, pairs)?,
        first_picked: interval::cluster_share(&verdicts, RESAMPLES, 0),
        p_value: mcnemar(both_first, both_second),
    })
}

/// As `evaluate.bootstrap`'s default.
const RESAMPLES: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;
    use Choice::{First, Second, Tie};

    #[test]
    fn a_judge_that_reads() {
        let got = position_report(&[(First, Second), (Second, First), (First, Second), (Tie, Tie)]).unwrap();
        assert_eq!((got.both_first, got.both_second, got.consistent, got.half_ties), (0, 0, 4, 0));
        assert_eq!(got.same_position.estimate, 0.0);
        assert_eq!(got.first_picked.unwrap().estimate, 0.5);
        assert_eq!(got.p_value, 1.0);
    }

    #[test]
    fn a_judge_that_only_looks_where() {
        let mut choices = vec![(First, First); 49];
        choices.push((First, Second));
        let got = position_report(&choices).unwrap();
        assert_eq!(got.same_position.estimate, 0.98);
        assert_eq!(got.first_picked.unwrap().estimate, 0.99);
        assert!(got.first_picked.unwrap().excludes(0.5));
        assert!(got.p_value < 1e-12);
    }

    #[test]
    fn inconsistency_without_a_side_is_not_a_bias_to_one() {
        let choices: Vec<_> =
            (0..20).map(|i| if i % 2 == 0 { (First, First) } else { (Second, Second) }).collect();
        let got = position_report(&choices).unwrap();
        assert_eq!(got.same_position.estimate, 1.0);
        assert_eq!(got.p_value, 1.0);
        assert!(!got.first_picked.unwrap().excludes(0.5));
    }

    #[test]
    fn half_ties_are_neither() {
        let got = position_report(&[(First, Tie), (Tie, Second), (First, Second)]).unwrap();
        assert_eq!((got.consistent, got.half_ties), (1, 2));
        assert_eq!(position_report(&[]), None);
        assert_eq!(position_report(&[(Tie, Tie), (Tie, Tie)]).unwrap().first_picked, None);
    }
}
