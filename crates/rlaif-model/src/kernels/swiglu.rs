//! SwiGLU: y = g s u with s = sigmoid(g). Then dg = dy u s (1 + g (1 - s)), du = dy g s.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;
use rlaif_core::config::MatmulPrecision;

use super::matrix::Unwritten;
use super::{Contiguous, dims, matmul, tensor};
use crate::simd;

/// Numbers that one task takes.
const PART: usize = 1 << 14;

/// `[N, I]` and `[N, I]` to `[N, I]`.
pub(crate) fn forward(gate: &FlexTensor, up: &FlexTensor) -> FlexTensor {
    let shape = dims(gate);
    assert_eq!(dims(up), shape, "gate and up are of one shape");
    let (gate, up) = (Contiguous::of(gate), Contiguous::of(up));
    let mut y = Unwritten::new(shape[0] * shape[1]);
    y.slice()
        .par_chunks_mut(PART)
        .zip(gate.slice().par_chunks(PART).zip(up.slice().par_chunks(PART)))
        .for_each(|(y, (gate, up))| forward_part(y, gate, up));
    // SAFETY: each part was written, and there are as many of each.
    tensor(unsafe { y.written() }, shape)
}

/// Of gate and up side by side, `[rows, 2 I]` to `[rows, I]`.
pub(crate) fn joined(gate_up: &[f32], rows: usize) -> Vec<f32> {
    let width = gate_up.len() / rows / 2;
    assert_eq!(gate_up.len(), 2 * rows * width, "rows of gate and up");
    let mut y = Unwritten::new(rows * width);
    y.slice().par_chunks_mut(width).zip(gate_up.par_chunks(2 * width)).for_each(|(y, gate_up)| {
        let (gate, up) = gate_up.split_at(width);
        forward_part(y, gate, up);
    });
    // SAFETY: each row was written.
    unsafe { y.written() }
}

simd::multiversion! {
    fn forward_part(y: &mut [MaybeUninit<f32>], gate: &[f32], up: &[f32]) {
        let len = y.len();
        let (gate, up) = (&gate[..len], &up[..len]);
        for i in 0..len {
            y[i].write(gate[i] / (1.0 + simd::exp(-gate[i])) * up[i]);
        }
    }
}

/// `[dg, du]`.
pub(crate) fn backward(grad: &FlexTensor, gate: &FlexTensor, up: &FlexTensor) -> [FlexTensor; 2] {
    let shape = dims(gate);
    assert_eq!([dims(grad), dims(up)], [shape; 2], "gate, up and the gradient are of one shape");
    let (grad, gate, up) = (Contiguous::of(grad), Contiguous::of(gate), Contiguous::of(up));
    let [mut dg, mut du] = [(); 2].map(|()| Unwritten::new(shape[0] * shape[1]));
    dg.slice()
        .par_chunks_mut(PART)
        .zip(du.slice().par_chunks_mut(PART))
        .zip(grad.slice().par_chunks(PART))
        .zip(gate.slice().par_chunks(PART).zip(up.slice().par_chunks(PART)))
        .for_each(|(((dg, du), grad), (gate, up))| backward_part(dg, du, grad, gate, up));
    // SAFETY: each part was written, and there are as many of each.
    [dg, du].map(|slopes| tensor(unsafe { slopes.written() }, shape))
}

simd::multiversion! {
    fn backward_part(dg: &mut [MaybeUninit<f32>], du: &mut [MaybeUninit<f32>], grad: &[f32], gate: &[f32], up: &[f32]) {
        let len = dg.len();
        let (du, grad, gate, up) = (&mut du[..len], &grad[..len], &gate[..len], &up[..len]);
        for i in 0..len {
            let (d, g, u) = (grad[i], gate[i], up[i]);
            let s = 1.0 / (1.0 + simd::exp(-g));
            dg[i].write(d * u * s * (1.0 + g * (1.0 - s)));
            du[i].write(d * g * s);
        }
    }
}

/// y W, `[N, out]`.
pub(crate) fn product(
    gate: &FlexTensor,
    up: &FlexTensor,
    weight: &FlexTensor,
    precision: MatmulPrecision,
) -> FlexTensor {
    matmul::forward(&forward(gate, up), weight, precision)
}

/// yᵀ d of what [`product`] multiplied with, `[I, out]`, for the gradient d of its result.
pub(crate) fn weight_gradient(
    grad: &FlexTensor,
    gate: &FlexTensor,
    up: &FlexTensor,
    precision: MatmulPrecision,
) -> FlexTensor {
    matmul::weight_gradient(grad, &forward(gate, up), precision)
}

/// `[dg, du]` of [`product`].
pub(crate) fn input_gradients(
    grad: &FlexTensor,
    gate: &FlexTensor,
    up: &FlexTensor,
    weight: &FlexTensor,
    precision: MatmulPrecision,
) -> [FlexTensor; 2] {
    backward(&matmul::input_gradient(grad, weight, precision), gate, up)
}
