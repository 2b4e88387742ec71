//! x W, and the gradients of both for the gradient d of the product: exact, or of factors that are rounded to bfloat16.

use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use rlaif_core::config::MatmulPrecision;

use super::bf16;

/// x W for `[N, in]` and `[in, out]`.
pub(crate) fn forward(x: &FlexTensor, weight: &FlexTensor, precision: MatmulPrecision) -> FlexTensor {
    match precision {
        MatmulPrecision::Medium => bf16::forward(x, weight),
        MatmulPrecision::Highest => Flex::float_matmul(x.clone(), weight.clone()),
    }
}

/// d Wᵀ, `[N, in]`.
pub(crate) fn input_gradient(
    grad: &FlexTensor,
    weight: &FlexTensor,
    precision: MatmulPrecision,
) -> FlexTensor {
    match precision {
        MatmulPrecision::Medium => bf16::input_gradient(grad, weight),
        MatmulPrecision::Highest => Flex::float_matmul(grad.clone(), Flex::float_transpose(weight.clone())),
    }
}

/// xᵀ d, `[in, out]`.
pub(crate) fn weight_gradient(grad: &FlexTensor, x: &FlexTensor, precision: MatmulPrecision) -> FlexTensor {
    match precision {
        MatmulPrecision::Medium => bf16::weight_gradient(grad, x),
        MatmulPrecision::Highest => Flex::float_matmul(Flex::float_transpose(x.clone()), grad.clone()),
    }
}
