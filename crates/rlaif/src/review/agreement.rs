//! How far people agree with each other, and judges with people: what the pages show. Intervals are over prompts.

use crate::agreement::{self, People, choice_of};
use anyhow::Result;
use rlaif_core::Config;
use rlaif_core::people::HumanChoice;
use rlaif_core::stats::Interval;
use rlaif_core::stats::interval::wilson;
use rlaif_store::Store;
use rlaif_store::store::TRAIN_PAIRS;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// Two who said something of the same pairs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Who.
    pub who: String,
    /// With whom.
    pub with: String,
    /// Pairs on which both have a choice.
    pub n: usize,
    /// Of these, those on which neither calls it a tie.
    pub decisive: usize,
    /// The share of the decisive ones on which they choose the same.
    pub agreement: Option<Interval>,
    /// Cohen's kappa over all of them, ties as a third choice.
    pub kappa: Option<Interval>,
}

impl Row {
    fn of<'a>(
        who: &str,
        with: &str,
        both: impl Iterator<Item = (&'a str, HumanChoice, HumanChoice)>,
        run_seed: u64,
    ) -> Self {
        let agreement::Agreement { n, decisive, accuracy, kappa } = agreement::agreement(both, run_seed);
        Self { who: who.into(), with: with.into(), n, decisive, agreement: accuracy, kappa }
    }
}

/// Everything on the page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agreement {
    /// Labels that stand, of each reviewer.
    pub reviewers: Vec<(String, usize)>,
    /// Each two of them.
    pub people: Vec<Row>,
    /// Each judge, and the preferences, against what most people say, on a random sample of the pairs.
    pub audit: Vec<Row>,
    /// The same on everything that people judged.
    pub all: Vec<Row>,
    /// How often people preferred a known-bad response, and of how many.
    pub known_bad: Option<(Interval, u64)>,
}

/// Adds up what stands in the ledger. `audit` is the order in which the random audit shows pairs, as `Queues::audit_order` has it.
///
/// # Errors
/// If the store cannot be read.
pub async fn agreement(store: &Store, config: &Config, audit: &[(String, String)]) -> Result<Agreement> {
    let pairs = store.review_pairs(TRAIN_PAIRS).await?;
    let people = People::read(store).await?;

    let names: Vec<&String> = people.reviewers.keys().collect();
    let mut each_two = Vec::new();
    for (i, one) in names.iter().enumerate() {
        for other in &names[i + 1..] {
            let both = pairs.iter().filter_map(|pair| {
                let said = people.said.get(&pair.key.hash)?;
                Some((pair.pair.prompt_id.as_str(), *said.get(*one)?, *said.get(*other)?))
            });
            each_two.push(Row::of(one, other, both, config.run.seed));
        }
    }

    let most: HashMap<&str, HumanChoice> = pairs
        .iter()
        .filter_map(|pair| Some((pair.pair.id.as_str(), people.votes(pair)?.majority()?)))
        .collect();
    let opinions = agreement::opinions(store, &config.label, &pairs).await?;
    let sample = people.audited(audit);
    let against = |sample: Option<&BTreeSet<String>>| -> Vec<Row> {
        let of_judge = |(judge, of): &(String, HashMap<String, f64>)| {
            let both = pairs.iter().filter_map(|pair| {
                let id = pair.pair.id.as_str();
                sample.is_none_or(|sample| sample.contains(id)).then_some(())?;
                let choice = choice_of(*of.get(id)?, config.label.tie_margin);
                Some((pair.pair.prompt_id.as_str(), *most.get(id)?, choice))
            });
            Row::of(judge, "people", both, config.run.seed)
        };
        opinions.iter().map(of_judge).filter(|row| row.n > 0).collect()
    };
    Ok(Agreement {
        people: each_two.into_iter().filter(|row| row.n > 0).collect(),
        audit: against(Some(&sample)),
        all: against(None),
        known_bad: known_bad(store, &people).await?,
        reviewers: people.reviewers.into_iter().collect(),
    })
}

/// How often most people preferred the known-bad response, which is a.
async fn known_bad(store: &Store, people: &People) -> Result<Option<(Interval, u64)>> {
    let (mut wins, mut n) = (0, 0);
    for set in store.pair_sets().await?.iter().filter(|set| set.starts_with(crate::robustness::TRIPWIRES)) {
        for pair in store.review_pairs(set).await? {
            if let Some(choice) = people.votes(&pair).and_then(|votes| votes.majority()) {
                n += 1;
                wins += u64::from(choice == HumanChoice::First);
            }
        }
    }
    Ok(wilson(wins, n).map(|interval| (interval, n)))
}
