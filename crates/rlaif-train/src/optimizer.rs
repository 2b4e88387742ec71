//! AdamW, Loshchilov & Hutter 2019 (<https://arxiv.org/abs/1711.05101>), with the semantics of `torch.optim.AdamW`; and what
//! chooses between it and [`Adafactor`].
//!
//! Moments live in host memory and the update is one pass over plain slices: on CPU that reads and writes each number once,
//! and on a GPU it leaves the device's memory to activations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rayon::prelude::*;
use rlaif_core::config::{OptimConfig, OptimizerKind};

use crate::adafactor::{Adafactor, Factors};
use crate::checkpoint::{Checkpoint, Snapshot};
use crate::error::{Result, TrainError};

/// Numbers updated by one task; a fixed size, so that sums have one order whatever the number of threads.
pub(crate) const CHUNK: usize = 1 << 16;

/// A parameter's name and the two halves of its state.
type Pair = (String, Vec<f32>, Vec<f32>);

/// The optimizer that a config asks for.
#[derive(Debug, Clone)]
pub enum Optimizer {
    /// Two moments a number.
    AdamW(AdamW),
    /// A moment a row and a column.
    Adafactor(Adafactor),
}

impl Optimizer {
    /// No steps taken.
    pub fn new(config: &OptimConfig) -> Self {
        match config.optimizer {
            OptimizerKind::AdamW => Self::AdamW(AdamW::new(config)),
            OptimizerKind::Adafactor => Self::Adafactor(Adafactor::new(config)),
        }
    }

    /// Updates done.
    pub fn step(&self) -> u64 {
        match self {
            Self::AdamW(adamw) => adamw.step,
            Self::Adafactor(adafactor) => adafactor.step,
        }
    }

    /// Counts the update that comes now.
    pub fn begin_step(&mut self) {
        self.set_step(self.step() + 1);
    }

    fn set_step(&mut self, step: u64) {
        match self {
            Self::AdamW(adamw) => adamw.step = step,
            Self::Adafactor(adafactor) => adafactor.step = step,
        }
    }

    /// Updates one parameter of `columns` columns in place, after [`begin_step`](Self::begin_step).
    pub fn update(
        &mut self,
        name: &str,
        parameter: &mut [f32],
        columns: usize,
        gradient: &[f32],
        gradient_scale: f64,
        learning_rate: f64,
    ) {
        match self {
            Self::AdamW(adamw) => adamw.update(name, parameter, gradient, gradient_scale, learning_rate),
            Self::Adafactor(adafactor) => {
                adafactor.update(name, parameter, columns, gradient, gradient_scale, learning_rate);
            }
        }
    }

    /// Adds the state to a snapshot, under `prefix`.
    pub fn write_to<'a>(&'a self, prefix: &str, snapshot: &mut Snapshot<'a>) {
        let mut put = |kind: &str, name: &str, values: &'a [f32]| {
            snapshot.tensor(format!("{prefix}/{kind}/{name}"), Cow::Borrowed(values));
        };
        match self {
            Self::AdamW(adamw) => {
                for (name, moments) in &adamw.moments {
                    put("exp_avg", name, &moments.exp_avg);
                    put("exp_avg_sq", name, &moments.exp_avg_sq);
                }
            }
            Self::Adafactor(adafactor) => {
                for (name, factors) in &adafactor.factors {
                    put("exp_avg_sq_row", name, &factors.row);
                    put("exp_avg_sq_col", name, &factors.column);
                }
            }
        }
        snapshot.numbers(format!("{prefix}/optimizer_step"), vec![self.step() as f64]);
    }

    /// Takes over what [`write_to`](Self::write_to) wrote.
    ///
    /// # Errors
    /// If something is missing.
    pub fn read_from(&mut self, prefix: &str, checkpoint: &mut Checkpoint) -> Result<()> {
        let path = checkpoint.path.clone();
        let mut pairs = |first: &str, second: &str| -> Result<Vec<Pair>> {
            let mut seconds = checkpoint.take_tensors(&format!("{prefix}/{second}/"));
            let firsts = checkpoint.take_tensors(&format!("{prefix}/{first}/"));
            let pair = |(name, first): (String, Vec<f32>)| match seconds.remove(&name) {
                Some(second) => Ok((name, first, second)),
                None => Err(TrainError::Checkpoint {
                    path: path.clone(),
                    reason: format!("`{name}` has only one of its two moments"),
                }),
            };
            firsts.into_iter().map(pair).collect()
        };
        match self {
            Self::AdamW(adamw) => {
                let moments = pairs("exp_avg", "exp_avg_sq")?.into_iter();
                adamw.moments = moments
                    .map(|(name, exp_avg, exp_avg_sq)| (name, Moments { exp_avg, exp_avg_sq }))
                    .collect();
            }
            Self::Adafactor(adafactor) => {
                let factors = pairs("exp_avg_sq_row", "exp_avg_sq_col")?.into_iter();
                adafactor.factors =
                    factors.map(|(name, row, column)| (name, Factors { row, column })).collect();
            }
        }
        self.set_step(checkpoint.number(&format!("{prefix}/optimizer_step"))? as u64);
        Ok(())
    }
}

/// First and second moment of one parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Decaying mean of the gradient.
    pub exp_avg: Vec<f32>,
    /// Decaying mean of its square.
    pub exp_avg_sq: Vec<f32>,
}

/// The optimizer's state: steps taken and two moments for each parameter that has had a gradient.
#[derive(Debug, Clone)]
pub struct AdamW {
    config: OptimConfig,
    /// Updates done.
    pub step: u64,
    /// By parameter name.
    pub moments: BTreeMap<String, Moments>,
}

impl AdamW {
    /// No steps taken.
    pub fn new(config: &OptimConfig) -> Self {
        Self { config: config.clone(), step: 0, moments: BTreeMap::new() }
    }

    /// Updates one parameter in place; `self.step` must already count this update.
    ///
    /// θ −= lr · weight_decay · θ
    /// m = β₁ m + (1 − β₁) g;  v = β₂ v + (1 − β₂) g²
    /// θ −= lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
    ///
    /// `gradient_scale` multiplies the gradient first: that is how clipping reaches it without another pass.
    pub fn update(
        &mut self,
        name: &str,
        parameter: &mut [f32],
        gradient: &[f32],
        gradient_scale: f64,
        learning_rate: f64,
    ) {
        let (beta1, beta2) = (self.config.adam_beta1, self.config.adam_beta2);
        let steps = self.step as i32;
        let step_size = (learning_rate / (1.0 - beta1.powi(steps))) as f32;
        let root_correction = (1.0 - beta2.powi(steps)).sqrt() as f32;
        let decay = if decays(name) { (1.0 - learning_rate * self.config.weight_decay) as f32 } else { 1.0 };
        let (epsilon, scale) = (self.config.adam_epsilon as f32, gradient_scale as f32);
        let (beta1, beta2) = (beta1 as f32, beta2 as f32);
        let size = parameter.len();
        let moments = self
            .moments
            .entry(name.to_string())
            .or_insert_with(|| Moments { exp_avg: vec![0.0; size], exp_avg_sq: vec![0.0; size] });

        parameter
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(moments.exp_avg.par_chunks_mut(CHUNK))
            .zip(moments.exp_avg_sq.par_chunks_mut(CHUNK))
            .for_each(|(((parameter, gradient), exp_avg), exp_avg_sq)| {
                let rows = parameter.iter_mut().zip(gradient).zip(exp_avg).zip(exp_avg_sq);
                for (((theta, g), m), v) in rows {
                    let g = g * scale;
                    *m += (1.0 - beta1) * (g - *m);
                    *v = beta2 * *v + (1.0 - beta2) * g * g;
                    *theta = *theta * decay - step_size * *m / (v.sqrt() / root_correction + epsilon);
                }
            });
    }
}

/// Σ x², summed in a fixed order.
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let parts: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| chunk.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>())
        .collect();
    parts.iter().sum()
}

/// What gradients are multiplied by so that their norm is at most `max_norm`, as `torch.nn.utils.clip_grad_norm_`; 0 is off.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

/// Weight decay is for matrices; norms (`input_layernorm`, GPT-2's `ln_1`) and biases are left alone, as in transformers.
pub(crate) fn decays(name: &str) -> bool {
    !name.contains("norm") && !name.contains(".ln_") && !name.ends_with(".bias")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scalar AdamW in f64, written from torch's documentation, to compare with.
    fn reference(mut theta: f64, gradients: &[f64], lr: f64, decay: f64) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for (i, g) in gradients.iter().enumerate() {
            let t = i as i32 + 1;
            theta *= 1.0 - lr * decay;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m_hat, v_hat): (f64, f64) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            theta -= lr * m_hat / (v_hat.sqrt() + 1e-8);
        }
        theta
    }

    #[test]
    fn follows_torch_and_spares_norms_from_decay() {
        let config = OptimConfig { weight_decay: 0.1, ..OptimConfig::default() };
        let gradients = [0.3f64, -1.2, 0.05, 2.0];
        for (name, decay) in [
            ("mlp.up_proj.weight", 0.1),
            ("input_layernorm.weight", 0.0),
            ("transformer.h.0.ln_1.weight", 0.0),
            ("q_proj.bias", 0.0),
        ] {
            let mut optimizer = AdamW::new(&config);
            let mut theta = [0.7f32];
            for g in gradients {
                optimizer.step += 1;
                optimizer.update(name, &mut theta, &[2.0 * g as f32], 0.5, 0.01);
            }
            let want = reference(0.7, &gradients, 0.01, decay);
            assert!((f64::from(theta[0]) - want).abs() < 1e-6, "{name}: got {}, want {want}", theta[0]);
        }
    }

    #[test]
    fn clipping_only_shrinks() {
        assert!((clip_factor(4.0, 1.0) - 0.25).abs() < 1e-6);
        assert_eq!((clip_factor(0.5, 1.0), clip_factor(9.0, 0.0)), (1.0, 1.0));
        assert_eq!(sum_of_squares(&vec![2.0; CHUNK + 3]), 4.0 * (CHUNK + 3) as f64);
    }
}
