//! A judge that this program loads itself: log-probabilities of responses and of verdict tokens, on packed batches.

use crate::context::Context;
use anyhow::{Context as _, Result};
use rlaif_core::config::JudgeConfig;
use rlaif_core::records::FinishReason;
use rlaif_core::records::Message;
use rlaif_judge::{Greedy, LogprobModel, NextTokenItem, ScoreItem};
use rlaif_model::{
    Decoder, GenerateRequest, Generator, ModelFiles, PackedBatch, Reads, SamplingConfig, Tokenizer,
};
use rlaif_train::{TrainError, sequence_logprobs};

/// Tokens that go through a model in one forward pass outside training; more would only take memory.
pub const TOKENS_A_BATCH: usize = 2048;

/// A model with its tokenizer.
pub struct LocalJudge {
    decoder: Decoder,
    tokenizer: Tokenizer,
    generator: Generator,
}

impl LocalJudge {
    /// The model that a judge's section names; `policy` is the baseline, whose weights are shared, or `policy.origin`
    /// where that is given: what judges must not change with what is judged.
    ///
    /// # Errors
    /// If the model cannot be loaded.
    pub fn open(context: &mut Context, judge: &JudgeConfig) -> Result<Self> {
        if judge.model == "policy" {
            return Ok(Self::new(context.judging_policy()?, context.tokenizer().clone()));
        }
        let loading = || format!("loading the model `{}` of judge `{}`", judge.model, judge.name);
        let files = ModelFiles::open(&judge.model).with_context(loading)?;
        let decoder =
            Decoder::load(&files.config, files.weights.as_ref(), &context.device).with_context(loading)?;
        Ok(Self::new(decoder, files.tokenizer))
    }

    fn new(decoder: Decoder, tokenizer: Tokenizer) -> Self {
        Self { generator: Generator::new(&decoder), decoder, tokenizer }
    }

    /// Why a conversation of so many tokens cannot be judged, if it cannot.
    pub fn too_long(&self, messages: &[Message], response: &str) -> Result<Option<String>> {
        let tokens =
            self.tokenizer.encode_chat(messages, true)?.len() + self.tokenizer.encode(response)?.len();
        let limit = self.decoder.config().max_position_embeddings;
        Ok((tokens > limit).then(|| format!("{tokens} tokens are more than the judge's context of {limit}")))
    }
}

impl LogprobModel for LocalJudge {
    type Error = TrainError;

    fn response_logprobs(&mut self, items: &[ScoreItem]) -> Result<Vec<Vec<f32>>, TrainError> {
        // Responses to one conversation stand side by side, so that its tokens are computed once.
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_by_key(|&index| (conversation_key(&items[index].messages), index));
        let mut ids: Vec<(usize, Vec<u32>, Vec<u32>)> = Vec::new();
        for index in order {
            let response = self.tokenizer.encode(&items[index].response)?;
            if !response.is_empty() {
                ids.push((index, self.tokenizer.encode_chat(&items[index].messages, true)?, response));
            }
        }
        let asked: Vec<(&[u32], &[u32])> =
            ids.iter().map(|(_, prompt, response)| (prompt.as_slice(), response.as_slice())).collect();
        let mut rows = vec![Vec::new(); items.len()];
        let answers = sequence_logprobs(&self.decoder, &asked, 1.0, TOKENS_A_BATCH)?;
        for ((index, ..), logprobs) in ids.iter().zip(answers) {
            rows[*index] = logprobs;
        }
        Ok(rows)
    }

    fn next_token_logprobs(
        &mut self,
        items: &[NextTokenItem],
        candidates: &[&str],
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let mut ids = Vec::new(); // of candidates that are one token
        for candidate in candidates {
            ids.push(if let [id] = self.tokenizer.encode(candidate)?[..] { Some(id) } else { None });
        }
        let targets: Vec<u32> = ids.iter().flatten().copied().collect();
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            let mut sequence = self.tokenizer.encode_chat(&item.messages, true)?;
            sequence.extend(self.tokenizer.encode(&item.prefix)?);
            self.decoder.check_ids(&sequence)?;
            let mut batch = PackedBatch::new();
            let segment = batch.push_sequence(&sequence);
            let reads =
                Reads { indices: vec![batch.last_index(segment); targets.len()], targets: targets.clone() };
            let logprobs =
                self.decoder.logprobs(&self.decoder.hidden_at(&batch, &reads.indices), &reads, 1.0);
            let logprobs: Vec<f32> = logprobs.into_data().try_into_vec().expect("models compute in float32");
            let mut logprobs = logprobs.into_iter();
            rows.push(
                ids.iter().map(|id| id.and_then(|_| logprobs.next()).unwrap_or(f32::NEG_INFINITY)).collect(),
            );
        }
        Ok(rows)
    }

    fn greedy(
        &mut self,
        conversations: &[Vec<Message>],
        max_tokens: usize,
    ) -> Result<Vec<Greedy>, TrainError> {
        self.say(conversations, max_tokens)
    }
}

impl LocalJudge {
    /// What comes next in each conversation, at temperature 0.
    fn say(&self, conversations: &[Vec<Message>], max_tokens: usize) -> Result<Vec<Greedy>, TrainError> {
        let mut requests = Vec::new();
        let mut longest = 0;
        for messages in conversations {
            let prompt_ids = self.tokenizer.encode_chat(messages, true)?;
            longest = longest.max(prompt_ids.len());
            requests.push(GenerateRequest { prompt_ids, n: 1, seed: 0 });
        }
        let room = self.decoder.config().max_position_embeddings.saturating_sub(longest);
        let config = SamplingConfig {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            max_new_tokens: max_tokens.min(room).max(1),
            stop_ids: self.tokenizer.eos_ids().to_vec(),
            batch_size: conversations.len().max(1),
        };
        let samples = self.generator.generate(&requests, &config, &mut |_| {})?;
        let said = samples.into_iter().flatten().map(|sample| Greedy {
            text: self.tokenizer.decode(&sample.ids, true),
            ended: sample.finish == FinishReason::Stop,
        });
        Ok(said.collect())
    }
}

/// What conversations are sorted by: equal ones come together, and those of one system prompt as well.
fn conversation_key(messages: &[Message]) -> Vec<(String, String)> {
    messages.iter().map(|message| (message.role.clone(), message.content.clone())).collect()
}
