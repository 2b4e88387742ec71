//! How valid a judge is: what it says of pairs whose better response is known.

use rlaif_core::records::{Choice, Order, PromptText};
use rlaif_core::stats::Interval;
use serde::{Deserialize, Serialize};

/// A pair with a known answer; one line of `label.probe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbePair {
    /// What was asked.
    pub prompt: PromptText,
    /// The better response.
    pub better: String,
    /// The worse response.
    pub worse: String,
}

/// What the judge said of one probe pair, with the better response as a: the aggregate of both orders, and each order's choice.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeOutcome {
    /// p(better beats worse); `None` without a verdict.
    pub p: Option<f64>,
    /// Each verdict with its order, for the report by position; empty for judges without an order.
    pub choices: Vec<(Order, Choice)>,
}

/// A share of cases with its 95 % interval (Wilson 1927).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Cases that are so.
    pub hits: usize,
    /// All cases.
    pub n: usize,
    /// hits / n; NaN-free: 0 where n is 0.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Validity of a judge on labelled pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validity {
    /// Pairs that the judge ranks right: p above ½. Ties and missing verdicts count as not right.
    pub accuracy: Share,
    /// Pairs with p = ½.
    pub ties: usize,
    /// Pairs without a verdict.
    pub missing: usize,
    /// Right single verdicts where the better response stood first; `None` for judges without an order.
    pub accuracy_better_first: Option<Share>,
    /// Right single verdicts where the better response stood second.
    pub accuracy_better_second: Option<Share>,
    /// Pairs seen in both orders whose choice was the same position twice. An unbiased judge is near 0.
    pub same_position: Option<Share>,
    /// Of all verdicts with a choice, those for the response shown first. An unbiased judge is near ½.
    pub first_chosen: Option<Share>,
}

impl Validity {
    /// Adds the outcomes up.
    pub fn of(outcomes: &[ProbeOutcome]) -> Self {
        let count = |test: &dyn Fn(f64) -> bool| outcomes.iter().filter(|o| o.p.is_some_and(test)).count();
        let choices = || outcomes.iter().flat_map(|o| o.choices.iter().copied());
        let right_in = |order: Order, right: Choice| {
            let shown: Vec<Choice> = choices().filter(|(o, _)| *o == order).map(|(_, c)| c).collect();
            share(shown.iter().filter(|&&c| c == right).count(), shown.len())
        };
        let both: Vec<(Choice, Choice)> = outcomes
            .iter()
            .filter_map(|outcome| {
                let of = |order| outcome.choices.iter().find(|(o, _)| *o == order).map(|(_, c)| *c);
                of(Order::Ab).zip(of(Order::Ba))
            })
            .collect();
        let same = both.iter().filter(|(ab, ba)| ab == ba && *ab != Choice::Tie).count();
        let decided: Vec<Choice> = choices().map(|(_, c)| c).filter(|c| *c != Choice::Tie).collect();
        let first = decided.iter().filter(|c| **c == Choice::First).count();
        Self {
            accuracy: Share::of(count(&|p| p > 0.5), outcomes.len()),
            ties: count(&|p| p == 0.5),
            missing: outcomes.iter().filter(|o| o.p.is_none()).count(),
            accuracy_better_first: right_in(Order::Ab, Choice::First),
            accuracy_better_second: right_in(Order::Ba, Choice::Second),
            same_position: share(same, both.len()),
            first_chosen: share(first, decided.len()),
        }
    }

    /// True if the interval of the accuracy lies above chance: the judge knows something.
    pub fn above_chance(&self) -> bool {
        self.accuracy.low > 0.5
    }
}

fn share(hits: usize, n: usize) -> Option<Share> {
    (n > 0).then(|| Share::of(hits, n))
}

impl Share {
    /// hits of n; of nothing, the interval is all there is.
    pub fn of(hits: usize, n: usize) -> Self {
        match rlaif_core::stats::interval::wilson(hits as u64, n as u64) {
            Some(Interval { estimate, low, high }) => Self { hits, n, share: estimate, low, high },
            None => Self { hits, n, share: 0.0, low: 0.0, high: 1.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Choice::{First, Second, Tie};
    use Order::{Ab, Ba};

    #[test]
    fn the_interval_is_wilsons() {
        // By the formula in Python; for 125 of 125 the lower end is n / (n + z²).
        let all = Share::of(125, 125);
        assert!((all.low - 0.970_184).abs() < 1e-6 && all.high == 1.0, "{all:?}");
        let half = Share::of(60, 120);
        assert!((half.low - 0.411_939).abs() < 1e-6 && (half.high - 0.588_061).abs() < 1e-6, "{half:?}");
    }

    #[test]
    fn a_judge_that_always_takes_the_first_is_found_out() {
        let outcome = ProbeOutcome { p: Some(0.5), choices: vec![(Ab, First), (Ba, First)] };
        let validity = Validity::of(&vec![outcome; 40]);
        assert_eq!((validity.accuracy.hits, validity.ties), (0, 40));
        assert_eq!(validity.accuracy_better_first.unwrap().share, 1.0);
        assert_eq!(validity.accuracy_better_second.unwrap().share, 0.0);
        assert_eq!(validity.same_position.unwrap().share, 1.0);
        assert_eq!(validity.first_chosen.unwrap().share, 1.0);
        assert!(!validity.above_chance());
    }

    #[test]
    fn missing_verdicts_count_against_a_judge() {
        let right = ProbeOutcome { p: Some(0.9), choices: vec![] };
        let missing = ProbeOutcome { p: None, choices: vec![(Ab, Tie), (Ba, Second)] };
        let validity = Validity::of(&[right.clone(), right, missing]);
        assert_eq!((validity.accuracy.hits, validity.accuracy.n, validity.missing), (2, 3, 1));
        assert_eq!(validity.same_position.unwrap().hits, 0);
        assert_eq!(Validity::of(&[]).same_position, None);
    }
}
