//! Tasks whose right answer is known: trainers reach it.

use crate::common::{Recorder, constant, llama, preferences, sampling, some_head};
use rlaif_core::config::{DpoConfig, LoraConfig, PpoConfig, RewardConfig};
use rlaif_core::metrics;
use rlaif_train::{
    Outcome, PreferenceExample, PromptIds, Scorer, Silent, TrainError, TrainedPpo, Tuning, train_dpo,
    train_ppo, train_reward,
};

fn lora() -> Option<LoraConfig> {
    Some(LoraConfig { rank: 4, alpha: 16.0, ..LoraConfig::default() })
}

#[test]
fn dpo_ranks_held_out_pairs_with_full_weights_and_with_lora() {
    for (lora, rate) in [(None, 1e-3), (lora(), 5e-3)] {
        let config = DpoConfig {
            epochs: 4,
            holdout_fraction: 0.25,
            optim: constant(rate),
            lora,
            ..DpoConfig::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let mut hooks = Recorder::default();
        let outcome = train_dpo(llama(), &preferences(), &config, 1, dir.path(), &mut hooks).unwrap();
        let report = outcome.finished().unwrap().report;
        assert_eq!((report.holdout.len(), report.accuracy), (3, 1.0));
        assert!(report.margin > 0.2, "margin {}", report.margin);
        let margin = |row: usize| hooks.rows[row].values[metrics::REWARDS_MARGINS];
        assert!(margin(0).abs() < 1e-5, "policy and reference are equal at first: {}", margin(0));
        assert!(margin(hooks.rows.len() - 1) > 0.2);
        assert!(hooks.rows.iter().any(|row| row.values.contains_key(metrics::EVAL_REWARDS_ACCURACIES)));
    }
}

#[test]
fn the_reward_model_ranks_held_out_pairs_and_reloads() {
    let config =
        RewardConfig { epochs: 6, holdout_fraction: 0.25, optim: constant(1e-3), ..RewardConfig::default() };
    let dir = tempfile::tempdir().unwrap();
    let outcome =
        train_reward(llama(), some_head(), &preferences(), &config, 1, dir.path(), &mut Silent).unwrap();
    let trained = outcome.finished().unwrap();
    assert_eq!((trained.report.holdout.len(), trained.report.accuracy), (3, 1.0));
    assert!(trained.report.margin > 0.2, "margin {}", trained.report.margin);

    let folder = dir.path().join("saved");
    let tokenizer = rlaif_model::Tokenizer::from_folder(&crate::common::golden_llama()).unwrap();
    let dtype = rlaif_model::SaveDtype::F32;
    rlaif_model::save_reward_model(&trained.decoder, &trained.head, &tokenizer, &folder, dtype).unwrap();
    let (decoder, head) = rlaif_train::load_reward_model(&folder, trained.decoder.device()).unwrap();
    let items: Vec<(&[u32], &[u32])> =
        vec![(&[52, 29], &[70, 70, 2]), (&[53], &[80]), (&[52, 29], &[70, 70, 2])];
    let rewards = |decoder, head| Scorer::new(decoder, head, 4).rewards(&items).unwrap();
    let (before, after) = (rewards(&trained.decoder, &trained.head), rewards(&decoder, &head));
    assert_eq!(before, after);
    assert_eq!(before[0], before[2]);
    assert!(
        rlaif_train::load_reward_model(&crate::common::golden_llama(), decoder.device()).is_err(),
        "a policy is no reward model"
    );
}

/// PPO with a rule for a reward: the share of tokens with an id below 40, an eighth of the vocabulary.
fn low_ids(config: &PpoConfig, hooks: &mut Recorder) -> TrainedPpo {
    let prompts: Vec<_> =
        (0..4).map(|i| PromptIds { id: i.to_string(), ids: vec![60 + i, 30, 20] }).collect();
    let mut share = |_: &[u32], response: &[u32]| {
        response.iter().filter(|&&id| id < 40).count() as f64 / response.len() as f64
    };
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning {
        policy: llama(),
        critic: Some((llama(), some_head())),
        prompts: &prompts,
        sampling: &sampling(8),
        reward: &mut share,
        watch: None,
    };
    train_ppo(tuning, config, 3, dir.path(), hooks).unwrap().finished().unwrap()
}

fn ppo_config() -> PpoConfig {
    PpoConfig {
        steps: 20,
        prompts_per_step: 4,
        samples_per_prompt: 8,
        epochs: Some(2),
        micro_batch_size: 16,
        kl_coef: Some(0.02),
        missing_eos_penalty: None,
        optim: constant(2e-3),
        critic_optim: constant(2e-3),
        ..PpoConfig::default()
    }
}

#[test]
fn ppo_raises_a_rule_reward_with_full_weights_and_with_lora() {
    for (lora, rate) in [(None, 2e-3), (lora(), 3e-3)] {
        let config = PpoConfig { lora, samples_per_prompt: 16, optim: constant(rate), ..ppo_config() };
        let mut hooks = Recorder::default();
        let report = low_ids(&config, &mut hooks).report;
        assert!(report.first_score < 0.2, "baseline {}", report.first_score);
        assert!(report.last_score > report.first_score + 0.2, "{report:?}");
        let first = &hooks.rows[0].values;
        assert!(first[metrics::OBJECTIVE_KL].abs() < 1e-4, "the baseline is its own reference");
        assert_eq!(first[metrics::LR], 0.0, "the critic warms up alone");
        let last = &hooks.rows[19].values;
        assert!(last[metrics::OBJECTIVE_KL] > 0.1);
        let sum = last[metrics::OBJECTIVE_SCORES] + last[metrics::OBJECTIVE_NON_SCORE_REWARD];
        assert!((last[metrics::OBJECTIVE_RLHF_REWARD] - sum).abs() < 1e-9);
    }
}

#[test]
fn ppo_stops_at_its_kl_budget_and_keeps_a_policy_within_it() {
    let config = PpoConfig { kl_budget: Some(0.5), kl_coef: Some(0.0), ..ppo_config() };
    let mut hooks = Recorder::default();
    let trained = low_ids(&config, &mut hooks);
    let report = &trained.report;
    assert!(report.stopped_by_kl_budget && report.kept_step < report.steps, "{report:?}");
    assert!(report.kl <= 0.5, "{report:?}");
    assert!(hooks.warnings[0].contains("KL budget"), "{:?}", hooks.warnings);

    // What is kept is the policy of that step: the same run, cut there, has the same weights.
    let shorter = PpoConfig { steps: report.kept_step as usize, kl_budget: None, ..config };
    let cut = low_ids(&shorter, &mut Recorder::default());
    assert!(crate::common::bits(&cut.policy) == crate::common::bits(&trained.policy));
}

#[test]
fn bad_examples_are_named_before_anything_is_computed() {
    let dir = tempfile::tempdir().unwrap();
    let train = |data: &[PreferenceExample]| {
        let outcome = train_dpo(llama(), data, &DpoConfig::default(), 1, dir.path(), &mut Silent);
        outcome.map(|o| matches!(o, Outcome::Finished(_))).unwrap_err()
    };
    assert!(matches!(train(&[]), TrainError::NoData { trainer: "dpo", .. }));
    let spoil = |spoil: fn(&mut PreferenceExample)| {
        let mut data = preferences();
        spoil(&mut data[5]);
        train(&data).to_string()
    };
    let messages = [
        (spoil(|e| e.p = 1.5), "p must be in [0, 1], got 1.5"),
        (spoil(|e| e.chosen_ids.clear()), "at least one token"),
        (spoil(|e| e.rejected_ids[0] = 320), "token id 320"),
        (spoil(|e| e.prompt_ids = vec![5; 126]), "context of 128"),
    ];
    for (message, part) in messages {
        assert!(message.contains("`p1`") && message.contains(part), "{message}");
    }
    assert!(!dir.path().join("checkpoints").exists());
}

/// Weights that blow up, and a score that is no number: training stops at the step, names its rows, and leaves the checkpoint before it.
#[test]
fn what_is_not_a_number_stops_training_and_is_told_with_step_and_rows() {
    let optim = || constant(1e25);
    let dir = tempfile::tempdir().unwrap();
    let stopped = |error: TrainError, name: &str, step: u64, known: &str| {
        let message = error.to_string();
        let TrainError::NotFinite { step: at, rows, .. } = error else { panic!("{name}: {message}") };
        assert!(at == step && rows.iter().any(|row| row == known), "{name}: {message}");
        assert!(message.contains(&format!("`{known}`")), "{message}");
        let kept = dir.path().join(name).join(format!("checkpoints/step-{:06}/state.json", step - 1));
        assert!(kept.is_file(), "{name}: the checkpoint before it is kept");
    };
    let reward = RewardConfig { batch_size: 12, save_steps: 1, optim: optim(), ..RewardConfig::default() };
    let at = dir.path().join("reward");
    let error = train_reward(llama(), some_head(), &preferences(), &reward, 1, &at, &mut Silent).unwrap_err();
    stopped(error, "reward", 2, "p1");
    let dpo = DpoConfig { batch_size: 12, save_steps: 1, optim: optim(), ..DpoConfig::default() };
    let error =
        train_dpo(llama(), &preferences(), &dpo, 1, &dir.path().join("dpo"), &mut Silent).unwrap_err();
    stopped(error, "dpo", 2, "p1");

    let mut scored = 0;
    let mut score = |_: &[u32], _: &[u32]| {
        scored += 1;
        if scored > 8 { f64::NAN } else { f64::from(scored) }
    };
    let config = PpoConfig { samples_per_prompt: 2, save_steps: 1, ..ppo_config() };
    let prompts: Vec<_> = (0..4).map(|i| PromptIds { id: format!("p{i}"), ids: vec![60 + i, 30] }).collect();
    let tuning = Tuning {
        policy: llama(),
        critic: Some((llama(), some_head())),
        prompts: &prompts,
        sampling: &sampling(4),
        reward: &mut score,
        watch: None,
    };
    let error = train_ppo(tuning, &config, 1, &dir.path().join("ppo"), &mut Silent).unwrap_err();
    stopped(error, "ppo", 2, "p1");
}
