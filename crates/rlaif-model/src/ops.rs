//! The steps of a decoder layer, each by the fused kernel where there is one and by tensor operations elsewhere.

use burn::tensor::{Device, Tensor, activation};

use crate::architecture::Activation;
use crate::attention::{Heads, PortableAttention};
use crate::batch::PackedBatch;
use crate::lora::Lora;
#[cfg(feature = "flex")]
use crate::matmul_precision::float32_matmul_precision;
use crate::rope::Rope;
#[cfg(feature = "flex")]
use rlaif_core::config::MatmulPrecision;

/// x / sqrt(mean(x^2) + eps) * w, Zhang & Sennrich 2019 (<https://arxiv.org/abs/1910.07467>).
///
/// Shapes: `x`: `[N, H]`; `weight`: `[1, H]`; returns `[N, H]`.
pub(crate) fn rms_norm(x: Tensor<2>, weight: &Tensor<2>, epsilon: f64) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::device::is_flex(&x.device()) {
        return crate::kernels::rms_norm(x, weight, epsilon);
    }
    portable_rms_norm(x, weight, epsilon)
}

pub(crate) fn portable_rms_norm(x: Tensor<2>, weight: &Tensor<2>, epsilon: f64) -> Tensor<2> {
    let mean_square = x.clone().square().mean_dim(1); // [N, 1]
    x / mean_square.add_scalar(epsilon).sqrt() * weight.clone()
}

/// x W, rounded as the process was told.
///
/// Shapes: `x`: `[N, in]`; `weight`: `[in, out]`; returns `[N, out]`.
pub(crate) fn matmul(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if float32_matmul_precision() == MatmulPrecision::Medium && crate::device::is_flex(&x.device()) {
        return crate::kernels::bf16_matmul(x, weight.clone());
    }
    x.matmul(weight.clone())
}

/// x W with what the adapter adds, rounded as the process was told.
///
/// Shapes: `x`: `[N, in]`; `weight`: `[in, out]`; returns `[N, out]`.
pub(crate) fn lora_matmul(x: Tensor<2>, weight: &Tensor<2>, lora: &Lora) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if lora.dropout.is_none() && crate::device::is_flex(&x.device()) {
        let Lora { a, b, scale, .. } = lora;
        return crate::kernels::lora_matmul(x, weight, [a, b], *scale, float32_matmul_precision());
    }
    matmul(x.clone(), weight) + lora.forward(x)
}

/// (x - mean(x)) / sqrt(var(x) + eps) * w + b, Ba et al. 2016 (<https://arxiv.org/abs/1607.06450>).
///
/// Shapes: `x`: `[N, H]`; `weight`, `bias`: `[1, H]`; returns `[N, H]`.
pub(crate) fn layer_norm(x: Tensor<2>, weight: &Tensor<2>, bias: &Tensor<2>, epsilon: f64) -> Tensor<2> {
    let centered = x.clone() - x.mean_dim(1);
    let variance = centered.clone().square().mean_dim(1); // [N, 1]
    centered / variance.add_scalar(epsilon).sqrt() * weight.clone() + bias.clone()
}

/// The function inside an MLP, elementwise.
pub(crate) fn activate(x: Tensor<2>, kind: Activation) -> Tensor<2> {
    match kind {
        Activation::Silu => activation::silu(x),
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => activation::gelu_approximate(x),
        Activation::Relu => activation::relu(x),
    }
}

/// silu(gate) * up, Shazeer 2020 (<https://arxiv.org/abs/2002.05202>).
///
/// Shapes: all `[N, I]`.
pub(crate) fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::device::is_flex(&gate.device()) {
        return crate::kernels::swiglu(gate, up);
    }
    portable_swiglu(gate, up)
}

/// [`swiglu`] times W, rounded as the process was told.
///
/// Shapes: `gate`, `up`: `[N, I]`; `weight`: `[I, out]`; returns `[N, out]`.
pub(crate) fn swiglu_matmul(gate: Tensor<2>, up: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if crate::device::is_flex(&gate.device()) {
        return crate::kernels::swiglu_matmul(gate, up, weight, float32_matmul_precision());
    }
    matmul(portable_swiglu(gate, up), weight)
}

pub(crate) fn portable_swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    activation::silu(gate) * up
}

/// Causal attention over one packed batch, planned once for all layers.
pub(crate) enum Attention {
    #[cfg(feature = "flex")]
    Fused(std::sync::Arc<crate::kernels::attention::AttentionPlan>),
    Portable(PortableAttention),
}

impl Attention {
    pub fn new(
        batch: &PackedBatch,
        heads: Heads,
        rope: &Rope,
        window: Option<usize>,
        device: &Device,
    ) -> Self {
        #[cfg(feature = "flex")]
        if crate::device::is_flex(device) {
            let plan = crate::kernels::attention::AttentionPlan::new(batch, heads, rope, window);
            return Self::Fused(std::sync::Arc::new(plan));
        }
        Self::Portable(PortableAttention::new(batch, heads, rope, window, device))
    }

    /// See [`PortableAttention::forward`].
    pub fn forward(&self, q: Tensor<2>, k: Tensor<2>, v: Tensor<2>) -> Tensor<2> {
        match self {
            #[cfg(feature = "flex")]
            Self::Fused(plan) => crate::kernels::packed_attention(q, k, v, plan),
            Self::Portable(attention) => attention.forward(q, k, v),
        }
    }
}
