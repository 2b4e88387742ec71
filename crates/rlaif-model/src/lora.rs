//! Low-rank adapters, Hu et al. 2021 (<https://arxiv.org/abs/2106.09685>): `y = x W + (alpha / rank) (x A) B`.
//!
//! `A` starts uniform as in PEFT (Kaiming, a = sqrt 5: bound `1 / sqrt(in)`), `B` at zero, so a fresh adapter changes nothing.

use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rlaif_core::config::LoraConfig;

/// Projections of a Llama layer that an adapter can attach to; in other families they stand for what does the same.
pub const PROJECTIONS: [&str; 7] =
    ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// The adapter of one projection.
#[derive(Debug, Clone)]
pub struct Lora {
    /// `[in, rank]`
    pub a: Tensor<2>,
    /// `[rank, out]`
    pub b: Tensor<2>,
    /// `alpha / rank`
    pub scale: f64,
}

impl Lora {
    /// A fresh adapter; `stream` numbers the projection, so that each draws its own numbers from the seed.
    pub fn new(
        inputs: usize,
        outputs: usize,
        config: &LoraConfig,
        seed: u64,
        stream: u64,
        device: &Device,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let bound = 1.0 / (inputs as f32).sqrt();
        let a: Vec<f32> = (0..inputs * config.rank).map(|_| rng.random_range(-bound..bound)).collect();
        Self {
            a: Tensor::from_data(TensorData::new(a, [inputs, config.rank]), device),
            b: Tensor::zeros([config.rank, outputs], device),
            scale: config.alpha / config.rank as f64,
        }
    }

    /// What the adapter adds to the projection of `x`: `[N, in]` to `[N, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.a.clone()).matmul(self.b.clone()).mul_scalar(self.scale)
    }

    /// What merging adds to the weight, `[in, out]`.
    pub fn delta(&self) -> Tensor<2> {
        self.a.clone().inner().matmul(self.b.clone().inner()).mul_scalar(self.scale)
    }
}
