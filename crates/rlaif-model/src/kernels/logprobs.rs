//! log softmax(h W^T / temperature) at the targets, without ever holding more than [`ROWS`] rows of logits.
//!
//! The forward pass keeps one number per read, the log of the normaliser; the backward pass computes the logits again:
//! d logits = (onehot(target) - softmax) dy / temperature, dh = d logits W, dW = d logits^T h.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::matrix::{View, Write};
use super::right::Right;
use super::{Contiguous, dims, tensor};
use crate::simd;
use rlaif_core::config::MatmulPrecision;

/// Rows of logits that exist at once. 192 rows of 49k logits are 38 MB, and the product is still near its full speed.
const ROWS: usize = 192;

/// Where and what to read; see [`crate::Reads`].
#[derive(Debug)]
pub struct ReadPlan {
    pub(crate) indices: Vec<usize>,
    pub(crate) targets: Vec<u32>,
    pub(crate) temperature: f32,
    pub(crate) with_statistics: bool,
    pub(crate) precision: MatmulPrecision,
}

/// Returns `[3, R]` (log-probabilities; entropies and whether the target is the likeliest token, or zeros) and the log normalisers,
/// `[R]`.
pub(crate) fn forward(hidden: &FlexTensor, head: &FlexTensor, plan: &ReadPlan) -> (FlexTensor, Vec<f32>) {
    let reads = plan.indices.len();
    let [vocabulary, _] = dims(head);
    let mut output = vec![0.0; 3 * reads];
    let mut log_sums = vec![0.0; reads];
    let (logprobs, statistics) = output.split_at_mut(reads);
    let (entropies, tops) = statistics.split_at_mut(reads);
    let factor = 1.0 / plan.temperature;
    for_each_chunk(hidden, head, plan, |start, _, logits| {
        let rows = logits.len() / vocabulary;
        let range = start..start + rows;
        logits
            .par_chunks(vocabulary)
            .zip(&plan.targets[range.clone()])
            .zip(&mut logprobs[range.clone()])
            .zip(&mut entropies[range.clone()])
            .zip(&mut tops[range.clone()])
            .zip(&mut log_sums[range])
            .for_each(|(((((logits, &target), logprob), entropy), top), log_sum)| {
                *log_sum = simd::log_sum_exp(logits, factor);
                *logprob = logits[target as usize] * factor - *log_sum;
                if plan.with_statistics {
                    *entropy = *log_sum - mean_logit(logits, factor, *log_sum);
                    let likeliest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    *top = f32::from(logits[target as usize] >= likeliest);
                }
            });
    });
    (tensor(output, [3, reads]), log_sums)
}

simd::multiversion! {
    /// sum_i p_i l_i with l = factor * logits, so that the entropy is log_sum minus this.
    fn mean_logit(logits: &[f32], factor: f32, log_sum: f32) -> f32 {
        simd::sum_lanes([logits], |[logit]| {
            let l = logit * factor;
            simd::exp(l - log_sum) * l
        })
    }
}

/// Returns dh, `[N, H]`, and dW, `[V, H]`, if it is wanted.
pub(crate) fn backward(
    grad: &FlexTensor,
    hidden: &FlexTensor,
    head: &FlexTensor,
    log_sums: &[f32],
    plan: &ReadPlan,
    want_head: bool,
) -> (FlexTensor, Option<FlexTensor>) {
    let [tokens, width] = dims(hidden);
    let [vocabulary, _] = dims(head);
    let grad = Contiguous::of(grad);
    let weights = Contiguous::of(head);
    let weights = Right::of(View::new(weights.slice(), vocabulary, width, width), plan.precision);
    let factor = 1.0 / plan.temperature;
    let mut hidden_grad = vec![0.0; tokens * width];
    let mut head_grad = if want_head { vec![0.0; vocabulary * width] } else { Vec::new() };
    for_each_chunk(hidden, head, plan, |start, read, logits| {
        let rows = logits.len() / vocabulary;
        logits
            .par_chunks_mut(vocabulary)
            .zip(&plan.targets[start..start + rows])
            .zip(&log_sums[start..start + rows])
            .zip(&grad.slice()[start..start + rows])
            .for_each(|(((logits, &target), &log_sum), &dy)| {
                logit_gradient(logits, factor, log_sum, -dy * factor);
                logits[target as usize] += dy * factor;
            });
        let logits = View::new(logits, rows, vocabulary, vocabulary);
        let rows_grad = weights.product(logits);
        if want_head {
            let read = Right::of(View::new(read, rows, width, width), plan.precision);
            read.add_product(&mut head_grad, logits.t());
        }
        for (row, &index) in rows_grad.chunks(width).zip(&plan.indices[start..start + rows]) {
            simd::add_scaled(&mut hidden_grad[index * width..][..width], 1.0, row);
        }
    });
    let head_grad = want_head.then(|| tensor(head_grad, [vocabulary, width]));
    (tensor(hidden_grad, [tokens, width]), head_grad)
}

simd::multiversion! {
    /// logits := scale * softmax
    fn logit_gradient(logits: &mut [f32], factor: f32, log_sum: f32, scale: f32) {
        for l in logits {
            *l = scale * simd::exp(*l * factor - log_sum);
        }
    }
}

/// Calls `visit(first read, hidden rows [rows, H], logits [rows, V])` for each chunk of reads.
fn for_each_chunk(
    hidden: &FlexTensor,
    head: &FlexTensor,
    plan: &ReadPlan,
    mut visit: impl FnMut(usize, &[f32], &mut [f32]),
) {
    let [_, width] = dims(hidden);
    let [vocabulary, _] = dims(head);
    let (hidden, head) = (Contiguous::of(hidden), Contiguous::of(head));
    let head = Right::of(View::new(head.slice(), vocabulary, width, width).t(), plan.precision);
    let most = ROWS.min(plan.indices.len());
    let mut read = vec![0.0; most * width];
    let mut logits = vec![0.0; most * vocabulary];
    for (chunk, indices) in plan.indices.chunks(ROWS).enumerate() {
        let rows = indices.len();
        for (row, &index) in read.chunks_mut(width).zip(indices) {
            row.copy_from_slice(&hidden.slice()[index * width..][..width]);
        }
        let (read, logits) = (&read[..rows * width], &mut logits[..rows * vocabulary]);
        head.write_product(logits, Write::Replace, View::new(read, rows, width, width));
        visit(chunk * ROWS, read, logits);
    }
}
