//! Models whose weights are bfloat16 numbers, as training with `optim.dtype = "bfloat16"` has them.

use burn::tensor::{Tensor, TensorData};
use half::bf16;
use rayon::prelude::*;

use crate::decoder::Decoder;
use crate::heads::ScalarHead;
use crate::params::{host_values, restored};

/// Numbers rounded by one task.
const CHUNK: usize = 1 << 16;

/// The nearest bfloat16 numbers, ties to even.
pub fn rounded_to_bfloat16(values: &[f32]) -> Vec<f32> {
    values.par_iter().with_min_len(CHUNK).map(|&value| bf16::from_f32(value).to_f32()).collect()
}

impl Decoder {
    /// Rounds every weight, trainable or not, to the nearest bfloat16 number. Weights that are such numbers already stay shared with
    /// the decoders that they are shared with.
    pub fn round_to_bfloat16(&mut self) {
        let trainable = self.trainable();
        self.walk(&mut |_, slot, tensor| tensor.inplace(|weight| rounded(weight, trainable.covers(slot))));
    }
}

impl ScalarHead {
    /// Rounds the weight to the nearest bfloat16 numbers.
    pub fn round_to_bfloat16(&mut self) {
        self.map_parameter(|_, weight| rounded(weight, false));
    }
}

fn rounded(weight: Tensor<2>, trainable: bool) -> Tensor<2> {
    let (shape, device) = (weight.dims(), weight.device().inner());
    let values = host_values(weight.clone());
    let nearest = rounded_to_bfloat16(&values);
    if nearest == values {
        return weight;
    }
    restored(Tensor::from_data(TensorData::new(nearest, shape), &device), trainable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between 1 and 2 bfloat16 numbers are 2^-7 apart.
    #[test]
    fn rounds_to_nearest_and_ties_to_even() {
        let unit = 2f32.powi(-7);
        let values = [1.0 + 0.5 * unit, 1.0 + 1.5 * unit, 1.0 + 0.51 * unit, -1.0 - 1.49 * unit, 0.0, 3e-40];
        let want = [1.0, 1.0 + 2.0 * unit, 1.0 + unit, -1.0 - unit, 0.0, bf16::from_f32(3e-40).to_f32()];
        assert_eq!(rounded_to_bfloat16(&values), want);
        assert_eq!(rounded_to_bfloat16(&want), want);
    }
}
