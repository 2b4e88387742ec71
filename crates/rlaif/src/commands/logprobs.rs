//! `rlaif logprobs MODEL`: how likely each token is after those before it.

use super::answer_lines;
use crate::cli::ModelArgs;
use crate::error::{DONE, FAILED, UserError};
use anyhow::{Context, Result};
use rlaif_model::{Decoder, ModelFiles, PackedBatch};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Question {
    ids: Vec<u32>,
}

/// Reads JSONL `{"ids": […]}`, writes `{"logprobs": […]}`: one for each token but the first, of softmax(logits) at temperature 1.
pub fn run(args: &ModelArgs) -> Result<u8> {
    let device = rlaif_model::open_device(&args.device)?;
    let files =
        ModelFiles::open(&args.model).with_context(|| format!("opening the model `{}`", args.model))?;
    let decoder = Decoder::load(&files.config, files.weights.as_ref(), &device)
        .with_context(|| format!("loading the model `{}`", args.model))?;
    let failed = answer_lines("`{\"ids\": [1, 2, 3]}`", |question: Question| {
        if question.ids.is_empty() {
            return Err(UserError::new("`ids` is empty").into());
        }
        decoder.check_ids(&question.ids)?;
        let limit = decoder.config().max_position_embeddings;
        if question.ids.len() > limit {
            return Err(UserError::new(format!(
                "{} ids are more than the context of {limit}",
                question.ids.len()
            ))
            .into());
        }
        let mut batch = PackedBatch::new();
        let sequence = batch.push_sequence(&question.ids);
        let logprobs = decoder.logprobs(&decoder.hidden(&batch), &batch.sequence_reads(sequence), 1.0);
        let logprobs: Vec<f32> =
            logprobs.into_data().try_into_vec().map_err(|_| UserError::new("the model is not float32"))?;
        Ok(json!({ "logprobs": logprobs }))
    })?;
    Ok(if failed > 0 { FAILED } else { DONE })
}
