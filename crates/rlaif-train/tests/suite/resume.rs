//! Stopped and continued training comes to the same weights as uninterrupted training, bit for bit.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::common::{Recorder, bits, llama, preferences, sampling, some_head, three_heads};
use rlaif_core::config::{
    Algorithm, BatchBy, CriticTrunk, DpoConfig, DpoLossKind, Dtype, LoraConfig, MatmulPrecision, OptimConfig,
    OptimizerKind, PolicyWatchConfig, PpoConfig, RewardConfig, RewardWatchConfig, SftConfig, WatchConfig,
};
use rlaif_model::set_float32_matmul_precision;
use rlaif_train::{
    HeldOut, Hooks, Outcome, PromptIds, SftExample, Silent, Tuning, train_dpo, train_dpo_watched, train_ppo,
    train_reward, train_sft_watched,
};

type Bits = BTreeMap<String, Vec<u32>>;

fn optim() -> OptimConfig {
    OptimConfig::with_learning_rate(1e-3)
}

/// [`optim`] in the dtype of another.
fn like(given: &OptimConfig) -> OptimConfig {
    OptimConfig { dtype: given.dtype, ..optim() }
}

fn bfloat16() -> OptimConfig {
    OptimConfig { dtype: Dtype::Bfloat16, ..optim() }
}

fn lora() -> Option<LoraConfig> {
    Some(LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() })
}

/// Weights after training in `dir`, or none if it was stopped.
type Train<'a> = &'a dyn Fn(&Path, &mut dyn Hooks) -> Option<Bits>;

/// A look every third step, while checkpoints are written every second, at three prompts.
fn watch() -> Option<PolicyWatchConfig> {
    Some(PolicyWatchConfig { eval_steps: 3, window: 2, max_drop: Some(0.9), ..PolicyWatchConfig::default() })
}

/// Runs `train` with somebody who looks at three prompts.
fn held_out<T>(train: impl FnOnce(Option<HeldOut<'_>>) -> T) -> T {
    let prompts: Vec<_> =
        (0..3).map(|i| PromptIds { id: i.to_string(), ids: vec![60 + i, 30, 20] }).collect();
    let mut few =
        |_: &[u32], response: &[u32]| -(response.iter().filter(|&&id| id == 70).count() as f64 - 1.5).abs();
    train(Some(HeldOut { prompts: &prompts, sampling: &sampling(6), score: &mut few }))
}

fn sft(lora: Option<LoraConfig>, dir: &Path, hooks: &mut dyn Hooks) -> Option<Bits> {
    sft_with(SftConfig { lora, ..SftConfig::default() }, dir, hooks)
}

fn sft_with(config: SftConfig, dir: &Path, hooks: &mut dyn Hooks) -> Option<Bits> {
    let config = SftConfig {
        epochs: 2,
        batch_size: 3,
        micro_batch_size: 2,
        neftune_noise_alpha: Some(5.0),
        save_steps: 2,
        optim: like(&config.optim),
        ..config
    };
    let rows: Vec<_> = preferences()
        .into_iter()
        .enumerate()
        .map(|(i, pair)| SftExample {
            id: format!("rows.jsonl:{i}"),
            prompt_id: pair.prompt_id,
            mask: [vec![false; pair.prompt_ids.len()], vec![true; pair.chosen_ids.len()]].concat(),
            ids: [pair.prompt_ids, pair.chosen_ids].concat(),
        })
        .collect();
    let outcome = held_out(|held_out| train_sft_watched(llama(), &rows, held_out, &config, 5, dir, hooks));
    outcome.unwrap().finished().map(|trained| bits(&trained.policy))
}

fn reward(config: RewardConfig, dir: &Path, hooks: &mut dyn Hooks) -> Option<Bits> {
    let config = RewardConfig {
        batch_size: 3,
        micro_batch_size: 2,
        save_steps: 2,
        optim: like(&config.optim),
        ..config
    };
    let head = if config.heads == 3 { three_heads() } else { some_head() };
    let outcome = train_reward(llama(), head, &preferences(), &config, 5, dir, hooks).unwrap();
    outcome.finished().map(|trained| {
        let mut all = bits(&trained.decoder);
        all.insert("score".into(), trained.head.values().into_iter().map(f32::to_bits).collect());
        all
    })
}

fn dpo(lora: Option<LoraConfig>, dir: &Path, hooks: &mut dyn Hooks) -> Option<Bits> {
    dpo_with(DpoConfig { lora, ..DpoConfig::default() }, dir, hooks)
}

fn dpo_with(config: DpoConfig, dir: &Path, hooks: &mut dyn Hooks) -> Option<Bits> {
    let config =
        DpoConfig { batch_size: 3, micro_batch_size: 2, save_steps: 2, optim: like(&config.optim), ..config };
    let train = |held_out: Option<HeldOut<'_>>| {
        train_dpo_watched(llama(), &preferences(), held_out, &config, 5, dir, hooks)
    };
    held_out(train).unwrap().finished().map(|trained| bits(&trained.policy))
}

fn ppo(lora: Option<LoraConfig>, dir: &Path, hooks: &mut dyn Hooks) -> Option<Bits> {
    let kl_controller = rlaif_core::config::KlController::Adaptive;
    let config =
        PpoConfig { mini_batches: 2, kl_budget: Some(50.0), kl_controller, lora, ..PpoConfig::default() };
    online(config, dir, hooks)
}

fn online(config: PpoConfig, dir: &Path, hooks: &mut dyn Hooks) -> Option<Bits> {
    let config = PpoConfig {
        steps: 5,
        prompts_per_step: 2,
        samples_per_prompt: 3,
        micro_batch_size: 2,
        save_steps: 2,
        optim: like(&config.optim),
        critic_optim: like(&config.critic_optim),
        ..config
    };
    let prompts: Vec<_> =
        (0..3).map(|i| PromptIds { id: i.to_string(), ids: vec![60 + i, 30, 20] }).collect();
    let mut count = |_: &[u32], response: &[u32]| response.iter().filter(|&&id| id < 100).count() as f64;
    let mut held_out = |_: &[u32], response: &[u32]| -(response.len() as f64);
    let tuning = Tuning {
        policy: llama(),
        critic: Some((llama(), some_head())),
        prompts: &prompts,
        sampling: &sampling(6),
        reward: &mut count,
        watch: Some(&mut held_out),
    };
    train_ppo(tuning, &config, 5, dir, hooks).unwrap().finished().map(|trained| {
        let mut all = bits(&trained.policy);
        if let Some((trunk, head)) = &trained.critic {
            all.extend(bits(trunk).into_iter().map(|(name, values)| (format!("critic/{name}"), values)));
            all.insert("value_head".into(), head.values().into_iter().map(f32::to_bits).collect());
        }
        all
    })
}

/// Trains straight through; then stops after every `stride` steps and goes on with everything read from disk.
fn straight_equals_interrupted(train: Train<'_>, stride: usize) {
    let straight_dir = tempfile::tempdir().unwrap();
    let straight = train(straight_dir.path(), &mut Silent).unwrap();
    assert_ne!(straight["model.norm.weight"], vec![0; 48]);

    let dir = tempfile::tempdir().unwrap();
    let mut stops = 0;
    let interrupted = loop {
        let mut hooks = Recorder::stopping_after(stride);
        match train(dir.path(), &mut hooks) {
            Some(weights) => break weights,
            None => stops += 1,
        }
        assert_eq!(hooks.resumed.unwrap_or(0), (stops as u64 - 1) * stride as u64);
        assert!(hooks.warnings.is_empty(), "{:?}", hooks.warnings);
    };
    assert!(stops >= 2, "stopped {stops} times");
    assert!(straight == interrupted, "weights differ after resuming");
    assert!(train(dir.path(), &mut Silent).unwrap() == straight, "a finished run loads what it came to");
}

/// With noise, which is random by step.
#[test]
fn sft_resumes_exactly() {
    straight_equals_interrupted(&|dir, hooks| sft(None, dir, hooks), 1);
}

#[test]
fn sft_with_lora_resumes_exactly() {
    straight_equals_interrupted(&|dir, hooks| sft(lora(), dir, hooks), 2);
}

#[test]
fn reward_resumes_exactly() {
    straight_equals_interrupted(&|dir, hooks| reward(RewardConfig::default(), dir, hooks), 2);
}

#[test]
fn reward_by_prompts_with_truncated_negatives_resumes_exactly() {
    let config = || RewardConfig {
        batch_by: BatchBy::Prompts,
        truncated_negatives: 0.5,
        label_smoothing: 0.1,
        epochs: 5,
        ..RewardConfig::default()
    };
    straight_equals_interrupted(&|dir, hooks| reward(config(), dir, hooks), 2);
}

#[test]
fn a_reward_model_of_several_heads_resumes_exactly() {
    let config = || RewardConfig { heads: 3, ..RewardConfig::default() };
    straight_equals_interrupted(&|dir, hooks| reward(config(), dir, hooks), 2);
}

#[test]
fn dpo_resumes_exactly() {
    straight_equals_interrupted(&|dir, hooks| dpo(None, dir, hooks), 1);
}

#[test]
fn dpo_with_lora_resumes_exactly() {
    straight_equals_interrupted(&|dir, hooks| dpo(lora(), dir, hooks), 2);
}

/// A loss without a reference, one that sorts batches, and one with a reference point.
#[test]
fn other_losses_resume_exactly() {
    for loss in [DpoLossKind::Simpo, DpoLossKind::Aot, DpoLossKind::Kto] {
        let config = || DpoConfig { loss, soft_labels: loss != DpoLossKind::Aot, ..DpoConfig::default() };
        straight_equals_interrupted(&|dir, hooks| dpo_with(config(), dir, hooks), 2);
    }
}

#[test]
fn the_choice_of_the_best_checkpoint_resumes_exactly() {
    for lora in [None, lora()] {
        let dpo = || DpoConfig { watch: watch(), lora: lora.clone(), epochs: 4, ..DpoConfig::default() };
        straight_equals_interrupted(&|dir, hooks| dpo_with(dpo(), dir, hooks), 2);
        straight_equals_interrupted(&|dir, hooks| dpo_with(dpo(), dir, hooks), 1);
        let sft = || SftConfig { watch: watch(), lora: lora.clone(), ..SftConfig::default() };
        straight_equals_interrupted(&|dir, hooks| sft_with(sft(), dir, hooks), 1);
    }
    let watch = Some(RewardWatchConfig { eval_steps: 1, window: 2, ..RewardWatchConfig::default() });
    let config = || RewardConfig { watch: watch.clone(), heads: 3, ..RewardConfig::default() };
    straight_equals_interrupted(&|dir, hooks| reward(config(), dir, hooks), 2);
}

#[test]
fn ppo_resumes_exactly() {
    straight_equals_interrupted(&|dir, hooks| ppo(None, dir, hooks), 1);
}

#[test]
fn ppo_with_lora_resumes_exactly() {
    straight_equals_interrupted(&|dir, hooks| ppo(lora(), dir, hooks), 2);
}

/// Masks come from the step and the micro-batch, factors from the checkpoint.
#[test]
fn dropout_and_adafactor_resume_exactly() {
    let masked = || lora().map(|lora| LoraConfig { dropout: 0.2, use_rslora: true, ..lora });
    straight_equals_interrupted(&|dir, hooks| dpo(masked(), dir, hooks), 2);
    straight_equals_interrupted(&|dir, hooks| ppo(masked(), dir, hooks), 2);
    let optim = || OptimConfig { optimizer: OptimizerKind::Adafactor, min_lr_ratio: 0.1, ..optim() };
    let adafactor = |dir: &Path, hooks: &mut dyn Hooks| {
        let config = RewardConfig {
            batch_size: 3,
            micro_batch_size: 2,
            save_steps: 2,
            optim: optim(),
            ..Default::default()
        };
        let outcome = train_reward(llama(), some_head(), &preferences(), &config, 5, dir, hooks).unwrap();
        outcome.finished().map(|trained| bits(&trained.decoder))
    };
    straight_equals_interrupted(&adafactor, 2);
    let dir = tempfile::tempdir().unwrap();
    let plain = reward(RewardConfig::default(), dir.path(), &mut Silent);
    assert_ne!(adafactor(dir.path(), &mut Silent), plain);
}

/// Rounding is of what is multiplied, and nothing that was rounded is kept. The setting is the process's, and this test's as nextest runs it.
#[test]
fn rounded_products_resume_exactly() {
    if set_float32_matmul_precision(MatmulPrecision::Medium) != MatmulPrecision::Medium {
        println!("skipped: this processor does not multiply bfloat16 numbers");
        return;
    }
    straight_equals_interrupted(&|dir, hooks| sft(None, dir, hooks), 1);
    straight_equals_interrupted(&|dir, hooks| reward(RewardConfig::default(), dir, hooks), 2);
    straight_equals_interrupted(&|dir, hooks| dpo(lora(), dir, hooks), 2);
    straight_equals_interrupted(&|dir, hooks| ppo(None, dir, hooks), 2);
    let dir = tempfile::tempdir().unwrap();
    let rounded = sft(None, dir.path(), &mut Silent);
    set_float32_matmul_precision(MatmulPrecision::Highest);
    let dir = tempfile::tempdir().unwrap();
    assert_ne!(sft(None, dir.path(), &mut Silent), rounded, "something was rounded");
}

/// Masters come from the checkpoint, working weights from them.
#[test]
fn bfloat16_weights_resume_exactly() {
    for lora in [None, lora()] {
        let config = || SftConfig { optim: bfloat16(), lora: lora.clone(), ..SftConfig::default() };
        straight_equals_interrupted(&|dir, hooks| sft_with(config(), dir, hooks), 2);
        let config = || RewardConfig { optim: bfloat16(), lora: lora.clone(), ..RewardConfig::default() };
        straight_equals_interrupted(&|dir, hooks| reward(config(), dir, hooks), 2);
        let config = || DpoConfig { optim: bfloat16(), lora: lora.clone(), ..DpoConfig::default() };
        straight_equals_interrupted(&|dir, hooks| dpo_with(config(), dir, hooks), 2);
        for critic in [CriticTrunk::Own, CriticTrunk::Policy] {
            let config = || PpoConfig {
                optim: bfloat16(),
                critic_optim: bfloat16(),
                critic,
                kl_budget: Some(50.0),
                mini_batches: 2,
                lora: lora.clone(),
                ..PpoConfig::default()
            };
            straight_equals_interrupted(&|dir, hooks| online(config(), dir, hooks), 2);
        }
    }
}

/// A checkpoint of float32 weights is none of bfloat16 ones.
#[test]
fn another_dtype_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let float32 = dpo(None, dir.path(), &mut Silent).unwrap();
    let mut hooks = Recorder::default();
    let config = DpoConfig { optim: bfloat16(), ..DpoConfig::default() };
    let rounded = dpo_with(config, dir.path(), &mut hooks).unwrap();
    assert_eq!(hooks.resumed, None);
    assert!(rounded != float32);
    assert!(rounded.values().flatten().all(|bits| bits % (1 << 16) == 0), "all weights are bfloat16");
}

/// Dropout decides what is learnt, and only where there is any.
#[test]
fn dropout_changes_what_is_learnt() {
    let learnt = |dropout| {
        let dir = tempfile::tempdir().unwrap();
        dpo(lora().map(|lora| LoraConfig { dropout, ..lora }), dir.path(), &mut Silent).unwrap()
    };
    assert!(learnt(0.0) == learnt(0.0));
    assert!(learnt(0.0) != learnt(0.3));
}

#[test]
fn every_online_algorithm_resumes_exactly_with_and_without_a_watch() {
    for algorithm in Algorithm::ALL {
        let watch = algorithm.compares().then_some(WatchConfig { window: 2, max_drop: 0.5, judges: None });
        let config = || PpoConfig { algorithm, watch: watch.clone(), ..PpoConfig::default() };
        straight_equals_interrupted(&|dir, hooks| online(config(), dir, hooks), 2);
    }
}

/// What is sampled and not yet learnt comes back with the log-probs of the policy that sampled it, and that policy where it may be kept.
#[test]
fn sampling_ahead_resumes_exactly_and_is_another_training() {
    let watch = || Some(WatchConfig { window: 2, max_drop: 0.5, judges: None });
    for (algorithm, watch) in
        [(Algorithm::Ppo, None), (Algorithm::Grpo, watch()), (Algorithm::OnlineDpo, watch())]
    {
        let config = |asynchronous| PpoConfig {
            algorithm,
            asynchronous,
            watch: watch.clone(),
            ..PpoConfig::default()
        };
        straight_equals_interrupted(&|dir, hooks| online(config(true), dir, hooks), 1);
        straight_equals_interrupted(&|dir, hooks| online(config(true), dir, hooks), 2);
        let weights = |asynchronous| {
            let dir = tempfile::tempdir().unwrap();
            online(config(asynchronous), dir.path(), &mut Silent).unwrap()
        };
        assert!(watch.is_some() || weights(true) != weights(false));
    }
}

#[test]
fn a_critic_on_the_policys_trunk_resumes_exactly() {
    let config = || PpoConfig { critic: CriticTrunk::Policy, ..PpoConfig::default() };
    straight_equals_interrupted(&|dir, hooks| online(config(), dir, hooks), 2);
}

#[test]
fn a_killed_run_goes_on_from_the_last_checkpoint_even_if_the_newest_is_cut_short() {
    let straight_dir = tempfile::tempdir().unwrap();
    let straight = dpo(None, straight_dir.path(), &mut Silent).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder::stopping_after(3);
    assert!(dpo(None, dir.path(), &mut hooks).is_none());
    let checkpoints = dir.path().join("checkpoints");
    let newest = checkpoints.join("step-000003/tensors.safetensors");
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, &whole[..whole.len() / 3]).unwrap();
    fs::create_dir(checkpoints.join(".unfinished-step-000004")).unwrap(); // what a kill in the middle of a write leaves

    let mut hooks = Recorder::default();
    let weights = dpo(None, dir.path(), &mut hooks).unwrap();
    assert_eq!(hooks.resumed, Some(2));
    assert!(hooks.warnings.len() == 1 && hooks.warnings[0].contains("step-000003"), "{:?}", hooks.warnings);
    assert!(weights == straight);
}

#[test]
fn another_config_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    dpo(None, dir.path(), &mut Silent).unwrap();
    let mut hooks = Recorder::default();
    let config = DpoConfig { beta: Some(0.2), epochs: 1, optim: optim(), ..DpoConfig::default() };
    let outcome = train_dpo(llama(), &preferences(), &config, 5, dir.path(), &mut hooks).unwrap();
    assert!(matches!(outcome, Outcome::Finished(_)));
    assert_eq!(hooks.resumed, None);
}
