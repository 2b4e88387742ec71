//! `[reward]` and `[dpo]`: the trainers that learn from preferences.

use super::{DpoLossKind, LoraConfig, OptimConfig, PolicyWatchConfig, RewardWatchConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What `reward.batch_size` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchBy {
    /// Pairs, each of which counts the same (TRL).
    Pairs,
    /// Prompts with all their pairs, over which a prompt's loss is a mean (Ouyang et al. 2022, section 3.5).
    Prompts,
}

/// `[reward]`: Bradley-Terry reward model on the policy's trunk with a scalar head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// JSONL files of preferences to train on, beside the run's own where `run.stages` has `label`; relative to the config file. Rows:
    /// `prompt`, `chosen`, `rejected`, and optionally `p`, `margin`, `weight`, `source`. Default none.
    pub data: Vec<PathBuf>,
    /// Train on revised over original answers of the stage `revise` too. Default false.
    pub revisions: bool,
    /// Passes over the preferences. Default 2 (Lee et al. 2023: 2 to 3).
    pub epochs: usize,
    /// Pairs, or prompts, an optimizer step. Default 16.
    pub batch_size: usize,
    /// What `batch_size` counts: `pairs`, or `prompts` with all their pairs in one step. Default `pairs`.
    pub batch_by: BatchBy,
    /// Pairs a forward and backward pass; gradients add up to `batch_size`. Default 4.
    pub micro_batch_size: usize,
    /// Use p as it is; otherwise it is rounded to 1. Default true.
    pub soft_labels: bool,
    /// Share ε of labels taken to be flipped: p becomes p(1 − ε) + (1 − p)ε. Default 0.
    pub label_smoothing: f64,
    /// c · mean((r_c + r_r)²) keeps rewards around 0; 0 is off. Default 0.01 (TRL: off, 0.01 advised).
    pub center_rewards_coefficient: f64,
    /// Share of the pairs whose chosen response, cut off at a random token, becomes one more pair that the whole one wins. Default 0.
    pub truncated_negatives: f64,
    /// Scalar heads on the one trunk, each of which learns from a half of the pairs of its own: the reward is their mean, the
    /// uncertainty their standard deviation. Default 1.
    pub heads: usize,
    /// Reward models of this recipe, each with a seed of its own: the reward is their mean, the uncertainty their standard deviation.
    /// Default 1.
    pub members: usize,
    /// Share of the prompts whose pairs are held out for accuracy and calibration. Default 0.2.
    pub holdout_fraction: f64,
    /// Optimizer steps between checkpoints. Default 10.
    pub save_steps: usize,
    /// Optimizer. Default learning rate 1e-5 (Lee et al. 2023).
    pub optim: OptimConfig,
    /// Train adapters instead of all weights. Default none: full weights.
    pub lora: Option<LoraConfig>,
    /// Default none: the model of the last step.
    pub watch: Option<RewardWatchConfig>,
}

impl Default for RewardConfig {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            revisions: false,
            epochs: 2,
            batch_size: 16,
            batch_by: BatchBy::Pairs,
            micro_batch_size: 4,
            soft_labels: true,
            label_smoothing: 0.0,
            center_rewards_coefficient: 0.01,
            truncated_negatives: 0.0,
            heads: 1,
            members: 1,
            holdout_fraction: 0.2,
            save_steps: 10,
            optim: OptimConfig::with_learning_rate(1e-5),
            lora: None,
            watch: None,
        }
    }
}

/// `[dpo]`: direct preference optimisation, Rafailov et al. 2023, and its relatives, on soft or hard labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DpoConfig {
    /// JSONL files of preferences to train on, beside the run's own where `run.stages` has `label`; relative to the config file. Rows:
    /// `prompt`, `chosen`, `rejected`, and optionally `p`, `weight`, `source` (`margin` is for the reward model); or, for `kto` and
    /// `apo_zero_unpaired`, single responses: `prompt`, `completion`, `label`, and optionally `source`. Default none.
    pub data: Vec<PathBuf>,
    /// Train on revised over original answers of the stage `revise` too. Default false.
    pub revisions: bool,
    /// What is minimised. Default `sigmoid`: with soft labels, their cross-entropy.
    pub loss: DpoLossKind,
    /// Strength of the leash to the reference; ORPO's weight of the odds ratio. Default by the loss, see [`Self::beta()`].
    pub beta: Option<f64>,
    /// `cdpo`, `robust`, `exo_pair`, `aot`, `aot_unpaired`: share of labels taken to be flipped. Default by the loss, see
    /// [`Self::label_smoothing()`].
    pub label_smoothing: Option<f64>,
    /// `simpo`: the reward, β times the mean log-prob, by which chosen is to beat rejected. Default 0.5 (TRL, LLaMA-Factory).
    pub simpo_gamma: f64,
    /// `kto`, `apo_zero_unpaired`: weight of chosen, or desirable, responses. Default 1 (TRL).
    pub desirable_weight: f64,
    /// `kto`, `apo_zero_unpaired`: weight of rejected, or undesirable, responses. Default 1 (TRL).
    pub undesirable_weight: f64,
    /// `discopop`: how sharply it changes from the logistic to the exponential loss. Default 0.05 (TRL).
    pub discopop_tau: f64,
    /// Passes over the preferences. Default 2.
    pub epochs: usize,
    /// Pairs an optimizer step. Default 8.
    pub batch_size: usize,
    /// Pairs a forward and backward pass. Default 4.
    pub micro_batch_size: usize,
    /// Use p as it is: the loss is p times that of the label plus 1 − p times that of its opposite. Otherwise p is rounded.
    /// Default true.
    pub soft_labels: bool,
    /// Share of the prompts whose pairs are held out. Default 0.2.
    pub holdout_fraction: f64,
    /// Optimizer steps between checkpoints. Default 10.
    pub save_steps: usize,
    /// Optimizer. Default learning rate 1e-6 (TRL).
    pub optim: OptimConfig,
    /// Train adapters instead of all weights. Default none: full weights.
    pub lora: Option<LoraConfig>,
    /// Default none: the policy of the last step.
    pub watch: Option<PolicyWatchConfig>,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            revisions: false,
            loss: DpoLossKind::Sigmoid,
            beta: None,
            label_smoothing: None,
            simpo_gamma: 0.5,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            discopop_tau: 0.05,
            epochs: 2,
            batch_size: 8,
            micro_batch_size: 4,
            soft_labels: true,
            holdout_fraction: 0.2,
            save_steps: 10,
            optim: OptimConfig::with_learning_rate(1e-6),
            lora: None,
            watch: None,
        }
    }
}

impl DpoConfig {
    /// `beta`, or the loss's own: 2.0 for `simpo` (Meng et al. 2024: 2.0 to 2.5; TRL and LLaMA-Factory: 0.1), otherwise 0.1 (TRL).
    pub fn beta(&self) -> f64 {
        self.beta.unwrap_or(if self.loss == DpoLossKind::Simpo { 2.0 } else { 0.1 })
    }

    /// `label_smoothing`, or the loss's own: 0.1 for `cdpo` and `robust`, 0.001 for `exo_pair` (as their authors advise; TRL: 0),
    /// otherwise 0.
    pub fn label_smoothing(&self) -> f64 {
        self.label_smoothing.unwrap_or(match self.loss {
            DpoLossKind::Cdpo | DpoLossKind::Robust => 0.1,
            DpoLossKind::ExoPair => 1e-3,
            _ => 0.0,
        })
    }
}
