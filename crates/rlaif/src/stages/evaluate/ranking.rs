//! The ranking of all players: Bradley-Terry over every comparison, with a bootstrap over prompts.

use super::compared::Compared;
use crate::report::comparison::RankedPolicy;
use crate::report::data::Estimate;
use rlaif_core::stats::bradley_terry::{self, Comparison};
use std::collections::BTreeMap;

/// A normal prior of variance 10 on each strength: it weighs less than half a comparison, and a policy that won all its comparisons has a
/// finite strength.
const RIDGE: f64 = 0.1;

/// From best to worst; empty below three players, whose win rates say it all, or where nothing was compared.
pub fn ranking(
    players: &[String],
    compared: &[Compared],
    resamples: usize,
    run_seed: u64,
) -> Vec<RankedPolicy> {
    if players.len() < 3 {
        return Vec::new();
    }
    let place = |name: &String| players.iter().position(|player| player == name);
    let mut by_prompt: BTreeMap<&str, Vec<Comparison>> = BTreeMap::new();
    let mut n = vec![0; players.len()];
    for both in compared {
        let (Some(a), Some(b)) = (place(&both.policy), place(&both.other)) else { continue };
        for met in &both.met {
            let Some(outcome) = met.outcome else { continue };
            n[a] += 1;
            n[b] += 1;
            by_prompt.entry(&met.prompt).or_default().push(Comparison { a, b, p: outcome.points() });
        }
    }
    if n.contains(&0) {
        return Vec::new();
    }
    let prompts: Vec<Vec<Comparison>> = by_prompt.into_values().collect();
    let ranked = bradley_terry::ranking(players.len(), &prompts, RIDGE, resamples, run_seed);
    let mut ranking: Vec<RankedPolicy> = ranked
        .into_iter()
        .flatten()
        .zip(players.iter().zip(n))
        .map(|(ranked, (policy, n))| RankedPolicy {
            policy: policy.clone(),
            strength: Estimate::of(ranked.strength, n),
            rank: Estimate::of(ranked.rank, n),
            win_rate: Estimate::of(ranked.win_rate, n),
        })
        .collect();
    ranking.sort_by(|x, y| y.strength.value.total_cmp(&x.strength.value));
    ranking
}
