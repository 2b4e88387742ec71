//! What people and judges say of the same pairs: for the page of `rlaif review` and for `rlaif audit`. Intervals are over prompts: pairs of
//! one prompt depend on each other.

use crate::judging;
use anyhow::Result;
use rlaif_core::config::{Aggregation, JudgeConfig, LabelConfig};
use rlaif_core::people::{HumanChoice, Votes};
use rlaif_core::records::Pair;
use rlaif_core::stats::Interval;
use rlaif_core::stats::agreement::kappa_over_prompts;
use rlaif_core::stats::interval::cluster_share;
use rlaif_judge::{JudgeVerdict, aggregate};
use rlaif_store::Store;
use rlaif_store::store::{ReviewPair, TRAIN_PAIRS};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bootstrap draws of each interval.
pub const RESAMPLES: usize = 1000;

/// Who stands for all judges of a run.
pub const TOGETHER: &str = "all judges together";

/// What people said and did not take back.
#[derive(Debug, Default)]
pub struct People {
    /// Labels that stand, of each reviewer; pairs that they skipped are none.
    pub reviewers: BTreeMap<String, usize>,
    /// By the hash of a pair's key, then by reviewer; a skip too.
    pub said: HashMap<String, BTreeMap<String, HumanChoice>>,
}

impl People {
    /// Reads it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn read(store: &Store) -> Result<Self> {
        let mut people = Self::default();
        for verdict in store.human_verdicts().await?.into_iter().filter(|it| it.undone_ms.is_none()) {
            if verdict.choice != HumanChoice::Skip {
                *people.reviewers.entry(verdict.reviewer.clone()).or_default() += 1;
            }
            people.said.entry(verdict.pair_key).or_default().insert(verdict.reviewer, verdict.choice);
        }
        Ok(people)
    }

    /// How they voted on a, and on b; `None` where nobody was asked.
    pub fn votes(&self, pair: &ReviewPair) -> Option<Votes> {
        Some(votes(pair, self.said.get(&pair.key.hash)?.values().copied()))
    }

    /// The pairs of the audit's random order, each with the hash of its key, up to the first that nobody has answered: a random sample,
    /// whatever other queues did.
    pub fn audited(&self, order: &[(String, String)]) -> BTreeSet<String> {
        order
            .iter()
            .take_while(|(key, _)| self.said.contains_key(key))
            .map(|(_, pair)| pair.clone())
            .collect()
    }
}

/// What people who saw a pair say of a (first) and b (second).
pub fn votes(pair: &ReviewPair, said: impl Iterator<Item = HumanChoice>) -> Votes {
    let mut votes = Votes::default();
    said.for_each(|choice| votes.add(if pair.key.a_first { choice } else { choice.swapped() }));
    votes
}

/// p of each judge as if it were alone, and of all of them together, by pair.
///
/// # Errors
/// If the store cannot be read.
pub async fn opinions(
    store: &Store,
    label: &LabelConfig,
    pairs: &[ReviewPair],
) -> Result<Vec<(String, HashMap<String, f64>)>> {
    let verdicts = store.verdicts(TRAIN_PAIRS).await?;
    let of_judge = |judge: &JudgeConfig| {
        let said = judging::said(&verdicts, std::slice::from_ref(judge));
        let p = |pair: &ReviewPair| {
            let p = p_alone(&pair.pair, said.get(pair.pair.id.as_str())?, label)?;
            Some((pair.pair.id.clone(), p))
        };
        (judge.name.clone(), pairs.iter().filter_map(p).collect())
    };
    let mut opinions: Vec<(String, HashMap<String, f64>)> = label.judges.iter().map(of_judge).collect();
    opinions.push((TOGETHER.into(), together(store, TRAIN_PAIRS).await?));
    Ok(opinions)
}

/// P(a beats b) by verdicts of one judge, or of one of its templates; `None` where there is none to be read.
pub fn p_alone(pair: &Pair, said: &[JudgeVerdict<'_>], label: &LabelConfig) -> Option<f64> {
    let alone = LabelConfig { aggregation: Aggregation::Mean, ..label.clone() };
    aggregate(pair, said, &alone, None).p
}

/// p of the preferences of a set, by pair.
///
/// # Errors
/// If the store cannot be read.
pub async fn together(store: &Store, set: &str) -> Result<HashMap<String, f64>> {
    let preferences = store.preferences(set).await?;
    Ok(preferences.into_iter().filter_map(|it| Some((it.pair_id, it.p?))).collect())
}

/// The choice that a p comes to.
pub fn choice_of(p: f64, tie_margin: f64) -> HumanChoice {
    match p - 0.5 {
        margin if margin == 0.0 || margin.abs() < tie_margin => HumanChoice::Tie,
        margin if margin > 0.0 => HumanChoice::First,
        _ => HumanChoice::Second,
    }
}

/// How far two agree who said something of the same pairs.
#[derive(Debug, Clone, Copy)]
pub struct Agreement {
    /// Pairs on which both have a choice.
    pub n: usize,
    /// Of these, those on which neither calls it a tie.
    pub decisive: usize,
    /// The share of the decisive ones on which they choose the same.
    pub accuracy: Option<Interval>,
    /// Cohen's kappa over all of them, ties as a third choice.
    pub kappa: Option<Interval>,
}

/// The agreement of two over pairs of which each is (its prompt, what the one says, what the other does); skips are left out.
pub fn agreement<'a>(
    both: impl Iterator<Item = (&'a str, HumanChoice, HumanChoice)>,
    run_seed: u64,
) -> Agreement {
    let mut by_prompt: BTreeMap<&str, Vec<(HumanChoice, HumanChoice)>> = BTreeMap::new();
    for (prompt, one, other) in both {
        if one != HumanChoice::Skip && other != HumanChoice::Skip {
            by_prompt.entry(prompt).or_default().push((one, other));
        }
    }
    let clusters: Vec<Vec<(HumanChoice, HumanChoice)>> = by_prompt.into_values().collect();
    let decides =
        |(one, other): &&(HumanChoice, HumanChoice)| *one != HumanChoice::Tie && *other != HumanChoice::Tie;
    let same: Vec<Vec<f64>> = clusters
        .iter()
        .map(|cluster| cluster.iter().filter(decides).map(|(x, y)| f64::from(u8::from(x == y))).collect())
        .collect();
    Agreement {
        n: clusters.iter().map(Vec::len).sum(),
        decisive: same.iter().map(Vec::len).sum(),
        accuracy: cluster_share(&same, RESAMPLES, run_seed),
        kappa: kappa_over_prompts(&clusters, RESAMPLES, run_seed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HumanChoice::{First, Second, Skip, Tie};

    #[test]
    fn agreement_counts_what_both_decided() {
        let both = [
            ("p", First, First),
            ("p", First, Tie),
            ("q", Second, First),
            ("r", Second, Second),
            ("r", Skip, First),
        ];
        let found = agreement(both.into_iter(), 7);
        assert_eq!((found.n, found.decisive), (4, 3));
        let accuracy = found.accuracy.unwrap();
        assert!((accuracy.estimate - 2.0 / 3.0).abs() < 1e-12, "{accuracy}");
        // By hand: they agree on 2 of 4, by chance on 0.5 · 0.5 + 0.5 · 0.25 = 0.375; (0.5 − 0.375) / 0.625.
        assert!((found.kappa.unwrap().estimate - 0.2).abs() < 1e-12);
    }

    #[test]
    fn one_prompt_has_no_interval_and_a_half_is_a_tie() {
        assert!(agreement([("p", First, First)].into_iter(), 7).accuracy.is_none());
        assert_eq!(
            [choice_of(0.5, 0.0), choice_of(0.51, 0.02), choice_of(0.9, 0.02), choice_of(0.1, 0.0)],
            [Tie, Tie, First, Second]
        );
    }
}
