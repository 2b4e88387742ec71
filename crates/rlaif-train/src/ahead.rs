//! Rollouts, and sampling one ahead: asynchronous RLHF, Noukhovitch et al. 2024 (<https://arxiv.org/abs/2410.18252>).
//!
//! While rollout t is scored, rollout t + 1 is sampled by the policy that is still to learn from t; then t is learnt. What is learnt from is
//! thus one step off-policy, and its log-probs are those of the policy that sampled, so that ratios correct for the lag. When an answer
//! comes decides nothing. What is sampled and not yet learnt is part of a checkpoint: its policy is gone by then.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rlaif_core::config::PpoConfig;
use rlaif_core::records::FinishReason;
use rlaif_core::seed;
use rlaif_model::{Decoder, GenerateRequest, SamplingConfig, generate};

use crate::checkpoint::{Checkpoint, Snapshot};
use crate::data::PromptIds;
use crate::error::{Result, TrainError};
use crate::ppo_trainer::PpoTrainer;
use crate::rollout::{Experience, measure_logprobs};

/// The responses of one step.
#[derive(Debug)]
pub(crate) struct Rollout {
    /// Steps that the policy had learnt when it sampled them.
    pub sampled_at: u64,
    /// They, with log-probs if they were sampled ahead.
    pub experiences: Vec<Experience>,
    /// Of the policy that sampled them, where it may have to be put back and is no longer the trainer's.
    pub parameters: Option<BTreeMap<String, Vec<f32>>>,
}

/// What sampling needs of a trainer, as it is now.
pub(crate) struct Sampler<'a> {
    policy: Decoder,
    reference: &'a Decoder,
    config: &'a PpoConfig,
    sampling: &'a SamplingConfig,
    run_seed: u64,
}

impl<'a> Sampler<'a> {
    /// The policy as it is.
    pub fn of(trainer: &'a PpoTrainer, sampling: &'a SamplingConfig) -> Self {
        let policy = trainer.policy.decoder.frozen();
        let (reference, config) = (&trainer.reference, &trainer.config);
        Self { policy, reference, config, sampling, run_seed: trainer.run_seed }
    }

    /// Samples the responses of step `step` + 1.
    ///
    /// # Errors
    /// If a prompt does not fit the model.
    pub fn roll_out(
        &self,
        asked: &[&PromptIds],
        step: u64,
        told: &mut dyn FnMut(&str),
    ) -> Result<Vec<Experience>> {
        let config = self.config;
        let seed_of = |place: usize| {
            seed::derive(self.run_seed, "ppo/sample", step * config.prompts_per_step as u64 + place as u64)
        };
        let requests: Vec<GenerateRequest> = asked
            .iter()
            .enumerate()
            .map(|(place, prompt)| GenerateRequest {
                prompt_ids: prompt.ids.clone(),
                n: config.samples_per_prompt,
                seed: seed_of(place),
            })
            .collect();
        let samples = generate(&self.policy, &requests, self.sampling, &mut |progress| {
            told(&format!("sampling {}/{}", progress.samples_done, progress.samples_total));
        })?;
        let mut experiences = Vec::with_capacity(asked.len() * config.samples_per_prompt);
        for (group, (request, samples)) in requests.into_iter().zip(samples).enumerate() {
            for sample in samples {
                let (ids, ended) = (sample.ids, sample.finish == FinishReason::Stop);
                let prompt_ids = request.prompt_ids.clone();
                let experience =
                    Experience::new(prompt_ids, ids, ended, config, self.sampling.max_new_tokens);
                experiences.push(Experience { group, ..experience });
            }
        }
        Ok(experiences)
    }
}

/// Scores the rollout of step `done` + 1 while the next is sampled and its log-probs are measured. The scores' error comes first.
///
/// # Errors
/// If scoring or sampling fails.
pub(crate) fn while_sampling<T>(
    sampler: &Sampler<'_>,
    next: &[&PromptIds],
    done: u64,
    score: impl FnOnce() -> Result<T>,
) -> Result<(T, Rollout)> {
    std::thread::scope(|scope| {
        let sampling = scope.spawn(|| {
            tracing::debug!(step = done + 2, "sampling ahead");
            let mut experiences = sampler.roll_out(next, done + 1, &mut |_| {})?;
            let temperature = sampler.config.temperature;
            measure_logprobs(&mut experiences, &sampler.policy, sampler.reference, temperature)?;
            tracing::debug!(step = done + 2, "sampled ahead");
            Ok::<_, TrainError>(Rollout { sampled_at: done, experiences, parameters: None })
        });
        let scores = score();
        let rollout = sampling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((scores?, rollout?))
    })
}

impl Rollout {
    /// Puts it into a checkpoint.
    pub fn write_to<'a>(&'a self, snapshot: &mut Snapshot<'a>) {
        let numbers = |of: &dyn Fn(&Experience) -> f64| self.experiences.iter().map(of).collect::<Vec<_>>();
        let ids = |of: fn(&Experience) -> &Vec<u32>| -> Vec<f64> {
            self.experiences.iter().flat_map(|e| of(e).iter().map(|&id| f64::from(id))).collect()
        };
        let logprobs = |of: fn(&Experience) -> &Vec<f64>| -> Vec<f64> {
            self.experiences.iter().flat_map(|e| of(e).iter().copied()).collect()
        };
        snapshot.numbers("ahead/sampled_at".into(), vec![self.sampled_at as f64]);
        snapshot.numbers("ahead/group".into(), numbers(&|e| e.group as f64));
        snapshot.numbers("ahead/ended".into(), numbers(&|e| f64::from(e.ended)));
        snapshot.numbers("ahead/prompt_length".into(), numbers(&|e| e.prompt_ids.len() as f64));
        snapshot.numbers("ahead/response_length".into(), numbers(&|e| e.response_ids.len() as f64));
        snapshot.numbers("ahead/prompt_ids".into(), ids(|e| &e.prompt_ids));
        snapshot.numbers("ahead/response_ids".into(), ids(|e| &e.response_ids));
        snapshot.numbers("ahead/old_logprobs".into(), logprobs(|e| &e.old_logprobs));
        snapshot.numbers("ahead/ref_logprobs".into(), logprobs(|e| &e.ref_logprobs));
        for (name, values) in self.parameters.iter().flatten() {
            snapshot.tensor(format!("ahead/{name}"), Cow::Borrowed(values));
        }
    }

    /// The rollout of a checkpoint; none if it has none.
    ///
    /// # Errors
    /// If it is not whole.
    pub fn read_from(checkpoint: &mut Checkpoint, config: &PpoConfig) -> Result<Option<Self>> {
        let Ok(sampled_at) = checkpoint.number("ahead/sampled_at") else { return Ok(None) };
        let (groups, ended) = (checkpoint.numbers("ahead/group")?, checkpoint.numbers("ahead/ended")?);
        let prompts = split(checkpoint, "prompt_ids", "prompt_length")?;
        let responses = split(checkpoint, "response_ids", "response_length")?;
        let old = split(checkpoint, "old_logprobs", "response_length")?;
        let reference = split(checkpoint, "ref_logprobs", "response_length")?;
        let count = groups.len();
        if [ended.len(), prompts.len(), responses.len()] != [count; 3] {
            return Err(damaged(checkpoint, "group"));
        }
        let ids = |numbers: &[f64]| numbers.iter().map(|&id| id as u32).collect::<Vec<_>>();
        let max_tokens = config.max_new_tokens.unwrap_or(usize::MAX);
        let experiences = (0..count)
            .map(|at| Experience {
                group: groups[at] as usize,
                old_logprobs: old[at].to_vec(),
                ref_logprobs: reference[at].to_vec(),
                ..Experience::new(ids(prompts[at]), ids(responses[at]), ended[at] > 0.0, config, max_tokens)
            })
            .collect();
        let parameters = Some(checkpoint.take_tensors("ahead/")).filter(|tensors| !tensors.is_empty());
        Ok(Some(Self { sampled_at: sampled_at as u64, experiences, parameters }))
    }
}

/// Numbers that stand one response after the other.
fn split<'a>(checkpoint: &'a Checkpoint, name: &str, lengths: &str) -> Result<Vec<&'a [f64]>> {
    let mut rest = checkpoint.numbers(&format!("ahead/{name}"))?;
    let mut parts = Vec::new();
    for &length in checkpoint.numbers(&format!("ahead/{lengths}"))? {
        let (part, others) =
            rest.split_at_checked(length as usize).ok_or_else(|| damaged(checkpoint, name))?;
        parts.push(part);
        rest = others;
    }
    Ok(parts)
}

fn damaged(checkpoint: &Checkpoint, name: &str) -> TrainError {
    let reason = format!("`ahead/{name}` has too few numbers");
    TrainError::Checkpoint { path: checkpoint.path.clone(), reason }
}
