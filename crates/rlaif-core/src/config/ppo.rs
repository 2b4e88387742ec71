//! `[ppo]`.

use super::{LoraConfig, OptimConfig};
use serde::{Deserialize, Serialize};

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

/// `[ppo]`: proximal policy optimisation against the reward model, leashed to the baseline by KL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PpoConfig {
    /// Rollout-and-update iterations. Default 20.
    pub steps: usize,
    /// Prompts sampled an iteration. Default 8.
    pub prompts_per_step: usize,
    /// Responses a prompt. Default 4.
    pub samples_per_prompt: usize,
    /// Passes over each rollout. Default 2 (TRL: 4).
    pub epochs: usize,
    /// Optimizer steps an epoch. Default 1.
    pub mini_batches: usize,
    /// Responses a forward and backward pass. Default 8.
    pub micro_batch_size: usize,
    /// Weight of the KL penalty in token rewards, or its start if adaptive. Default 0.05.
    pub kl_coef: f64,
    /// Default `k1`.
    pub kl_estimator: KlEstimator,
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
    /// Policy clip ε. Default 0.2.
    pub cliprange: f64,
    /// Value clip. Default 0.2.
    pub cliprange_value: f64,
    /// Subtract from the score of a response that does not end. Default 1.0 (TRL: off, 1.0 advised).
    pub missing_eos_penalty: Option<f64>,
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
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            steps: 20,
            prompts_per_step: 8,
            samples_per_prompt: 4,
            epochs: 2,
            mini_batches: 1,
            micro_batch_size: 8,
            kl_coef: 0.05,
            kl_estimator: KlEstimator::K1,
            kl_controller: KlController::Fixed,
            kl_target: 6.0,
            kl_horizon: 10_000.0,
            kl_budget: None,
            gamma: 1.0,
            lambda: 0.95,
            cliprange: 0.2,
            cliprange_value: 0.2,
            missing_eos_penalty: Some(1.0),
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
        }
    }
}
