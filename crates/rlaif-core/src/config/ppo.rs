//! `[ppo]`: every way to tune the policy on its own samples; PPO is one of them.

use super::{JudgeConfig, LoraConfig, OptimConfig};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a rollout is learnt from, and how. Everything that differs between them can be set by itself; the algorithm gives defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Critic, GAE, clipped ratios: Schulman et al. 2017, on language models Ziegler et al. 2019.
    Ppo,
    /// Critic, GAE, plain policy gradient: Mnih et al. 2016.
    A2c,
    /// Critic as baseline of the whole return, plain policy gradient, reward (1 − β) r − β KL: Lee et al. 2023.
    Reinforce,
    /// The other responses of the prompt are the baseline: Ahmadian et al. 2024.
    Rloo,
    /// Scores normalised within the prompt, KL in the loss: Shao et al. 2024.
    Grpo,
    /// No baseline; returns whitened over the rollout: Hu 2025.
    ReinforcePlusPlus,
    /// [`Self::ReinforcePlusPlus`] on what a score is above the mean of its prompt: OpenRLHF's `reinforce_baseline`.
    ReinforceBaseline,
    /// DPO on the best and the worst of each prompt's samples: Guo et al. 2024.
    OnlineDpo,
}

/// From what the members of an ensemble say of a response to its reward; Coste et al. 2023 (<https://arxiv.org/abs/2310.02743>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnsembleReward {
    /// Their mean.
    Mean,
    /// The least: worst-case optimisation.
    WorstCase,
    /// Mean − λ · standard deviation: uncertainty-weighted optimisation (the paper subtracts the variance).
    UncertaintyWeighted,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 8] = [
        Self::Ppo,
        Self::A2c,
        Self::Reinforce,
        Self::Rloo,
        Self::Grpo,
        Self::ReinforcePlusPlus,
        Self::ReinforceBaseline,
        Self::OnlineDpo,
    ];

    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ppo => "ppo",
            Self::A2c => "a2c",
            Self::Reinforce => "reinforce",
            Self::Rloo => "rloo",
            Self::Grpo => "grpo",
            Self::ReinforcePlusPlus => "reinforce_plus_plus",
            Self::ReinforceBaseline => "reinforce_baseline",
            Self::OnlineDpo => "online_dpo",
        }
    }

    /// Whether it learns values.
    pub fn has_critic(self) -> bool {
        matches!(self, Self::Ppo | Self::A2c | Self::Reinforce)
    }

    /// Whether it compares the responses of a prompt, of which there must then be two.
    pub fn compares(self) -> bool {
        matches!(self, Self::Rloo | Self::Grpo | Self::ReinforceBaseline | Self::OnlineDpo)
    }

    /// Whether it weighs tokens by the ratio of new and old probabilities, so that a rollout can be gone over more than once.
    pub fn has_ratio(self) -> bool {
        !matches!(self, Self::A2c | Self::Reinforce)
    }
}

/// Where the critic's weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CriticTrunk {
    /// A model of its own, which starts as the reward model (OpenRLHF, verl).
    Own,
    /// A head on the policy's trunk: half the memory, one optimizer, the value loss weighted by `vf_coef`.
    Policy,
}

/// Where KL(policy ‖ reference) is punished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlPlace {
    /// In the reward of each token (Ziegler et al. 2019; OpenRLHF).
    Token,
    /// In the score of the response, before any baseline (TRL's RLOO).
    Sequence,
    /// In the loss (Shao et al. 2024; TRL's and verl's GRPO).
    Loss,
}

/// Of what the ratio of new and old probabilities is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioLevel {
    /// Of each token.
    Token,
    /// Of the whole response (TRL's RLOO).
    Sequence,
    /// Of the whole response, its length's root (GSPO, Zheng et al. 2025).
    SequenceMean,
}

/// How the losses of tokens become one number; TRL's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Mean over responses of the mean over their tokens (Shao et al. 2024).
    Grpo,
    /// Sum over tokens by the tokens of the rollout (Yu et al. 2025).
    Dapo,
    /// Mean over the tokens of the mini-batch.
    Bnpo,
    /// Sum over tokens by responses × longest response (Liu et al. 2025).
    DrGrpo,
}

/// What GRPO divides a centred score by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleRewards {
    /// The deviation of the prompt's scores.
    Group,
    /// The deviation of all scores of the rollout.
    Batch,
    /// Nothing (Liu et al. 2025).
    None,
}

/// Per-token estimator of KL(policy ‖ reference), x = logp − logp_ref (Schulman 2020, "Approximating KL divergence").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlEstimator {
    /// x
    K1,
    /// x² / 2
    K2,
    /// exp(−x) − 1 + x
    K3,
}

/// How the KL coefficient moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlController {
    /// Stays.
    Fixed,
    /// Ziegler et al. 2019, section 2.2: towards `kl_target`.
    Adaptive,
}

/// Where the score is added to the token rewards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScorePlacement {
    /// On the last response token (OpenRLHF, verl).
    LastToken,
    /// On the position after it where there is one (TRL); the value and return masks are one longer.
    AfterLast,
}

/// What a part of the reward is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardKind {
    /// The score of the run's reward model.
    RewardModel,
    /// What judges say of the responses while the policy is tuned: direct RLAIF, Lee et al. 2023, section 3.2. Ratings, from −1 to 1, and
    /// contrastive scores are taken as they are; of pairwise judges a response has its mean probability to beat two others of its prompt.
    Judges,
    /// 1 where `pattern` is found in the response, otherwise 0.
    Regex,
    /// 1 where the whole response is JSON that fits `schema`, otherwise 0.
    JsonSchema,
    /// 1 where the response has from `min_tokens` to `max_tokens`, falling to 0 at none and at twice too many.
    Length,
    /// 1 where the answer is the prompt's `reference`, otherwise 0. The answer is what the last match of `pattern` has in its first group,
    /// or the whole response; numbers are compared as numbers, words without case.
    Reference,
}

/// `[[ppo.rewards]]`: one part of what is maximised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardSource {
    /// Default `reward_model`.
    pub kind: RewardKind,
    /// What it is multiplied by in the sum; below 0 it is a punishment. Default 1.
    pub weight: f64,
    /// `regex`, `reference`: a regular expression.
    pub pattern: Option<String>,
    /// `json_schema`: a file with a JSON Schema, relative to the config file.
    pub schema: Option<PathBuf>,
    /// `length`: tokens at least.
    pub min_tokens: Option<usize>,
    /// `length`: tokens at most.
    pub max_tokens: Option<usize>,
}

impl Default for RewardSource {
    fn default() -> Self {
        Self {
            kind: RewardKind::RewardModel,
            weight: 1.0,
            pattern: None,
            schema: None,
            min_tokens: None,
            max_tokens: None,
        }
    }
}

/// `[ppo.watch]`: stops over-optimisation by a second opinion that training never maximises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchConfig {
    /// Whose scores they are, as those of `[[ppo.rewards]]` of the kind `judges`. Default: the judges of the evaluation.
    pub judges: Option<Vec<JudgeConfig>>,
    /// Rollouts over which its score is averaged. Default 3.
    pub window: usize,
    /// Training stops when the average is below its peak by more than this share of what had been gained at the peak, and by more
    /// than two standard errors; the policy of the peak is kept. Default 0.05.
    pub max_drop: f64,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self { judges: None, window: 3, max_drop: 0.05 }
    }
}

/// `[ppo]`: the policy tuned on its own samples, leashed to the baseline by KL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Default `ppo`.
    pub algorithm: Algorithm,
    /// What is maximised: their weighted sum. Default: the reward model.
    pub rewards: Vec<RewardSource>,
    /// The judges of `[[ppo.rewards]]`. Default: those of `[label]`.
    pub judges: Option<Vec<JudgeConfig>>,
    /// Sample the next rollout while this one is scored, from the policy that has not learnt from it yet (asynchronous RLHF, Noukhovitch
    /// et al. 2024): one step off-policy, and judges no longer hold sampling up. Default false.
    pub asynchronous: bool,
    /// Rollout-and-update iterations. Default 20.
    pub steps: usize,
    /// Prompts sampled an iteration. Default 8.
    pub prompts_per_step: usize,
    /// Responses a prompt. Default 4.
    pub samples_per_prompt: usize,
    /// Passes over each rollout. Default 2 for `ppo` (TRL: 4), otherwise 1 (TRL's `num_iterations`).
    pub epochs: Option<usize>,
    /// Optimizer steps an epoch. Default 1.
    pub mini_batches: usize,
    /// Responses a forward and backward pass. Default 8.
    pub micro_batch_size: usize,
    /// Weight of the KL penalty, or its start if adaptive; β of `online_dpo`. Default 0.05; `grpo` 0.04 (Shao et al. 2024; TRL: 0),
    /// `online_dpo` 0.1 (TRL).
    pub kl_coef: Option<f64>,
    /// Default `k1`; `grpo` `k3`.
    pub kl_estimator: Option<KlEstimator>,
    /// Where the penalty is. Default `token`; `rloo` `sequence` (OpenRLHF: `token`), `grpo` `loss`.
    pub kl_place: Option<KlPlace>,
    /// With `kl_place` `loss`: multiply the penalty by the ratio, so that its gradient is that of KL (DeepSeek-V3.2; TRL's
    /// `use_bias_correction_kl`). Default true (Shao et al. 2024: false).
    pub kl_correction: bool,
    /// Default `fixed`.
    pub kl_controller: KlController,
    /// Adaptive: the KL a response (summed over tokens, nats) to steer to. Default 6.
    pub kl_target: f64,
    /// Adaptive: responses over which the coefficient moves. Default 10000.
    pub kl_horizon: f64,
    /// The KL a response (nats, mean over a rollout) that training must not pass: it stops there and keeps the last
    /// checkpoint within it. Default none.
    pub kl_budget: Option<f64>,
    /// Discount. Default 1.
    pub gamma: f64,
    /// GAE's λ. Default 0.95.
    pub lambda: f64,
    /// Policy clip ε: ratios count from 1 − ε. Default 0.2.
    pub cliprange: f64,
    /// Ratios count up to 1 + this. Default: `cliprange` (DAPO: 0.28).
    pub cliprange_high: Option<f64>,
    /// Where the advantage is negative, a loss of at most this times it (Ye et al. 2020). Default none (verl: 3).
    pub dual_clip: Option<f64>,
    /// Default `token`; `rloo` `sequence` (TRL).
    pub ratio: Option<RatioLevel>,
    /// Default `bnpo`; `grpo` `dapo` (TRL). With a ratio of whole responses: the mean over responses.
    pub reduction: Option<Reduction>,
    /// `grpo` only. Default `group`.
    pub scale_rewards: ScaleRewards,
    /// Added to the deviation that scores are divided by. Default 1e-4 (TRL; verl 1e-6).
    pub advantage_epsilon: f64,
    /// To mean 0 and variance 1 over the rollout. Default true; `reinforce`, `rloo`, `grpo` false.
    pub whiten_advantages: Option<bool>,
    /// The rest of the rollout is skipped when the mean of ½ (logp − logp_old)² passes 1.5 times this in a mini-batch (TRL's
    /// `early_stopping` with `target_kl`). Default none.
    pub target_approxkl: Option<f64>,
    /// Where values come from, for algorithms with a critic. Default `own`.
    pub critic: CriticTrunk,
    /// Weight of the value loss where critic and policy share a trunk. Default 0.1 (TRL).
    pub vf_coef: f64,
    /// Value clip. Default 0.2.
    pub cliprange_value: f64,
    /// Subtract from the score of a response that does not end. Default 1.0 (TRL: off, 1.0 advised).
    pub missing_eos_penalty: Option<f64>,
    /// What several reward models (`reward.members`), or heads of one, say together. Default `mean`.
    pub ensemble: EnsembleReward,
    /// λ of `ensemble` = `uncertainty_weighted`. Default 1.
    pub uncertainty_weight: f64,
    /// Leave responses that do not end out of the policy's loss (DAPO's overlong filtering; TRL's `mask_truncated_completions`).
    /// Default false.
    pub mask_truncated: bool,
    /// Scores count between minus and plus this, after normalisation. Default none (OpenRLHF: 10).
    pub score_clip: Option<f64>,
    /// Default `last_token`.
    pub score_placement: ScorePlacement,
    /// Scale rewards to unit variance without shifting their mean. Default false.
    pub whiten_rewards: bool,
    /// Normalise reward-model scores by the mean and deviation they have on the baseline's responses. Default true
    /// (Ziegler et al. 2019, section 2.2).
    pub normalize_scores: bool,
    /// Rollouts on which only the critic learns, before the policy moves. Default 1.
    pub critic_warmup_steps: usize,
    /// Sampling temperature of rollouts; log-probs are taken under it too. Default 1.0 (TRL: 0.7).
    pub temperature: f64,
    /// Longest response. Default: `generate.max_new_tokens`.
    pub max_new_tokens: Option<usize>,
    /// Iterations between checkpoints. Default 5.
    pub save_steps: usize,
    /// Policy optimizer. Default learning rate 3e-6 (TRL).
    pub optim: OptimConfig,
    /// Critic optimizer. Default learning rate 1e-5 (verl).
    pub critic_optim: OptimConfig,
    /// Train adapters on policy and critic instead of all weights; the reference is then the same weights with the adapter
    /// off. Default none: full weights.
    pub lora: Option<LoraConfig>,
    /// Default none.
    pub watch: Option<WatchConfig>,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Ppo,
            rewards: Vec::new(),
            judges: None,
            asynchronous: false,
            steps: 20,
            prompts_per_step: 8,
            samples_per_prompt: 4,
            epochs: None,
            mini_batches: 1,
            micro_batch_size: 8,
            kl_coef: None,
            kl_estimator: None,
            kl_place: None,
            kl_correction: true,
            kl_controller: KlController::Fixed,
            kl_target: 6.0,
            kl_horizon: 10_000.0,
            kl_budget: None,
            gamma: 1.0,
            lambda: 0.95,
            cliprange: 0.2,
            cliprange_high: None,
            dual_clip: None,
            ratio: None,
            reduction: None,
            scale_rewards: ScaleRewards::Group,
            advantage_epsilon: 1e-4,
            whiten_advantages: None,
            target_approxkl: None,
            critic: CriticTrunk::Own,
            vf_coef: 0.1,
            cliprange_value: 0.2,
            missing_eos_penalty: Some(1.0),
            ensemble: EnsembleReward::Mean,
            uncertainty_weight: 1.0,
            mask_truncated: false,
            score_clip: None,
            score_placement: ScorePlacement::LastToken,
            whiten_rewards: false,
            normalize_scores: true,
            critic_warmup_steps: 1,
            temperature: 1.0,
            max_new_tokens: None,
            save_steps: 5,
            optim: OptimConfig::with_learning_rate(3e-6),
            critic_optim: OptimConfig::with_learning_rate(1e-5),
            lora: None,
            watch: None,
        }
    }
}

impl PpoConfig {
    /// Whether this kind is a part of what is maximised.
    pub fn maximises(&self, kind: RewardKind) -> bool {
        match self.rewards.is_empty() {
            true => kind == RewardKind::RewardModel,
            false => self.rewards.iter().any(|source| source.kind == kind),
        }
    }

    /// `epochs`, or the algorithm's own.
    pub fn epochs(&self) -> usize {
        self.epochs.unwrap_or(if self.algorithm == Algorithm::Ppo { 2 } else { 1 })
    }

    /// `kl_coef`, or the algorithm's own.
    pub fn kl_coef(&self) -> f64 {
        self.kl_coef.unwrap_or(match self.algorithm {
            Algorithm::Grpo => 0.04,
            Algorithm::OnlineDpo => 0.1,
            _ => 0.05,
        })
    }

    /// `kl_estimator`, or the algorithm's own.
    pub fn kl_estimator(&self) -> KlEstimator {
        self.kl_estimator.unwrap_or(match self.algorithm {
            Algorithm::Grpo => KlEstimator::K3,
            _ => KlEstimator::K1,
        })
    }

    /// `kl_place`, or the algorithm's own.
    pub fn kl_place(&self) -> KlPlace {
        self.kl_place.unwrap_or(match self.algorithm {
            Algorithm::Rloo => KlPlace::Sequence,
            Algorithm::Grpo | Algorithm::OnlineDpo => KlPlace::Loss,
            _ => KlPlace::Token,
        })
    }

    /// `ratio`, or the algorithm's own.
    pub fn ratio(&self) -> RatioLevel {
        self.ratio.unwrap_or(match self.algorithm {
            Algorithm::Rloo => RatioLevel::Sequence,
            _ => RatioLevel::Token,
        })
    }

    /// `reduction`, or the algorithm's own.
    pub fn reduction(&self) -> Reduction {
        self.reduction.unwrap_or(match self.algorithm {
            Algorithm::Grpo => Reduction::Dapo,
            _ => Reduction::Bnpo,
        })
    }

    /// `whiten_advantages`, or the algorithm's own.
    pub fn whiten_advantages(&self) -> bool {
        let plain = [Algorithm::Reinforce, Algorithm::Rloo, Algorithm::Grpo];
        self.whiten_advantages.unwrap_or(!plain.contains(&self.algorithm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_file() {
        for algorithm in Algorithm::ALL {
            assert_eq!(serde_json::to_value(algorithm).unwrap(), algorithm.name());
        }
    }
}
