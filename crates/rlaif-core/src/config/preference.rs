//! `[reward]` and `[dpo]`: the trainers that learn from preferences.

use super::{LoraConfig, OptimConfig};
use serde::{Deserialize, Serialize};

/// `[reward]`: Bradley-Terry reward model on the policy's trunk with a scalar head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// Passes over the preferences. Default 2 (Lee et al. 2023: 2 to 3).
    pub epochs: usize,
    /// Pairs an optimizer step. Default 16.
    pub batch_size: usize,
    /// Pairs a forward and backward pass; gradients add up to `batch_size`. Default 4.
    pub micro_batch_size: usize,
    /// Use p as it is; otherwise it is rounded to 1. Default true.
    pub soft_labels: bool,
    /// c · mean((r_c + r_r)²) keeps rewards around 0; 0 is off. Default 0.01 (TRL: off, 0.01 advised).
    pub center_rewards_coefficient: f64,
    /// Share of the prompts whose pairs are held out for accuracy and calibration. Default 0.2.
    pub holdout_fraction: f64,
    /// Optimizer steps between checkpoints. Default 10.
    pub save_steps: usize,
    /// Optimizer. Default learning rate 1e-5 (Lee et al. 2023).
    pub optim: OptimConfig,
    /// Train adapters instead of all weights. Default none: full weights.
    pub lora: Option<LoraConfig>,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            epochs: 2,
            batch_size: 16,
            micro_batch_size: 4,
            soft_labels: true,
            center_rewards_coefficient: 0.01,
            holdout_fraction: 0.2,
            save_steps: 10,
            optim: OptimConfig::with_learning_rate(1e-5),
            lora: None,
        }
    }
}

/// `[dpo]`: direct preference optimisation, Rafailov et al. 2023, on soft or hard labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DpoConfig {
    /// Strength of the leash to the reference. Default 0.1.
    pub beta: f64,
    /// Passes over the preferences. Default 2.
    pub epochs: usize,
    /// Pairs an optimizer step. Default 8.
    pub batch_size: usize,
    /// Pairs a forward and backward pass. Default 4.
    pub micro_batch_size: usize,
    /// Use p as it is (−p·log σ(βΔ) − (1−p)·log σ(−βΔ)); otherwise it is rounded to 1. Default true.
    pub soft_labels: bool,
    /// Share of the prompts whose pairs are held out. Default 0.2.
    pub holdout_fraction: f64,
    /// Optimizer steps between checkpoints. Default 10.
    pub save_steps: usize,
    /// Optimizer. Default learning rate 1e-6 (TRL).
    pub optim: OptimConfig,
    /// Train adapters instead of all weights. Default none: full weights.
    pub lora: Option<LoraConfig>,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self {
            beta: 0.1,
            epochs: 2,
            batch_size: 8,
            micro_batch_size: 4,
            soft_labels: true,
            holdout_fraction: 0.2,
            save_steps: 10,
            optim: OptimConfig::with_learning_rate(1e-6),
            lora: None,
        }
    }
}
