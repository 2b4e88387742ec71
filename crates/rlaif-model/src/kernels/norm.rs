//! RMSNorm: y = x r w, r = 1 / sqrt(mean(x^2) + eps).
//!
//! With g = dy w: dx = r g - x r^3 mean(g x), dw = sum over rows of dy x r.

use std::mem::MaybeUninit;

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::matrix::Unwritten;
use super::{Contiguous, dims, tensor};
use crate::simd;

/// Rows that one task takes: enough work to be worth a task.
const ROWS: usize = 16;

/// Returns y and r, `[N]`.
pub(crate) fn forward(x: &FlexTensor, weight: &FlexTensor, epsilon: f32) -> (FlexTensor, Vec<f32>) {
    let [rows, width] = dims(x);
    let (x, weight) = (Contiguous::of(x), Contiguous::of(weight));
    assert_eq!(weight.slice().len(), width, "a weight a column");
    let mut y = Unwritten::new(rows * width);
    let mut inverse = vec![0.0; rows];
    y.slice()
        .par_chunks_mut(ROWS * width)
        .zip(x.slice().par_chunks(ROWS * width))
        .zip(inverse.par_chunks_mut(ROWS))
        .for_each(|((y, x), inverse)| {
            for ((y, x), inverse) in y.chunks_mut(width).zip(x.chunks(width)).zip(inverse) {
                *inverse = normalize(y, x, weight.slice(), epsilon);
            }
        });
    // SAFETY: each row was written.
    (tensor(unsafe { y.written() }, [rows, width]), inverse)
}

simd::multiversion! {
    fn normalize(y: &mut [MaybeUninit<f32>], x: &[f32], weight: &[f32], epsilon: f32) -> f32 {
        let inverse = 1.0 / (simd::dot(x, x) / x.len() as f32 + epsilon).sqrt();
        for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
            y.write(x * inverse * w);
        }
        inverse
    }
}

/// dx, `[N, H]`.
pub(crate) fn input_gradient(
    grad: &FlexTensor,
    x: &FlexTensor,
    weight: &FlexTensor,
    inverse: &[f32],
) -> FlexTensor {
    let [rows, width] = dims(x);
    let (grad, x, weight) = (Contiguous::of(grad), Contiguous::of(x), Contiguous::of(weight));
    assert_eq!((grad.slice().len(), weight.slice().len()), (rows * width, width), "shapes of a norm");
    let mut dx = Unwritten::new(rows * width);
    dx.slice()
        .par_chunks_mut(ROWS * width)
        .zip(grad.slice().par_chunks(ROWS * width))
        .zip(x.slice().par_chunks(ROWS * width))
        .zip(inverse.par_chunks(ROWS))
        .for_each(|(((dx, grad), x), inverse)| {
            let rows = dx.chunks_mut(width).zip(grad.chunks(width)).zip(x.chunks(width)).zip(inverse);
            for (((dx, grad), x), &r) in rows {
                input_row(dx, grad, x, weight.slice(), r);
            }
        });
    // SAFETY: each row was written.
    tensor(unsafe { dx.written() }, [rows, width])
}

simd::multiversion! {
    fn input_row(dx: &mut [MaybeUninit<f32>], grad: &[f32], x: &[f32], weight: &[f32], r: f32) {
        let mean = simd::sum_lanes([grad, weight, x], |[g, w, x]| g * w * x) / x.len() as f32;
        let along = r * r * r * mean;
        for (((dx, x), g), w) in dx.iter_mut().zip(x).zip(grad).zip(weight) {
            dx.write(r * g * w - along * x);
        }
    }
}

/// dw, `[1, H]`, summed in row order so that runs repeat.
pub(crate) fn weight_gradient(grad: &FlexTensor, x: &FlexTensor, inverse: &[f32]) -> FlexTensor {
    let [_, width] = dims(x);
    let (grad, x) = (Contiguous::of(grad), Contiguous::of(x));
    let mut dw = vec![0.0; width];
    for ((grad, x), &r) in grad.slice().chunks(width).zip(x.slice().chunks(width)).zip(inverse) {
        add_row(&mut dw, grad, x, r);
    }
    tensor(dw, [1, width])
}

simd::multiversion! {
    fn add_row(dw: &mut [f32], grad: &[f32], x: &[f32], r: f32) {
        for ((dw, g), x) in dw.iter_mut().zip(grad).zip(x) {
            *dw += g * x * r;
        }
    }
}
