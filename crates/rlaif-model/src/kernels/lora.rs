//! A projection with its low-rank adapter: y = x W + h B with h = s x A.
//!
//! For the gradient d of y, with e = s d Bᵀ: dx = d Wᵀ + e Aᵀ, dA = xᵀ e, dB = hᵀ d, and dW = xᵀ d where W learns too. What the
//! adapter adds is added where the projection lies, so that no second `[N, out]` is ever written.

use burn::backend::flex::FlexTensor;
use rlaif_core::config::MatmulPrecision;

use super::matrix::View;
use super::right::Right;
use super::{Contiguous, dims, tensor};

/// The factors of one projection, `[in, out]`, `[in, r]`, `[r, out]`.
#[derive(Debug, Clone)]
pub(crate) struct Factors {
    pub weight: FlexTensor,
    pub a: FlexTensor,
    pub b: FlexTensor,
    pub scale: f32,
    pub precision: MatmulPrecision,
}

/// Returns y, `[N, out]`, and h, `[N, r]`.
pub(crate) fn forward(x: &FlexTensor, factors: &Factors) -> (FlexTensor, FlexTensor) {
    let Factors { weight, a, b, scale, precision } = factors;
    let [x, weight, a, b] = [x, weight, a, b].map(Matrix::of);
    let h = scaled(Right::of(a.view(), *precision).product(x.view()), *scale);
    let h = tensor(h, [x.rows(), a.columns()]);
    let mut y = Right::of(weight.view(), *precision).product(x.view());
    Right::of(b.view(), *precision).add_product(&mut y, Matrix::of(&h).view());
    (tensor(y, [x.rows(), weight.columns()]), h)
}

/// e, `[N, r]`.
pub(crate) fn inner_gradient(grad: &FlexTensor, factors: &Factors) -> FlexTensor {
    let [grad, b] = [grad, &factors.b].map(Matrix::of);
    let e = Right::of(b.view().t(), factors.precision).product(grad.view());
    tensor(scaled(e, factors.scale), [grad.rows(), b.rows()])
}

/// dx, `[N, in]`.
pub(crate) fn input_gradient(grad: &FlexTensor, inner: &FlexTensor, factors: &Factors) -> FlexTensor {
    let [grad, inner, weight, a] = [grad, inner, &factors.weight, &factors.a].map(Matrix::of);
    let mut dx = Right::of(weight.view().t(), factors.precision).product(grad.view());
    Right::of(a.view().t(), factors.precision).add_product(&mut dx, inner.view());
    tensor(dx, [grad.rows(), weight.rows()])
}

fn scaled(mut x: Vec<f32>, scale: f32) -> Vec<f32> {
    x.iter_mut().for_each(|x| *x *= scale);
    x
}

/// A tensor as a matrix.
struct Matrix {
    numbers: Contiguous,
    shape: [usize; 2],
}

impl Matrix {
    fn of(tensor: &FlexTensor) -> Self {
        Self { numbers: Contiguous::of(tensor), shape: dims(tensor) }
    }

    fn view(&self) -> View<'_> {
        View::new(self.numbers.slice(), self.rows(), self.columns(), self.columns())
    }

    fn rows(&self) -> usize {
        self.shape[0]
    }

    fn columns(&self) -> usize {
        self.shape[1]
    }
}
