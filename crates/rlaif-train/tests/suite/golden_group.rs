//! One update of GRPO and RLOO on a batch whose log-probs have moved since it was sampled, against TRL 1.16's own losses
//! (`golden/make_group_losses.py`): every reduction, both places of the ratio, with and without KL, each clip.

use crate::common::{assert_all_near, assert_near, constant, golden, ids, llama, numbers};
use rlaif_core::config::{Algorithm, PpoConfig};
use rlaif_train::PpoTrainer;
use rlaif_train::ppo_trainer::PpoRates;
use rlaif_train::rollout::Experience;
use rlaif_train::sequence_logprobs;
use serde_json::Value;

fn experiences(golden: &Value, config: &PpoConfig) -> Vec<Experience> {
    let advantages = numbers(&golden["advantages"]);
    let mut experiences = Vec::new();
    for (group, (prompt, responses)) in
        golden["prompts"].as_array().unwrap().iter().zip(golden["responses"].as_array().unwrap()).enumerate()
    {
        for response in responses.as_array().unwrap() {
            let at = experiences.len();
            let sampled = Experience::new(ids(prompt), ids(response), true, config, 8);
            experiences.push(Experience {
                group,
                old_logprobs: numbers(&golden["old_logprobs"][at]),
                ref_logprobs: numbers(&golden["ref_logprobs"][at]),
                advantages: vec![advantages[at]; sampled.response_ids.len()],
                ..sampled
            });
        }
    }
    experiences
}

#[test]
fn losses_and_gradients_are_trls_whatever_the_micro_batch() {
    let golden = golden("group_losses.json");
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let algorithm = if case["ratio"] == "sequence" { Algorithm::Rloo } else { Algorithm::Grpo };
        let read = |key: &str| serde_json::from_value(case[key].clone()).unwrap();
        for micro_batch_size in [1, 4, 6] {
            let config = PpoConfig {
                algorithm,
                micro_batch_size,
                kl_coef: case["kl_coef"].as_f64(),
                ratio: serde_json::from_value(case["ratio"].clone()).unwrap(),
                reduction: (!case["reduction"].is_null()).then(|| read("reduction")),
                cliprange_high: case["cliprange_high"].as_f64(),
                dual_clip: case["dual_clip"].as_f64(),
                max_new_tokens: golden["max_completion_length"].as_u64().map(|n| n as usize),
                optim: constant(1e-3),
                ..PpoConfig::default()
            };
            let experiences = experiences(&golden, &config);
            let mut trainer = PpoTrainer::new(llama(), None, &config, 0).unwrap();
            let items: Vec<_> = experiences.iter().map(Experience::item).collect();
            for (got, want) in sequence_logprobs(&trainer.reference, &items, 1.0, 64)
                .unwrap()
                .iter()
                .zip(golden["logprobs"].as_array().unwrap())
            {
                let got: Vec<f64> = got.iter().map(|&logprob| f64::from(logprob)).collect();
                assert_all_near("logprobs", &got, &numbers(want));
            }
            let rates = PpoRates { policy: Some(1e-3), critic: 0.0 };
            let updates = trainer.update(&experiences, rates, 1).unwrap();
            assert_eq!(updates.len(), 1);
            assert_near(&format!("loss of {case}"), updates[0].policy_loss, case["loss"].as_f64().unwrap());
            let norm = case["grad_norm"].as_f64().unwrap();
            assert_near(&format!("grad_norm of {case}"), updates[0].policy_grad_norm, norm);
        }
    }
}

/// A response that does not end is no part of the loss, nor of what it is divided by.
#[test]
fn truncated_responses_can_be_left_out() {
    let golden = golden("group_losses.json");
    for reduction in ["grpo", "dapo", "bnpo", "dr_grpo"] {
        let config = PpoConfig {
            algorithm: Algorithm::Grpo,
            reduction: serde_json::from_value(reduction.into()).unwrap(),
            max_new_tokens: Some(8),
            optim: constant(1e-3),
            mask_truncated: true,
            ..PpoConfig::default()
        };
        let update = |experiences: &[Experience]| {
            let mut trainer = PpoTrainer::new(llama(), None, &config, 0).unwrap();
            let rates = PpoRates { policy: Some(1e-3), critic: 0.0 };
            trainer.update(experiences, rates, 1).unwrap()[0]
        };
        let mut whole = experiences(&golden, &config);
        whole[1].ended = false;
        let mut without = whole.clone();
        without.remove(1);
        let (masked, without) = (update(&whole), update(&without));
        assert_near("loss", masked.policy_loss, without.policy_loss);
        assert_near("grad_norm", masked.policy_grad_norm, without.policy_grad_norm);
        whole.iter_mut().for_each(|experience| experience.ended = false);
        assert_eq!(update(&whole).policy_grad_norm, 0.0, "{reduction}: nothing is left to learn from");
    }
}

/// A policy that has moved too far from the one that sampled does not learn from that rollout again.
#[test]
fn passes_over_a_rollout_end_where_the_policy_has_moved_too_far() {
    let golden = golden("group_losses.json");
    let updates = |target_approxkl| {
        let config = PpoConfig {
            algorithm: Algorithm::Grpo,
            epochs: Some(6),
            target_approxkl,
            optim: constant(1e-2),
            ..PpoConfig::default()
        };
        let mut experiences = experiences(&golden, &config);
        for (experience, now) in experiences.iter_mut().zip(golden["logprobs"].as_array().unwrap()) {
            experience.old_logprobs = numbers(now);
        }
        let mut trainer = PpoTrainer::new(llama(), None, &config, 0).unwrap();
        let rates = PpoRates { policy: Some(1e-2), critic: 0.0 };
        trainer.update(&experiences, rates, 1).unwrap()
    };
    let (free, held) = (updates(None), updates(Some(0.05)));
    assert_eq!(free.len(), 6);
    assert!(held.len() < 6 && held.len() > 1, "{held:?}");
    let (last, before) = (held.last().unwrap(), &held[..held.len() - 1]);
    assert!(last.approxkl > 0.075 && last.policy_grad_norm == 0.0, "{last:?}");
    assert!(before.iter().all(|update| update.approxkl <= 0.075));
}
