//! Trainers that learn from AI feedback: supervised fine-tuning, reward model, DPO, PPO; on packed batches, with exact resume.
//!
//! | module | holds |
//! |---|---|
//! | [`math`] | GAE, KL estimators and controller, whitening: plain numbers over ragged responses |
//! | [`loss`] | next-token, Bradley-Terry, DPO family, policy losses: loss *and* gradient with respect to what the model said |
//! | [`sft_trainer`], [`reward_trainer`], [`dpo_trainer`], [`kto_trainer`] | one file a method, read top to bottom |
//! | [`ensemble`] | several reward models of one recipe: where they are, what they say together |
//! | [`online`] | tuning on the policy's own samples: the loop, the KL budget, the watch; [`ppo_trainer`] learns from a rollout |
//! | [`advantage`] | what each token was worth: GAE, leave-one-out, groups |
//! | [`demonstration`] | rows of `[sft]` as token ids, with what of them is learnt |
//! | [`learner`] | a model with its optimizer; [`optimizer`] is AdamW, [`adafactor`] what its name says, [`schedule`] the learning rate |
//! | [`packing`], [`score`] | many (prompt, response) pairs to packed batches; their log-probs and scores |
//! | [`rollout`] | what the policy samples, and what models say of it |
//! | [`watch`] | a held-out score that falls while the reward rises |
//! | [`best`], [`best_policy`], [`best_reward`] | the checkpoint that a held-out score holds for the best is what training makes |
//! | [`checkpoint`] | atomic checkpoints, the last two kept |
//!
//! # Losses are functions of numbers
//! A loss sees log-probs, values or scores as `f64` on the host and returns its gradient with respect to them; the model then
//! backpropagates `Σ gradient · output`, which has the same gradient as the loss itself. So a loss can be tested to full
//! precision without a model, micro-batches add up exactly, and metrics cost no second pass.
//!
//! # Resume
//! All randomness is derived from (seed, purpose, step), so a checkpoint needs the step, the parameters, the moments and a few
//! running numbers. Stopped and continued training is equal to uninterrupted training bit for bit on CPU.

pub mod adafactor;
pub mod advantage;
pub(crate) mod ahead;
pub mod best;
pub mod best_policy;
pub mod best_reward;
pub mod checkpoint;
pub mod data;
pub mod demonstration;
pub mod dpo_trainer;
pub mod ensemble;
pub mod error;
pub mod hooks;
pub mod kto_trainer;
pub mod learner;
pub mod loss;
pub mod math;
pub mod online;
pub mod optimizer;
pub mod packing;
pub mod ppo_trainer;
pub mod reward_trainer;
pub mod rollout;
pub mod schedule;
pub mod score;
pub mod sft_trainer;
pub mod watch;

pub use best::WatchReport;
pub use best_policy::{HeldOut, HeldOutScore};
pub use data::{HoldoutPair, PreferenceExample, PromptIds, ResponseExample, split_by_prompt};
pub use demonstration::{Fitted, SftExample, fit};
pub use dpo_trainer::{DpoReport, DpoTrainer, TrainedPolicy, train_dpo, train_dpo_watched};
pub use ensemble::{Seeds, check_members, evaluate_members, load_members, member_folder, member_folders};
pub use error::{Result, TrainError};
pub use hooks::{Hooks, Outcome, Silent};
pub use kto_trainer::{KtoTrainer, train_kto};
pub use online::{PpoReport, TrainedPpo, Tuning, train_ppo};
pub use ppo_trainer::PpoTrainer;
pub use reward_trainer::{RewardReport, RewardTrainer, TrainedReward, train_reward};
pub use score::{
    RewardFn, Scored, Scorer, load_reward_heads, load_reward_model, pooled, sequence_logprobs, sequence_logps,
};
pub use sft_trainer::{
    HoldoutRow, SftReport, SftTrainer, TrainedSft, split_rows, train_sft, train_sft_watched,
};
