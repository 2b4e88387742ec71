//! `[review]`.

use serde::{Deserialize, Serialize};

/// `[review]`: which pairs people are shown by `rlaif review`, and what their labels count for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReviewConfig {
    /// Pairs of the queue `audit`, drawn at random from all pairs. Default 100.
    pub audit_pairs: usize,
    /// Pairs whose p is nearer ½ than this are in the queue `low-margin`. Default 0.1.
    pub low_margin: f64,
    /// Prompts with one of these tags are in the queue `flagged`, as are those on which a judge refused, was filtered or was steered.
    /// Default `flagged` and `safety`.
    pub flagged_tags: Vec<String>,
    /// How many people judge each pair. Default 1; with 2 or more the page shows how far people agree with each other.
    pub ratings_per_pair: usize,
    /// For how long a pair that is on somebody's screen is shown to nobody else. Default 900.
    pub lease_seconds: f64,
    /// How much a pair that people labelled counts in training, where one that judges labelled counts 1. Default 2.
    pub weight: f64,
    /// c: k people of n who prefer a come to p = (k + c)/(n + 2c), ties as half a vote. Default 0: their share.
    pub smoothing: f64,
}

impl Default for ReviewConfig {
    fn default() -> Self {
        Self {
            audit_pairs: 100,
            low_margin: 0.1,
            flagged_tags: vec!["flagged".into(), "safety".into()],
            ratings_per_pair: 1,
            lease_seconds: 900.0,
            weight: 2.0,
            smoothing: 0.0,
        }
    }
}
