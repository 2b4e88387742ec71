//! What a comparison shows: the win rate, whole and in parts, by each judge, at equal length, and as people would see it.

use super::compared::{Compared, Met};
use super::{conclusion, people};
use crate::context::Context;
use crate::report::comparison::{Comparison, ENOUGH_OF_A_TAG, JudgeRate, Named};
use crate::report::data::Estimate;
use rlaif_core::config::JudgeConfig;
use rlaif_core::records::Prompt;
use rlaif_core::stats::length::{Judged, length_controlled, longer_wins};
use rlaif_core::stats::winrate::{Outcome, WinRate, win_rate};
use std::collections::{BTreeMap, BTreeSet};

/// A win rate over what was met, with the number of comparisons behind it; comparisons without an outcome are in none.
pub fn win_rate_of<'m>(
    met: impl Iterator<Item = (&'m Met, Option<Outcome>)>,
    resamples: usize,
    run_seed: u64,
) -> Option<(WinRate, Estimate)> {
    let outcomes = met.filter_map(|(met, outcome)| Some((met.prompt.as_str(), outcome?)));
    let rate = win_rate(outcomes, resamples, run_seed)?;
    Some((rate, Estimate::of(rate.rate, (rate.wins + rate.ties + rate.losses) as usize)))
}

/// Everything about one comparison. `used` says of each judge whether training used it.
pub fn comparison(
    context: &Context,
    compared: &Compared,
    judges: &[JudgeConfig],
    used: &[bool],
) -> Comparison {
    let config = &context.config.evaluate;
    let (resamples, run_seed) = (config.bootstrap, context.config.run.seed);
    let rate_of = |outcome: &dyn Fn(&Met) -> Option<Outcome>| {
        win_rate_of(compared.met.iter().map(|met| (met, outcome(met))), resamples, run_seed)
    };
    let rate = rate_of(&|met| met.outcome);
    let by_judge = judges.iter().zip(used).enumerate().map(|(place, (judge, used))| JudgeRate {
        judge: judge.name.clone(),
        used_in_training: *used,
        win_rate: rate_of(&|met| met.by_judge[place]).map(|(_, estimate)| estimate),
        longer_wins: longer(compared, &|met| met.by_judge[place], resamples, run_seed),
    });
    let judged = judged(compared, &|met| met.outcome);
    let controlled = length_controlled(&judged, resamples, run_seed);
    let (by_tag, tags_too_few) = by_tag(context, compared);
    Comparison {
        policy: compared.policy.clone(),
        other: compared.other.clone(),
        win_rate: rate.map(|(_, estimate)| estimate),
        outcomes: rate.map(|(rate, _)| (rate.wins, rate.ties, rate.losses)),
        p_value: rate.map(|(rate, _)| rate.p_value),
        missing: compared.met.iter().filter(|met| met.outcome.is_none()).count() as u64,
        conclusion: conclusion::of(compared, rate.map(|(rate, _)| rate), config.margin),
        length_controlled: controlled.map(|it| Estimate::of(it.rate, judged.iter().map(Vec::len).sum())),
        longer_wins: longer(compared, &|met| met.outcome, resamples, run_seed),
        by_tag,
        tags_too_few,
        by_criterion: by_criterion(compared, resamples, run_seed),
        by_judge: by_judge.collect(),
        people: people::rate(compared, resamples, run_seed),
    }
}

/// Verdicts with lengths, by prompt.
fn judged(compared: &Compared, outcome: &dyn Fn(&Met) -> Option<Outcome>) -> Vec<Vec<Judged>> {
    let mut by_prompt: BTreeMap<&str, Vec<Judged>> = BTreeMap::new();
    for met in &compared.met {
        if let Some(outcome) = outcome(met) {
            let judged = Judged { chars_a: met.chars, chars_b: met.other_chars, p: outcome.points() };
            by_prompt.entry(&met.prompt).or_default().push(judged);
        }
    }
    by_prompt.into_values().collect()
}

fn longer(
    compared: &Compared,
    outcome: &dyn Fn(&Met) -> Option<Outcome>,
    resamples: usize,
    run_seed: u64,
) -> Option<Estimate> {
    let judged = judged(compared, outcome);
    let differ = judged.iter().flatten().filter(|pair| pair.chars_a != pair.chars_b).count();
    Some(Estimate::of(longer_wins(&judged, resamples, run_seed)?, differ))
}

/// Win rates of the tags that have enough comparisons, and how many the others have.
fn by_tag(context: &Context, compared: &Compared) -> (Vec<Named>, Vec<(String, u64)>) {
    let (resamples, run_seed) = (context.config.evaluate.bootstrap, context.config.run.seed);
    let tags_of: BTreeMap<&str, &Prompt> =
        context.prompts.eval.iter().map(|prompt| (prompt.id.as_str(), prompt)).collect();
    let has = |met: &Met, tag: &String| {
        tags_of.get(met.prompt.as_str()).is_some_and(|prompt| prompt.tags.contains(tag))
    };
    let tags: BTreeSet<&String> = context.prompts.eval.iter().flat_map(|prompt| &prompt.tags).collect();
    let (mut rates, mut too_few) = (Vec::new(), Vec::new());
    for tag in tags {
        let of_tag = || compared.met.iter().filter(|met| has(met, tag)).map(|met| (met, met.outcome));
        let n = of_tag().filter(|(_, outcome)| outcome.is_some()).count() as u64;
        match win_rate_of(of_tag(), resamples, run_seed).filter(|_| n >= ENOUGH_OF_A_TAG) {
            Some((_, win_rate)) => rates.push(Named { name: tag.clone(), win_rate }),
            None => too_few.push((tag.clone(), n)),
        }
    }
    (rates, too_few)
}

fn by_criterion(compared: &Compared, resamples: usize, run_seed: u64) -> Vec<Named> {
    let criteria: BTreeSet<&String> = compared.met.iter().flat_map(|met| met.scores.keys()).collect();
    let leads = |difference: f64| match difference {
        d if d > 0.0 => Outcome::Win,
        d if d < 0.0 => Outcome::Loss,
        _ => Outcome::Tie,
    };
    let rate = |criterion: &String| {
        let met = compared.met.iter().map(|met| (met, met.scores.get(criterion).copied().map(leads)));
        let (_, win_rate) = win_rate_of(met, resamples, run_seed)?;
        Some(Named { name: criterion.clone(), win_rate })
    };
    criteria.into_iter().filter_map(rate).collect()
}
