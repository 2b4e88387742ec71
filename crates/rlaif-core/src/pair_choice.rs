//! Which pairs are worth a judge's time where there are more than the budget allows.

use crate::seed;
use std::collections::HashMap;

/// A pair that could be judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate<'a> {
    /// Its prompt.
    pub prompt: &'a str,
    /// Its id.
    pub pair: &'a str,
    /// The lower, the sooner it is chosen: 0 for all makes a random choice; the negated distance of its responses takes the most
    /// different ones; how sure a judge is takes the least sure ones.
    pub rank: f64,
}

/// The places of the chosen candidates, ascending: the lowest ranks, at most `per_prompt` of one prompt and `budget` of all.
///
/// Equal ranks are drawn at random by (seed, pair), so that a candidate more changes nothing among the others. A rank that is NaN
/// comes last.
pub fn choose(candidates: &[Candidate<'_>], per_prompt: usize, budget: usize, run_seed: u64) -> Vec<usize> {
    let lot =
        |candidate: &Candidate<'_>| seed::derive(run_seed, &format!("pair_choice/{}", candidate.pair), 0);
    let mut queue: Vec<(f64, u64, usize)> = candidates
        .iter()
        .enumerate()
        .map(|(place, candidate)| {
            let rank = if candidate.rank.is_nan() { f64::INFINITY } else { candidate.rank + 0.0 };
            (rank, lot(candidate), place)
        })
        .collect();
    queue.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut of_prompt: HashMap<&str, usize> = HashMap::new();
    let mut chosen = Vec::new();
    for (_, _, place) in queue {
        if chosen.len() == budget {
            break;
        }
        let taken = of_prompt.entry(candidates[place].prompt).or_default();
        if *taken < per_prompt {
            *taken += 1;
            chosen.push(place);
        }
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(ids: &[(String, String)], rank: impl Fn(usize) -> f64) -> Vec<Candidate<'_>> {
        ids.iter()
            .enumerate()
            .map(|(place, (prompt, pair))| Candidate { prompt, pair, rank: rank(place) })
            .collect()
    }

    fn ids(prompts: usize, pairs: usize) -> Vec<(String, String)> {
        (0..prompts * pairs)
            .map(|i| (format!("p{}", i / pairs), format!("p{}/{}", i / pairs, i % pairs)))
            .collect()
    }

    #[test]
    fn the_lowest_ranks_within_both_limits() {
        let ids = ids(2, 3);
        let ranks = [0.1, 0.2, 0.3, 0.4, 0.05, f64::NAN];
        let all = candidates(&ids, |place| ranks[place]);
        assert_eq!(choose(&all, 3, 3, 0), [0, 1, 4]);
        assert_eq!(choose(&all, 1, 3, 0), [0, 4], "one of each prompt, though the budget has room");
        assert_eq!(choose(&all, 3, 5, 0), [0, 1, 2, 3, 4], "what has no rank comes last");
        assert!(choose(&all, 3, 0, 0).is_empty());
        assert_eq!(choose(&all, 9, 99, 0).len(), 6);
    }

    #[test]
    fn equal_ranks_are_drawn_by_seed_and_each_pair_by_itself() {
        let ids = ids(200, 6);
        let all = candidates(&ids, |_| 0.0);
        let chosen = choose(&all, 2, 300, 1);
        assert_eq!(chosen.len(), 300);
        assert_eq!(chosen, choose(&all, 2, 300, 1));
        assert_ne!(chosen, choose(&all, 2, 300, 2));
        // All places of a prompt are drawn alike.
        let first = chosen.iter().filter(|place| **place % 6 == 0).count();
        assert!((30..75).contains(&first), "{first} of 300, 50 expected");
        // Without the last prompt, what is chosen of the others stays chosen.
        let fewer: Vec<usize> = choose(&all[..1194], 2, 300, 1);
        assert!(chosen.iter().filter(|place| **place < 1194).all(|place| fewer.contains(place)));
    }
}
