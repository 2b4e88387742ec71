//! Metric names, as TRL writes them so that curves can be laid over each other, and the row of `metrics/{stage}.jsonl`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

// PPO (trl.PPOTrainer)

/// KL(policy ‖ reference) of a response, summed over its tokens, mean over the rollout; nats.
pub const OBJECTIVE_KL: &str = "objective/kl";
/// Mean entropy of the policy on rollout tokens, estimated as −logp, summed over a response; nats.
pub const OBJECTIVE_ENTROPY: &str = "objective/entropy";
/// Mean KL penalty of a response, −kl_coef · KL.
pub const OBJECTIVE_NON_SCORE_REWARD: &str = "objective/non_score_reward";
/// Mean score plus KL penalty: what PPO maximises.
pub const OBJECTIVE_RLHF_REWARD: &str = "objective/rlhf_reward";
/// Mean score of the reward model, after normalisation and penalties.
pub const OBJECTIVE_SCORES: &str = "objective/scores";
/// Mean score of the reward model as it came, before normalisation and penalties.
pub const OBJECTIVE_RAW_SCORES: &str = "objective/raw_scores";
/// Mean score of the watch, which training does not maximise; of `sft` and `dpo` on held-out prompts.
pub const OBJECTIVE_HELD_OUT_SCORES: &str = "objective/held_out_scores";
/// The KL coefficient of this step.
pub const OBJECTIVE_KL_COEF: &str = "objective/kl_coef";
/// Mean response length in tokens.
pub const OBJECTIVE_LENGTH: &str = "objective/length";
/// ½·E[(logp_new − logp_old)²] over update tokens.
pub const POLICY_APPROXKL_AVG: &str = "policy/approxkl_avg";
/// Share of tokens whose ratio was clipped.
pub const POLICY_CLIPFRAC_AVG: &str = "policy/clipfrac_avg";
/// Mean entropy of the full next-token distribution during the update, where it is computed.
pub const POLICY_ENTROPY_AVG: &str = "policy/entropy_avg";
/// Mean clipped policy loss.
pub const LOSS_POLICY_AVG: &str = "loss/policy_avg";
/// Mean clipped value loss.
pub const LOSS_VALUE_AVG: &str = "loss/value_avg";
/// Share of values that were clipped.
pub const VAL_CLIPFRAC_AVG: &str = "val/clipfrac_avg";
/// Mean probability ratio new / old.
pub const VAL_RATIO: &str = "val/ratio";
/// Variance of the ratio.
pub const VAL_RATIO_VAR: &str = "val/ratio_var";
/// Responses of the rollout that ended by themselves.
pub const VAL_NUM_EOS_TOKENS: &str = "val/num_eos_tokens";
/// Learning rate of the policy.
pub const LR: &str = "lr";
/// Responses sampled so far.
pub const EPISODE: &str = "episode";
/// Global gradient norm of the policy before clipping.
pub const POLICY_GRAD_NORM: &str = "policy/grad_norm";
/// Global gradient norm of the critic before clipping.
pub const VAL_GRAD_NORM: &str = "val/grad_norm";

// DPO (trl.DPOTrainer)

/// Mean implicit reward β·(logp − logp_ref) of chosen responses.
pub const REWARDS_CHOSEN: &str = "rewards/chosen";
/// Mean implicit reward of rejected responses.
pub const REWARDS_REJECTED: &str = "rewards/rejected";
/// Share of pairs whose chosen response has the higher implicit reward.
pub const REWARDS_ACCURACIES: &str = "rewards/accuracies";
/// Mean difference of implicit rewards, chosen − rejected.
pub const REWARDS_MARGINS: &str = "rewards/margins";
/// Mean summed log-prob of chosen responses.
pub const LOGPS_CHOSEN: &str = "logps/chosen";
/// Mean summed log-prob of rejected responses.
pub const LOGPS_REJECTED: &str = "logps/rejected";
/// KTO's reference point (trl.KTOTrainer): KL(policy ‖ reference) as answers to other prompts show it, at least 0; nats.
pub const KL: &str = "kl";

// Every trainer (transformers.Trainer)

/// Mean loss of the step.
pub const LOSS: &str = "loss";
/// Global gradient norm before clipping.
pub const GRAD_NORM: &str = "grad_norm";
/// Learning rate of the step.
pub const LEARNING_RATE: &str = "learning_rate";
/// Tokens that went through the model so far.
pub const NUM_TOKENS: &str = "num_tokens";

// Supervised fine-tuning (trl.SFTTrainer)

/// Share of the learnt tokens that the model holds for the likeliest.
pub const MEAN_TOKEN_ACCURACY: &str = "mean_token_accuracy";
/// Mean entropy of the next-token distributions at the learnt tokens; nats.
pub const ENTROPY: &str = "entropy";
/// [`MEAN_TOKEN_ACCURACY`] on held-out rows.
pub const EVAL_MEAN_TOKEN_ACCURACY: &str = "eval_mean_token_accuracy";

// Reward model (trl.RewardTrainer)

/// Share of pairs whose chosen response scores higher.
pub const ACCURACY: &str = "accuracy";
/// Mean score difference, chosen − rejected.
pub const MARGIN: &str = "margin";
/// Smallest score of the batch.
pub const MIN_REWARD: &str = "min_reward";
/// Mean score of the batch.
pub const MEAN_REWARD: &str = "mean_reward";
/// Largest score of the batch.
pub const MAX_REWARD: &str = "max_reward";

// Held-out pairs: the same names under `eval_`

/// Loss on held-out pairs.
pub const EVAL_LOSS: &str = "eval_loss";
/// Accuracy of the reward model on held-out pairs.
pub const EVAL_ACCURACY: &str = "eval_accuracy";
/// Accuracy of the reward model on the held-out pairs of `reward.watch`; named as transformers names a second evaluation set.
pub const EVAL_WATCH_ACCURACY: &str = "eval_watch_accuracy";
/// Margin of the reward model on held-out pairs.
pub const EVAL_MARGIN: &str = "eval_margin";
/// Mean score on held-out responses.
pub const EVAL_MEAN_REWARD: &str = "eval_mean_reward";
/// Expected calibration error of the reward model on held-out pairs.
pub const EVAL_ECE: &str = "eval_ece";
/// Brier score of the reward model on held-out pairs.
pub const EVAL_BRIER: &str = "eval_brier";
/// Accuracy of DPO's implicit rewards on held-out pairs.
pub const EVAL_REWARDS_ACCURACIES: &str = "eval_rewards/accuracies";
/// Margin of DPO's implicit rewards on held-out pairs.
pub const EVAL_REWARDS_MARGINS: &str = "eval_rewards/margins";
/// Mean implicit reward of held-out chosen responses.
pub const EVAL_REWARDS_CHOSEN: &str = "eval_rewards/chosen";
/// Mean implicit reward of held-out rejected responses.
pub const EVAL_REWARDS_REJECTED: &str = "eval_rewards/rejected";
/// Mean summed log-prob of held-out chosen responses.
pub const EVAL_LOGPS_CHOSEN: &str = "eval_logps/chosen";
/// Mean summed log-prob of held-out rejected responses.
pub const EVAL_LOGPS_REJECTED: &str = "eval_logps/rejected";

/// One line of `metrics/{stage}.jsonl`: where in training, then the metrics beside it, flat, as trackers like it.
///
/// `{"stage":"dpo","step":3,"epoch":0.5,"loss":0.69,"rewards/margins":0.02}`
///
/// JSON has no infinity and no NaN: both are written as null, and null is read as NaN.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MetricRow {
    /// The stage that measured, such as `ppo`.
    pub stage: String,
    /// Optimizer step (sft, reward, dpo) or rollout (ppo), from 1; 0 is before the first.
    pub step: u64,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Metric name to value.
    #[serde(flatten, serialize_with = "write_values", deserialize_with = "read_values")]
    pub values: BTreeMap<String, f64>,
}

impl MetricRow {
    /// A row without values.
    pub fn new(stage: impl Into<String>, step: u64, epoch: f64) -> Self {
        Self { stage: stage.into(), step, epoch, values: BTreeMap::new() }
    }

    /// The row with one more value; `MetricRow::new("dpo", 1, 0.1).with(metrics::LOSS, 0.69)`.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Self {
        self.set(name, value);
        self
    }

    /// Sets a value.
    pub fn set(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
    }

    /// A value, if the row has it.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    /// The row as one line of JSON, without the line end.
    pub fn to_json_line(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always serialise")
    }
}

fn write_values<S: Serializer>(values: &BTreeMap<String, f64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(values.iter().map(|(name, value)| (name, value.is_finite().then_some(value))))
}

fn read_values<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_flat_line_and_comes_back() {
        let row = MetricRow::new("dpo", 3, 0.5).with(LOSS, 0.6875).with(REWARDS_MARGINS, -0.25);
        let line = row.to_json_line();
        assert_eq!(line, r#"{"stage":"dpo","step":3,"epoch":0.5,"loss":0.6875,"rewards/margins":-0.25}"#);
        let back: MetricRow = serde_json::from_str(&line).unwrap();
        assert_eq!(back.values, row.values);
        assert_eq!((back.stage.as_str(), back.step, back.epoch), ("dpo", 3, 0.5));
    }

    #[test]
    fn what_is_not_finite_is_null_and_never_a_number() {
        let row = MetricRow::new("ppo", 1, 0.0).with(OBJECTIVE_KL, f64::INFINITY).with(LOSS, f64::NAN);
        let line = row.to_json_line();
        assert_eq!(line, r#"{"stage":"ppo","step":1,"epoch":0.0,"loss":null,"objective/kl":null}"#);
        let back: MetricRow = serde_json::from_str(&line).unwrap();
        assert!(back.get(OBJECTIVE_KL).unwrap().is_nan());
    }
}
