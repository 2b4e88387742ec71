//! Sampling responses of a policy into the store; `generate` and `evaluate` share it, and `revise` its seeds.

use crate::context::Context;
use crate::interrupt;
use crate::progress::Progress;
use crate::stages::prompts::conversation_under;
use anyhow::{Context as _, Result};
use rlaif_core::records::{FinishReason, Prompt, Response, Split};
use rlaif_core::seed;
use rlaif_model::{Decoder, GenerateProgress, GenerateRequest, Generator, Sample, SamplingConfig, Tokenizer};
use std::collections::BTreeSet;

/// How a policy is sampled.
pub struct Sampling<'a> {
    /// The stage, for the bar.
    pub stage: &'static str,
    /// Purpose of the random stream: policies sampled for the same purpose get the same seeds.
    pub purpose: &'static str,
    /// The policy's name in the store.
    pub policy: &'a str,
    /// What it is asked.
    pub prompts: &'a [Prompt],
    /// The part of the run these prompts belong to.
    pub split: Split,
    /// What prompts and responses are put in tokens by.
    pub tokenizer: &'a Tokenizer,
    /// Responses a prompt.
    pub n: usize,
    /// System prompts taken in turn by a prompt's responses, in place of `prompts.system`; empty for that one alone.
    pub systems: &'a [String],
    /// Temperature, truncation, length, samples decoded together.
    pub config: SamplingConfig,
}

/// As a policy is sampled in its training: what is trained is the whole distribution. `generate.max_new_tokens` where none are given.
pub fn whole_distribution(
    context: &Context,
    temperature: f64,
    max_new_tokens: Option<usize>,
) -> SamplingConfig {
    SamplingConfig {
        temperature,
        top_p: 1.0,
        top_k: 0,
        max_new_tokens: max_new_tokens.unwrap_or(context.config.generate.max_new_tokens),
        stop_ids: context.tokenizer().eos_ids().to_vec(),
        batch_size: context.config.generate.batch_size,
    }
}

/// Samples what the store does not have yet. A unit is one batch of prompts, committed whole.
///
/// # Errors
/// If a prompt cannot be sampled, or the store cannot be written.
pub fn sample_missing(context: &Context, decoder: &Decoder, how: &Sampling) -> Result<()> {
    let store = &context.store;
    let prompts = how.prompts;
    let have: BTreeSet<String> = context
        .wait(store.responses(how.policy, Some(how.split)))?
        .into_iter()
        .map(|response| response.prompt_id)
        .collect();
    // Units are cut from all prompts, not from what is left, so that a resumed run decodes the same batches.
    let prompts_a_unit = (how.config.batch_size / how.n.max(1)).max(1);
    let total = prompts.len() as u64;
    let mut done = prompts.iter().filter(|prompt| have.contains(&prompt.id)).count() as u64;
    let mut progress = Progress::new(how.stage, "prompts", done, total);
    let generator = Generator::new(decoder);
    for unit in prompts.chunks(prompts_a_unit) {
        if unit.iter().all(|prompt| have.contains(&prompt.id)) {
            continue;
        }
        interrupt::check(how.stage)?;
        let requests =
            unit.iter().map(|prompt| requests_of(context, how, prompt)).collect::<Result<Vec<_>>>()?.concat();
        let samples = generator
            .generate(&requests, &how.config, &mut |at: &GenerateProgress| {
                let note = format!("{} of {} samples in this batch", at.samples_done, at.samples_total);
                progress.set(done, total, &note);
            })
            .with_context(|| format!("sampling responses of `{}`", how.policy))?;
        let mut responses = Vec::new();
        for (prompt, by_system) in unit.iter().zip(samples.chunks(systems_of(how))) {
            for (index, sample) in in_turn(by_system).into_iter().enumerate() {
                responses.push(response(how, prompt, index, sample));
            }
        }
        context.wait(store.put_responses(how.policy, &responses))?;
        done += unit.iter().filter(|prompt| !have.contains(&prompt.id)).count() as u64;
        progress.set(done, total, "");
    }
    progress.finish();
    Ok(())
}

/// Requests that each prompt makes: one for each system prompt.
fn systems_of(how: &Sampling) -> usize {
    how.systems.len().max(1)
}

/// One request for each system prompt, with as many samples as are its turn.
fn requests_of(context: &Context, how: &Sampling, prompt: &Prompt) -> Result<Vec<GenerateRequest>> {
    let run_seed = context.config.run.seed;
    let count = systems_of(how);
    (0..count)
        .map(|turn| {
            let prompt_ids = match how.systems.get(turn) {
                None => how.tokenizer.encode_chat(&context.conversation(prompt), true)?,
                Some(system) => how.tokenizer.encode_chat(&conversation_under(Some(system), prompt), true)?,
            };
            // The first system prompt draws as a run without any does.
            let purpose = match turn {
                0 => how.purpose.to_string(),
                turn => format!("{}/{turn}", how.purpose),
            };
            Ok(GenerateRequest {
                prompt_ids,
                n: how.n.saturating_sub(turn).div_ceil(count),
                seed: prompt_seed(run_seed, &purpose, prompt),
            })
        })
        .collect()
}

/// The samples of several requests, one of each in turn.
fn in_turn<T: Clone>(requests: &[Vec<T>]) -> Vec<T> {
    let longest = requests.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest)
        .flat_map(|round| requests.iter().filter_map(move |samples| samples.get(round).cloned()))
        .collect()
}

fn response(how: &Sampling, prompt: &Prompt, index: usize, sample: Sample) -> Response {
    Response {
        id: format!("{}/{}/{index}", how.policy, prompt.id),
        prompt_id: prompt.id.clone(),
        index,
        text: how.tokenizer.decode(&sample.ids, true),
        token_ids: sample.ids,
        logprobs: sample.logprobs,
        finish_reason: sample.finish,
    }
}

/// The seed of a prompt's samples. It hangs on the prompt's id, not its place: a prompt more moves no other's samples.
pub fn prompt_seed(run_seed: u64, purpose: &str, prompt: &Prompt) -> u64 {
    let hash = blake3::hash(prompt.id.as_bytes());
    let index = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a BLAKE3 hash has 32 bytes"));
    seed::derive(run_seed, purpose, index)
}

/// Share of the responses that end their turn.
pub fn share_ended(responses: &[Response]) -> f64 {
    let ended = responses.iter().filter(|response| response.finish_reason == FinishReason::Stop).count();
    ended as f64 / responses.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_prompts_take_turns() {
        let samples = [vec!["a0", "a1"], vec!["b0", "b1"], vec!["c0"]];
        assert_eq!(in_turn(&samples), ["a0", "b0", "c0", "a1", "b1"]);
        assert_eq!(in_turn(&samples[..1]), ["a0", "a1"]);
    }
}
