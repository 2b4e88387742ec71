//! `[generate]`.

use serde::{Deserialize, Serialize};

/// `[generate]`: how responses are sampled from the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    /// Responses a prompt. Default 4.
    pub n: usize,
    /// Sampling temperature; 0 is greedy. Default 1.0 (TRL's GRPO; its PPO has 0.7).
    pub temperature: f64,
    /// Nucleus: smallest set of tokens with at least this probability. Default 1.0, which is off.
    pub top_p: f64,
    /// Keep the k likeliest tokens; 0 is off. Default 0.
    pub top_k: usize,
    /// Longest response in tokens. Default 128.
    pub max_new_tokens: usize,
    /// Two responses nearer than this (normalised edit distance in [0, 1]) never become a pair. Default 0.1.
    pub min_distance: f64,
    /// Samples decoded together. Default 32.
    pub batch_size: usize,
    /// System prompts under which a prompt's responses are sampled in turn, in place of `prompts.system`: response i under number
    /// i modulo how many there are. They make responses differ in what judges look for, as UltraFeedback's principles do (Cui et
    /// al. 2023); labels and training see the conversation as it is. A prompt with a system prompt of its own keeps it.
    /// Default none: all responses under `prompts.system`.
    pub systems: Vec<String>,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            n: 4,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            max_new_tokens: 128,
            min_distance: 0.1,
            batch_size: 32,
            systems: Vec::new(),
        }
    }
}
