//! Weights that are packed once and multiplied with many times, by a decoder that only samples.
//!
//! Each step of decoding reads all weights for a handful of tokens, so what is read decides the time: bfloat16 numbers are half of it.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use crate::decoder::Decoder;
#[cfg(feature = "flex")]
use crate::kernels::{
    Contiguous,
    bf16::{Packed, product},
    matrix::View,
    swiglu,
};
#[cfg(feature = "flex")]
use crate::matmul_precision::float32_matmul_precision;
use crate::params::host_values;
#[cfg(feature = "flex")]
use crate::{architecture::Role, decoder::QueryKeyValue};
#[cfg(feature = "flex")]
use rlaif_core::config::MatmulPrecision;

/// W, `[in, out]`, as products of rounded numbers want it.
#[derive(Debug, Clone)]
pub(crate) struct PackedWeight {
    #[cfg(feature = "flex")]
    packed: Arc<Packed>,
    #[cfg(not(feature = "flex"))]
    never: Arc<std::convert::Infallible>,
}

impl PackedWeight {
    /// x W, `[N, in]` to `[N, out]`; carries no gradient.
    pub fn product(&self, x: &Tensor<2>) -> Tensor<2> {
        #[cfg(feature = "flex")]
        {
            let ([rows, inputs], device) = (x.dims(), x.device());
            let x = Contiguous::of_tensor(x);
            let y = product(View::new(x.slice(), rows, inputs, inputs), &self.packed);
            Tensor::from_data(TensorData::new(y, [rows, self.packed.columns()]), &device)
        }
        #[cfg(not(feature = "flex"))]
        match *self.never {}
    }
}

/// [`PackedWeight::product`] of several weights that share their inputs and were packed side by side.
#[derive(Debug, Clone)]
pub(crate) struct PackedTogether<const K: usize> {
    weight: PackedWeight,
    widths: [usize; K],
}

impl<const K: usize> PackedTogether<K> {
    #[cfg(feature = "flex")]
    fn new(weights: [&Tensor<2>; K]) -> Self {
        let (inputs, widths) = (weights[0].dims()[0], weights.map(|weight| weight.dims()[1]));
        let values = weights.map(|weight| host_values(weight.clone()));
        let width: usize = widths.iter().sum();
        let mut joined = Vec::with_capacity(inputs * width);
        for row in 0..inputs {
            for (values, width) in values.iter().zip(widths) {
                joined.extend_from_slice(&values[row * width..][..width]);
            }
        }
        let weight = PackedWeight { packed: Arc::new(Packed::new(View::new(&joined, inputs, width, width))) };
        Self { weight, widths }
    }

    /// x W for each of the weights, `[N, in]` to `[N, its out]`; carries no gradient.
    pub fn products(&self, x: &Tensor<2>) -> [Tensor<2>; K] {
        let (y, mut start) = (self.weight.product(x), 0);
        self.widths.map(|columns| {
            let part = y.clone().narrow(1, start, columns);
            start += columns;
            part
        })
    }
}

impl PackedTogether<2> {
    /// SwiGLU of the products with gate and up, `[N, in]` to `[N, I]`; carries no gradient.
    pub fn swiglu(&self, x: &Tensor<2>) -> Tensor<2> {
        #[cfg(feature = "flex")]
        {
            let ([rows, _], device) = (x.dims(), x.device());
            let products = host_values(self.weight.product(x)); // [N, 2 I]
            let inner = swiglu::joined(&products, rows);
            Tensor::from_data(TensorData::new(inner, [rows, self.widths[0]]), &device)
        }
        #[cfg(not(feature = "flex"))]
        match (*self.weight.never, x) {}
    }
}

impl Decoder {
    /// Packs every projection and the head, if this process rounds what it multiplies and the decoder is on the CPU. The weights stay
    /// where they are, and may not change afterwards.
    #[cfg(feature = "flex")]
    pub(crate) fn pack_weights(&mut self) {
        if float32_matmul_precision() == MatmulPrecision::Highest || !crate::device::is_flex(&self.device) {
            return;
        }
        let pack = |weight: &Tensor<2>, turned: bool| {
            let [rows, columns] = weight.dims();
            let values = host_values(weight.clone());
            let view = View::new(&values, rows, columns, columns);
            PackedWeight { packed: Arc::new(Packed::new(if turned { view.t() } else { view })) }
        };
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        self.packed_head = Some(pack(head, true));
        for layer in &mut self.layers {
            if let QueryKeyValue::Separate { query, key, value } = &layer.attention {
                layer.packed_attention =
                    Some(PackedTogether::new([&query.weight, &key.weight, &value.weight]));
            }
            layer.packed_mlp =
                layer.gate.as_ref().map(|gate| PackedTogether::new([&gate.weight, &layer.up.weight]));
            let (with_others, gated) = (layer.packed_attention.is_some(), layer.packed_mlp.is_some());
            for linear in layer.projections_mut() {
                let joined = match linear.role {
                    Role::Query | Role::Key | Role::Value => with_others,
                    Role::Gate | Role::Up => gated,
                    _ => false,
                };
                linear.packed = (!joined).then(|| pack(&linear.weight, false));
            }
        }
    }

    /// Nothing: there are no kernels for rounded numbers in this build.
    #[cfg(not(feature = "flex"))]
    pub(crate) fn pack_weights(&mut self) {}
}
