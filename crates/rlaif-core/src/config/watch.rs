//! `[sft.watch]`, `[dpo.watch]`, `[reward.watch]`: which checkpoint is the best one, by what training does not see.

use super::{JudgeConfig, RewardKind, RewardSource};
use serde::{Deserialize, Serialize};

/// `[sft.watch]`, `[dpo.watch]`: the policy answers prompts that the stage does not train on, every so many steps; the policy with the
/// highest score is what the stage makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyWatchConfig {
    /// Whose scores they are. Ratings and contrastive scores are taken as they are; of pairwise judges a response has its probability to
    /// beat what the policy said to the same prompt before it learnt. Default: the judges of the evaluation.
    pub judges: Option<Vec<JudgeConfig>>,
    /// What the score is: a weighted sum, as `[[ppo.rewards]]`. Default: what the judges say.
    pub rewards: Vec<RewardSource>,
    /// Steps from look to look; the first and the last policy are looked at too. Default 10.
    pub eval_steps: usize,
    /// Prompts at most, drawn by seed from those of `prompts.train` that the stage does not train on. Default 32.
    pub prompts: usize,
    /// Responses a prompt, drawn with the same seeds at every look. Default 2.
    pub samples_per_prompt: usize,
    /// Sampling temperature. Default 1.0.
    pub temperature: f64,
    /// Longest response. Default: `generate.max_new_tokens`.
    pub max_new_tokens: Option<usize>,
    /// Looks over which the score is averaged. Default 1.
    pub window: usize,
    /// Training ends early when the average is below its peak by more than this share of what had been gained at the peak, and by more
    /// than two standard errors. Default none: it goes on to its last step.
    pub max_drop: Option<f64>,
}

impl Default for PolicyWatchConfig {
    fn default() -> Self {
        Self {
            judges: None,
            rewards: Vec::new(),
            eval_steps: 10,
            prompts: 32,
            samples_per_prompt: 2,
            temperature: 1.0,
            max_new_tokens: None,
            window: 1,
            max_drop: None,
        }
    }
}

impl PolicyWatchConfig {
    /// Whether judges have a part in the score.
    pub fn asks_judges(&self) -> bool {
        self.rewards.is_empty() || self.rewards.iter().any(|source| source.kind == RewardKind::Judges)
    }
}

/// `[reward.watch]`: the reward model is what agrees best with held-out pairs, and not what the last step made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardWatchConfig {
    /// Only held-out pairs that this one labelled, alone or with others: a judge's name, `human`, or a `source` of `reward.data`. Default
    /// none: all of them.
    pub source: Option<String>,
    /// Steps from look to look; the first and the last model are looked at too. Default 10.
    pub eval_steps: usize,
    /// Looks over which the agreement is averaged. Default 1.
    pub window: usize,
    /// As `max_drop` of `[dpo.watch]`. Default none.
    pub max_drop: Option<f64>,
}

impl Default for RewardWatchConfig {
    fn default() -> Self {
        Self { source: None, eval_steps: 10, window: 1, max_drop: None }
    }
}
