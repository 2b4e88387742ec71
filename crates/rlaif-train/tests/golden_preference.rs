//! Five optimizer steps of DPO and of the reward model, against TRL 1.16 on the same weights and batches
//! (`golden/make_training_steps.py`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::{assert_near, assert_within, constant, golden, golden_pairs, head, llama, numbers, referenced};
use rlaif_core::config::{DpoConfig, RewardConfig};
use rlaif_train::{DpoTrainer, PreferenceExample, RewardTrainer};

const LEARNING_RATE: f64 = 1e-3;

#[test]
fn dpo_steps_are_trls_whatever_the_micro_batch() {
    let golden = golden("training_steps.json");
    let pairs = golden_pairs(&golden);
    for micro_batch_size in [1, 2] {
        let config = DpoConfig { micro_batch_size, optim: constant(LEARNING_RATE), ..DpoConfig::default() };
        let pairs = referenced(&pairs);
        let mut trainer = DpoTrainer::new(llama(), &config, 0).unwrap();
        for (i, want) in golden["dpo"]["log"].as_array().unwrap().iter().enumerate() {
            let batch = &pairs[2 * i..2 * i + 2];
            let got = trainer.update(batch, LEARNING_RATE, i as u64 + 1).unwrap();
            let near = |name: &str, got: f64| {
                assert_near(&format!("{name}, step {}", i + 1), got, want[name].as_f64().unwrap());
            };
            assert_within("loss", got.loss, want["loss"].as_f64().unwrap(), 1e-4);
            near("grad_norm", got.grad_norm);
            near("rewards/chosen", got.chosen_reward);
            near("rewards/rejected", got.rejected_reward);
            near("logps/chosen", got.chosen_logps);
            near("logps/rejected", got.rejected_logps);
            if i > 0 {
                near("rewards/accuracies", got.accuracy); // at step 1 all rewards are 0 but for rounding
            }
        }
    }
}

#[test]
fn reward_steps_are_trls_whatever_the_micro_batch() {
    let golden = golden("training_steps.json");
    let pairs = golden_pairs(&golden);
    let weights: Vec<f32> =
        numbers(&golden["reward"]["score_weight_init"][0]).into_iter().map(|w| w as f32).collect();
    for micro_batch_size in [1, 2] {
        let config =
            RewardConfig { micro_batch_size, optim: constant(LEARNING_RATE), ..RewardConfig::default() };
        let mut trainer = RewardTrainer::new(llama(), head(weights.clone()), &config, 0).unwrap();
        for (i, want) in golden["reward"]["log"].as_array().unwrap().iter().enumerate() {
            let batch: Vec<&PreferenceExample> = pairs[2 * i..2 * i + 2].iter().collect();
            let got = trainer.update(&batch, LEARNING_RATE, i as u64 + 1).unwrap();
            let near = |name: &str, got: f64| {
                assert_near(&format!("{name}, step {}", i + 1), got, want[name].as_f64().unwrap());
            };
            assert_within("loss", got.loss, want["loss"].as_f64().unwrap(), 1e-4);
            near("grad_norm", got.grad_norm);
            near("accuracy", got.accuracy);
            near("margin", got.margin);
            near("min_reward", got.min_reward);
            near("mean_reward", got.mean_reward);
            near("max_reward", got.max_reward);
        }
    }
}
