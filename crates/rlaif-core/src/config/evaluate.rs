//! `[evaluate]` and `[[evaluate.models]]`.

use super::JudgeConfig;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Whom policies are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Against {
    /// The baseline.
    Baseline,
    /// Every other policy, the baseline among them: of n policies n·(n − 1)/2 comparisons a sample.
    All,
}

/// `[[evaluate.models]]`: a model that this run did not make, evaluated next to those that it did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluatedModel {
    /// Its name in tables and sentences: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// As `policy.model`: a folder in Hugging Face's layout, a GGUF file, or `hf:` and a name of the hub.
    pub model: String,
}

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
    /// Other models that answer the same prompts. Default none.
    pub models: Vec<EvaluatedModel>,
    /// `baseline` or `all`: whom policies are compared with. Default `baseline`.
    pub against: Against,
    /// The smallest difference of a win rate from ½ that would matter: what sample sizes are told for, and within which two policies can
    /// be shown to be the same. Default 0.05: 5 points.
    pub margin: f64,
    /// JSONL file of prompts that must not get worse, each with its check, relative to the config file. Default none.
    pub regression: Option<PathBuf>,
    /// Checks on which a policy may be worse than the baseline; with more, the command ends with exit code 1. Default: any number.
    pub max_regressions: Option<usize>,
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
            models: Vec::new(),
            against: Against::Baseline,
            margin: 0.05,
            regression: None,
            max_regressions: None,
            sentiment: false,
            bootstrap: 2000,
        }
    }
}
