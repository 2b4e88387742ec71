//! Self-preference: whether a judge likes the responses of its own model better than others do.
//!
//! A judge's model may just be good, so a high win rate of its own responses alone shows nothing (Panickssery et al. 2024,
//! <https://arxiv.org/abs/2404.13076>): the same pairs must have been judged by somebody without a stake, people or a panel of other models.
//!
//! Two numbers, since a judge that errs at random pulls every win rate to ½: the difference of the win rates says how far its
//! number is off, for whatever reason, and the bias whether its errors favour its own.

use super::interval::{self, Interval};
use serde::{Deserialize, Serialize};

/// A pair of a response of the judge's own model and one of another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OwnPair {
    /// P(the own response is better), says the judge: 1, ½, 0 or soft, averaged over both orders.
    pub judge: f64,
    /// The same, says who has no stake.
    pub reference: f64,
}

/// How much more a judge prefers its own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SelfPreference {
    /// Pairs.
    pub pairs: usize,
    /// Win rate of the own responses, says the judge.
    pub judge: f64,
    /// The same, says who has no stake.
    pub reference: f64,
    /// judge − reference over the same pairs, with a bootstrap interval over prompts.
    pub difference: Interval,
    /// P(the judge is for its own | the reference is) − P(it is for the other | the reference is), Wataoka et al. 2024,
    /// <https://arxiv.org/abs/2410.21819>: 0 for a judge that errs alike on both sides, however often. `None` where the reference is
    /// for one side only.
    pub bias: Option<Interval>,
}

/// The difference of the two win rates; `prompts[i]` are the pairs of prompt i that both judged. `None` below two prompts with
/// pairs.
pub fn self_preference(prompts: &[Vec<OwnPair>], resamples: usize, run_seed: u64) -> Option<SelfPreference> {
    let differences: Vec<Vec<f64>> =
        prompts.iter().map(|pairs| pairs.iter().map(|pair| pair.judge - pair.reference).collect()).collect();
    let difference = interval::cluster_difference(&differences, resamples, run_seed)?;
    let pairs: Vec<&OwnPair> = prompts.iter().flatten().collect();
    let n = pairs.len() as f64;
    Some(SelfPreference {
        pairs: pairs.len(),
        judge: pairs.iter().map(|pair| pair.judge).sum::<f64>() / n,
        reference: pairs.iter().map(|pair| pair.reference).sum::<f64>() / n,
        difference,
        bias: interval::bootstrap_items(prompts, resamples, run_seed, bias),
    })
}

fn bias(pairs: &[&OwnPair]) -> Option<f64> {
    let mean = |judge: Vec<f64>| (!judge.is_empty()).then(|| judge.iter().sum::<f64>() / judge.len() as f64);
    let own = pairs.iter().filter(|pair| pair.reference > 0.5).map(|pair| pair.judge).collect();
    let other = pairs.iter().filter(|pair| pair.reference < 0.5).map(|pair| 1.0 - pair.judge).collect();
    Some(mean(own)? - mean(other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(judge: f64, reference: f64) -> Vec<OwnPair> {
        vec![OwnPair { judge, reference }]
    }

    #[test]
    fn a_good_model_is_no_self_preference() {
        let prompts: Vec<_> =
            (0..100).map(|i| if i % 10 == 0 { pair(0.0, 0.0) } else { pair(1.0, 1.0) }).collect();
        let got = self_preference(&prompts, 500, 0).unwrap();
        assert_eq!((got.pairs, got.judge, got.reference), (100, 0.9, 0.9));
        let Interval { estimate, low, high } = got.difference;
        assert!(
            estimate == 0.0 && low == -high && high < 0.04,
            "never off on 100 prompts: {}",
            got.difference
        );
        assert_eq!(got.bias.unwrap().estimate, 0.0);
    }

    #[test]
    fn flipping_one_verdict_in_five_to_its_own_is_found() {
        let prompts: Vec<_> = (0..100)
            .map(|i| match i % 10 {
                0..5 => pair(1.0, 1.0),
                5 | 6 => pair(1.0, 0.0),
                _ => pair(0.0, 0.0),
            })
            .collect();
        let got = self_preference(&prompts, 1000, 0).unwrap();
        assert!((got.judge - 0.7).abs() < 1e-12 && (got.reference - 0.5).abs() < 1e-12);
        assert!((got.difference.estimate - 0.2).abs() < 1e-12 && got.difference.excludes(0.0), "{got:?}");
        // Right on all 50 of its own, on 30 of 50 others.
        let bias = got.bias.unwrap();
        assert!((bias.estimate - 0.4).abs() < 1e-12 && bias.excludes(0.0), "{bias}");
    }

    #[test]
    fn errors_alike_on_both_sides_are_no_bias() {
        // The own response is better on 80 of 100 pairs; a quarter of the verdicts is wrong on either side.
        let prompts: Vec<_> = (0..100)
            .map(|i| {
                let reference = f64::from(u8::from(i % 5 != 0));
                pair(if i % 4 == 0 { 1.0 - reference } else { reference }, reference)
            })
            .collect();
        let got = self_preference(&prompts, 500, 0).unwrap();
        assert!((got.difference.estimate + 0.15).abs() < 1e-12, "pulled to ½: {got:?}");
        let bias = got.bias.unwrap();
        assert!(bias.estimate.abs() < 1e-12 && !bias.excludes(0.0), "{bias}");
    }

    #[test]
    fn a_reference_for_one_side_only_shows_no_bias() {
        assert_eq!(self_preference(&vec![pair(0.5, 1.0); 5], 100, 0).unwrap().bias, None);
    }

    #[test]
    fn nothing_is_none() {
        assert_eq!(self_preference(&[], 100, 0), None);
        assert_eq!(self_preference(&[pair(1.0, 0.0)], 100, 0), None);
    }
}
