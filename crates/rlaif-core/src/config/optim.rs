//! Optimizer, schedule and LoRA: tables shared by every trainer's section.

use serde::{Deserialize, Serialize};

/// How the learning rate moves after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Stays.
    Constant,
    /// Falls to 0 in a straight line, as transformers' default.
    Linear,
    /// Falls to 0 along half a cosine.
    Cosine,
}

/// What turns gradients into updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Loshchilov & Hutter 2019: two moments a weight.
    #[default]
    AdamW,
    /// Shazeer & Stern 2018, as `transformers.Adafactor` with a given learning rate: a moment a row and a column of a matrix.
    Adafactor,
}

/// What the weights are that a model computes with while it learns, in transformers' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// What the optimizer updates.
    #[default]
    Float32,
    /// What the optimizer updates, rounded to nearest even after each step.
    Bfloat16,
}

/// The optimizer and its learning rate: AdamW (Loshchilov & Hutter 2019) with decoupled weight decay, as `torch.optim.AdamW`, or
/// Adafactor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimConfig {
    /// `adamw`, or `adafactor`, which needs almost no memory and has no use for the betas and epsilon. Default `adamw`.
    pub optimizer: OptimizerKind,
    /// `float32`, or `bfloat16`: the weights that the model computes with, frozen ones and the reference included, are bfloat16, and the
    /// optimizer updates float32 copies of those that train. Default `float32` (transformers: the file's own; TRL trains without copies
    /// then).
    pub dtype: Dtype,
    /// Peak learning rate. Each trainer has its own default.
    pub learning_rate: f64,
    /// First moment's decay. Default 0.9.
    pub adam_beta1: f64,
    /// Second moment's decay. Default 0.999.
    pub adam_beta2: f64,
    /// Added to the root of the second moment. Default 1e-8.
    pub adam_epsilon: f64,
    /// Decoupled weight decay; norms, biases are left alone, as in transformers. Default 0.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0 is off. Default 1.0.
    pub max_grad_norm: f64,
    /// Compute each block again in the backward pass instead of keeping its activations: the same gradients with much less memory, in
    /// about a third more time. Default false.
    pub gradient_checkpointing: bool,
    /// Default `linear`.
    pub schedule: Schedule,
    /// Share of the peak that `linear` and `cosine` end at instead of 0. Default 0 (OpenRLHF: 0.1).
    pub min_lr_ratio: f64,
    /// Share of the steps over which the rate rises from 0. Default 0.1 (transformers: 0).
    pub warmup_ratio: f64,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            optimizer: OptimizerKind::AdamW,
            dtype: Dtype::Float32,
            learning_rate: 1e-5,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            gradient_checkpointing: false,
            schedule: Schedule::Linear,
            min_lr_ratio: 0.0,
            warmup_ratio: 0.1,
        }
    }
}

impl OptimConfig {
    /// The defaults with another learning rate.
    pub fn with_learning_rate(learning_rate: f64) -> Self {
        Self { learning_rate, ..Self::default() }
    }
}

/// Low-rank adapters, Hu et al. 2021: W + (alpha / rank)·B·A. Names and meanings are PEFT's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the update. Default 16.
    pub rank: usize,
    /// Scale is alpha / rank. Default 32.
    pub alpha: f64,
    /// Scale is alpha / √rank instead (rank-stabilised, Kalajdzievski 2023). Default false.
    pub use_rslora: bool,
    /// Share of an adapter's inputs that are dropped while it learns; none are while it samples, scores or is evaluated. Default 0.
    pub dropout: f64,
    /// Which projections, by their Hugging Face names. Default all seven of Llama's, which in models with other names stand for
    /// what does the same: `q_proj` is GPT-2's `c_attn`.
    pub targets: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 32.0,
            use_rslora: false,
            dropout: 0.0,
            targets: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
                .map(String::from)
                .to_vec(),
        }
    }
}
