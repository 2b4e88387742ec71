//! SwiGLU: y = g s u with s = sigmoid(g). Then dg = dy u s (1 + g (1 - s)), du = dy g s.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::{Contiguous, dims, tensor};
use crate::simd;

/// Numbers that one task takes.
const PART: usize = 1 << 14;

/// `[N, I]` and `[N, I]` to `[N, I]`.
pub(crate) fn forward(gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
    let shape = dims(gate);
    let (gate, up) = (Contiguous::of(gate), Contiguous::of(up));
    let mut y = vec![0.0; shape[0] * shape[1]];
    y.par_chunks_mut(PART)
        .zip(gate.slice().par_chunks(PART).zip(up.slice().par_chunks(PART)))
        .for_each(|(y, (gate, up))| forward_part(y, gate, up));
    tensor(y, shape)
}

simd::multiversion! {
    fn forward_part(y: &mut [f32], gate: &[f32], up: &[f32]) {
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = g / (1.0 + simd::exp(-g)) * u;
        }
    }
}

/// `[dg, du]`.
pub(crate) fn backward(grad: &FlexTensor, gate: &FlexTensor, up: &FlexTensor) -> [FlexTensor; 2] {
    let shape = dims(gate);
    let (grad, gate, up) = (Contiguous::of(grad), Contiguous::of(gate), Contiguous::of(up));
    let mut dg = vec![0.0; shape[0] * shape[1]];
    let mut du = vec![0.0; shape[0] * shape[1]];
    dg.par_chunks_mut(PART)
        .zip(du.par_chunks_mut(PART))
        .zip(grad.slice().par_chunks(PART))
        .zip(gate.slice().par_chunks(PART).zip(up.slice().par_chunks(PART)))
        .for_each(|(((dg, du), grad), (gate, up))| backward_part(dg, du, grad, gate, up));
    [tensor(dg, shape), tensor(du, shape)]
}

simd::multiversion! {
    fn backward_part(dg: &mut [f32], du: &mut [f32], grad: &[f32], gate: &[f32], up: &[f32]) {
        let len = dg.len();
        let (du, grad, gate, up) = (&mut du[..len], &grad[..len], &gate[..len], &up[..len]);
        for i in 0..len {
            let (d, g, u) = (grad[i], gate[i], up[i]);
            let s = 1.0 / (1.0 + simd::exp(-g));
            dg[i] = d * u * s * (1.0 + g * (1.0 - s));
            du[i] = d * g * s;
        }
    }
}
