//! What the policy samples, and what models say of it before anything is learnt; [`advantage`](crate::advantage) goes on from there.

use rlaif_core::config::{PpoConfig, ScorePlacement};
use rlaif_model::{Decoder, ScalarHead};

use crate::error::Result;
use crate::learner::to_host;
use crate::packing::{Item, Packed, by_token_budget, split_by_length};
use crate::score::sequence_logprobs;

/// Tokens of a forward pass without gradients.
const ROLLOUT_TOKENS: usize = 2048;

/// One sampled response and what is known about it. `T` is its length in tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Experience {
    /// The prompt.
    pub prompt_ids: Vec<u32>,
    /// The response, with the end-of-turn token if there was one.
    pub response_ids: Vec<u32>,
    /// Whether it ended by itself.
    pub ended: bool,
    /// Which prompt of the rollout it answers; equal prompts that were drawn twice are two.
    pub group: usize,
    /// Whether a value is read after the last token too, where the score is placed then; see [`ScorePlacement::AfterLast`].
    pub has_last_value: bool,
    /// log π(token) at the start of the update, `[T]`.
    pub old_logprobs: Vec<f64>,
    /// log π_ref(token), `[T]`.
    pub ref_logprobs: Vec<f64>,
    /// V of the state before each token, `[T]`, and of the state after the last one if `has_last_value`; empty without a critic.
    pub values: Vec<f64>,
    /// What the reward function said.
    pub raw_score: f64,
    /// The score that counts: normalised, and less the penalty of a response that does not end.
    pub score: f64,
    /// Reward at each value, same length as `values`.
    pub rewards: Vec<f64>,
    /// What each token was worth, `[T]`.
    pub advantages: Vec<f64>,
    /// Returns, same length as `values`.
    pub returns: Vec<f64>,
}

impl Experience {
    /// A sampled response, nothing computed yet.
    pub fn new(
        prompt_ids: Vec<u32>,
        response_ids: Vec<u32>,
        ended: bool,
        config: &PpoConfig,
        max_tokens: usize,
    ) -> Self {
        // TRL has one more position than the response where the response is shorter than its longest.
        let has_last_value =
            config.score_placement == ScorePlacement::AfterLast && response_ids.len() < max_tokens;
        Self { prompt_ids, response_ids, ended, has_last_value, ..Self::default() }
    }

    /// Prompt and response.
    pub fn item(&self) -> Item<'_> {
        (&self.prompt_ids, &self.response_ids)
    }

    /// log π(response) − log π_ref(response): an unbiased estimate of the KL of the whole response, in nats.
    pub fn kl(&self) -> f64 {
        self.old_logprobs.iter().zip(&self.ref_logprobs).map(|(old, reference)| old - reference).sum()
    }
}

/// Fills in log-probs under policy and reference.
///
/// The policy's are computed by the code that trains it, not taken from the sampler, so that the first ratio is 1 up to
/// rounding of the same formula.
///
/// # Errors
/// If a response does not fit the model.
pub fn measure_logprobs(
    experiences: &mut [Experience],
    policy: &Decoder,
    reference: &Decoder,
    temperature: f64,
) -> Result<()> {
    let items: Vec<Item<'_>> = experiences.iter().map(Experience::item).collect();
    let old = sequence_logprobs(policy, &items, temperature, ROLLOUT_TOKENS)?;
    let of_reference = sequence_logprobs(reference, &items, temperature, ROLLOUT_TOKENS)?;
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
    for ((experience, old), reference) in experiences.iter_mut().zip(old).zip(of_reference) {
        (experience.old_logprobs, experience.ref_logprobs) = (wide(old), wide(reference));
    }
    Ok(())
}

/// Fills in values.
pub fn measure_values(experiences: &mut [Experience], critic: &Decoder, head: &ScalarHead) {
    let (critic, head) = (critic.frozen(), head.frozen());
    let groups =
        by_token_budget(&experiences.iter().map(Experience::item).collect::<Vec<_>>(), ROLLOUT_TOKENS);
    for group in groups {
        let members = &mut experiences[group];
        let (packed, reads) = pack_values(&members.iter().collect::<Vec<_>>());
        let hidden = critic.hidden_at(&packed.batch, &reads.indices);
        let flat = to_host(head.forward(&hidden, &reads.indices));
        let values = split_by_length(&flat, &reads.lengths);
        for (experience, &place) in members.iter_mut().zip(&packed.of_item) {
            experience.values = values[place].iter().map(|&v| f64::from(v)).collect();
        }
    }
}

/// Where values are read.
pub(crate) struct ValueReads {
    /// Stream indices, one distinct response after the other.
    pub indices: Vec<usize>,
    /// Values of each distinct response.
    pub lengths: Vec<usize>,
}

/// Packs experiences and says where their values are: before each token, and after the last where that counts.
pub(crate) fn pack_values(experiences: &[&Experience]) -> (Packed, ValueReads) {
    let packed = Packed::new(&experiences.iter().map(|e| e.item()).collect::<Vec<_>>());
    let mut extra = vec![false; packed.responses.len()];
    for (experience, &place) in experiences.iter().zip(&packed.of_item) {
        extra[place] = experience.has_last_value; // depends on the response's length only: equal for equal responses
    }
    let mut reads = ValueReads { indices: Vec::new(), lengths: Vec::new() };
    for (&response, extra) in packed.responses.iter().zip(extra) {
        let before = packed.batch.response_reads(response).indices;
        reads.lengths.push(before.len() + usize::from(extra));
        reads.indices.extend(before);
        if extra {
            reads.indices.push(packed.batch.last_index(response));
        }
    }
    (packed, reads)
}

/// Mean and deviation of the baseline's scores, to which scores are normalised; Ziegler et al. 2019, section 2.2.
///
/// Sums run over the rollouts of the untouched policy (Welford 1962), then stay.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ScoreNormalizer {
    count: f64,
    mean: f64,
    squares: f64,
}

impl ScoreNormalizer {
    /// Takes in scores of the baseline's responses.
    pub fn observe(&mut self, scores: impl IntoIterator<Item = f64>) {
        for score in scores {
            self.count += 1.0;
            let distance = score - self.mean;
            self.mean += distance / self.count;
            self.squares += distance * (score - self.mean);
        }
    }

    /// Mean and standard deviation (n − 1); deviation 1 where there is none.
    pub fn mean_and_deviation(&self) -> (f64, f64) {
        let deviation = (self.squares / (self.count - 1.0).max(1.0)).sqrt();
        (self.mean, if deviation > 1e-8 { deviation } else { 1.0 })
    }

    /// (score − mean) / deviation.
    pub fn apply(&self, score: f64) -> f64 {
        let (mean, deviation) = self.mean_and_deviation();
        (score - mean) / deviation
    }

    /// As numbers of a checkpoint.
    pub fn to_numbers(self) -> Vec<f64> {
        vec![self.count, self.mean, self.squares]
    }

    /// From [`to_numbers`](Self::to_numbers); none if they are not three.
    pub fn from_numbers(numbers: &[f64]) -> Option<Self> {
        let &[count, mean, squares] = numbers else { return None };
        Some(Self { count, mean, squares })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::tests::assert_close;

    #[test]
    fn scores_are_normalised_to_the_baseline() {
        let mut normalizer = ScoreNormalizer::default();
        assert_eq!(normalizer.apply(3.0), 3.0, "nothing known: nothing changed");
        normalizer.observe([1.0, 2.0]);
        normalizer.observe([3.0, 6.0]);
        let deviation = (14f64 / 3.0).sqrt();
        assert_close(&[normalizer.apply(5.0), normalizer.apply(3.0)], &[2.0 / deviation, 0.0]);
        assert_eq!(ScoreNormalizer::from_numbers(&normalizer.to_numbers()), Some(normalizer));
    }
}
