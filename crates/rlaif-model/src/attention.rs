//! Causal attention over a packed batch, the portable way: unpack each segment to one row, attend, pack again.
//!
//! This is what runs on a GPU, and the reference that the fused CPU kernel ([`crate::kernels`]) is tested against.

use burn::tensor::{Device, Int, Tensor, TensorData, activation::softmax};

use crate::batch::{PackedBatch, Segment, ancestors, prefix_len};
use crate::config::ModelConfig;
use crate::rope::{Rope, rotate};

/// Added to the score of a key that must not be seen; finite, so that a row of padding stays a number.
const MASKED: f32 = -1e9;

/// Head counts and sizes of grouped-query attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; each serves `query / key_value` query heads.
    pub key_value: usize,
    /// Size of each head.
    pub dim: usize,
    /// Factor on the scores: mostly 1 / sqrt(dim).
    pub scale: f64,
}

impl Heads {
    /// The heads of a model.
    pub fn of(config: &ModelConfig) -> Self {
        Self {
            query: config.num_attention_heads,
            key_value: config.num_key_value_heads,
            dim: config.head_dim,
            scale: config.query_pre_attn_scalar.powf(-0.5),
        }
    }
}

/// The indices, masks and rotations of one batch, made once and used by every layer.
pub struct PortableAttention {
    heads: Heads,
    rotation: Option<(Tensor<3>, Tensor<3>)>, // cosines and sines
    groups: Vec<Group>,
    /// For each token of the stream, its row in the concatenated group outputs, `[N]`.
    repack: Tensor<1, Int>,
}

/// Segments of similar length, padded to the longest.
struct Group {
    rows: usize,
    queries: usize,
    keys: usize,
    query_index: Tensor<1, Int>, // [rows * queries]
    key_index: Tensor<1, Int>,   // [rows * keys]
    mask: Tensor<4>,             // [rows, 1, queries, keys], 0 or MASKED
}

impl PortableAttention {
    /// Plans attention for `batch`; with a `window`, a token sees itself and the `window - 1` tokens before it.
    pub fn new(
        batch: &PackedBatch,
        heads: Heads,
        rope: &Rope,
        window: Option<usize>,
        device: &Device,
    ) -> Self {
        let rotation = (rope.pairs() > 0).then(|| rope.tensors(batch.positions(), device));
        let segments = batch.segments();
        let mut order: Vec<usize> = (0..segments.len()).collect();
        order.sort_by_key(|&s| (segments[s].len, key_count(segments, s)));

        let mut repack = vec![0i64; batch.num_tokens()];
        let mut groups = Vec::new();
        let mut next_row = 0;
        for members in similar(&order, segments) {
            let queries = members.iter().map(|&s| segments[s].len).max().unwrap_or(0);
            let keys = members.iter().map(|&s| key_count(segments, s)).max().unwrap_or(0);
            let mut query_index = vec![0i64; members.len() * queries];
            let mut key_index = vec![0i64; members.len() * keys];
            let mut mask = vec![MASKED; members.len() * queries * keys];
            for (row, &s) in members.iter().enumerate() {
                let segment = &segments[s];
                let prefix = prefix_len(segments, s);
                let visible = visible_tokens(segments, s);
                for (column, token) in visible.enumerate() {
                    key_index[row * keys + column] = token as i64;
                }
                for t in 0..segment.len {
                    query_index[row * queries + t] = (segment.start + t) as i64;
                    repack[segment.start + t] = next_row + (row * queries + t) as i64;
                    let start = (row * queries + t) * keys;
                    let end = prefix + t + 1;
                    mask[start + first_seen(end, window)..start + end].fill(0.0);
                }
            }
            next_row += (members.len() * queries) as i64;
            let rows = members.len();
            groups.push(Group {
                rows,
                queries,
                keys,
                query_index: int_tensor(query_index, device),
                key_index: int_tensor(key_index, device),
                mask: Tensor::from_data(TensorData::new(mask, [rows, 1, queries, keys]), device),
            });
        }
        Self { heads, rotation, groups, repack: int_tensor(repack, device) }
    }

    /// Rotates queries and keys, then attends.
    ///
    /// softmax(scale q k^T) v, Vaswani et al. 2017, eq. 1 (<https://arxiv.org/abs/1706.03762>).
    ///
    /// Shapes: `q`: `[N, query * dim]`; `k`, `v`: `[N, key_value * dim]`; returns `[N, query * dim]`.
    pub fn forward(&self, q: Tensor<2>, k: Tensor<2>, v: Tensor<2>) -> Tensor<2> {
        let Heads { query, key_value, dim, scale } = self.heads;
        let tokens = q.dims()[0];
        let turn = |x: Tensor<2>, heads: usize| match &self.rotation {
            None => x,
            Some((cos, sin)) => {
                rotate(x.reshape([tokens, heads, dim]), cos, sin).reshape([tokens, heads * dim])
            }
        };
        let (q, k) = (turn(q, query), turn(k, key_value));

        let shared = query / key_value;
        let outputs = self.groups.iter().map(|group| {
            let Group { rows, queries, keys, .. } = *group;
            // The query heads that share a key head stand below each other, so that keys need no copy per head.
            let q = q.clone().select(0, group.query_index.clone());
            let q = q.reshape([rows, queries, key_value, shared, dim]).permute([0, 2, 3, 1, 4]);
            let q = q.reshape([rows, key_value, shared * queries, dim]);
            let unpack = |x: &Tensor<2>| {
                x.clone()
                    .select(0, group.key_index.clone())
                    .reshape([rows, keys, key_value, dim])
                    .swap_dims(1, 2)
            };
            let scores = q.matmul(unpack(&k).transpose()).mul_scalar(scale);
            let scores = scores.reshape([rows, query, queries, keys]) + group.mask.clone();
            let weights = softmax(scores, 3).reshape([rows, key_value, shared * queries, keys]);
            let output = weights.matmul(unpack(&v)).reshape([rows, key_value, shared, queries, dim]);
            output.permute([0, 3, 1, 2, 4]).reshape([rows * queries, query * dim])
        });
        Tensor::cat(outputs.collect(), 0).select(0, self.repack.clone())
    }
}

/// The first of `end` tokens that the last of them sees.
pub(crate) fn first_seen(end: usize, window: Option<usize>) -> usize {
    window.map_or(0, |window| end.saturating_sub(window))
}

/// Stream indices that the last token of segment `s` attends to, in order: what stands before it, then its own.
pub(crate) fn visible_tokens(segments: &[Segment], s: usize) -> impl Iterator<Item = usize> {
    let tokens = |s: usize| segments[s].start..segments[s].start + segments[s].len;
    ancestors(segments, s).into_iter().chain([s]).flat_map(tokens)
}

fn key_count(segments: &[Segment], s: usize) -> usize {
    prefix_len(segments, s) + segments[s].len
}

/// Cuts segments, sorted by length, where padding to the longest would more than double the queries or keys of the shortest.
fn similar(order: &[usize], segments: &[Segment]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &s in order {
        match groups.last_mut() {
            Some(group)
                if segments[s].len <= 2 * segments[group[0]].len + 8
                    && key_count(segments, s) <= 2 * key_count(segments, group[0]) + 8 =>
            {
                group.push(s)
            }
            _ => groups.push(vec![s]),
        }
    }
    groups
}

pub(crate) fn int_tensor(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
