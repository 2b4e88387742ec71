//! Five optimizer steps of DPO and of the reward model, against TRL 1.16 on the same weights and batches
//! (`golden/make_training_steps.py`, and `golden/make_reward_steps.py` with a margin a pair).

use crate::common::{
    assert_near, assert_within, constant, golden, golden_pairs, head, llama, numbers, referenced, some_head,
};
use rlaif_core::config::{BatchBy, DpoConfig, RewardConfig};
use rlaif_train::{DpoTrainer, PreferenceExample, RewardTrainer};
use serde_json::Value;

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
    for micro_batch_size in [1, 2] {
        let config = RewardConfig { micro_batch_size, ..RewardConfig::default() };
        assert_steps(&golden_pairs(&golden), &golden["reward"]["log"], config);
    }
}

#[test]
fn reward_steps_with_margins_are_trls() {
    let with_margins = golden("reward_steps.json");
    let mut pairs = golden_pairs(&golden("training_steps.json"));
    for (pair, margin) in pairs.iter_mut().zip(numbers(&with_margins["margins"])) {
        pair.margin = margin;
    }
    for (log, center_rewards_coefficient) in [("margin", 0.0), ("margin_centered", 0.01)] {
        let config = RewardConfig { center_rewards_coefficient, ..RewardConfig::default() };
        assert_steps(&pairs, &with_margins["log"][log], config);
    }
}

/// With a loss written out in torch: soft labels, label smoothing, weights, margins and centering at once.
#[test]
fn reward_steps_with_weights_and_label_smoothing_are_torchs() {
    let golden_steps = golden("reward_steps.json");
    let mut pairs = golden_pairs(&golden("training_steps.json"));
    let of = |name: &str| numbers(&golden_steps[name]);
    for (((pair, margin), p), weight) in
        pairs.iter_mut().zip(of("margins")).zip(of("labels")).zip(of("weights"))
    {
        (pair.margin, pair.p, pair.weight) = (margin, p, weight);
    }
    for micro_batch_size in [1, 2] {
        let label_smoothing = golden_steps["label_smoothing"].as_f64().unwrap();
        let config = RewardConfig { micro_batch_size, label_smoothing, ..RewardConfig::default() };
        assert_steps(&pairs, &golden_steps["log"]["weighted_smoothed"], config);
    }
}

/// Steps of two pairs each in file order come to what TRL logged.
#[track_caller]
fn assert_steps(pairs: &[PreferenceExample], log: &Value, config: RewardConfig) {
    let weights: Vec<f32> = numbers(&golden("training_steps.json")["reward"]["score_weight_init"][0])
        .into_iter()
        .map(|w| w as f32)
        .collect();
    let config = RewardConfig { optim: constant(LEARNING_RATE), ..config };
    let mut trainer = RewardTrainer::new(llama(), head(weights), &config, 0).unwrap();
    for (i, want) in log.as_array().unwrap().iter().enumerate() {
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

/// First step of the reward model on these pairs, by loss and gradient norm.
fn first_step(pairs: &[PreferenceExample], config: RewardConfig) -> (f64, f64) {
    let mut trainer = RewardTrainer::new(llama(), some_head(), &config, 0).unwrap();
    let pairs: Vec<&PreferenceExample> = pairs.iter().collect();
    let step = trainer.update(&pairs, 1e-4, 1).unwrap();
    (step.loss, step.grad_norm)
}

/// A pair of weight 2 is a pair that stands there twice.
#[test]
fn a_weight_counts_as_that_many_pairs() {
    let mut pairs = golden_pairs(&golden("training_steps.json"))[..4].to_vec();
    let twice = [pairs.clone(), vec![pairs[1].clone()]].concat();
    pairs[1].weight = 2.0;
    for micro_batch_size in [1, 4] {
        let config = || RewardConfig { micro_batch_size, ..RewardConfig::default() };
        let (weighted, repeated) = (first_step(&pairs, config()), first_step(&twice, config()));
        assert_near("loss", weighted.0, repeated.0);
        assert_near("grad_norm", weighted.1, repeated.1);
    }
    pairs[1].weight = 1.0;
    let plain = first_step(&pairs, RewardConfig::default()).0;
    assert!((plain - first_step(&twice, RewardConfig::default()).0).abs() > 1e-3, "the weight matters");
}

/// The loss of a step of prompts is the mean over prompts of the mean over their pairs.
#[test]
fn each_prompt_of_a_step_counts_once() {
    let mut pairs = golden_pairs(&golden("training_steps.json"))[..5].to_vec();
    for pair in &mut pairs[1..] {
        pair.prompt_id = "four".into();
    }
    let plain = |pairs: &[PreferenceExample]| first_step(pairs, RewardConfig::default()).0;
    let by_prompts =
        || RewardConfig { batch_by: BatchBy::Prompts, micro_batch_size: 2, ..RewardConfig::default() };
    let (got, want) = (first_step(&pairs, by_prompts()).0, 0.5 * (plain(&pairs[..1]) + plain(&pairs[1..])));
    assert_near("loss", got, want);
    assert!((got - plain(&pairs)).abs() > 1e-3, "it differs from that of pairs");
}
