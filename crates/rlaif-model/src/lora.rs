//! Low-rank adapters, Hu et al. 2021 (<https://arxiv.org/abs/2106.09685>): `y = x W + scale (x A) B`.
//!
//! The scale is `alpha / rank`, or with `use_rslora` `alpha / sqrt(rank)` (Kalajdzievski 2023,
//! <https://arxiv.org/abs/2312.03732>), which keeps the size of what an adapter adds whatever its rank. `A` starts uniform as in PEFT
//! (Kaiming, a = sqrt 5: bound `1 / sqrt(in)`), `B` at zero, so a fresh adapter changes nothing. Dropout, where a forward pass has
//! any ([`crate::Decoder::with_dropout`]), is on what the adapter reads, as PEFT's.

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
    /// Of what is added.
    pub scale: f64,
    /// Masks of this forward pass.
    pub dropout: Option<Dropout>,
}

/// Masks on what one adapter reads.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Share of the numbers that become 0; the others are divided by `1 - rate`.
    pub rate: f64,
    /// Of the forward pass.
    pub seed: u64,
    /// Of the projection.
    pub stream: u64,
}

impl Dropout {
    /// The mask of `[rows, columns]` numbers.
    fn mask(&self, shape: [usize; 2], device: &Device) -> Tensor<2> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.stream);
        let kept = (1.0 / (1.0 - self.rate)) as f32;
        let rate = self.rate as f32;
        let mask: Vec<f32> =
            (0..shape[0] * shape[1]).map(|_| if rng.random::<f32>() < rate { 0.0 } else { kept }).collect();
        Tensor::from_data(TensorData::new(mask, shape), device)
    }
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
            scale: match config.use_rslora {
                true => config.alpha / (config.rank as f64).sqrt(),
                false => config.alpha / config.rank as f64,
            },
            dropout: None,
        }
    }

    /// What the adapter adds to the projection of `x`: `[N, in]` to `[N, out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = match &self.dropout {
            None => x,
            Some(dropout) => {
                let mask = dropout.mask(x.dims(), &x.device().inner());
                x * mask
            }
        };
        x.matmul(self.a.clone()).matmul(self.b.clone()).mul_scalar(self.scale)
    }

    /// What merging adds to the weight, `[in, out]`.
    pub fn delta(&self) -> Tensor<2> {
        self.a.clone().inner().matmul(self.b.clone().inner()).mul_scalar(self.scale)
    }
}
