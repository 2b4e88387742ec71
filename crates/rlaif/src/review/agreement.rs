//! What the page on agreement shows.

use super::App;
use crate::agreement::{self, Agreement, People, choice_of};
use anyhow::Result;
use rlaif_core::people::HumanChoice;
use rlaif_core::stats::Interval;
use rlaif_core::stats::interval::wilson;
use rlaif_store::store::TRAIN_PAIRS;
use std::collections::{BTreeSet, HashMap};

/// Two who said something of the same pairs.
pub struct Row {
    /// Who.
    pub who: String,
    /// With whom.
    pub with: String,
    /// How far they agree.
    pub agreement: Agreement,
}

/// Everything on the page.
pub struct Found {
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

/// Adds up what stands in the ledger.
///
/// # Errors
/// If the store cannot be read.
pub async fn found(app: &App) -> Result<Found> {
    let (store, config) = (&app.store, &app.config);
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
            let agreement = agreement::agreement(both, config.run.seed);
            each_two.push(Row { who: one.to_string(), with: other.to_string(), agreement });
        }
    }

    let most: HashMap<&str, HumanChoice> = pairs
        .iter()
        .filter_map(|pair| Some((pair.pair.id.as_str(), people.votes(pair)?.majority()?)))
        .collect();
    let opinions = agreement::opinions(store, &config.label, &pairs).await?;
    let sample = people.audited(app.desk.lock().await.queues());
    let against = |sample: Option<&BTreeSet<String>>| -> Vec<Row> {
        let of_judge = |(judge, of): &(String, HashMap<String, f64>)| {
            let both = pairs.iter().filter_map(|pair| {
                let id = pair.pair.id.as_str();
                sample.is_none_or(|sample| sample.contains(id)).then_some(())?;
                let choice = choice_of(*of.get(id)?, config.label.tie_margin);
                Some((pair.pair.prompt_id.as_str(), *most.get(id)?, choice))
            });
            let agreement = agreement::agreement(both, config.run.seed);
            Row { who: judge.clone(), with: "people".into(), agreement }
        };
        opinions.iter().map(of_judge).filter(|row| row.agreement.n > 0).collect()
    };
    Ok(Found {
        people: each_two.into_iter().filter(|row| row.agreement.n > 0).collect(),
        audit: against(Some(&sample)),
        all: against(None),
        known_bad: known_bad(app, &people).await?,
        reviewers: people.reviewers.into_iter().collect(),
    })
}

/// How often most people preferred the known-bad response, which is a.
async fn known_bad(app: &App, people: &People) -> Result<Option<(Interval, u64)>> {
    let (mut wins, mut n) = (0, 0);
    for set in app.store.pair_sets().await?.iter().filter(|set| set.starts_with(crate::robustness::TRIPWIRES))
    {
        for pair in app.store.review_pairs(set).await? {
            if let Some(choice) = people.votes(&pair).and_then(|votes| votes.majority()) {
                n += 1;
                wins += u64::from(choice == HumanChoice::First);
            }
        }
    }
    Ok(wilson(wins, n).map(|interval| (interval, n)))
}
