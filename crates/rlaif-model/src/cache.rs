//! Keys and values of what was read so far, in host memory.
//!
//! A prompt's are computed once and shared by all its samples; a sample's own grow by blocks of [`BLOCK`] tokens, so that
//! nothing is ever copied to make room, and a sample that ends early never had room for the longest.

use std::sync::Arc;

use crate::attention::{Heads, first_seen};
use crate::rope::rotate_slice;
use crate::simd;

/// Tokens in a block, which are scored together: two registers of AVX-512.
const BLOCK: usize = 32;
/// Numbers of a value that are added up together: four registers.
const NUMBERS: usize = 64;

/// Keys (rotated) and values of a run of tokens, for all layers.
///
/// Layout: keys `[layers, kv_heads, head_dim, capacity]`, so that the scores of a run of tokens are sums of scaled rows; values
/// `[layers, kv_heads, capacity, head_dim]`, so that what they add up to is, too.
pub(crate) struct Span {
    len: usize,
    capacity: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Span {
    /// Of room for `tokens`, in whole blocks.
    fn new(layers: usize, heads: Heads, tokens: usize) -> Self {
        let capacity = tokens.next_multiple_of(BLOCK);
        let size = layers * heads.key_value * capacity * heads.dim;
        Self { len: 0, capacity, keys: vec![0.0; size], values: vec![0.0; size] }
    }

    fn offset(&self, heads: Heads, layer: usize, head: usize) -> usize {
        (layer * heads.key_value + head) * self.capacity * heads.dim
    }

    fn write(&mut self, heads: Heads, layer: usize, at: usize, k: &[f32], v: &[f32]) {
        for head in 0..heads.key_value {
            let to = self.offset(heads, layer, head);
            let from = head * heads.dim..(head + 1) * heads.dim;
            for (row, key) in self.keys[to..].chunks_mut(self.capacity).zip(&k[from.clone()]) {
                row[at] = *key;
            }
            self.values[to + at * heads.dim..][..heads.dim].copy_from_slice(&v[from]);
        }
    }
}

/// The cache of one prompt, filled by a packed forward pass.
pub(crate) struct PromptCache {
    heads: Heads,
    span: Span,
}

impl PromptCache {
    pub fn new(layers: usize, heads: Heads, tokens: usize) -> Self {
        let mut span = Span::new(layers, heads, tokens);
        span.len = tokens;
        Self { heads, span }
    }

    pub fn len(&self) -> usize {
        self.span.len
    }

    /// Stores one layer's keys and values of a run of tokens that begins `at` a token of the prompt; keys come unrotated.
    ///
    /// Shapes: `k`, `v`: `[tokens, kv_heads * head_dim]`; `cos`, `sin`: `[tokens, pairs]`.
    pub fn fill(&mut self, layer: usize, at: usize, k: &[f32], v: &[f32], cos: &[f32], sin: &[f32]) {
        let width = self.heads.key_value * self.heads.dim;
        let tokens = k.len() / width;
        let half = cos.len() / tokens;
        let mut rotated = vec![0.0; width];
        for t in 0..tokens {
            rotated.copy_from_slice(&k[t * width..(t + 1) * width]);
            for head in rotated.chunks_mut(self.heads.dim) {
                rotate_slice(head, &cos[t * half..(t + 1) * half], &sin[t * half..(t + 1) * half]);
            }
            self.span.write(self.heads, layer, at + t, &rotated, &v[t * width..(t + 1) * width]);
        }
    }
}

/// The cache of one sample: its prompt's, and its own tokens.
pub(crate) struct SampleCache {
    prompt: Arc<PromptCache>,
    layers: usize,
    blocks: Vec<Span>,
    len: usize,
    turned: Vec<f32>, // scratch: one token's query, then its key
    scores: Vec<f32>, // scratch
}

impl SampleCache {
    /// A sample that starts where its prompt ends.
    pub fn fork(prompt: Arc<PromptCache>, layers: usize) -> Self {
        Self { prompt, layers, blocks: Vec::new(), len: 0, turned: Vec::new(), scores: Vec::new() }
    }

    /// Position of the next token.
    pub fn position(&self) -> usize {
        self.prompt.len() + self.len
    }

    /// Makes room for one more token; [`attend`](Self::attend) then fills it, layer by layer.
    pub fn push(&mut self) {
        if self.len.is_multiple_of(BLOCK) {
            self.blocks.push(Span::new(self.layers, self.prompt.heads, BLOCK));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.len += 1;
        }
        self.len += 1;
    }

    /// Rotates one token's query and key, stores key and value, and attends to itself and to everything before, or as far back
    /// as the `window` reaches.
    ///
    /// Shapes: `q`, `out`: `[heads * head_dim]`; `k`, `v`: `[kv_heads * head_dim]`; `cos`, `sin`: `[pairs]`.
    pub fn attend(
        &mut self,
        layer: usize,
        window: Option<usize>,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        (cos, sin): (&[f32], &[f32]),
        out: &mut [f32],
    ) {
        let heads = self.prompt.heads;
        self.turned.clear();
        self.turned.extend_from_slice(q);
        self.turned.extend_from_slice(k);
        self.turned.chunks_mut(heads.dim).for_each(|head| rotate_slice(head, cos, sin));
        let (q, k) = self.turned.split_at(q.len());
        if let Some(block) = self.blocks.last_mut() {
            let at = block.len - 1;
            block.write(heads, layer, at, k, v);
        }
        let shared = heads.query / heads.key_value;
        let first = first_seen(self.position(), window);
        let seen = self.position() - first;
        self.scores.resize(shared * seen, 0.0);
        for head in 0..heads.key_value {
            let queries = &q[head * shared * heads.dim..][..shared * heads.dim];
            let out = &mut out[head * shared * heads.dim..][..shared * heads.dim];
            // What is seen of each span, and its place among all that is seen.
            let runs = || {
                let mut start = 0;
                std::iter::once(&self.prompt.span).chain(&self.blocks).filter_map(move |span| {
                    let from = first.saturating_sub(start);
                    let place = (start + from) - first;
                    start += span.len;
                    let offset = span.offset(heads, layer, head);
                    (from < span.len).then_some((span, offset, from, place))
                })
            };
            for (span, offset, from, place) in runs() {
                let keys = &span.keys[offset..][..heads.dim * span.capacity];
                let scores = &mut self.scores[place..];
                score_keys(queries, keys, span.capacity, from, span.len, heads.scale as f32, scores, seen);
            }
            self.scores.chunks_mut(seen).for_each(|scores| {
                simd::softmax(scores);
            });
            out.fill(0.0);
            for (span, offset, from, place) in runs() {
                let values = &span.values[offset + from * heads.dim..offset + span.len * heads.dim];
                weigh_values(&self.scores[place..], seen, values, heads.dim, out);
            }
        }
    }
}

simd::multiversion! {
    /// scores[g, t] = scale * q_g . k_t, for tokens `from` to `end` of keys `[dim, capacity]`; rows of `scores` are `stride` apart.
    fn score_keys(
        queries: &[f32],
        keys: &[f32],
        capacity: usize,
        from: usize,
        end: usize,
        scale: f32,
        scores: &mut [f32],
        stride: usize,
    ) {
        let dim = keys.len() / capacity;
        let mut done = 0;
        while done < queries.len() / dim {
            let (queries, scores) = (&queries[done * dim..], &mut scores[done * stride..]);
            done += match queries.len() / dim {
                1 => score_queries::<1>(queries, keys, capacity, from, end, scale, scores, stride),
                2 => score_queries::<2>(queries, keys, capacity, from, end, scale, scores, stride),
                _ => score_queries::<3>(queries, keys, capacity, from, end, scale, scores, stride),
            };
        }
    }
}

/// [`score_keys`] of the first G queries, which share what is read of the keys; G. What a part holds behind `end` is scored with it and
/// left out.
#[inline(always)]
fn score_queries<const G: usize>(
    queries: &[f32],
    keys: &[f32],
    capacity: usize,
    from: usize,
    end: usize,
    scale: f32,
    scores: &mut [f32],
    stride: usize,
) -> usize {
    let dim = keys.len() / capacity;
    let queries: [&[f32]; G] = std::array::from_fn(|g| &queries[g * dim..][..dim]);
    for at in (from..end).step_by(BLOCK) {
        let tokens = BLOCK.min(end - at);
        if at + BLOCK <= capacity {
            // Of even and of odd numbers: additions that need not wait for each other.
            let (mut evens, mut odds) = ([[0f32; BLOCK]; G], [[0f32; BLOCK]; G]);
            let row = |number: usize| &keys[number * capacity + at..][..BLOCK];
            for number in (0..dim).step_by(2) {
                for (sum, query) in evens.iter_mut().zip(&queries) {
                    simd::add_scaled(sum, query[number], row(number));
                }
                if number + 1 < dim {
                    for (sum, query) in odds.iter_mut().zip(&queries) {
                        simd::add_scaled(sum, query[number + 1], row(number + 1));
                    }
                }
            }
            for (g, (even, odd)) in evens.iter().zip(&odds).enumerate() {
                let scores = &mut scores[g * stride + at - from..][..tokens];
                for (score, (even, odd)) in scores.iter_mut().zip(even.iter().zip(odd)) {
                    *score = scale * (even + odd);
                }
            }
        } else {
            for (g, query) in queries.iter().enumerate() {
                let scores = &mut scores[g * stride + at - from..][..tokens];
                scores.fill(0.0);
                for (number, q) in query.iter().enumerate() {
                    simd::add_scaled(scores, scale * q, &keys[number * capacity + at..][..tokens]);
                }
            }
        }
    }
    G
}

simd::multiversion! {
    /// out_g += sum_t weights[g, t] v_t, for a run of values.
    fn weigh_values(weights: &[f32], stride: usize, values: &[f32], dim: usize, out: &mut [f32]) {
        let mut done = 0;
        while done < out.len() / dim {
            let (weights, out) = (&weights[done * stride..], &mut out[done * dim..]);
            done += match out.len() / dim {
                1 => weigh_for::<1>(weights, stride, values, dim, out),
                2 => weigh_for::<2>(weights, stride, values, dim, out),
                _ => weigh_for::<3>(weights, stride, values, dim, out),
            };
        }
    }
}

/// [`weigh_values`] for the first G heads, which share what is read of the values; G.
#[inline(always)]
fn weigh_for<const G: usize>(
    weights: &[f32],
    stride: usize,
    values: &[f32],
    dim: usize,
    out: &mut [f32],
) -> usize {
    let tokens = values.len() / dim;
    let weights: [&[f32]; G] = std::array::from_fn(|g| &weights[g * stride..][..tokens]);
    let whole = dim - dim % NUMBERS;
    for first in (0..whole).step_by(NUMBERS) {
        let mut sums = [[0f32; NUMBERS]; G];
        for (token, value) in values.chunks_exact(dim).enumerate() {
            let value = &value[first..][..NUMBERS];
            for (sum, weights) in sums.iter_mut().zip(&weights) {
                simd::add_scaled(sum, weights[token], value);
            }
        }
        for (g, sum) in sums.iter().enumerate() {
            simd::add_scaled(&mut out[g * dim + first..][..NUMBERS], 1.0, sum);
        }
    }
    for (g, weights) in weights.iter().enumerate() {
        for (weight, value) in weights.iter().zip(values.chunks_exact(dim)) {
            simd::add_scaled(&mut out[g * dim + whole..(g + 1) * dim], *weight, &value[whole..]);
        }
    }
    G
}
