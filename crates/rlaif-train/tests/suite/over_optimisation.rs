//! A reward with a planted exploit: it pays three times for two tokens that are worth nothing. Over-optimisation is seen by a score
//! that training never maximises, and the policy of its peak is put back.

use crate::common::{Recorder, constant, llama, sampling};
use rlaif_core::config::{Algorithm, PpoConfig, WatchConfig};
use rlaif_core::metrics;
use rlaif_train::{PpoReport, PromptIds, Tuning, train_ppo};

fn share(response: &[u32], wanted: impl Fn(u32) -> bool) -> f64 {
    response.iter().filter(|&&id| wanted(id)).count() as f64 / response.len() as f64
}

fn true_reward(response: &[u32]) -> f64 {
    share(response, |id| (100..140).contains(&id))
}

/// The true reward of each policy, as three rollouts of 512 responses show it, from the third on; and what training came to.
fn tune(
    exploit: f64,
    steps: usize,
    watch: Option<WatchConfig>,
    seed: u64,
) -> (Vec<f64>, PpoReport, Vec<String>) {
    let config = PpoConfig {
        algorithm: Algorithm::Rloo,
        steps,
        prompts_per_step: 16,
        samples_per_prompt: 32,
        micro_batch_size: 512,
        kl_coef: Some(0.0),
        missing_eos_penalty: None,
        save_steps: 1000,
        optim: constant(0.09 / steps as f64),
        watch,
        ..PpoConfig::default()
    };
    let prompts: Vec<_> =
        (0..16).map(|i| PromptIds { id: i.to_string(), ids: vec![60 + i, 30, 20] }).collect();
    let mut truth = Vec::new();
    let mut reward = |_: &[u32], response: &[u32]| {
        truth.push(true_reward(response));
        true_reward(response) + exploit * share(response, |id| id == 200 || id == 201)
    };
    let mut held_out = |_: &[u32], response: &[u32]| true_reward(response);
    let tuning = Tuning {
        policy: llama(),
        critic: None,
        prompts: &prompts,
        sampling: &sampling(8),
        reward: &mut reward,
        watch: Some(&mut held_out),
    };
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder::default();
    let report = train_ppo(tuning, &config, seed, dir.path(), &mut hooks).unwrap().finished().unwrap().report;
    let shown = hooks.rows.iter().filter_map(|row| row.values.get(metrics::OBJECTIVE_HELD_OUT_SCORES));
    let truth: Vec<f64> = truth.chunks(512).map(|rollout| rollout.iter().sum::<f64>() / 512.0).collect();
    shown.zip(&truth).for_each(|(shown, truth)| assert!((shown - truth).abs() < 1e-9));
    let truth = truth.windows(3).map(|rollouts| rollouts.iter().sum::<f64>() / 3.0).collect();
    (truth, report, hooks.warnings)
}

fn highest(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn an_exploit_is_stopped_before_a_tenth_is_lost_and_the_peak_is_put_back() {
    let (unwatched, ..) = tune(3.0, 60, None, 0);
    assert!(unwatched[unwatched.len() - 1] < 0.5 * highest(&unwatched), "the exploit ruins the policy");
    for seed in 0..3 {
        let (truth, report, warnings) = tune(3.0, 60, Some(WatchConfig::default()), seed);
        assert!(report.stopped_by_watch && warnings[0].contains("over-optimisation"), "{warnings:?}");
        let peak = highest(&truth);
        assert!(truth[truth.len() - 1] >= 0.9 * peak, "stopped at {truth:?}");
        assert!(report.kept_step < report.steps, "the policy of the peak comes back: {report:?}");
        assert!(truth[report.kept_step as usize - 2] >= 0.95 * peak, "{report:?}");
    }
}

#[test]
fn a_clean_run_is_left_alone() {
    for seed in 0..3 {
        let (truth, report, warnings) = tune(0.0, 30, Some(WatchConfig::default()), seed);
        assert!(!report.stopped_by_watch && warnings.is_empty(), "{warnings:?}");
        assert!(truth[report.kept_step as usize - 2] > 0.9 && report.steps == 30, "{report:?}");
    }
}
