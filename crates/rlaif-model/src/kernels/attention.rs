//! Causal attention over a packed batch without padding, after FlashAttention (Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>): scores exist for one tile of queries at a time, the forward pass keeps the log of each
//! row's normaliser, and the backward pass computes the scores again.
//!
//! A task is one key-value head of one branch (a prompt with its responses, or a sequence alone): all it adds to is its own. Where
//! prompts have a beginning in common, that is a branch too; what others find for its keys and values is summed up afterwards.
//! With P = softmax(S), S = scale Q K^T, O = P V, and D_i = dO_i . O_i:
//! dV = P^T dO, dP = dO V^T, dS = P (dP - D), dQ = scale dS K, dK = scale dS^T Q.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::matrix::{Target, Unwritten, View, Write, product};
use super::{Contiguous, dims, tensor};
use crate::attention::{Heads, first_seen};
use crate::batch::{PackedBatch, Segment, ancestors};
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
    ancestors: Vec<Vec<usize>>, // of each segment, the first of its sequence first
    branches: Vec<Vec<usize>>,  // segments of each
    branch_of: Vec<usize>,
    window: Option<usize>,
    pairs: usize,
    cos: Vec<f32>, // [N, pairs]
    sin: Vec<f32>,
}

impl AttentionPlan {
    /// Finds the branches of `batch` and the rotation of each token.
    pub fn new(batch: &PackedBatch, heads: Heads, rope: &Rope, window: Option<usize>) -> Self {
        let segments = batch.segments().to_vec();
        let ancestors: Vec<Vec<usize>> = (0..segments.len()).map(|s| ancestors(&segments, s)).collect();
        let mut has_grandchildren = vec![false; segments.len()];
        for (_, earlier) in ancestors.iter().filter_map(|above| above.split_last()) {
            earlier.iter().for_each(|&grandparent| has_grandchildren[grandparent] = true);
        }
        let mut branches: Vec<Vec<usize>> = Vec::new();
        let mut branch_of = vec![0; segments.len()];
        for (s, segment) in segments.iter().enumerate() {
            match segment.parent.filter(|&parent| !has_grandchildren[parent]) {
                None => {
                    branch_of[s] = branches.len();
                    branches.push(vec![s]);
                }
                Some(parent) => {
                    branch_of[s] = branch_of[parent];
                    branches[branch_of[parent]].push(s);
                }
            }
        }
        let (cos, sin) = rope.tables(batch.positions());
        Self { heads, segments, ancestors, branches, branch_of, window, pairs: rope.pairs(), cos, sin }
    }

    /// One task for each branch and key-value head, the largest branches first so that none is left over at the end.
    fn tasks(&self) -> Vec<(&[usize], usize)> {
        let mut branches: Vec<&[usize]> = self.branches.iter().map(Vec::as_slice).collect();
        let size = |branch: &[usize]| branch.iter().map(|&s| self.segments[s].len).sum::<usize>();
        branches.sort_by_key(|branch| std::cmp::Reverse(size(branch)));
        branches.iter().flat_map(|branch| (0..self.heads.key_value).map(|head| (*branch, head))).collect()
    }

    /// A copy in which every head of every token is rotated.
    fn rotated(&self, x: &[f32], heads: usize) -> Vec<f32> {
        let mut turned = Unwritten::new(x.len());
        let part = ROTATED * heads * self.heads.dim;
        turned.slice().par_chunks_mut(part).zip(x.par_chunks(part)).enumerate().for_each(
            |(number, (turned, x))| {
                let turned = turned.write_copy_of_slice(x);
                for (token, turned) in turned.chunks_mut(heads * self.heads.dim).enumerate() {
                    let (cos, sin) = self.rotation(number * ROTATED + token);
                    turned.chunks_mut(self.heads.dim).for_each(|head| rotate_slice(head, cos, sin));
                }
            },
        );
        // SAFETY: all of x was copied.
        unsafe { turned.written() }
    }

    /// Turns every head of every token back.
    fn turn_back(&self, x: &mut [f32], heads: usize) {
        let width = heads * self.heads.dim;
        x.par_chunks_mut(width).with_min_len(ROTATED).enumerate().for_each(|(token, x)| {
            let (cos, sin) = self.rotation(token);
            let back: Vec<f32> = sin.iter().map(|s| -s).collect();
            x.chunks_mut(self.heads.dim).for_each(|head| rotate_slice(head, cos, &back));
        });
    }

    /// Cosines and sines of a token's position, `[pairs]` each.
    fn rotation(&self, token: usize) -> (&[f32], &[f32]) {
        let pairs = token * self.pairs..(token + 1) * self.pairs;
        (&self.cos[pairs.clone()], &self.sin[pairs])
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

/// Keys or values that one tile sees: of what stands before its segment, and of its own up to the tile's end; with a window, from
/// the first that the tile's first query sees.
struct Seen {
    runs: Vec<Run>,
    len: usize,
}

/// Tokens of one segment.
struct Run {
    segment: usize,
    tokens: std::ops::Range<usize>,
    /// Where in the score matrix they begin.
    column: usize,
}

impl Seen {
    fn new(plan: &AttentionPlan, s: usize, first: usize, end: usize) -> Self {
        let before: usize = plan.ancestors[s].iter().map(|&ancestor| plan.segments[ancestor].len).sum();
        let mut unseen = first_seen(before + first + 1, plan.window);
        let mut seen = Self { runs: Vec::new(), len: 0 };
        for &segment in plan.ancestors[s].iter().chain([&s]) {
            let Segment { start, len, .. } = plan.segments[segment];
            let len = if segment == s { end } else { len };
            let skipped = unseen.min(len);
            unseen -= skipped;
            if skipped < len {
                let tokens = start + skipped..start + len;
                seen.runs.push(Run { segment, tokens: tokens.clone(), column: seen.len });
                seen.len += tokens.len();
            }
        }
        seen
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
    assert_eq!((wide, shared * key_value), (query * dim, query), "every query head has its key-value head");
    let q = plan.rotated(Contiguous::of(q).slice(), query);
    let k = plan.rotated(Contiguous::of(k).slice(), key_value);
    let values = Contiguous::of(v);
    let scale = scale as f32;

    let mut output = Unwritten::new(tokens * wide);
    let mut log_sums = vec![0.0; tokens * query];
    let output_target = output.target(tokens, wide);
    let sums_target = Target::new(&mut log_sums, tokens, query, query);
    let view = HeadViews { q: &q, k: &k, v: values.slice(), plan };
    plan.tasks().into_par_iter().for_each(|(branch, kv_head)| {
        let mut scores = Vec::new();
        for &s in branch {
            for (first, rows) in AttentionPlan::tiles(&plan.segments[s]) {
                let seen = Seen::new(plan, s, first, first + rows);
                let start = plan.segments[s].start + first;
                let width = seen.len;
                for head in kv_head * shared..(kv_head + 1) * shared {
                    scores.resize(rows * width, 0.0);
                    view.scores(&mut scores, &seen, start, rows, head, scale);
                    for (row, scores) in scores.chunks_mut(width).enumerate() {
                        let (scores, later) = scores.split_at_mut(width - rows + row + 1);
                        let (earlier, scores) = scores.split_at_mut(first_seen(scores.len(), plan.window));
                        earlier.fill(0.0);
                        later.fill(0.0);
                        let log_sum = simd::softmax(scores);
                        // SAFETY: one task owns the columns of its query heads in the rows of its branch.
                        unsafe { sums_target.part(start + row, 1, head, 1).row(0)[0] = log_sum };
                    }
                    let out = output_target.part(start, rows, head * dim, dim);
                    let mut write = Write::Replace;
                    for run in &seen.runs {
                        let weights = View::new(&scores[run.column..], rows, run.tokens.len(), width);
                        // SAFETY: as above.
                        unsafe { product(out, write, 1.0, weights, view.value(run, kv_head), false) };
                        write = Write::Add;
                    }
                }
            }
        }
    });
    // SAFETY: a token is in one branch, a head belongs to one key-value head, and each sees at least itself.
    let output = tensor(unsafe { output.written() }, [tokens, wide]);
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

    let mut dq = Unwritten::new(tokens * wide);
    let mut dk = vec![0.0; tokens * narrow];
    let mut dv = vec![0.0; tokens * narrow];
    let dq_target = dq.target(tokens, wide);
    let dk_target = Target::new(&mut dk, tokens, narrow, narrow);
    let dv_target = Target::new(&mut dv, tokens, narrow, narrow);
    let view = HeadViews { q: &saved.q, k: &saved.k, v: values.slice(), plan };
    let of_beginnings = plan.tasks().into_par_iter().map(|(branch, kv_head)| {
        let (mut weights, mut score_grads) = (Vec::new(), Vec::new());
        let mut beginnings: Vec<OfBeginning> = Vec::new();
        for &s in branch {
            for (first, rows) in AttentionPlan::tiles(&plan.segments[s]) {
                let seen = Seen::new(plan, s, first, first + rows);
                let start = plan.segments[s].start + first;
                let width = seen.len;
                for head in kv_head * shared..(kv_head + 1) * shared {
                    let queries = view.query(&saved.q, start, rows, head);
                    let output_grad = view.query(grad, start, rows, head);
                    weights.resize(rows * width, 0.0);
                    score_grads.resize(rows * width, 0.0);
                    view.scores(&mut weights, &seen, start, rows, head, scale);
                    for run in &seen.runs {
                        let target = Target::new(&mut score_grads, rows, width, width).part(
                            0,
                            rows,
                            run.column,
                            run.tokens.len(),
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
                    for run in &seen.runs {
                        let Run { segment, tokens, column } = run;
                        let weights = View::new(&weights[*column..], rows, tokens.len(), width);
                        let score_grads = View::new(&score_grads[*column..], rows, tokens.len(), width);
                        let [dk, dv] = if plan.branch_of[*segment] == plan.branch_of[s] {
                            [dk_target, dv_target]
                                .map(|all| all.part(tokens.start, tokens.len(), kv_head * dim, dim))
                        } else {
                            let Segment { start, len, .. } = plan.segments[*segment];
                            let found = OfBeginning::find(&mut beginnings, *segment, kv_head, len * dim);
                            [&mut found.dk, &mut found.dv].map(|all| {
                                Target::new(all, len, dim, dim).part(
                                    tokens.start - start,
                                    tokens.len(),
                                    0,
                                    dim,
                                )
                            })
                        };
                        // SAFETY: one task owns its heads' columns in the rows of its branch, and `beginnings`.
                        unsafe {
                            let dq = dq_target.part(start, rows, head * dim, dim);
                            product(dq, write, scale, score_grads, view.key(run, kv_head), false);
                            product(dk, Write::Add, scale, score_grads.t(), queries, false);
                            product(dv, Write::Add, 1.0, weights.t(), output_grad, false);
                        }
                        write = Write::Add;
                    }
                }
            }
        }
        beginnings
    });
    // Summed in one order, so that runs repeat.
    for OfBeginning { segment, kv_head, dk: dk_part, dv: dv_part } in
        of_beginnings.collect::<Vec<_>>().into_iter().flatten()
    {
        let first = plan.segments[segment].start;
        for (all, part) in [(&mut dk, dk_part), (&mut dv, dv_part)] {
            for (token, part) in part.chunks(dim).enumerate() {
                simd::add_scaled(&mut all[(first + token) * narrow + kv_head * dim..][..dim], 1.0, part);
            }
        }
    }
    // SAFETY: as of the output.
    let mut dq = unsafe { dq.written() };
    plan.turn_back(&mut dq, query);
    plan.turn_back(&mut dk, key_value);
    [tensor(dq, [tokens, wide]), tensor(dk, [tokens, narrow]), tensor(dv, [tokens, narrow])]
}

/// What a branch finds for the keys and values of a segment that other branches see too, `[len, dim]` each.
struct OfBeginning {
    segment: usize,
    kv_head: usize,
    dk: Vec<f32>,
    dv: Vec<f32>,
}

impl OfBeginning {
    /// That of this segment, of zeros if there is none yet.
    fn find(found: &mut Vec<Self>, segment: usize, kv_head: usize, size: usize) -> &mut Self {
        let place = found.iter().position(|known| known.segment == segment).unwrap_or_else(|| {
            found.push(Self { segment, kv_head, dk: vec![0.0; size], dv: vec![0.0; size] });
            found.len() - 1
        });
        &mut found[place]
    }
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

    fn key(&self, run: &Run, kv_head: usize) -> View<'_> {
        self.of(self.k, run, kv_head)
    }

    fn value(&self, run: &Run, kv_head: usize) -> View<'_> {
        self.of(self.v, run, kv_head)
    }

    fn of<'b>(&self, x: &'b [f32], Run { tokens, .. }: &Run, kv_head: usize) -> View<'b> {
        let Heads { key_value, dim, .. } = self.plan.heads;
        View::new(&x[(tokens.start * key_value + kv_head) * dim..], tokens.len(), dim, key_value * dim)
    }

    /// scores := scale Q K^T for a tile of one query head, `[rows, seen.len]`; what is not seen is not masked yet.
    fn scores(&self, scores: &mut [f32], seen: &Seen, start: usize, rows: usize, head: usize, scale: f32) {
        let Heads { query, key_value, .. } = self.plan.heads;
        let queries = self.query(self.q, start, rows, head);
        let width = seen.len;
        for run in &seen.runs {
            let keys = self.key(run, head / (query / key_value));
            let target = Target::new(scores, rows, width, width).part(0, rows, run.column, run.tokens.len());
            // SAFETY: `scores` is borrowed mutably here and by nobody else.
            unsafe { product(target, Write::Replace, scale, queries, keys.t(), false) };
        }
    }
}
