//! `[evaluate]`.

use super::JudgeConfig;
use serde::{Deserialize, Serialize};

/// `[evaluate]`: tuned policies against the baseline, on prompts that no stage trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateConfig {
    /// Responses a prompt and policy. Default 2.
    pub samples_per_prompt: usize,
    /// Sampling temperature. Default 1.0: the distribution that was trained.
    pub temperature: f64,
    /// Longest response. Default: `generate.max_new_tokens`.
    pub max_new_tokens: Option<usize>,
    /// Judges of the comparison. Default: those of `[label]`; better one that training never used.
    pub judges: Option<Vec<JudgeConfig>>,
    /// Also compare with the sentiment lexicon VADER, which is no judge and no model. Default false.
    pub sentiment: bool,
    /// Resamples of the bootstrap over prompts. Default 2000.
    pub bootstrap: usize,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self {
            samples_per_prompt: 2,
            temperature: 1.0,
            max_new_tokens: None,
            judges: None,
            sentiment: false,
            bootstrap: 2000,
        }
    }
}
