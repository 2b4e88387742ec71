//! Two epochs of PPO on one rollout, against PyTorch in float64 (`golden/make_ppo_update.py`).

use crate::common::{assert_all_near, assert_near, bits, golden, head, ids, llama, numbers};
use rlaif_core::config::{CriticTrunk, OptimConfig, PpoConfig, Schedule};
use rlaif_train::PpoTrainer;
use rlaif_train::advantage::{assign_rewards, estimate_advantages};
use rlaif_train::ppo_trainer::PpoRates;
use rlaif_train::rollout::{Experience, measure_logprobs, measure_values};
use serde_json::Value;

fn config(micro_batch_size: usize) -> PpoConfig {
    let optim = OptimConfig {
        learning_rate: 1e-3,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        ..OptimConfig::default()
    };
    PpoConfig {
        epochs: Some(2),
        micro_batch_size,
        kl_coef: Some(0.05),
        gamma: 1.0,
        lambda: 0.95,
        cliprange: 0.2,
        cliprange_value: 0.2,
        optim: optim.clone(),
        critic_optim: optim,
        ..PpoConfig::default()
    }
}

fn trainer(golden: &Value, micro_batch_size: usize) -> PpoTrainer {
    let weights: Vec<f32> = numbers(&golden["value_head_weight"][0]).into_iter().map(|w| w as f32).collect();
    PpoTrainer::new(llama(), Some((llama(), head(weights))), &config(micro_batch_size), 0).unwrap()
}

fn rollout(golden: &Value, config: &PpoConfig) -> Vec<Experience> {
    let (prompts, responses) =
        (golden["prompts"].as_array().unwrap(), golden["responses"].as_array().unwrap());
    let scores = numbers(&golden["scores"]);
    let pairs = prompts.iter().zip(responses).zip(scores);
    pairs
        .map(|((prompt, response), score)| Experience {
            score,
            ..Experience::new(ids(prompt), ids(response), true, config, 16)
        })
        .collect()
}

fn measure(trainer: &PpoTrainer, rollout: &mut [Experience]) {
    measure_logprobs(rollout, &trainer.policy.decoder, &trainer.reference, 1.0).unwrap();
    let critic = trainer.critic.as_ref().unwrap();
    measure_values(rollout, &critic.decoder, critic.head.as_ref().unwrap());
}

fn compare(golden: &Value, name: &str, rollout: &[Experience], of: impl Fn(&Experience) -> &[f64]) {
    for (experience, want) in rollout.iter().zip(golden[name].as_array().unwrap()) {
        assert_all_near(name, of(experience), &numbers(want));
    }
}

#[test]
fn an_update_is_pytorchs_whatever_the_micro_batch() {
    let golden = golden("ppo_update.json");
    for micro_batch_size in [1, 3] {
        let mut trainer = trainer(&golden, micro_batch_size);
        let config = config(micro_batch_size);
        let mut rollout = rollout(&golden, &config);
        measure(&trainer, &mut rollout);
        compare(&golden, "old_logprobs", &rollout, |e| &e.old_logprobs);
        compare(&golden, "old_values", &rollout, |e| &e.values);

        // The golden reference has noise on its weights that only PyTorch can draw; its log-probs are given.
        for (experience, given) in rollout.iter_mut().zip(golden["ref_logprobs"].as_array().unwrap()) {
            experience.ref_logprobs = numbers(given);
        }
        assign_rewards(&mut rollout, config.kl_coef(), &config);
        compare(&golden, "token_rewards", &rollout, |e| &e.rewards);
        estimate_advantages(&mut rollout, &config);
        compare(&golden, "returns", &rollout, |e| &e.returns);
        compare(&golden, "whitened_advantages", &rollout, |e| &e.advantages);

        let updates = trainer.update(&rollout, PpoRates { policy: Some(1e-3), critic: 1e-3 }, 1).unwrap();
        let wanted = golden["updates"].as_array().unwrap();
        assert_eq!(updates.len(), wanted.len());
        for (epoch, (got, want)) in updates.iter().zip(wanted).enumerate() {
            let near = |name: &str, got: f64| {
                assert_near(&format!("{name}, epoch {epoch}"), got, want[name].as_f64().unwrap())
            };
            near("policy_loss", got.policy_loss);
            near("value_loss", got.value_loss);
            near("policy_grad_norm", got.policy_grad_norm);
            near("value_grad_norm", got.value_grad_norm);
            near("approxkl", got.approxkl);
        }
        // The first update has a ratio of 1 everywhere, so its loss is the mean of whitened advantages.
        assert!(updates[0].policy_loss.abs() < 1e-6, "first policy loss {}", updates[0].policy_loss);
        assert_near("first ratio", updates[0].ratio, 1.0);

        measure(&trainer, &mut rollout);
        compare(&golden, "final_logprobs", &rollout, |e| &e.old_logprobs);
        compare(&golden, "final_values", &rollout, |e| &e.values);
    }
}

/// A critic on the policy's trunk warms up without moving the policy: only its head learns.
#[test]
fn a_shared_trunk_stays_while_its_critic_warms_up() {
    let golden = golden("ppo_update.json");
    let config = PpoConfig { critic: CriticTrunk::Policy, ..config(3) };
    let weights: Vec<f32> = numbers(&golden["value_head_weight"][0]).into_iter().map(|w| w as f32).collect();
    let mut trainer = PpoTrainer::new(llama(), Some((llama(), head(weights))), &config, 0).unwrap();
    assert!(trainer.critic.is_none());
    let mut rollout = rollout(&golden, &config);
    measure_logprobs(&mut rollout, &trainer.policy.decoder, &trainer.reference, 1.0).unwrap();
    measure_values(&mut rollout, &trainer.policy.decoder, trainer.policy.head.as_ref().unwrap());
    compare(&golden, "old_values", &rollout, |e| &e.values);
    assign_rewards(&mut rollout, config.kl_coef(), &config);
    estimate_advantages(&mut rollout, &config);

    let parts = |trainer: &PpoTrainer| {
        (bits(&trainer.policy.decoder), trainer.policy.head.as_ref().unwrap().values())
    };
    let before = parts(&trainer);
    let warm_up = trainer.update(&rollout, PpoRates { policy: None, critic: 1e-3 }, 1).unwrap();
    let warmed = parts(&trainer);
    assert!(warmed.0 == before.0 && warmed.1 != before.1);
    assert!(warm_up[0].value_grad_norm > 0.0 && warm_up[0].policy_grad_norm == 0.0);
    let both = trainer.update(&rollout, PpoRates { policy: Some(1e-3), critic: 1e-3 }, 2).unwrap();
    assert!(parts(&trainer).0 != before.0 && both[0].policy_grad_norm > 0.0);
}
