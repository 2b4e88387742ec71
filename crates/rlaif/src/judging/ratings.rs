//! Ratings of single responses: a response is rated once however many pairs it is in, and pairs compare by their ratings.

use super::{Assignment, PARSER};
use crate::context::Context;
use anyhow::Result;
use rlaif_core::config::JudgeConfig;
use rlaif_core::records::{NoVerdict, Order, Verdict};
use rlaif_judge::local::contrastive_verdict;
use rlaif_store::store::VerdictRow;
use std::collections::{BTreeMap, HashMap};

/// Ratings from −1 to 1 by response and vote.
#[derive(Debug, Default)]
pub struct Ratings {
    by_response: HashMap<String, BTreeMap<u32, Result<f64, NoVerdict>>>,
}

impl Ratings {
    /// Adds a rating, unless it is there already: pairs that share a response share its reply.
    pub fn add(&mut self, response: &str, vote: u32, rating: impl FnOnce() -> Result<f64, NoVerdict>) {
        if !self.by_response.contains_key(response) {
            self.by_response.insert(response.to_owned(), BTreeMap::new());
        }
        if let Some(votes) = self.by_response.get_mut(response) {
            votes.entry(vote).or_insert_with(rating);
        }
    }

    /// The mean over the votes that are a rating; else the reason of the first; `None` for a response that was not rated yet.
    pub fn of(&self, response: &str) -> Option<Result<f64, NoVerdict>> {
        let votes = self.by_response.get(response)?;
        let rated: Vec<f64> = votes.values().filter_map(|rating| rating.as_ref().ok().copied()).collect();
        if rated.is_empty() {
            return votes.values().next().cloned();
        }
        Some(Ok(rated.iter().sum::<f64>() / rated.len() as f64))
    }

    /// Stores the ratings as scores, and for each pair of which both responses were answered p(a beats b) = σ((s_a − s_b) /
    /// temperature).
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn store(
        &self,
        context: &Context,
        work: &Assignment,
        judge: &JudgeConfig,
        template: &str,
    ) -> Result<()> {
        let mut ids: Vec<&String> = self.by_response.keys().collect();
        ids.sort();
        let scores: Vec<(String, f64)> =
            ids.iter().filter_map(|id| Some(((*id).clone(), self.of(id)?.ok()?))).collect();
        context.wait(context.store.put_scores(&score_name(judge, template), &scores))?;
        let rows: Vec<VerdictRow> = work
            .asked()
            .filter_map(|pair| {
                let verdict = verdict(&self.of(&pair.a)?, &self.of(&pair.b)?, judge.temperature);
                Some(VerdictRow {
                    pair_id: pair.id.clone(),
                    judge: judge.name.clone(),
                    template: template.to_owned(),
                    order: Order::Ab, // it sees one response at a time: there is no order
                    vote: 0,
                    verdict,
                })
            })
            .collect();
        Ok(context.wait(context.store.put_verdicts(PARSER, &rows))?)
    }
}

/// The name under which a judge's ratings stand among the scores.
pub fn score_name(judge: &JudgeConfig, template: &str) -> String {
    format!("{}/{template}", judge.name)
}

/// The verdict on (a, b) from their ratings, which are kept on it as they were given, from 1 to 10.
fn verdict(a: &Result<f64, NoVerdict>, b: &Result<f64, NoVerdict>, temperature: f64) -> Verdict {
    match (a, b) {
        (Ok(a), Ok(b)) => {
            let given = |rating: f64| 5.5 + 4.5 * rating;
            let scores = BTreeMap::from([("rating".to_owned(), (given(*a), given(*b)))]);
            Verdict { scores, ..contrastive_verdict(Some(*a), Some(*b), temperature) }
        }
        (Err(reason), _) | (_, Err(reason)) => Verdict::none(reason.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_rated_once_a_vote_and_its_votes_are_averaged() {
        let mut ratings = Ratings::default();
        ratings.add("r", 0, || Ok(0.5));
        ratings.add("r", 0, || panic!("the reply is read once"));
        ratings.add("r", 1, || Ok(-0.1));
        ratings.add("r", 2, || Err(NoVerdict::Unparsable));
        ratings.add("s", 0, || Err(NoVerdict::Refused));
        assert!((ratings.of("r").unwrap().unwrap() - 0.2).abs() < 1e-12);
        assert_eq!(ratings.of("s"), Some(Err(NoVerdict::Refused)));
        assert_eq!(ratings.of("t"), None);
    }

    #[test]
    fn pairs_compare_by_their_ratings() {
        // 8 against 7 of ten: one point is 2/9 of the scale.
        let said = verdict(&Ok(2.5 / 4.5), &Ok(1.5 / 4.5), 0.1);
        assert!((said.p_first.unwrap() - 0.902_227_5).abs() < 1e-6, "{said:?}");
        let (a, b) = said.scores["rating"];
        assert!((a - 8.0).abs() < 1e-12 && (b - 7.0).abs() < 1e-12);
        assert_eq!(verdict(&Ok(0.0), &Err(NoVerdict::Refused), 0.1).choice, Err(NoVerdict::Refused));
    }
}
