//! How often one policy beats another.

use super::interval::{self, Interval};
use super::paired::sign_test;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one comparison came to, as seen from the tuned policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The tuned policy's response is better.
    Win,
    /// Neither, or the judge changed its mind with the order.
    Tie,
    /// The baseline's response is better.
    Loss,
}

impl Outcome {
    /// 1, ½ or 0.
    pub fn points(self) -> f64 {
        match self {
            Self::Win => 1.0,
            Self::Tie => 0.5,
            Self::Loss => 0.0,
        }
    }
}

/// A win rate, with ties as half a win.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WinRate {
    /// Comparisons won.
    pub wins: u64,
    /// Comparisons that were neither.
    pub ties: u64,
    /// Comparisons lost.
    pub losses: u64,
    /// (wins + ½·ties) / all, with a 95 % interval over prompts, [`interval::cluster_share`].
    pub rate: Interval,
    /// Exact two-sided sign test over prompts: did more of them come out above ½ than below?
    pub p_value: f64,
}

/// The win rate over comparisons that each name their prompt. Comparisons without a verdict are not passed in: they are
/// missing, not ties. `None` for fewer than two prompts.
pub fn win_rate<'a>(
    comparisons: impl IntoIterator<Item = (&'a str, Outcome)>,
    resamples: usize,
    run_seed: u64,
) -> Option<WinRate> {
    let mut by_prompt: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let (mut wins, mut ties, mut losses) = (0, 0, 0);
    for (prompt, outcome) in comparisons {
        by_prompt.entry(prompt).or_default().push(outcome.points());
        match outcome {
            Outcome::Win => wins += 1,
            Outcome::Tie => ties += 1,
            Outcome::Loss => losses += 1,
        }
    }
    let clusters: Vec<Vec<f64>> = by_prompt.into_values().collect();
    let rate = interval::cluster_share(&clusters, resamples, run_seed)?;
    let means: Vec<f64> =
        clusters.iter().map(|points| points.iter().sum::<f64>() / points.len() as f64).collect();
    let won = means.iter().filter(|mean| **mean > 0.5).count() as u64;
    let lost = means.iter().filter(|mean| **mean < 0.5).count() as u64;
    Some(WinRate { wins, ties, losses, rate, p_value: sign_test(won, lost) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::*;

    #[test]
    fn ties_are_half_a_win() {
        let comparisons = [("a", Win), ("a", Tie), ("b", Loss), ("b", Win), ("c", Win)];
        let got = win_rate(comparisons, 500, 0).unwrap();
        assert_eq!((got.wins, got.ties, got.losses), (3, 1, 1));
        assert!((got.rate.estimate - 3.5 / 5.0).abs() < 1e-12);
        assert!(got.rate.low <= got.rate.estimate && got.rate.estimate <= got.rate.high);
        // Prompts a and c came out above ½, b at ½.
        assert_eq!(got.p_value, sign_test(2, 0));
    }

    #[test]
    fn a_policy_that_is_no_better_is_not_called_better() {
        let prompts: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let even = prompts.iter().enumerate().map(|(i, p)| (p.as_str(), if i % 2 == 0 { Win } else { Loss }));
        let got = win_rate(even, 1000, 0).unwrap();
        assert_eq!(got.rate.estimate, 0.5);
        assert!(!got.rate.excludes(0.5));
        assert_eq!(got.p_value, 1.0);
    }

    #[test]
    fn winning_everything_still_has_an_interval() {
        let prompts: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        let got = win_rate(prompts.iter().map(|p| (p.as_str(), Win)), 500, 0).unwrap();
        assert_eq!((got.rate.estimate, got.rate.high), (1.0, 1.0));
        // Wilson, 10 of 10.
        assert!((got.rate.low - 0.722_467).abs() < 1e-6, "{}", got.rate);
        assert!(got.rate.excludes(0.5));
    }

    #[test]
    fn one_prompt_is_no_evidence_about_prompts() {
        assert_eq!(win_rate([("a", Win), ("a", Win)], 100, 0), None);
        assert_eq!(win_rate([], 100, 0), None);
    }
}
