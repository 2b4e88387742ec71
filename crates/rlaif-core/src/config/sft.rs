//! `[sft]`.

use super::{LoraConfig, OptimConfig, PolicyWatchConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What becomes of a row above `sft.max_length` or the model's context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LongRow {
    /// An error that names the row, before training.
    Refuse,
    /// It is left out; their number is told.
    Drop,
    /// Its end is cut off (TRL's `keep_start`); one of which nothing is left to learn is left out. Their numbers are told.
    Truncate,
}

/// `[sft]`: supervised fine-tuning on demonstrations. With it the run's baseline is not `policy.model` but what this stage makes of
/// it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftConfig {
    /// JSONL files of rows `{"prompt", "completion"}`, `{"messages": […]}` or `{"text"}`, relative to the config file. Default none:
    /// the run has no stage `sft`.
    pub data: Vec<PathBuf>,
    /// Passes over the rows. Default 3 (TRL, LLaMA-Factory).
    pub epochs: usize,
    /// Rows an optimizer step. Default 8 (TRL).
    pub batch_size: usize,
    /// Rows a forward and backward pass; gradients add up to `batch_size`. Default 4.
    pub micro_batch_size: usize,
    /// Longest row in tokens, at most the model's context. Default 1024 (TRL).
    pub max_length: usize,
    /// `refuse`, `drop` or `truncate`: what becomes of a longer row. Default `refuse` (TRL cuts its end off and says nothing).
    pub too_long: LongRow,
    /// Learn completions and assistant turns only; otherwise every token but the first. Default true (TRL: for `messages` false). Rows
    /// of `text` are always learnt whole.
    pub completion_only_loss: bool,
    /// The rows of a micro-batch go through the model as one stream, none of them seeing another; otherwise one by one. The result is
    /// the same but for rounding. Default true (TRL: off, and rows that share a stream can see each other in some attention kernels).
    pub packing: bool,
    /// α of NEFTune, Jain et al. 2023: uniform noise of α/√(L·d) on the embeddings of a row of L tokens. Default none; the paper has 5.
    pub neftune_noise_alpha: Option<f64>,
    /// Share of the prompts whose rows are held out for `eval_loss`. Default 0.1.
    pub holdout_fraction: f64,
    /// Optimizer steps between checkpoints. Default 10.
    pub save_steps: usize,
    /// Optimizer. Default learning rate 2e-5 (TRL).
    pub optim: OptimConfig,
    /// Train adapters instead of all weights. Default none: full weights.
    pub lora: Option<LoraConfig>,
    /// Default none: the policy of the last step.
    pub watch: Option<PolicyWatchConfig>,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            epochs: 3,
            batch_size: 8,
            micro_batch_size: 4,
            max_length: 1024,
            too_long: LongRow::Refuse,
            completion_only_loss: true,
            packing: true,
            neftune_noise_alpha: None,
            holdout_fraction: 0.1,
            save_steps: 10,
            optim: OptimConfig::with_learning_rate(2e-5),
            lora: None,
            watch: None,
        }
    }
}
