//! Labels of people: they come before the judges' preferences wherever a run trains on its own labels.

use anyhow::Result;
use rlaif_core::Config;
use rlaif_core::people::{HUMAN, HumanChoice, preference};
use rlaif_core::records::Preference;
use rlaif_store::Store;
use rlaif_store::store::{HumanVerdict, PreferredPair, TRAIN_PAIRS};
use std::collections::BTreeMap;

/// The queue of `rlaif review` that shows comparisons of the evaluation. What people say in it corrects win rates and is never trained on.
pub const EVALUATION: &str = "evaluation";

/// The preferences of the run as it trains on them: people's where there are some, else the judges'.
///
/// # Errors
/// If the store cannot be read.
pub async fn preferred_pairs(store: &Store, config: &Config) -> Result<Vec<PreferredPair>> {
    let people = preferences(store, config).await?;
    Ok(store.preferred_pairs_over(TRAIN_PAIRS, &people).await?)
}

/// One preference a pair as the run trains on them, also those that are not kept: people's where there are some, else the judges'.
/// Pairs that nobody judged are not in it.
///
/// # Errors
/// If the store cannot be read.
pub async fn standing(store: &Store, config: &Config) -> Result<Vec<Preference>> {
    let mut people = preferences(store, config).await?;
    let judges = store.preferences(TRAIN_PAIRS).await?;
    let mut standing: Vec<Preference> =
        judges.into_iter().map(|judged| people.remove(&judged.pair_id).unwrap_or(judged)).collect();
    standing.extend(people.into_values());
    Ok(standing)
}

/// Whether people made a preference.
pub fn is_of_people(preference: &Preference) -> bool {
    matches!(preference.judges.as_slice(), [only] if only == HUMAN)
}

/// What people's votes come to, by pair; ties are in it.
///
/// # Errors
/// If the store cannot be read.
pub async fn preferences(store: &Store, config: &Config) -> Result<BTreeMap<String, Preference>> {
    let votes = store.human_votes(TRAIN_PAIRS).await?;
    let of = |(id, (pair, votes))| Some((id, preference(&pair, &votes, &config.review, &config.label)?));
    Ok(votes.into_iter().filter_map(of).collect())
}

/// How much a preference counts in training.
pub fn weight(config: &Config, judges: &[String]) -> f64 {
    match judges {
        [only] if only == HUMAN => config.review.weight,
        _ => 1.0,
    }
}

/// Verdicts that stand and are labels, of all that people ever gave.
pub fn labels(verdicts: &[HumanVerdict]) -> impl Iterator<Item = &HumanVerdict> {
    verdicts.iter().filter(|verdict| verdict.undone_ms.is_none() && verdict.choice != HumanChoice::Skip)
}

/// The hash of all labels of people but those on the evaluation, whatever pairs there are now, and of what they count for; `None` where there is none, so that
/// a run without people is what it was. Who gave them and when moves nothing.
///
/// # Errors
/// If the store cannot be read.
pub async fn fingerprint(store: &Store, config: &Config) -> Result<Option<String>> {
    let verdicts = store.human_verdicts().await?;
    let mut said: Vec<String> = labels(&verdicts)
        .filter(|verdict| verdict.queue != EVALUATION)
        .map(|verdict| format!("{} {:?} {:?}", verdict.pair_key, verdict.choice, verdict.note))
        .collect();
    if said.is_empty() {
        return Ok(None);
    }
    said.sort_unstable();
    said.push(format!(
        "{} {} {} {}",
        config.review.weight, config.review.smoothing, config.label.tie_margin, config.label.keep_ties
    ));
    Ok(Some(blake3::hash(said.join("\n").as_bytes()).to_hex()[..32].to_string()))
}

/// The hash of people's labels on comparisons of the evaluation; `None` where there is none.
///
/// # Errors
/// If the store cannot be read.
pub async fn evaluation_fingerprint(store: &Store) -> Result<Option<String>> {
    let verdicts = store.human_verdicts().await?;
    let mut said: Vec<String> = labels(&verdicts)
        .filter(|verdict| verdict.queue == EVALUATION)
        .map(|verdict| format!("{} {:?}", verdict.pair_key, verdict.choice))
        .collect();
    said.sort_unstable();
    let hash = || blake3::hash(said.join("\n").as_bytes()).to_hex()[..32].to_string();
    Ok((!said.is_empty()).then(hash))
}
