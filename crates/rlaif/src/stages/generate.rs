//! `generate`: n responses a training prompt, sampled from the baseline.

use crate::context::Context;
use crate::manifest::StageOutcome;
use crate::sampling::{Sampling, sample_missing, share_ended};
use anyhow::Result;
use rlaif_core::records::Split;
use rlaif_model::SamplingConfig;
use rlaif_store::store::BASELINE;
use serde_json::json;

/// Samples what is missing.
///
/// # Errors
/// If the model or the store cannot be used.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    context.wait(context.store.put_prompts(&context.prompts.with_splits()))?;
    let decoder = context.policy()?;
    let config = &context.config.generate;
    let how = Sampling {
        stage: "generate",
        purpose: "generate",
        policy: BASELINE,
        prompts: &context.prompts.train,
        split: Split::Train,
        tokenizer: context.tokenizer(),
        n: config.n,
        systems: &config.systems,
        config: SamplingConfig {
            temperature: config.temperature,
            top_p: config.top_p,
            top_k: config.top_k,
            max_new_tokens: config.max_new_tokens,
            stop_ids: context.tokenizer().eos_ids().to_vec(),
            batch_size: config.batch_size,
        },
    };
    sample_missing(context, &decoder, &how)?;
    let responses = context.wait(context.store.responses(BASELINE, Some(Split::Train)))?;
    let prompts = context.prompts.train.len();
    let tokens: usize = responses.iter().map(|response| response.token_ids.len()).sum();
    let ended = share_ended(&responses);
    Ok(StageOutcome {
        summary: format!(
            "{} responses to {} prompts, {:.0} tokens each, {:.0} % end their turn",
            responses.len(),
            prompts,
            tokens as f64 / responses.len().max(1) as f64,
            100.0 * ended
        ),
        numbers: json!({ "responses": responses.len(), "prompts": prompts, "tokens": tokens, "share_ended": ended }),
        cost_micro_usd: Some(0),
        ..StageOutcome::default()
    })
}
