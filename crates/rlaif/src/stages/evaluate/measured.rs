//! A policy's responses to the held-out prompts, with what is measured on each without a judge.

use super::players::Player;
use super::regression;
use crate::context::Context;
use crate::local_judge::TOKENS_A_BATCH;
use crate::sampling::{Sampling, sample_missing};
use anyhow::{Context as _, Result};
use rlaif_core::records::{FinishReason, Response, Split};
use rlaif_model::{Decoder, SamplingConfig};
use rlaif_store::store::{BASELINE, ORIGIN};
use rlaif_train::{Scorer, load_members, load_reward_model, sequence_logprobs};
use std::collections::{BTreeMap, HashMap};

/// Name under which the reward model's scores stand in the store.
const REWARD_MODEL: &str = "reward-model";

/// A prompt's tokens and a response's.
type Item<'a> = (&'a [u32], &'a [u32]);

/// One policy's responses to the held-out prompts, with what was measured on them, by response id.
pub struct Measured {
    /// Its name.
    pub policy: String,
    /// In the order of prompts and samples.
    pub responses: Vec<Response>,
    /// By the run's reward model, where there is one.
    pub reward: Option<BTreeMap<String, f64>>,
    /// KL to the baseline, nats; none of a model whose tokens may be others.
    pub kl: Option<BTreeMap<String, f64>>,
    /// KL to `policy.origin`, where there is one.
    pub kl_origin: Option<BTreeMap<String, f64>>,
    /// VADER's compound score, where `evaluate.sentiment` asks for it.
    pub sentiment: Option<BTreeMap<String, f64>>,
    /// Its answers to the regression set, in the order of that set's prompts.
    pub regression: Vec<Response>,
}

/// Samples a policy on the held-out prompts and measures its responses.
///
/// # Errors
/// If a model or the store cannot be used; what is finished is kept.
pub fn measure(
    context: &mut Context,
    player: &Player,
    has_reward: bool,
    set: Option<&regression::Set>,
) -> Result<Measured> {
    let policy = player.name.as_str();
    let baseline = context.policy()?;
    let origin = context.origin()?;
    let decoder = match (&player.files, policy) {
        (Some(files), _) => Decoder::load(&files.config, files.weights.as_ref(), &context.device)
            .with_context(|| format!("loading the model `{policy}` of `evaluate.models`"))?,
        (None, BASELINE) => baseline.clone(),
        (None, ORIGIN) => origin.clone().context("it is measured only where there is one")?,
        (None, tuned) => context.tuned_policy(tuned)?,
    };
    let tokenizer = player.tokenizer(context);
    let config = &context.config.evaluate;
    let how = Sampling {
        stage: "evaluate",
        purpose: "evaluate",
        policy,
        prompts: &context.prompts.eval,
        split: Split::Eval,
        tokenizer,
        n: config.samples_per_prompt,
        systems: &[], // evaluation is of what users get
        config: SamplingConfig {
            temperature: config.temperature,
            top_p: 1.0,
            top_k: 0,
            max_new_tokens: config.max_new_tokens.unwrap_or(context.config.generate.max_new_tokens),
            stop_ids: tokenizer.eos_ids().to_vec(),
            batch_size: context.config.generate.batch_size,
        },
    };
    sample_missing(context, &decoder, &how)?;
    let responses = context.wait(context.store.responses(policy, Some(Split::Eval)))?;
    let regression = match set {
        Some(set) if policy != ORIGIN => set.answers(context, &decoder, tokenizer, policy)?,
        _ => Vec::new(),
    };

    let mut prompt_ids = HashMap::new();
    for prompt in &context.prompts.eval {
        prompt_ids.insert(prompt.id.as_str(), context.prompt_ids(prompt)?);
    }
    let response_ids = player.in_tokens_of_the_run(context, &responses)?;
    let items: Vec<Item> = responses
        .iter()
        .zip(&response_ids)
        .map(|(response, ids)| {
            let prompt = prompt_ids
                .get(response.prompt_id.as_str())
                .context("a response is to a prompt of the run")?;
            Ok((prompt.as_slice(), ids.as_ref()))
        })
        .collect::<Result<_>>()?;
    let by_id = |values: Vec<f64>| -> BTreeMap<String, f64> {
        responses.iter().map(|response| response.id.clone()).zip(values).collect()
    };
    let temperature = if config.temperature > 0.0 { config.temperature } else { 1.0 };
    let (kl_baseline, kl_origin) = match (policy, &origin) {
        _ if player.files.is_some() => (None, None),
        (BASELINE | ORIGIN, _) => (Some(vec![0.0; items.len()]), None),
        (_, None) => (Some(kl(&decoder, &baseline, &items, temperature)?), None),
        (_, Some(origin)) => (
            Some(kl(&decoder, &baseline, &items, temperature)?),
            Some(kl(&decoder, origin, &items, temperature)?),
        ),
    };
    let reward = match has_reward {
        false => None,
        true => {
            let folder = context.folder.model("reward");
            let members = load_members(&folder, &context.device, load_reward_model)
                .context("loading the reward model")?;
            let scores = by_id(Scorer::of_members(&members, TOKENS_A_BATCH).rewards(&items)?);
            let rows: Vec<(String, f64)> = scores.clone().into_iter().collect();
            context.wait(context.store.put_scores(REWARD_MODEL, &rows))?;
            Some(scores)
        }
    };
    let sentiment = config.sentiment.then(|| {
        let lexicon = vader_sentimental::SentimentIntensityAnalyzer::new();
        by_id(responses.iter().map(|response| lexicon.polarity_scores(&response.text).compound).collect())
    });
    let (kl, kl_origin) = (kl_baseline.map(by_id), kl_origin.map(by_id));
    Ok(Measured { policy: policy.into(), reward, kl, kl_origin, sentiment, regression, responses })
}

/// Sampled KL(policy ‖ baseline) of each response in nats: Σ_t log p(y_t) − log p_ref(y_t), at the sampling temperature.
fn kl(policy: &Decoder, baseline: &Decoder, items: &[Item], temperature: f64) -> Result<Vec<f64>> {
    let of_policy = sequence_logprobs(policy, items, temperature, TOKENS_A_BATCH)?;
    let of_baseline = sequence_logprobs(baseline, items, temperature, TOKENS_A_BATCH)?;
    let sum = |a: &Vec<f32>, b: &Vec<f32>| a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)).sum();
    Ok(of_policy.iter().zip(&of_baseline).map(|(a, b)| sum(a, b)).collect())
}

/// Whether a response ended its turn.
pub fn ended(response: &Response) -> bool {
    response.finish_reason == FinishReason::Stop
}
