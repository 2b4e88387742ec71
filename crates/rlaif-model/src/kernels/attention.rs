//! Causal attention over a packed batch without padding, after FlashAttention (Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>): scores exist for one tile of queries at a time, the forward pass keeps the log of each
//! row's normaliser, and the backward pass computes the scores again.
//!
//! A task is one key-value head of one tree (a prompt with its responses, or a sequence alone): all it adds to is its own.
//! With P = softmax(S), S = scale Q K^T, O = P V, and D_i = dO_i . O_i:
//! dV = P^T dO, dP = dO V^T, dS = P (dP - D), dQ = scale dS K, dK = scale dS^T Q.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::matrix::{Target, View, Write, product};
use super::{Contiguous, dims, tensor};
use crate::attention::{Heads, first_seen};
use crate::batch::{PackedBatch, Segment};
use crate::rope::{Rope, rotate_slice};
use crate::simd;

/// Queries in a tile.
const TILE: usize = 64;

/// Tokens whose heads one task rotates.
const ROTATED: usize = 32;

/// What attention needs to know of a batch.
#[derive(Debug)]
pub struct AttentionPlan {
    heads: Heads,
    segments: Vec<Segment>,
    trees: Vec<Vec<usize>>, // segments of each tree, the root first
    window: Option<usize>,
    pairs: usize,
    cos: Vec<f32>, // [N, pairs]
    sin: Vec<f32>,
}

impl AttentionPlan {
    /// Finds the trees of `batch` and the rotation of each token.
    pub fn new(batch: &PackedBatch, heads: Heads, rope: &Rope, window: Option<usize>) -> Self {
        let segments = batch.segments().to_vec();
        let mut trees: Vec<Vec<usize>> = Vec::new();
        let mut tree_of = vec![0; segments.len()];
        for (s, segment) in segments.iter().enumerate() {
            match segment.parent {
                None => {
                    tree_of[s] = trees.len();
                    trees.push(vec![s]);
                }
                Some(parent) => {
                    tree_of[s] = tree_of[parent];
                    trees[tree_of[parent]].push(s);
                }
            }
        }
        let (cos, sin) = rope.tables(batch.positions());
        Self { heads, segments, trees, window, pairs: rope.pairs(), cos, sin }
    }

    /// One task for each tree and key-value head, the largest trees first so that none is left over at the end.
    fn tasks(&self) -> Vec<(&[usize], usize)> {
        let mut trees: Vec<&[usize]> = self.trees.iter().map(Vec::as_slice).collect();
        let size = |tree: &[usize]| tree.iter().map(|&s| self.segments[s].len).sum::<usize>();
        trees.sort_by_key(|tree| std::cmp::Reverse(size(tree)));
        trees.iter().flat_map(|tree| (0..self.heads.key_value).map(|head| (*tree, head))).collect()
    }

    /// Rotates every head of every token; `direction` -1 turns back.
    fn rotate(&self, x: &mut [f32], heads: usize, direction: f32) {
        let (dim, half) = (self.heads.dim, self.pairs);
        if half == 0 {
            return;
        }
        let parts = self.cos.par_chunks(ROTATED * half).zip(self.sin.par_chunks(ROTATED * half));
        x.par_chunks_mut(ROTATED * heads * dim).zip(parts).for_each(|(x, (cos, sin))| {
            for (x, (cos, sin)) in x.chunks_mut(heads * dim).zip(cos.chunks(half).zip(sin.chunks(half))) {
                match direction > 0.0 {
                    true => x.chunks_mut(dim).for_each(|head| rotate_slice(head, cos, sin)),
                    false => {
                        let back: Vec<f32> = sin.iter().map(|s| -s).collect();
                        x.chunks_mut(dim).for_each(|head| rotate_slice(head, cos, &back));
                    }
                }
            }
        });
    }

    /// Tiles of a segment: first query, number of queries.
    fn tiles(segment: &Segment) -> impl Iterator<Item = (usize, usize)> {
        let len = segment.len;
        (0..len).step_by(TILE).map(move |first| (first, TILE.min(len - first)))
    }
}

/// What the backward pass needs.
#[derive(Debug)]
pub struct Saved {
    q: Vec<f32>, // rotated, [N, heads * dim]
    k: Vec<f32>, // rotated, [N, kv_heads * dim]
    v: FlexTensor,
    output: FlexTensor,
    log_sums: Vec<f32>, // [N, heads]
}

/// Keys or values that one tile sees: its segment's parent, and its own segment up to the tile's end; with a window, from the
/// first that the tile's first query sees.
struct Ranges {
    parent: std::ops::Range<usize>,
    own: std::ops::Range<usize>,
}

impl Ranges {
    fn new(plan: &AttentionPlan, s: usize, first: usize, end: usize) -> Self {
        let own = &plan.segments[s];
        let parent = own.parent.map(|p| &plan.segments[p]);
        let prefix = parent.map_or(0, |parent| parent.len);
        let seen = first_seen(prefix + first + 1, plan.window);
        Self {
            parent: parent.map_or(0..0, |p| p.start + seen.min(prefix)..p.start + prefix),
            own: own.start + seen.saturating_sub(prefix)..own.start + end,
        }
    }

    fn len(&self) -> usize {
        self.parent.len() + self.own.len()
    }

    /// Both runs with the column of the score matrix where each begins.
    fn runs(&self) -> [(std::ops::Range<usize>, usize); 2] {
        [(self.parent.clone(), 0), (self.own.clone(), self.parent.len())]
    }
}

/// Returns the output, `[N, heads * dim]`, and what the backward pass needs.
pub(crate) fn forward(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    plan: &AttentionPlan,
) -> (FlexTensor, Saved) {
    let Heads { query, key_value, dim, scale } = plan.heads;
    let [tokens, wide] = dims(q);
    let shared = query / key_value;
    let mut q = Contiguous::of(q).slice().to_vec();
    let mut k = Contiguous::of(k).slice().to_vec();
    plan.rotate(&mut q, query, 1.0);
    plan.rotate(&mut k, key_value, 1.0);
    let values = Contiguous::of(v);
    let scale = scale as f32;

    let mut output = vec![0.0; tokens * wide];
    let mut log_sums = vec![0.0; tokens * query];
    let output_target = Target::new(&mut output, tokens, wide, wide);
    let sums_target = Target::new(&mut log_sums, tokens, query, query);
    let view = HeadViews { q: &q, k: &k, v: values.slice(), plan };
    plan.tasks().into_par_iter().for_each(|(tree, kv_head)| {
        let mut scores = Vec::new();
        for &s in tree {
            for (first, rows) in AttentionPlan::tiles(&plan.segments[s]) {
                let ranges = Ranges::new(plan, s, first, first + rows);
                let start = plan.segments[s].start + first;
                let width = ranges.len();
                for head in kv_head * shared..(kv_head + 1) * shared {
                    scores.resize(rows * width, 0.0);
                    view.scores(&mut scores, &ranges, start, rows, head, scale);
                    for (row, scores) in scores.chunks_mut(width).enumerate() {
                        let (seen, later) = scores.split_at_mut(width - rows + row + 1);
                        let (earlier, seen) = seen.split_at_mut(first_seen(seen.len(), plan.window));
                        earlier.fill(0.0);
                        later.fill(0.0);
                        let log_sum = simd::softmax(seen);
                        // SAFETY: one task owns the columns of its query heads in the rows of its tree.
                        unsafe { sums_target.part(start + row, 1, head, 1).row(0)[0] = log_sum };
                    }
                    let out = output_target.part(start, rows, head * dim, dim);
                    let mut write = Write::Replace;
                    for (run, column) in ranges.runs() {
                        if run.is_empty() {
                            continue;
                        }
                        let weights = View::new(&scores[column..], rows, run.len(), width);
                        // SAFETY: as above.
                        unsafe { product(out, write, 1.0, weights, view.value(run, kv_head), false) };
                        write = Write::Add;
                    }
                }
            }
        }
    });
    let output = tensor(output, [tokens, wide]);
    (output.clone(), Saved { q, k, v: v.clone(), output, log_sums })
}

/// Returns `[dq, dk, dv]`.
pub(crate) fn backward(grad: &FlexTensor, saved: &Saved, plan: &AttentionPlan) -> [FlexTensor; 3] {
    let Heads { query, key_value, dim, scale } = plan.heads;
    let (wide, narrow, shared) = (query * dim, key_value * dim, query / key_value);
    let tokens = saved.q.len() / wide;
    let (grad, values, output) =
        (Contiguous::of(grad), Contiguous::of(&saved.v), Contiguous::of(&saved.output));
    let (grad, output) = (grad.slice(), output.slice());
    let scale = scale as f32;

    let mut dq = vec![0.0; tokens * wide];
    let mut dk = vec![0.0; tokens * narrow];
    let mut dv = vec![0.0; tokens * narrow];
    let dq_target = Target::new(&mut dq, tokens, wide, wide);
    let dk_target = Target::new(&mut dk, tokens, narrow, narrow);
    let dv_target = Target::new(&mut dv, tokens, narrow, narrow);
    let view = HeadViews { q: &saved.q, k: &saved.k, v: values.slice(), plan };
    plan.tasks().into_par_iter().for_each(|(tree, kv_head)| {
        let (mut weights, mut score_grads) = (Vec::new(), Vec::new());
        for &s in tree {
            for (first, rows) in AttentionPlan::tiles(&plan.segments[s]) {
                let ranges = Ranges::new(plan, s, first, first + rows);
                let start = plan.segments[s].start + first;
                let width = ranges.len();
                for head in kv_head * shared..(kv_head + 1) * shared {
                    let queries = view.query(&saved.q, start, rows, head);
                    let output_grad = view.query(grad, start, rows, head);
                    weights.resize(rows * width, 0.0);
                    score_grads.resize(rows * width, 0.0);
                    view.scores(&mut weights, &ranges, start, rows, head, scale);
                    for (run, column) in ranges.runs() {
                        if run.is_empty() {
                            continue;
                        }
                        let target = Target::new(&mut score_grads, rows, width, width).part(
                            0,
                            rows,
                            column,
                            run.len(),
                        );
                        // SAFETY: `score_grads` is this task's own.
                        unsafe {
                            product(
                                target,
                                Write::Replace,
                                1.0,
                                output_grad,
                                view.value(run, kv_head).t(),
                                false,
                            )
                        };
                    }
                    for row in 0..rows {
                        let token = start + row;
                        let columns = token * wide + head * dim..token * wide + (head + 1) * dim;
                        let end = width - rows + row + 1;
                        let line = row * width..(row + 1) * width;
                        row_gradient(
                            &mut weights[line.clone()],
                            &mut score_grads[line],
                            (first_seen(end, plan.window), end),
                            saved.log_sums[token * query + head],
                            (&grad[columns.clone()], &output[columns]),
                        );
                    }
                    let mut write = Write::Replace;
                    for (run, column) in ranges.runs() {
                        if run.is_empty() {
                            continue;
                        }
                        let weights = View::new(&weights[column..], rows, run.len(), width);
                        let score_grads = View::new(&score_grads[column..], rows, run.len(), width);
                        let keys = view.key(run.clone(), kv_head);
                        let part = |target: Target| target.part(run.start, run.len(), kv_head * dim, dim);
                        // SAFETY: one task owns its heads' columns in the rows of its tree, and all of `run` is in the tree.
                        unsafe {
                            let dq = dq_target.part(start, rows, head * dim, dim);
                            product(dq, write, scale, score_grads, keys, false);
                            product(part(dk_target), Write::Add, scale, score_grads.t(), queries, false);
                            product(part(dv_target), Write::Add, 1.0, weights.t(), output_grad, false);
                        }
                        write = Write::Add;
                    }
                }
            }
        }
    });
    plan.rotate(&mut dq, query, -1.0);
    plan.rotate(&mut dk, key_value, -1.0);
    [tensor(dq, [tokens, wide]), tensor(dk, [tokens, narrow]), tensor(dv, [tokens, narrow])]
}

simd::multiversion! {
    /// One row: scores to weights P, and dP to dS; what the row does not see becomes 0 in both.
    fn row_gradient(
        weights: &mut [f32],
        score_grads: &mut [f32],
        seen: (usize, usize),
        log_sum: f32,
        grads: (&[f32], &[f32]),
    ) {
        let along = simd::dot(grads.0, grads.1); // D
        let (first, end) = seen;
        weights[..first].fill(0.0);
        score_grads[..first].fill(0.0);
        weights[end..].fill(0.0);
        score_grads[end..].fill(0.0);
        for (w, g) in weights[first..end].iter_mut().zip(&mut score_grads[first..end]) {
            *w = simd::exp(*w - log_sum);
            *g = *w * (*g - along);
        }
    }
}

/// Views of single heads.
struct HeadViews<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    plan: &'a AttentionPlan,
}

impl HeadViews<'_> {
    /// One head of `rows` tokens of a tensor that is as wide as the queries.
    fn query<'b>(&self, x: &'b [f32], start: usize, rows: usize, head: usize) -> View<'b> {
        let Heads { query, dim, .. } = self.plan.heads;
        View::new(&x[(start * query + head) * dim..], rows, dim, query * dim)
    }

    fn key(&self, run: std::ops::Range<usize>, kv_head: usize) -> View<'_> {
        self.of(self.k, run, kv_head)
    }

    fn value(&self, run: std::ops::Range<usize>, kv_head: usize) -> View<'_> {
        self.of(self.v, run, kv_head)
    }

    fn of<'b>(&self, x: &'b [f32], run: std::ops::Range<usize>, kv_head: usize) -> View<'b> {
        let Heads { key_value, dim, .. } = self.plan.heads;
        View::new(&x[run.start * key_value * dim + kv_head * dim..], run.len(), dim, key_value * dim)
    }

    /// scores := scale Q K^T for a tile of one query head, `[rows, ranges.len()]`; what is not seen is not masked yet.
    fn scores(
        &self,
        scores: &mut [f32],
        ranges: &Ranges,
        start: usize,
        rows: usize,
        head: usize,
        scale: f32,
    ) {
        let Heads { query, key_value, .. } = self.plan.heads;
        let queries = self.query(self.q, start, rows, head);
        let width = ranges.len();
        for (run, column) in ranges.runs() {
            if run.is_empty() {
                continue;
            }
            let keys = self.key(run.clone(), head / (query / key_value));
            let target = Target::new(scores, rows, width, width).part(0, rows, column, run.len());
            // SAFETY: `scores` is borrowed mutably here and by nobody else.
            unsafe { product(target, Write::Replace, scale, queries, keys.t(), false) };
        }
    }
}
