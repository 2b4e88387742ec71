//! Bfloat16 weights with float32 masters: the steps of PyTorch (`golden/make_bfloat16_steps.py`), and what masters are for.

use crate::common::{
    Recorder, assert_within, bits, constant, golden, golden_pairs, llama, numbers, preferences,
    referenced_by, sampling, some_head,
};
use crate::golden_sft::rows;
use rlaif_core::config::{
    DpoConfig, Dtype, LoraConfig, OptimConfig, OptimizerKind, PpoConfig, RewardConfig, SftConfig,
};
use rlaif_core::metrics;
use rlaif_model::{Decoder, rounded_to_bfloat16};
use rlaif_train::learner::Learner;
use rlaif_train::{
    DpoTrainer, PpoTrainer, PromptIds, SftExample, SftTrainer, Silent, Tuning, train_dpo, train_ppo,
    train_reward,
};
use serde_json::Value;

fn bfloat16(learning_rate: f64) -> OptimConfig {
    OptimConfig { dtype: Dtype::Bfloat16, ..constant(learning_rate) }
}

fn lora() -> Option<LoraConfig> {
    Some(LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() })
}

#[track_caller]
fn assert_bfloat16(decoder: &Decoder) {
    for (name, values) in bits(decoder) {
        assert!(values.iter().all(|bits| bits % (1 << 16) == 0), "{name} has more than bfloat16");
    }
}

/// A step of PyTorch with masters; float32's is elsewhere.
#[track_caller]
fn assert_step(name: &str, golden: &Value, step: usize, loss: f64, grad_norm: f64) {
    let want = |of: &Value, key: &str| of[step][key].as_f64().unwrap();
    let theirs = &golden[name]["steps"];
    let what = |key: &str| format!("{name}, {key} of step {}", step + 1);
    assert_within(&what("loss"), loss, want(theirs, "loss"), 1e-5);
    assert_within(&what("grad_norm"), grad_norm, want(theirs, "grad_norm"), 1e-4);
    let float32 = want(&golden["float32"][name], "loss");
    let apart = (want(theirs, "loss") - float32).abs();
    assert!(name == "dpo" && step == 0 || apart > 3e-5 * float32, "{name}: float32 is {apart} away");
}

#[track_caller]
fn assert_master(name: &str, golden: &Value, learner: &Learner) {
    let kept = golden["kept"].as_str().unwrap();
    let masters = &learner.export_parameters()[kept];
    for (got, want) in masters.iter().zip(numbers(&golden[name]["master"])) {
        assert!((f64::from(*got) - want).abs() < 2e-6, "{name}, a master: got {got}, want {want}");
    }
    assert_ne!(&rounded_to_bfloat16(masters), masters);
    let (_, working) = learner.parameters().into_iter().find(|(name, _)| name == kept).unwrap();
    let working: Vec<f32> = working.inner().into_data().convert::<f32>().try_into_vec().unwrap();
    assert_eq!(working, rounded_to_bfloat16(masters));
    assert_bfloat16(&learner.decoder);
}

#[test]
fn five_steps_are_those_of_pytorch_with_masters() {
    let golden = golden("bfloat16_steps.json");
    let texts = crate::common::golden("training_steps.json");
    let rate = golden["learning_rate"].as_f64().unwrap();
    let optim = OptimConfig { weight_decay: golden["weight_decay"].as_f64().unwrap(), ..bfloat16(rate) };

    let config = SftConfig { optim: optim.clone(), micro_batch_size: 2, ..SftConfig::default() };
    let mut trainer = SftTrainer::new(llama(), &config, 0).unwrap();
    for (step, batch) in rows(&texts).chunks(2).enumerate() {
        let got = trainer.update(&batch.iter().collect::<Vec<_>>(), rate, step as u64 + 1).unwrap();
        assert_step("sft", &golden, step, got.loss, got.grad_norm);
    }
    assert_master("sft", &golden, &trainer.learner);

    let config = DpoConfig { optim, micro_batch_size: 2, ..DpoConfig::default() };
    let mut trainer = DpoTrainer::new(llama(), &config, 0).unwrap();
    let pairs = golden_pairs(&texts);
    for (step, batch) in referenced_by(&trainer.learner.decoder.frozen(), &pairs).chunks(2).enumerate() {
        let got = trainer.update(batch, rate, step as u64 + 1).unwrap();
        assert_step("dpo", &golden, step, got.loss, got.grad_norm);
    }
    assert_master("dpo", &golden, &trainer.learner);
}

/// By how much 40 steps at a rate far below the distance of two bfloat16 weights lower the loss; `after` each step.
fn gain(optim: OptimConfig, lora: Option<LoraConfig>, rate: f64, after: impl Fn(&mut Learner)) -> f64 {
    let rows = rows(&golden("training_steps.json"));
    let batch: Vec<&SftExample> = rows.iter().collect();
    let config = SftConfig { optim, lora, micro_batch_size: 10, ..SftConfig::default() };
    let mut trainer = SftTrainer::new(llama(), &config, 0).unwrap();
    let losses: Vec<f64> = (1..=40)
        .map(|step| {
            let loss = trainer.update(&batch, rate, step).unwrap().loss;
            after(&mut trainer.learner);
            loss
        })
        .collect();
    losses[0] - losses[39]
}

/// What a step adds to a weight of 0.1 is a tenth of what bfloat16 can tell: it is lost unless it is kept elsewhere.
#[test]
fn small_updates_add_up_in_the_masters_and_would_be_lost_without_them() {
    let round_masters = |learner: &mut Learner| {
        let rounded = learner.export_parameters().into_iter().map(|(n, v)| (n, rounded_to_bfloat16(&v)));
        learner.import_parameters(&rounded.collect()).unwrap();
    };
    for optimizer in [OptimizerKind::AdamW, OptimizerKind::Adafactor] {
        let rate = 2e-5;
        let optim = |dtype| OptimConfig { dtype, optimizer, ..constant(rate) };
        let float32 = gain(optim(Dtype::Float32), None, rate, |_| ());
        let with_masters = gain(optim(Dtype::Bfloat16), None, rate, |_| ());
        let without = gain(optim(Dtype::Bfloat16), None, rate, round_masters);
        assert!(float32 > 0.01, "{optimizer:?}: float32 learns: {float32}");
        assert!((with_masters / float32 - 1.0).abs() < 0.1, "{optimizer:?}: {with_masters} and {float32}");
        assert!(without < 0.5 * float32, "{optimizer:?}: without masters {without}, float32 {float32}");
    }
}

fn losses(recorder: &Recorder) -> Vec<f64> {
    recorder.rows.iter().filter(|row| row.step > 0).map(|row| row.values[metrics::LOSS]).collect()
}

/// Largest distance of two curves, as a share of what the first one falls by.
#[track_caller]
fn assert_close(what: &str, float32: &[f64], rounded: &[f64], share: f64) {
    let fallen = float32[0] - float32.last().unwrap();
    let apart = float32.iter().zip(rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    println!("{what}: falls by {fallen:.4}, at most {apart:.5} apart");
    assert!(float32.len() == rounded.len() && fallen > 0.1, "{what} learns: {float32:?}");
    assert!(apart > 0.0 && apart < share * fallen, "{what}: {apart} apart of {fallen}");
}

#[test]
fn curves_stay_close_to_those_of_float32() {
    for lora in [None, lora()] {
        let rate = if lora.is_some() { 1e-2 } else { 1e-3 };
        let dpo = |dtype| {
            let optim = OptimConfig { dtype, ..OptimConfig::with_learning_rate(rate) };
            let config =
                DpoConfig { epochs: 8, batch_size: 12, optim, lora: lora.clone(), ..DpoConfig::default() };
            let (dir, mut hooks) = (tempfile::tempdir().unwrap(), Recorder::default());
            train_dpo(llama(), &preferences(), &config, 5, dir.path(), &mut hooks).unwrap();
            losses(&hooks)
        };
        assert_close("dpo", &dpo(Dtype::Float32), &dpo(Dtype::Bfloat16), 0.05);
        let reward = |dtype| {
            let optim = OptimConfig { dtype, ..OptimConfig::with_learning_rate(rate) };
            let config =
                RewardConfig { epochs: 8, batch_size: 12, optim, lora: lora.clone(), ..Default::default() };
            let (dir, mut hooks) = (tempfile::tempdir().unwrap(), Recorder::default());
            train_reward(llama(), some_head(), &preferences(), &config, 5, dir.path(), &mut hooks).unwrap();
            losses(&hooks)
        };
        assert_close("reward", &reward(Dtype::Float32), &reward(Dtype::Bfloat16), 0.05);
    }
}

/// The reference is what the policy starts as, so that at first no ratio and no KL is of the rounding.
#[test]
fn frozen_weights_and_the_reference_are_bfloat16_too() {
    let config = DpoConfig { optim: bfloat16(1e-3), lora: lora(), ..DpoConfig::default() };
    let trainer = DpoTrainer::new(llama(), &config, 0).unwrap();
    assert_bfloat16(&trainer.learner.decoder);
    assert!(bits(&trainer.learner.decoder.without_adapter()) != bits(&llama()));
    let (dir, mut hooks) = (tempfile::tempdir().unwrap(), Recorder::default());
    train_dpo(llama(), &preferences(), &config, 5, dir.path(), &mut hooks).unwrap();
    let first = hooks.rows.iter().find(|row| row.step == 1).unwrap();
    assert!(first.values[metrics::REWARDS_CHOSEN].abs() < 1e-6, "{first:?}");

    for lora in [None, lora()] {
        let config =
            PpoConfig { optim: bfloat16(1e-3), critic_optim: constant(1e-3), lora, ..Default::default() };
        let trainer = PpoTrainer::new(llama(), Some((llama(), some_head())), &config, 0).unwrap();
        assert_bfloat16(&trainer.reference);
        assert_bfloat16(&trainer.policy.decoder);
        let critic = trainer.critic.unwrap();
        assert!(
            bits(&critic.decoder.without_adapter()) == bits(&llama()),
            "the critic has a dtype of its own"
        );
    }
}

/// A policy that is put back comes with its masters' rounding.
#[test]
fn what_is_put_back_is_bfloat16() {
    let config = PpoConfig {
        steps: 5,
        prompts_per_step: 2,
        samples_per_prompt: 3,
        kl_budget: Some(1e-3),
        critic_warmup_steps: 0,
        optim: bfloat16(1e-3),
        critic_optim: bfloat16(1e-3),
        ..PpoConfig::default()
    };
    let prompts: Vec<_> =
        (0..3).map(|i| PromptIds { id: i.to_string(), ids: vec![60 + i, 30, 20] }).collect();
    let mut count = |_: &[u32], response: &[u32]| response.iter().filter(|&&id| id < 100).count() as f64;
    let tuning = Tuning {
        policy: llama(),
        critic: Some((llama(), some_head())),
        prompts: &prompts,
        sampling: &sampling(6),
        reward: &mut count,
        watch: None,
    };
    let dir = tempfile::tempdir().unwrap();
    let trained = train_ppo(tuning, &config, 5, dir.path(), &mut Silent).unwrap().finished().unwrap();
    assert!(trained.report.stopped_by_kl_budget && trained.report.kept_step < trained.report.steps);
    assert_bfloat16(&trained.policy);
    assert_bfloat16(&trained.critic.unwrap().0);
}
