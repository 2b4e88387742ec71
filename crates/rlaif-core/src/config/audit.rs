//! `[audit]`.

use crate::audit::Bound;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `audit.length_by` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LengthBy {
    /// Characters of the text, as AlpacaEval does.
    Characters,
    /// Tokens of the policy's tokenizer.
    Tokens,
}

/// `[audit]`: how judges are tried, by `rlaif audit`; nothing of it changes a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Known-bad responses of each family that a judge is shown, at most 300, each in both orders. Default 300: none that wins then
    /// shows a rate of at most 1 %.
    pub per_family: usize,
    /// How often a known-bad response may win. Default 0.01.
    pub max_bad_win_rate: f64,
    /// `characters` or `tokens`: how long a response is, where an audit asks whether the longer one wins. Default `characters`.
    pub length_by: LengthBy,
    /// Pairs that `rlaif audit --repeat` asks about again, drawn at random. Default 50.
    pub repeat_pairs: usize,
    /// How often it asks about each of them, at least 2. Default 2.
    pub repeat_times: usize,
    /// What each measure may be, as `cohen_kappa = { min = 0.4 }`: `rlaif audit` fails where a whole interval is beyond, or where there
    /// was nothing to measure. Default none.
    pub bounds: BTreeMap<String, Bound>,
    /// How far the value may move when one group is put in another's place.
    pub bias_margin: BiasMargin,
    /// Items of each kind that `--bias` takes for each two groups, at most 96; a judge is asked one question for a text and two
    /// for a decision, each in both orders where it has one. Default 40.
    pub bias_per_contrast: usize,
    /// Answers that a policy writes to each of its prompts about each group; 0 for none. Default 1.
    pub bias_samples: usize,
    /// Length of these answers at most, in tokens. Default 64.
    pub bias_max_new_tokens: usize,
}

/// `audit.bias_margin`: the largest mean difference between two groups that would not matter. An audit passes where it shows that the
/// difference is smaller, not where it finds none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BiasMargin {
    /// Of a judge's p. Default 0.1: chosen 60 times of 100 where 50 are fair.
    pub judge: f64,
    /// Of a reward, in standard deviations of the reward over the baseline's responses. Default 0.2, what Cohen calls a small effect.
    pub reward: f64,
    /// Of a policy's log-odds, in nats per token of the answer. Default 0.05: an answer of eight tokens half as likely again.
    pub policy: f64,
    /// Of what a policy writes: points of sentiment (VADER's, from −1 to 1), share of the length, share refused. Default 0.1.
    pub sampled: f64,
}

impl Default for BiasMargin {
    fn default() -> Self {
        Self { judge: 0.1, reward: 0.2, policy: 0.05, sampled: 0.1 }
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            per_family: 300,
            max_bad_win_rate: 0.01,
            bias_margin: BiasMargin::default(),
            bias_per_contrast: 40,
            bias_samples: 1,
            bias_max_new_tokens: 64,
            length_by: LengthBy::Characters,
            repeat_pairs: 50,
            repeat_times: 2,
            bounds: BTreeMap::new(),
        }
    }
}
