//! A task whose optimum is known, for every algorithm: the tiny llama is rewarded for the share of its tokens that are of one
//! eighth of the vocabulary. A policy that always does scores 1; the untouched one about 1/8.

use crate::common::{Recorder, constant, llama, sampling};
use rlaif_core::config::{Algorithm, CriticTrunk, PpoConfig};
use rlaif_core::metrics;
use rlaif_model::ScalarHead;
use rlaif_train::{PromptIds, Tuning, train_ppo};

const SEEDS: u64 = 5;
const OPTIMUM: f64 = 1.0;

fn share_of_wanted(response: &[u32]) -> f64 {
    response.iter().filter(|&&id| (100..140).contains(&id)).count() as f64 / response.len() as f64
}

/// The mean share of wanted tokens in the first and the last rollout, when `sign` times the share is maximised.
fn tune(config: &PpoConfig, sign: f64, seed: u64) -> (f64, f64) {
    let prompts: Vec<_> =
        (0..4).map(|i| PromptIds { id: i.to_string(), ids: vec![60 + i, 30, 20] }).collect();
    let mut reward = |_: &[u32], response: &[u32]| sign * share_of_wanted(response);
    let policy = llama();
    let head = ScalarHead::zeros(policy.config().hidden_size, policy.device());
    let tuning = Tuning {
        critic: Some((policy.clone(), head)),
        policy,
        prompts: &prompts,
        sampling: &sampling(8),
        reward: &mut reward,
        watch: None,
    };
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder::default();
    let report = train_ppo(tuning, config, seed, dir.path(), &mut hooks).unwrap().finished().unwrap().report;
    assert!(hooks.warnings.is_empty(), "{:?}", hooks.warnings);
    assert!(hooks.rows[0].values[metrics::OBJECTIVE_KL].abs() < 1e-4, "the baseline is its own reference");
    (sign * report.first_score, sign * report.last_score)
}

fn config(algorithm: Algorithm) -> PpoConfig {
    PpoConfig {
        algorithm,
        steps: 50,
        prompts_per_step: 4,
        samples_per_prompt: 16,
        micro_batch_size: 64,
        kl_coef: (algorithm != Algorithm::OnlineDpo).then_some(0.01),
        missing_eos_penalty: None,
        save_steps: 1000,
        optim: constant(4e-3),
        critic_optim: constant(4e-3),
        ..PpoConfig::default()
    }
}

/// At least 90 % of the optimum from every seed; with the sign flipped, the opposite.
fn reaches_the_optimum(config: &PpoConfig) {
    let name = config.algorithm.name();
    for seed in 0..SEEDS {
        let (first, last) = tune(config, 1.0, seed);
        assert!((0.05..0.25).contains(&first), "{name}, seed {seed}: the baseline has {first}");
        assert!(last >= 0.9 * OPTIMUM, "{name}, seed {seed}: {last} after {} steps", config.steps);
        let (first, last) = tune(config, -1.0, seed);
        assert!(last < 0.2 * first, "{name}, seed {seed}, flipped: {first} became {last}");
    }
}

#[test]
fn ppo() {
    reaches_the_optimum(&config(Algorithm::Ppo));
}

#[test]
fn ppo_with_a_critic_on_the_policys_trunk() {
    reaches_the_optimum(&PpoConfig { critic: CriticTrunk::Policy, ..config(Algorithm::Ppo) });
}

#[test]
fn a2c() {
    reaches_the_optimum(&config(Algorithm::A2c));
}

#[test]
fn reinforce() {
    reaches_the_optimum(&config(Algorithm::Reinforce));
}

#[test]
fn rloo() {
    reaches_the_optimum(&config(Algorithm::Rloo));
}

#[test]
fn grpo() {
    reaches_the_optimum(&config(Algorithm::Grpo));
}

#[test]
fn reinforce_plus_plus() {
    reaches_the_optimum(&config(Algorithm::ReinforcePlusPlus));
}

#[test]
fn reinforce_baseline() {
    reaches_the_optimum(&config(Algorithm::ReinforceBaseline));
}

/// One step off-policy.
#[test]
fn sampling_ahead() {
    for algorithm in [Algorithm::Ppo, Algorithm::Grpo, Algorithm::OnlineDpo] {
        reaches_the_optimum(&PpoConfig { asynchronous: true, ..config(algorithm) });
    }
}

#[test]
fn online_dpo() {
    reaches_the_optimum(&config(Algorithm::OnlineDpo));
}
