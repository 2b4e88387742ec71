//! What trainers learn from, already tokenised, and how some of it is held out.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rand::RngExt;
use rand::seq::SliceRandom;
use rlaif_core::seed;
use rlaif_model::Decoder;

use crate::error::{Result, TrainError};
use crate::packing::Item;

/// A preference in token ids; the responses end with the end-of-turn token if they ended by themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct PreferenceExample {
    /// The prompt's id; all examples of one prompt are held out together.
    pub prompt_id: String,
    /// The prompt with the chat template applied.
    pub prompt_ids: Vec<u32>,
    /// The better response.
    pub chosen_ids: Vec<u32>,
    /// The worse response.
    pub rejected_ids: Vec<u32>,
    /// P(chosen beats rejected).
    pub p: f64,
    /// By how much the reward of chosen is to exceed that of rejected (TRL's `margin`); 0 is none. For the reward model.
    pub margin: f64,
    /// How much the pair counts in the mean loss of its step, above 0.
    pub weight: f64,
    /// Who labelled it: the judges' names joined, or `human`.
    pub source: String,
}

impl Default for PreferenceExample {
    /// A certain label that counts once, without tokens.
    fn default() -> Self {
        Self {
            prompt_id: String::new(),
            prompt_ids: Vec::new(),
            chosen_ids: Vec::new(),
            rejected_ids: Vec::new(),
            p: 1.0,
            margin: 0.0,
            weight: 1.0,
            source: String::new(),
        }
    }
}

/// A response in token ids of which someone says how good it is by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseExample {
    /// The prompt's id; all responses to one prompt are held out together.
    pub prompt_id: String,
    /// The prompt with the chat template applied.
    pub prompt_ids: Vec<u32>,
    /// The response.
    pub response_ids: Vec<u32>,
    /// P(desirable).
    pub p: f64,
    /// How much the response counts in the mean loss of its step, above 0.
    pub weight: f64,
    /// Who labelled it: the judges' names joined, or `human`.
    pub source: String,
}

impl ResponseExample {
    /// The two responses of a pair: the first is desirable with the pair's p, the other with 1 − p; each counts as the pair does.
    pub fn of_pair(pair: PreferenceExample) -> [Self; 2] {
        let PreferenceExample { prompt_id, prompt_ids, chosen_ids, rejected_ids, p, weight, source, .. } =
            pair;
        let chosen = Self { prompt_id, prompt_ids, response_ids: chosen_ids, p, weight, source };
        let rejected = Self { response_ids: rejected_ids, p: 1.0 - p, ..chosen.clone() };
        [chosen, rejected]
    }

    pub(crate) fn item(&self) -> Item<'_> {
        (&self.prompt_ids, &self.response_ids)
    }
}

/// A prompt in token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptIds {
    /// The prompt's id.
    pub id: String,
    /// The prompt with the chat template applied.
    pub ids: Vec<u32>,
}

/// What a model says about one held-out pair.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct HoldoutPair {
    /// The prompt's id: intervals resample prompts, not pairs.
    pub prompt_id: String,
    /// The label, P(chosen beats rejected).
    pub p: f64,
    /// The model's reward of the chosen response minus that of the rejected one.
    pub margin: f64,
    /// The label's margin, [`PreferenceExample::margin`].
    pub label_margin: f64,
    /// Standard deviation of the margin over the members of an ensemble, or the heads of a model; `None` of a single one.
    pub uncertainty: Option<f64>,
    /// Tokens of the chosen response.
    pub chosen_tokens: usize,
    /// Tokens of the rejected response.
    pub rejected_tokens: usize,
    /// Who labelled it.
    pub source: String,
}

impl HoldoutPair {
    /// Whether the model ranks the pair as the label does; equal rewards are wrong.
    pub fn is_right(&self) -> bool {
        self.margin > 0.0
    }
}

/// Share of the pairs that a model ranks as their labels do; NaN of none.
pub fn accuracy(pairs: &[HoldoutPair]) -> f64 {
    pairs.iter().filter(|p| p.is_right()).count() as f64 / pairs.len() as f64
}

/// Splits examples into (train, held out) by prompt, so that no prompt is on both sides.
///
/// The share is of the prompts, rounded, and leaves at least one on either side if there are two and `fraction` is above 0.
/// The same seed and prompts give the same split, whichever trainer asks; the order of examples is kept.
pub fn split_by_prompt(
    data: &[PreferenceExample],
    fraction: f64,
    run_seed: u64,
) -> (Vec<&PreferenceExample>, Vec<&PreferenceExample>) {
    split_by(data, |example| &example.prompt_id, fraction, run_seed)
}

/// [`split_by_prompt`] of anything that has a prompt.
pub(crate) fn split_by<T>(
    data: &[T],
    prompt_of: impl Fn(&T) -> &str,
    fraction: f64,
    run_seed: u64,
) -> (Vec<&T>, Vec<&T>) {
    let mut prompts: Vec<&str> = data.iter().map(&prompt_of).collect::<BTreeSet<_>>().into_iter().collect();
    prompts.shuffle(&mut seed::stream(run_seed, "holdout", 0));
    let wanted = (fraction * prompts.len() as f64).round() as usize;
    let count = match fraction > 0.0 && prompts.len() >= 2 {
        true => wanted.clamp(1, prompts.len() - 1),
        false => 0,
    };
    let held_out: HashSet<&str> = prompts[..count].iter().copied().collect();
    let (holdout, train) = data.iter().partition(|e| held_out.contains(prompt_of(e)));
    (train, holdout)
}

/// Who is said to have labelled a pair of a response and its own beginning.
pub const TRUNCATION: &str = "truncation";

/// Pairs of a chosen response and its own beginning, of a share of the examples: whoever cuts off in the middle must not win.
///
/// The share is of the examples whose chosen response has a token to lose besides its end, rounded; which they are and where they
/// are cut is drawn by seed. The beginning keeps at least one token, loses at least the last two (of which one may be the end of
/// the turn), and does not end its turn. The order is that of the examples.
pub fn truncated_negatives(
    examples: &[&PreferenceExample],
    share: f64,
    run_seed: u64,
) -> Vec<PreferenceExample> {
    const PURPOSE: &str = "reward/truncated";
    let long: Vec<usize> = (0..examples.len()).filter(|&i| examples[i].chosen_ids.len() > 2).collect();
    let count = (share * long.len() as f64).round() as usize;
    let mut drawn: Vec<usize> =
        epoch_order(long.len(), 0, run_seed, PURPOSE).into_iter().take(count).map(|i| long[i]).collect();
    drawn.sort_unstable();
    drawn
        .into_iter()
        .map(|i| {
            let whole = examples[i];
            let last = whole.chosen_ids.len() - 2;
            let kept = seed::stream(run_seed, &format!("{PURPOSE}/cut"), i as u64).random_range(1..=last);
            PreferenceExample {
                rejected_ids: whole.chosen_ids[..kept].to_vec(),
                p: 1.0,
                margin: 0.0,
                source: TRUNCATION.into(),
                ..whole.clone()
            }
        })
        .collect()
}

/// Checks every example against the model before anything is computed.
pub(crate) fn check_preferences(
    trainer: &'static str,
    data: &[PreferenceExample],
    decoder: &Decoder,
) -> Result<()> {
    if data.is_empty() {
        let next_step = "loosen `label.tie_margin`, or label more pairs".to_string();
        return Err(TrainError::NoData { trainer, what: "preferences", next_step });
    }
    for example in data {
        let bad = |reason: String| TrainError::BadExample { prompt_id: example.prompt_id.clone(), reason };
        if !(0.0..=1.0).contains(&example.p) {
            return Err(bad(format!("p must be in [0, 1], got {}", example.p)));
        }
        if !example.margin.is_finite() {
            return Err(bad(format!("its margin must be finite, got {}", example.margin)));
        }
        check_weight(example.weight).map_err(bad)?;
        for response in [&example.chosen_ids, &example.rejected_ids] {
            check_sequence(decoder, &example.prompt_ids, response).map_err(bad)?;
        }
    }
    Ok(())
}

/// Checks every response against the model before anything is computed.
pub(crate) fn check_responses(
    trainer: &'static str,
    data: &[ResponseExample],
    decoder: &Decoder,
) -> Result<()> {
    if data.is_empty() {
        let next_step = "give rows of `prompt`, `completion` and `label`".to_string();
        return Err(TrainError::NoData { trainer, what: "responses", next_step });
    }
    for example in data {
        let bad = |reason: String| TrainError::BadExample { prompt_id: example.prompt_id.clone(), reason };
        if !(0.0..=1.0).contains(&example.p) {
            return Err(bad(format!("p must be in [0, 1], got {}", example.p)));
        }
        check_weight(example.weight).map_err(bad)?;
        check_sequence(decoder, &example.prompt_ids, &example.response_ids).map_err(bad)?;
    }
    Ok(())
}

fn check_weight(weight: f64) -> std::result::Result<(), String> {
    match weight.is_finite() && weight > 0.0 {
        true => Ok(()),
        false => Err(format!("its weight must be above 0, got {weight}")),
    }
}

/// The heads that learn from a pair: half of them, rounded up, drawn by seed from the pair's tokens, so that neither the order nor the
/// number of pairs moves it. Over all pairs each head has a half of its own (Osband et al. 2016, section 5,
/// <https://arxiv.org/abs/1602.04621>), and no pair is lost.
pub(crate) fn learning_heads(pair: &PreferenceExample, heads: usize, run_seed: u64) -> Vec<usize> {
    if heads == 1 {
        return vec![0];
    }
    let mut hasher = blake3::Hasher::new();
    for ids in [&pair.prompt_ids, &pair.chosen_ids, &pair.rejected_ids] {
        hasher.update(&(ids.len() as u64).to_le_bytes());
        hasher.update(bytemuck::cast_slice(ids));
    }
    let index =
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("a hash has 32 bytes"));
    let mut order: Vec<usize> = (0..heads).collect();
    order.shuffle(&mut seed::stream(run_seed, "reward/heads", index));
    order.truncate(heads.div_ceil(2));
    order
}

/// Why a prompt and response cannot go through the model.
pub(crate) fn check_sequence(decoder: &Decoder, prompt: &[u32], response: &[u32]) -> Result<(), String> {
    if prompt.is_empty() || response.is_empty() {
        return Err("the prompt and the response need at least one token each".into());
    }
    decoder.check_ids(&[prompt, response].concat()).map_err(|error| error.to_string())
}

/// The pairs of step `step` when all are gone through in a fresh seeded order each epoch, `batch_size` a step.
///
/// `prompts` holds the prompt of each pair. The last batch of an epoch may be smaller. Returns indices of pairs.
pub(crate) fn batch_of_step<P: Ord>(
    prompts: &[P],
    batch_size: usize,
    step: u64,
    run_seed: u64,
    purpose: &str,
) -> Vec<usize> {
    part_of_epoch(prompts.len(), batch_size, step, |epoch| pair_order(prompts, epoch, run_seed, purpose))
}

/// The pairs of step `step` when `batch_size` prompts go into a step, each with all its pairs. Returns indices of pairs.
///
/// `prompts` holds the prompt of each pair. The last batch of an epoch may be smaller.
pub(crate) fn prompts_of_step<P: Ord>(
    prompts: &[P],
    batch_size: usize,
    step: u64,
    run_seed: u64,
    purpose: &str,
) -> Vec<usize> {
    let order = |epoch| prompt_order(prompts, epoch, run_seed, purpose);
    part_of_epoch(distinct(prompts), batch_size, step, order).concat()
}

/// What step `step` sees of its epoch, `batch_size` of `count` units in the order of the epoch; the last step may see fewer.
pub(crate) fn part_of_epoch<T>(
    count: usize,
    batch_size: usize,
    step: u64,
    order: impl Fn(u64) -> Vec<T>,
) -> Vec<T> {
    let steps_per_epoch = count.div_ceil(batch_size) as u64;
    let start = (step % steps_per_epoch) as usize * batch_size;
    order(step / steps_per_epoch).into_iter().skip(start).take(batch_size).collect()
}

/// How many prompts there are.
pub(crate) fn distinct<P: Ord>(prompts: &[P]) -> usize {
    prompts.iter().collect::<BTreeSet<_>>().len()
}

/// The pairs of an epoch: prompts are shuffled, and the pairs of a prompt, shuffled too, stay together.
///
/// As Ouyang et al. 2022, section 3.5 (<https://arxiv.org/abs/2203.02155>): pairs of one prompt share responses, and spread over
/// an epoch each response would be computed, and overfitted, once a pair.
fn pair_order<P: Ord>(prompts: &[P], epoch: u64, run_seed: u64, purpose: &str) -> Vec<usize> {
    prompt_order(prompts, epoch, run_seed, purpose).concat()
}

/// The prompts of an epoch in a seeded order, as the indices of their pairs.
fn prompt_order<P: Ord>(prompts: &[P], epoch: u64, run_seed: u64, purpose: &str) -> Vec<Vec<usize>> {
    let mut by_prompt: BTreeMap<&P, Vec<usize>> = BTreeMap::new();
    for pair in epoch_order(prompts.len(), epoch, run_seed, purpose) {
        by_prompt.entry(&prompts[pair]).or_default().push(pair);
    }
    let mut groups: Vec<Vec<usize>> = by_prompt.into_values().collect();
    groups.shuffle(&mut seed::stream(run_seed, &format!("{purpose}/prompts"), epoch));
    groups
}

/// `0..items` shuffled for an epoch.
pub(crate) fn epoch_order(items: usize, epoch: u64, run_seed: u64, purpose: &str) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items).collect();
    order.shuffle(&mut seed::stream(run_seed, purpose, epoch));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(prompt: usize) -> PreferenceExample {
        PreferenceExample {
            prompt_id: format!("p{prompt}"),
            prompt_ids: vec![1],
            chosen_ids: vec![2],
            rejected_ids: vec![3],
            ..PreferenceExample::default()
        }
    }

    #[test]
    fn prompts_are_held_out_whole() {
        let data: Vec<_> = (0..40).map(|i| example(i % 10)).collect();
        let (train, holdout) = split_by_prompt(&data, 0.2, 7);
        assert_eq!((train.len(), holdout.len()), (32, 8));
        let names =
            |side: &[&PreferenceExample]| side.iter().map(|e| e.prompt_id.clone()).collect::<BTreeSet<_>>();
        assert!(names(&train).is_disjoint(&names(&holdout)));
        assert_ne!(names(&holdout), names(&split_by_prompt(&data, 0.2, 8).1), "the seed decides");
        assert_eq!(split_by_prompt(&data, 0.0, 7).1.len(), 0);
        assert_eq!(split_by_prompt(&data, 0.01, 7).1.len(), 4, "at least one prompt");
        assert_eq!(split_by_prompt(&data[..1], 0.5, 7).0.len(), 1, "never all of them");
    }

    #[test]
    fn an_epoch_sees_every_pair_once_and_the_next_in_another_order() {
        let prompts = ["a", "b", "a", "c", "b", "a", "d"];
        let epoch = |first: u64| {
            (first..first + 3).flat_map(|s| batch_of_step(&prompts, 3, s, 1, "t")).collect::<Vec<_>>()
        };
        let (one, two) = (epoch(0), epoch(3));
        let mut sorted = one.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6]);
        assert_ne!(one, two);
        assert_eq!(batch_of_step(&prompts, 3, 2, 1, "t").len(), 1);
    }

    #[test]
    fn pairs_of_a_prompt_stay_together() {
        let prompts: Vec<usize> = (0..40).map(|i| i % 10).collect();
        let order = pair_order(&prompts, 0, 5, "t");
        let mut runs: Vec<usize> = order.iter().map(|&i| prompts[i]).collect();
        runs.dedup();
        assert_eq!(runs.len(), 10, "each prompt is one run");
    }

    #[test]
    fn a_step_of_prompts_has_all_their_pairs() {
        let prompts: Vec<usize> = (0..25).map(|i| i % 10).collect();
        let steps: Vec<Vec<usize>> = (0..4).map(|s| prompts_of_step(&prompts, 3, s, 5, "t")).collect();
        let sizes: Vec<usize> = steps
            .iter()
            .map(|step| step.iter().map(|&i| prompts[i]).collect::<BTreeSet<_>>().len())
            .collect();
        assert_eq!(sizes, [3, 3, 3, 1]);
        let mut all = steps.concat();
        assert_eq!(all, pair_order(&prompts, 0, 5, "t"), "the same order as of pairs");
        all.sort_unstable();
        assert_eq!(all, (0..25).collect::<Vec<_>>());
    }

    #[test]
    fn beginnings_of_chosen_responses_lose_to_the_whole() {
        let data: Vec<_> = (0..40)
            .map(|i| PreferenceExample {
                chosen_ids: if i < 20 { (10..18).chain([2]).collect() } else { vec![5, 2] },
                p: 0.6,
                margin: 0.5,
                weight: 3.0,
                ..example(i)
            })
            .collect();
        let examples: Vec<&PreferenceExample> = data.iter().collect();
        let cut = truncated_negatives(&examples, 0.5, 7);
        assert_eq!(cut.len(), 10, "half of the 20 that have something to lose");
        for pair in &cut {
            let kept = pair.rejected_ids.len();
            assert!((1..=7).contains(&kept) && pair.chosen_ids[..kept] == pair.rejected_ids[..]);
            assert_eq!((pair.p, pair.margin, pair.weight, pair.source.as_str()), (1.0, 0.0, 3.0, TRUNCATION));
        }
        assert!(cut.iter().map(|pair| pair.rejected_ids.len()).collect::<BTreeSet<_>>().len() > 2);
        assert_eq!(cut, truncated_negatives(&examples, 0.5, 7));
        assert_ne!(cut, truncated_negatives(&examples, 0.5, 8), "the seed decides");
        assert!(truncated_negatives(&examples, 0.0, 7).is_empty());
    }

    #[test]
    fn each_head_has_its_own_half_of_the_pairs() {
        let pairs: Vec<_> =
            (0..400).map(|i| PreferenceExample { rejected_ids: vec![i, 3], ..example(0) }).collect();
        for (heads, a_pair) in [(2, 1), (4, 2), (5, 3)] {
            let all: Vec<Vec<usize>> = pairs.iter().map(|pair| learning_heads(pair, heads, 7)).collect();
            assert!(all.iter().all(|some| some.len() == a_pair));
            for head in 0..heads {
                let share = all.iter().filter(|some| some.contains(&head)).count() as f64 / 400.0;
                assert!((share - a_pair as f64 / heads as f64).abs() < 0.1, "head {head}: {share}");
            }
            assert_eq!(all[9], learning_heads(&pairs[9], heads, 7));
        }
        let of = |seed| pairs.iter().map(|pair| learning_heads(pair, 4, seed)).collect::<Vec<_>>();
        assert_ne!(of(7), of(8), "the seed decides");
        assert_eq!(learning_heads(&pairs[0], 1, 7), [0]);
    }
}
