//! Sampling responses: prompts are read once, forked to their samples, and decoded together.
//!
//! The batch stays full: a sample that ends leaves it, and the next one waiting takes its place. What a sample becomes depends
//! on its prompt, its seed and its index, not on its neighbours, up to float rounding.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use burn::tensor::{Tensor, TensorData};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use rlaif_core::records::FinishReason;

use crate::attention::Heads;
use crate::batch::{PackedBatch, SegmentId, common_prefix};
use crate::cache::{PromptCache, SampleCache};
use crate::config::ModelConfig;
use crate::decoder::{Decoder, LayerAttention};
use crate::error::{ModelError, Result};
use crate::params::{HostRows, host_values};
use crate::sampling::{SamplingConfig, sample_token};
use crate::workers::on_workers;

/// Prompt tokens that are read in one forward pass; more would only take memory.
const PREFILL_TOKENS: usize = 2048;

/// A prompt and how many samples are wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateRequest {
    /// The prompt, with the chat template applied.
    pub prompt_ids: Vec<u32>,
    /// Number of samples.
    pub n: usize,
    /// Seed of the prompt; each sample draws from the stream (seed, its index).
    pub seed: u64,
}

/// One sampled response.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Sampled tokens; after [`FinishReason::Stop`] the last one is the stop token.
    pub ids: Vec<u32>,
    /// Log-probability of each token under softmax(logits / temperature), before top-k and top-p.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// How far [`generate`] is, for a progress bar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GenerateProgress {
    /// Samples that have ended.
    pub samples_done: usize,
    /// Samples wanted in all.
    pub samples_total: usize,
    /// Tokens sampled so far.
    pub tokens: usize,
}

/// [`Generator::generate`] by a [`Generator`] for these requests alone.
///
/// # Errors
/// As there.
pub fn generate(
    decoder: &Decoder,
    requests: &[GenerateRequest],
    config: &SamplingConfig,
    on_progress: &mut dyn FnMut(&GenerateProgress),
) -> Result<Vec<Vec<Sample>>> {
    Generator::new(decoder).generate(requests, config, on_progress)
}

/// A prompt that was read and has samples left to start.
struct Ready {
    request: usize,
    cache: Arc<PromptCache>,
    logits: Vec<f32>, // [V], after the prompt's last token
    next_sample: usize,
}

/// A sample in the batch.
struct Slot {
    request: usize,
    index: usize,
    cache: SampleCache,
    rng: ChaCha8Rng,
    sample: Sample,
    max_tokens: usize,
    ended: bool,
}

impl Slot {
    /// Forks the prompt and takes the first token from its logits.
    fn start(
        prompt: &Ready,
        request: &GenerateRequest,
        config: &SamplingConfig,
        layers: usize,
        context: usize,
    ) -> Self {
        let mut slot = Self {
            request: prompt.request,
            index: prompt.next_sample,
            cache: SampleCache::fork(prompt.cache.clone(), layers),
            rng: rlaif_core::seed::stream(request.seed, "sample", prompt.next_sample as u64),
            sample: Sample { ids: Vec::new(), logprobs: Vec::new(), finish: FinishReason::Length },
            max_tokens: config.max_new_tokens.min(context - request.prompt_ids.len()),
            ended: false,
        };
        slot.take(&mut prompt.logits.clone(), config);
        slot
    }

    /// Samples the next token from `logits`, `[V]`.
    fn take(&mut self, logits: &mut [f32], config: &SamplingConfig) {
        let (token, logprob) = sample_token(logits, config, &mut self.rng);
        self.sample.ids.push(token);
        self.sample.logprobs.push(logprob);
        if config.stop_ids.contains(&token) {
            self.sample.finish = FinishReason::Stop;
            self.ended = true;
        }
        self.ended |= self.sample.ids.len() >= self.max_tokens;
    }
}

/// Cosines and sines of some tokens, for layers with and without a window.
struct Rotations<'a> {
    decoder: &'a Decoder,
    full: (Vec<f32>, Vec<f32>),
    local: Option<(Vec<f32>, Vec<f32>)>, // where they differ
}

impl<'a> Rotations<'a> {
    fn new(decoder: &'a Decoder, positions: &[u32]) -> Self {
        let local = decoder.config().local_rope_theta.map(|_| decoder.local_rope.tables(positions));
        Self { decoder, full: decoder.rope.tables(positions), local }
    }

    /// Those of a range of the tokens, `[tokens, pairs]` each.
    fn of(&self, layer: usize, tokens: std::ops::Range<usize>) -> (&[f32], &[f32]) {
        let windowed = self.decoder.config().window(layer).is_some();
        let (cos, sin) = self.local.as_ref().filter(|_| windowed).unwrap_or(&self.full);
        let pairs = self.decoder.rope.pairs();
        let range = tokens.start * pairs..tokens.end * pairs;
        (&cos[range.clone()], &sin[range])
    }
}

/// A model that samples. Kept as long as the weights stay, since what it samples with is made once, before the first sample.
#[derive(Debug)]
pub struct Generator {
    given: Decoder,
    merged: OnceLock<Decoder>,
    heads: Heads,
}

impl Generator {
    /// Of a decoder as it is now.
    pub fn new(decoder: &Decoder) -> Self {
        Self { given: decoder.frozen(), merged: OnceLock::new(), heads: Heads::of(decoder.config()) }
    }

    /// With its adapters merged, and weights packed where products are rounded.
    fn decoder(&self) -> &Decoder {
        self.merged.get_or_init(|| {
            let mut decoder = self.given.clone();
            decoder.merge_lora();
            decoder.pack_weights();
            decoder
        })
    }

    /// Samples `n` responses for each request; the result has the order of the requests.
    ///
    /// A response ends at a stop token, at `max_new_tokens`, or where the model's context is full. The cache is in host memory, so
    /// this is made for the CPU; on a GPU it is right but every layer's attention goes through the host.
    ///
    /// # Errors
    /// If a setting is out of range, or a prompt is empty, outside the vocabulary, or fills the context; nothing is sampled then.
    pub fn generate(
        &self,
        requests: &[GenerateRequest],
        config: &SamplingConfig,
        on_progress: &mut dyn FnMut(&GenerateProgress),
    ) -> Result<Vec<Vec<Sample>>> {
        config.check()?;
        let context = self.config().max_position_embeddings;
        for (number, request) in requests.iter().enumerate() {
            self.given.check_ids(&request.prompt_ids)?;
            if request.prompt_ids.len() >= context {
                let tokens = request.prompt_ids.len();
                let reason = format!(
                    "prompt {number} has {tokens} tokens and leaves no room in the context of {context}"
                );
                return Err(ModelError::Input { reason });
            }
        }

        let mut pending: VecDeque<usize> = (0..requests.len()).collect();
        let mut ready: VecDeque<Ready> = VecDeque::new();
        let mut active: Vec<Slot> = Vec::new();
        let mut samples: Vec<Vec<Option<Sample>>> = requests.iter().map(|r| vec![None; r.n]).collect();
        let mut progress = GenerateProgress {
            samples_total: requests.iter().map(|r| r.n).sum(),
            ..GenerateProgress::default()
        };
        let mut finish = |slot: Slot, progress: &mut GenerateProgress| {
            progress.samples_done += 1;
            samples[slot.request][slot.index] = Some(slot.sample);
        };

        loop {
            while active.len() < config.batch_size {
                if ready.is_empty() {
                    let slots = config.batch_size - active.len();
                    ready.extend(on_workers(|| self.prefill(requests, &mut pending, slots)));
                }
                let Some(prompt) = ready.front_mut() else { break };
                let request = &requests[prompt.request];
                let slot = Slot::start(prompt, request, config, self.layers(), context);
                prompt.next_sample += 1;
                if prompt.next_sample == request.n {
                    ready.pop_front();
                }
                progress.tokens += 1;
                match slot.ended {
                    true => finish(slot, &mut progress),
                    false => active.push(slot),
                }
            }
            if active.is_empty() {
                break;
            }
            on_workers(|| self.step(&mut active, config));
            progress.tokens += active.len();
            for ended in active.extract_if(.., |slot| slot.ended) {
                finish(ended, &mut progress);
            }
            on_progress(&progress);
        }
        let complete = |samples: Vec<Option<Sample>>| {
            samples.into_iter().map(|s| s.expect("every sample ended")).collect()
        };
        Ok(samples.into_iter().map(complete).collect())
    }

    /// The model's.
    pub fn config(&self) -> &ModelConfig {
        self.given.config()
    }

    fn layers(&self) -> usize {
        self.given.layers.len()
    }

    /// Reads the next prompts in one packed pass: as many as the free slots need, up to [`PREFILL_TOKENS`].
    fn prefill(
        &self,
        requests: &[GenerateRequest],
        pending: &mut VecDeque<usize>,
        slots: usize,
    ) -> Vec<Ready> {
        let mut chosen = Vec::new();
        let (mut tokens, mut samples) = (0, 0);
        while let Some(&next) = pending.front() {
            let length = requests[next].prompt_ids.len();
            if !chosen.is_empty() && (tokens + length > PREFILL_TOKENS || samples >= slots) {
                break;
            }
            pending.pop_front();
            if requests[next].n > 0 {
                tokens += length;
                samples += requests[next].n;
                chosen.push(next);
            }
        }
        if chosen.is_empty() {
            return Vec::new();
        }

        // What all of them begin with, such as the system prompt, is read once.
        let prompts: Vec<&[u32]> = chosen.iter().map(|&request| &*requests[request].prompt_ids).collect();
        let shared = common_prefix(&prompts);
        let mut batch = PackedBatch::new();
        let prefix = (shared > 0).then(|| batch.push_prompt(&prompts[0][..shared]));
        let own: Vec<SegmentId> = prompts
            .iter()
            .map(|prompt| match prefix {
                None => batch.push_prompt(prompt),
                Some(prefix) => batch.push_prompt_after(prefix, &prompt[shared..]),
            })
            .collect();

        let decoder = self.decoder();
        let rotations = Rotations::new(decoder, batch.positions());
        let mut caches: Vec<PromptCache> =
            prompts.iter().map(|ids| PromptCache::new(self.layers(), self.heads, ids.len())).collect();
        let attention = LayerAttention::new(decoder, &batch);
        let width = self.heads.key_value * self.heads.dim;
        let last: Vec<usize> = own.iter().map(|&segment| batch.last_index(segment)).collect();
        let hidden = decoder.blocks(batch.ids(), batch.positions(), Some(&last), &mut |layer, q, k, v| {
            let (keys, values) = (host_values(k.clone()), host_values(v.clone()));
            caches.par_iter_mut().zip(&own).for_each(|(cache, &own)| {
                for (at, segment) in prefix.map(|prefix| (0, prefix)).into_iter().chain([(shared, own)]) {
                    let segment = batch.segment(segment);
                    let tokens = segment.start..segment.start + segment.len;
                    let wide = tokens.start * width..tokens.end * width;
                    let (cos, sin) = rotations.of(layer, tokens);
                    cache.fill(layer, at, &keys[wide.clone()], &values[wide], cos, sin);
                }
            });
            attention.of(decoder.config(), layer).forward(q, k, v)
        });
        let logits = host_values(decoder.logits_at(&hidden, &last));
        let rows = logits.chunks(decoder.config().vocab_size);
        let parts = chosen.into_iter().zip(caches).zip(rows);
        let ready = |((request, cache), logits): ((_, _), &[f32])| Ready {
            request,
            cache: Arc::new(cache),
            logits: logits.to_vec(),
            next_sample: 0,
        };
        parts.map(ready).collect()
    }

    /// Feeds each sample's last token and samples the next.
    fn step(&self, active: &mut [Slot], config: &SamplingConfig) {
        let decoder = self.decoder();
        let wide = self.heads.query * self.heads.dim;
        let ids: Vec<u32> = active.iter().filter_map(|slot| slot.sample.ids.last().copied()).collect();
        let positions: Vec<u32> = active.iter().map(|slot| slot.cache.position() as u32).collect();
        let rotations = Rotations::new(decoder, &positions);
        active.iter_mut().for_each(|slot| slot.cache.push());

        let hidden = decoder.blocks(&ids, &positions, None, &mut |layer, q, k, v| {
            let window = decoder.config().window(layer);
            let [q, k, v] = [q, k, v].map(HostRows::of);
            let mut out = vec![0.0; ids.len() * wide];
            active.par_iter_mut().zip(out.par_chunks_mut(wide)).enumerate().for_each(|(row, (slot, out))| {
                let [q, k, v] = [&q, &k, &v].map(|rows| rows.row(row));
                slot.cache.attend(layer, window, q, k, v, rotations.of(layer, row..row + 1), out);
            });
            Tensor::from_data(TensorData::new(out, [ids.len(), wide]), decoder.device())
        });
        let all: Vec<usize> = (0..ids.len()).collect();
        let mut logits = host_values(decoder.logits_at(&hidden, &all));
        active
            .par_iter_mut()
            .zip(logits.par_chunks_mut(decoder.config().vocab_size))
            .for_each(|(slot, logits)| slot.take(logits, config));
    }
}
