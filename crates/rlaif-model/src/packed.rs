//! Weights that are packed once and multiplied with many times, by a decoder that only samples.
//!
//! Each step of decoding reads all weights for a handful of tokens, so what is read decides the time: bfloat16 numbers are half of it.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use crate::decoder::{Decoder, Layer};
#[cfg(feature = "flex")]
use crate::kernels::{
    bf16::{Packed, product},
    matrix::View,
};
#[cfg(feature = "flex")]
use crate::matmul_precision::float32_matmul_precision;
use crate::params::host_values;
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
            let values = host_values(x.clone());
            let y = product(View::new(&values, rows, inputs, inputs), &self.packed);
            Tensor::from_data(TensorData::new(y, [rows, self.packed.columns()]), &device)
        }
        #[cfg(not(feature = "flex"))]
        match *self.never {}
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
        for linear in self.layers.iter_mut().flat_map(Layer::projections_mut) {
            linear.packed = Some(pack(&linear.weight, false));
        }
    }

    /// Nothing: there are no kernels for rounded numbers in this build.
    #[cfg(not(feature = "flex"))]
    pub(crate) fn pack_weights(&mut self) {}
}
