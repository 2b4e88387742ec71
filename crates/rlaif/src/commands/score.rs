//! `rlaif score MODEL`: what a reward model says of responses.

use super::answer_lines;
use crate::cli::ModelArgs;
use crate::error::{DONE, FAILED, UserError};
use crate::local_judge::TOKENS_A_BATCH;
use anyhow::{Context, Result};
use rlaif_core::records::PromptText;
use rlaif_model::ModelFiles;
use rlaif_train::{Scored, Scorer, load_members, load_reward_heads};
use serde::Deserialize;
use serde_json::json;
use std::path::Path;

#[derive(Deserialize)]
struct Question {
    prompt: PromptText,
    response: String,
}

/// Reads JSONL `{"prompt", "response"}`, writes `{"reward"}`, and with several members or heads `uncertainty`. The response is scored as one that ends its turn.
pub fn run(args: &ModelArgs) -> Result<u8> {
    let device = rlaif_model::open_device(&args.device)?;
    let files =
        ModelFiles::open(&args.model).with_context(|| format!("opening the model `{}`", args.model))?;
    if !files.extra_weights.iter().any(|name| name == "score.weight") {
        return Err(UserError::new(format!("`{}` is no reward model: it has no `score.weight`", args.model))
            .hint("Give the `models/reward` folder of a run")
            .into());
    }
    let members = load_members(Path::new(&args.model), &device, load_reward_heads)
        .with_context(|| format!("loading the reward model `{}`", args.model))?;
    let scorer = Scorer::of_members(&members, TOKENS_A_BATCH);
    let end = files.tokenizer.eos_ids().first().copied();
    let failed = answer_lines("`{\"prompt\": \"…\", \"response\": \"…\"}`", |question: Question| {
        let prompt = files.tokenizer.encode_chat(&question.prompt.messages(), true)?;
        let mut response = files.tokenizer.encode(&question.response)?;
        response.extend(end);
        let scored = Scored::of(&scorer.by_member(&[(&prompt, &response)])?[0]);
        Ok(match scored.uncertainty {
            None => json!({ "reward": scored.reward }),
            Some(uncertainty) => json!({ "reward": scored.reward, "uncertainty": uncertainty }),
        })
    })?;
    Ok(if failed > 0 { FAILED } else { DONE })
}
