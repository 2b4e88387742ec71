//! The steps of a decoder layer, each by the fused kernel where there is one and by tensor operations elsewhere.

use burn::tensor::{Device, Tensor, activation::silu};

use crate::attention::{Heads, PortableAttention};
use crate::batch::PackedBatch;
use crate::rope::Rope;

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

pub(crate) fn portable_swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    silu(gate) * up
}

/// Causal attention over one packed batch, planned once for all layers.
pub(crate) enum Attention {
    #[cfg(feature = "flex")]
    Fused(std::sync::Arc<crate::kernels::attention::AttentionPlan>),
    Portable(PortableAttention),
}

impl Attention {
    pub fn new(batch: &PackedBatch, heads: Heads, rope: &Rope, device: &Device) -> Self {
        #[cfg(feature = "flex")]
        if crate::device::is_flex(device) {
            let plan = crate::kernels::attention::AttentionPlan::new(batch, heads, rope);
            return Self::Fused(std::sync::Arc::new(plan));
        }
        Self::Portable(PortableAttention::new(batch, heads, rope, device))
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
