//! Repeatability: whether a judge says the same when it is asked the same again.

use super::interval::Interval;
use super::raters::{Tally, fleiss_kappa, observed_agreement, over_prompts};
use crate::records::Choice;
use serde::{Deserialize, Serialize};

/// What a judge says of presentations (pair, order and template) that it saw more than once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Repeatability {
    /// Presentations with two verdicts or more.
    pub presentations: usize,
    /// Of these, those with the same verdict every time.
    pub always_same: usize,
    /// P(two of its verdicts on one presentation are the same), with a bootstrap interval over prompts.
    pub same: Interval,
    /// The same beyond chance, as Fleiss' kappa: a judge that nearly always says "first" repeats itself without reading. `None`
    /// where all verdicts are alike.
    pub kappa: Option<Interval>,
}

/// The repeatability of one judge; `prompts[i][j]` are the verdicts on presentation j of prompt i. Missing verdicts are not passed in.
/// `None` below two prompts, or where nothing was asked twice.
pub fn repeatability(prompts: &[Vec<Vec<Choice>>], resamples: usize, run_seed: u64) -> Option<Repeatability> {
    let count = |verdicts: &Vec<Choice>| -> Tally {
        [Choice::First, Choice::Tie, Choice::Second]
            .map(|choice| verdicts.iter().filter(|verdict| **verdict == choice).count() as u32)
            .to_vec()
    };
    let prompts: Vec<Vec<Tally>> = prompts
        .iter()
        .map(|presentations| presentations.iter().filter(|v| v.len() >= 2).map(count).collect::<Vec<_>>())
        .filter(|tallies| !tallies.is_empty())
        .collect();
    let presentations = prompts.iter().map(Vec::len).sum();
    let always_same =
        prompts.iter().flatten().filter(|tally| tally.iter().filter(|k| **k > 0).count() == 1).count();
    Some(Repeatability {
        presentations,
        always_same,
        same: over_prompts(&prompts, resamples, run_seed, |items| observed_agreement(items))?,
        kappa: over_prompts(&prompts, resamples, run_seed, |items| fleiss_kappa(items)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Choice::{First, Second, Tie};

    #[test]
    fn by_hand() {
        // P(same): 1, 1/3 and 0; the last was asked once.
        let prompts =
            [vec![vec![First, First]], vec![vec![Second, Second, Tie]], vec![vec![Tie, First], vec![Second]]];
        let got = repeatability(&prompts, 500, 0).unwrap();
        assert_eq!((got.presentations, got.always_same), (3, 1));
        assert!((got.same.estimate - 4.0 / 9.0).abs() < 1e-12, "{got:?}");
        assert!(got.same.low < got.same.estimate && got.same.estimate < got.same.high);
    }

    #[test]
    fn saying_always_the_same_is_no_kappa() {
        let got = repeatability(&vec![vec![vec![First; 3]]; 5], 100, 0).unwrap();
        assert_eq!((got.same.estimate, got.kappa), (1.0, None));
    }

    #[test]
    fn asked_once_is_not_asked_again() {
        assert_eq!(repeatability(&[vec![vec![First]], vec![vec![Tie]]], 100, 0), None);
        assert_eq!(repeatability(&[vec![vec![First, First]]], 100, 0), None, "one prompt");
    }
}
