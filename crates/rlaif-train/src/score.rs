//! Reading models without training them: rewards, and log-probs of responses.

use std::path::Path;

use burn::tensor::Device;
use rlaif_core::config::EnsembleReward;
use rlaif_model::{Decoder, ModelError, ModelFiles, ScalarHead};

use crate::data::check_sequence;
use crate::error::{Result, TrainError};
use crate::learner::to_host;
use crate::packing::{Item, Packed, by_token_budget, split_by_length};

/// Says how good a response is. PPO maximises it.
pub trait RewardFn {
    /// One score for each (prompt, response), in order; none for a response that could not be scored, which is then left out.
    ///
    /// # Errors
    /// If scoring as such fails.
    fn score(&mut self, items: &[Item<'_>]) -> Result<Vec<Option<f64>>>;
}

impl<F: FnMut(&[u32], &[u32]) -> f64> RewardFn for F {
    fn score(&mut self, items: &[Item<'_>]) -> Result<Vec<Option<f64>>> {
        Ok(items.iter().map(|(prompt, response)| Some(self(prompt, response))).collect())
    }
}

/// What a reward model says of a response.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The reward: of several members or heads, their mean.
    pub reward: f64,
    /// Standard deviation (n − 1) over them; `None` of a single one.
    pub uncertainty: Option<f64>,
}

impl Scored {
    /// From what each member or head says, at least one.
    pub fn of(members: &[f64]) -> Self {
        let count = members.len() as f64;
        let reward = members.iter().sum::<f64>() / count;
        let squares: f64 = members.iter().map(|score| (score - reward).powi(2)).sum();
        Self { reward, uncertainty: (members.len() > 1).then(|| (squares / (count - 1.0)).sqrt()) }
    }
}

/// One number of what the members say, at least one: their mean, the least, or mean − λ · standard deviation.
pub fn pooled(members: &[f64], ensemble: EnsembleReward, lambda: f64) -> f64 {
    let scored = Scored::of(members);
    match ensemble {
        EnsembleReward::Mean => scored.reward,
        EnsembleReward::WorstCase => members.iter().copied().fold(f64::INFINITY, f64::min),
        EnsembleReward::UncertaintyWeighted => scored.reward - lambda * scored.uncertainty.unwrap_or(0.0),
    }
}

/// A reward model, or an ensemble of them, that scores responses, batch by batch.
#[derive(Debug, Clone)]
pub struct Scorer {
    members: Vec<(Decoder, ScalarHead)>,
    max_tokens: usize,
    ensemble: EnsembleReward,
    lambda: f64,
}

impl Scorer {
    /// `max_tokens` is the size of a forward pass; more only takes memory.
    pub fn new(decoder: &Decoder, head: &ScalarHead, max_tokens: usize) -> Self {
        Self::of_members(&[(decoder.clone(), head.clone())], max_tokens)
    }

    /// Of an ensemble, whose reward is its mean.
    pub fn of_members(members: &[(Decoder, ScalarHead)], max_tokens: usize) -> Self {
        let members = members.iter().map(|(decoder, head)| (decoder.frozen(), head.frozen())).collect();
        Self { members, max_tokens, ensemble: EnsembleReward::Mean, lambda: 0.0 }
    }

    /// The same with another way from what the members say to the reward, see [`pooled`].
    #[must_use]
    pub fn pooled_by(self, ensemble: EnsembleReward, lambda: f64) -> Self {
        Self { ensemble, lambda, ..self }
    }

    /// r(prompt, response), read at the response's last token, for each item in order.
    ///
    /// # Errors
    /// If an item is empty, too long, or outside the vocabulary.
    pub fn rewards(&self, items: &[Item<'_>]) -> Result<Vec<f64>> {
        let by_member = self.by_member(items)?;
        Ok(by_member.iter().map(|says| pooled(says, self.ensemble, self.lambda)).collect())
    }

    /// What each member says of each item, in order, a member of several heads their mean; of a single model, what each head says.
    ///
    /// # Errors
    /// As [`rewards`](Self::rewards).
    pub fn by_member(&self, items: &[Item<'_>]) -> Result<Vec<Vec<f64>>> {
        if let [(decoder, head)] = self.members.as_slice() {
            return by_head(decoder, head, items, self.max_tokens);
        }
        let mut says = vec![Vec::with_capacity(self.members.len()); items.len()];
        for (decoder, head) in &self.members {
            let heads = by_head(decoder, head, items, self.max_tokens)?;
            says.iter_mut().zip(heads).for_each(|(says, heads)| says.push(Scored::of(&heads).reward));
        }
        Ok(says)
    }
}

/// What each head says of each item, in order.
fn by_head(
    decoder: &Decoder,
    head: &ScalarHead,
    items: &[Item<'_>],
    max_tokens: usize,
) -> Result<Vec<Vec<f64>>> {
    check_items(decoder, items)?;
    let count = head.count();
    let mut rewards = Vec::with_capacity(items.len());
    for group in by_token_budget(items, max_tokens) {
        let packed = Packed::new(&items[group]);
        let last = packed.last_indices();
        let scores = to_host(head.forward(&decoder.hidden_at(&packed.batch, &last), &last));
        let of = |place: usize| scores[place * count..][..count].iter().map(|&s| f64::from(s)).collect();
        rewards.extend(packed.of_item.iter().map(|&place| of(place)));
    }
    Ok(rewards)
}

impl RewardFn for Scorer {
    fn score(&mut self, items: &[Item<'_>]) -> Result<Vec<Option<f64>>> {
        Ok(self.rewards(items)?.into_iter().map(Some).collect())
    }
}

/// Log-prob of each response token given the prompt and the tokens before it, for each item in order.
///
/// `temperature` divides the logits: 1 for judges and DPO, the sampling temperature for PPO. Takes at most about `max_tokens`
/// tokens a forward pass, which takes no part in autodiff.
///
/// # Errors
/// If an item is empty, too long, or outside the vocabulary.
pub fn sequence_logprobs(
    decoder: &Decoder,
    items: &[Item<'_>],
    temperature: f64,
    max_tokens: usize,
) -> Result<Vec<Vec<f32>>> {
    check_items(decoder, items)?;
    let decoder = decoder.frozen();
    let mut logprobs = Vec::with_capacity(items.len());
    for group in by_token_budget(items, max_tokens) {
        let packed = Packed::new(&items[group]);
        let reads = packed.token_reads();
        let hidden = decoder.hidden_at(&packed.batch, &reads.indices);
        let flat = to_host(decoder.logprobs(&hidden, &reads, temperature));
        let distinct = split_by_length(&flat, &packed.lengths());
        logprobs.extend(packed.of_item.iter().map(|&place| distinct[place].clone()));
    }
    Ok(logprobs)
}

/// Sums of [`sequence_logprobs`] at temperature 1: log p(response | prompt).
///
/// # Errors
/// As [`sequence_logprobs`].
pub fn sequence_logps(decoder: &Decoder, items: &[Item<'_>], max_tokens: usize) -> Result<Vec<f64>> {
    let logprobs = sequence_logprobs(decoder, items, 1.0, max_tokens)?;
    Ok(logprobs.iter().map(|tokens| tokens.iter().map(|&l| f64::from(l)).sum()).collect())
}

/// Loads a reward model, or a critic, from a folder that [`rlaif_model::save_reward_model`] or transformers wrote. Of several heads
/// it is their mean, one head.
///
/// # Errors
/// If the folder is not a model, or has no `score.weight`: it is then a policy, not a reward model.
pub fn load_reward_model(dir: &Path, device: &Device) -> Result<(Decoder, ScalarHead)> {
    let files = ModelFiles::open_folder(dir)?;
    let decoder = Decoder::load(&files.config, &*files.weights, device)?;
    let head = ScalarHead::load(&*files.weights, device)?
        .ok_or_else(|| ModelError::MissingTensor { name: "score.weight".to_string() })?;
    Ok((decoder, head))
}

/// Loads a reward model with all its heads; otherwise as [`load_reward_model`].
///
/// # Errors
/// As [`load_reward_model`], or if the heads do not fit the model.
pub fn load_reward_heads(dir: &Path, device: &Device) -> Result<(Decoder, ScalarHead)> {
    let files = ModelFiles::open_folder(dir)?;
    let decoder = Decoder::load(&files.config, &*files.weights, device)?;
    let head = ScalarHead::load_all(dir, &*files.weights, files.config.hidden_size, device)?
        .ok_or_else(|| ModelError::MissingTensor { name: "score.weight".to_string() })?;
    Ok((decoder, head))
}

fn check_items(decoder: &Decoder, items: &[Item<'_>]) -> Result<()> {
    for (number, (prompt, response)) in items.iter().enumerate() {
        check_sequence(decoder, prompt, response)
            .map_err(|reason| TrainError::BadExample { prompt_id: format!("#{number}"), reason })?;
    }
    Ok(())
}
