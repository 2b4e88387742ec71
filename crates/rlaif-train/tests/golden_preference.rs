//! Five optimizer steps of DPO and of the reward model, against TRL 1.16 on the same weights and batches
//! (`golden/make_training_steps.py`).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::{assert_near, golden, head, llama, numbers};
use rlaif_core::config::{DpoConfig, OptimConfig, RewardConfig, Schedule};
use rlaif_model::{Decoder, Tokenizer};
use rlaif_train::dpo_trainer::ReferencedPair;
use rlaif_train::packing::Item;
use rlaif_train::{DpoTrainer, PreferenceExample, RewardTrainer, sequence_logps};
use serde_json::Value;

const LEARNING_RATE: f64 = 1e-3;
const EOS: u32 = 2;

fn optim() -> OptimConfig {
    OptimConfig {
        learning_rate: LEARNING_RATE,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        ..OptimConfig::default()
    }
}

/// The pairs in file order, tokenised as TRL does: responses end with `<eos>`.
fn pairs(golden: &Value) -> Vec<PreferenceExample> {
    let tokenizer = Tokenizer::from_folder(&common::golden_llama()).unwrap();
    let with_eos = |text: &Value| [tokenizer.encode(text.as_str().unwrap()).unwrap(), vec![EOS]].concat();
    let pairs: Vec<_> = golden["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(i, pair)| PreferenceExample {
            prompt_id: i.to_string(),
            prompt_ids: tokenizer.encode(pair[0].as_str().unwrap()).unwrap(),
            chosen_ids: with_eos(&pair[1]),
            rejected_ids: with_eos(&pair[2]),
            p: 1.0,
        })
        .collect();
    let first = &golden["dpo"]["first_example"];
    assert_eq!(pairs[0].prompt_ids, common::ids(&first["prompt_ids"]));
    assert_eq!(pairs[0].chosen_ids, common::ids(&first["chosen_ids"]));
    assert_eq!(pairs[0].rejected_ids, common::ids(&first["rejected_ids"]));
    pairs
}

fn references(policy: &Decoder, pairs: &[PreferenceExample]) -> Vec<f64> {
    let items: Vec<Item<'_>> = pairs
        .iter()
        .flat_map(|p| [(&p.prompt_ids[..], &p.chosen_ids[..]), (&p.prompt_ids[..], &p.rejected_ids[..])])
        .collect();
    sequence_logps(policy, &items, 64).unwrap()
}

#[test]
fn dpo_steps_are_trls_whatever_the_micro_batch() {
    let golden = golden("training_steps.json");
    let pairs = pairs(&golden);
    for micro_batch_size in [1, 2] {
        let config = DpoConfig { micro_batch_size, optim: optim(), ..DpoConfig::default() };
        let logps = references(&llama(), &pairs);
        let mut trainer = DpoTrainer::new(llama(), &config, 0).unwrap();
        for (i, want) in golden["dpo"]["log"].as_array().unwrap().iter().enumerate() {
            let batch: Vec<ReferencedPair<'_>> = (2 * i..2 * i + 2)
                .map(|k| ReferencedPair {
                    example: &pairs[k],
                    ref_chosen: logps[2 * k],
                    ref_rejected: logps[2 * k + 1],
                })
                .collect();
            let got = trainer.update(&batch, LEARNING_RATE, i as u64 + 1).unwrap();
            let near = |name: &str, got: f64| {
                assert_near(&format!("{name}, step {}", i + 1), got, want[name].as_f64().unwrap());
            };
            near("loss", got.loss);
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
    let pairs = pairs(&golden);
    let weights: Vec<f32> =
        numbers(&golden["reward"]["score_weight_init"][0]).into_iter().map(|w| w as f32).collect();
    for micro_batch_size in [1, 2] {
        let config = RewardConfig { micro_batch_size, optim: optim(), ..RewardConfig::default() };
        let mut trainer = RewardTrainer::new(llama(), head(weights.clone()), &config, 0).unwrap();
        for (i, want) in golden["reward"]["log"].as_array().unwrap().iter().enumerate() {
            let batch: Vec<&PreferenceExample> = pairs[2 * i..2 * i + 2].iter().collect();
            let got = trainer.update(&batch, LEARNING_RATE, i as u64 + 1).unwrap();
            let near = |name: &str, got: f64| {
                assert_near(&format!("{name}, step {}", i + 1), got, want[name].as_f64().unwrap());
            };
            near("loss", got.loss);
            near("grad_norm", got.grad_norm);
            near("accuracy", got.accuracy);
            near("margin", got.margin);
            near("min_reward", got.min_reward);
            near("mean_reward", got.mean_reward);
            near("max_reward", got.max_reward);
        }
    }
}
