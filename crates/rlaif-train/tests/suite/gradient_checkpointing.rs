//! Gradient checkpointing changes memory, not what is learnt.

use crate::common::{bits, device, llama, preferences, sampling, some_head};
use rlaif_core::config::{CriticTrunk, DpoConfig, LoraConfig, OptimConfig, PpoConfig, RewardConfig};
use rlaif_model::{Decoder, ModelFiles};
use rlaif_train::{PromptIds, Silent, Tuning, train_dpo, train_ppo, train_reward};
use std::collections::BTreeMap;
use std::path::Path;

fn optim(gradient_checkpointing: bool) -> OptimConfig {
    OptimConfig { gradient_checkpointing, ..OptimConfig::with_learning_rate(1e-3) }
}

fn lora() -> Option<LoraConfig> {
    Some(LoraConfig { rank: 4, alpha: 8.0, dropout: 0.2, ..LoraConfig::default() })
}

fn dpo(model: Decoder, lora: Option<LoraConfig>, checkpointing: bool) -> Decoder {
    let config = DpoConfig {
        batch_size: 3,
        micro_batch_size: 2,
        lora,
        optim: optim(checkpointing),
        ..DpoConfig::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let outcome = train_dpo(model, &preferences(), &config, 5, dir.path(), &mut Silent).unwrap();
    outcome.finished().unwrap().policy
}

#[test]
fn weights_are_the_same_bit_by_bit() {
    for lora in [None, lora()] {
        let trained = [false, true].map(|checkpointing| bits(&dpo(llama(), lora.clone(), checkpointing)));
        assert!(trained[0] != bits(&llama()) && trained[0] == trained[1]);
    }
    let reward = |checkpointing| {
        let config = RewardConfig { optim: optim(checkpointing), ..RewardConfig::default() };
        let dir = tempfile::tempdir().unwrap();
        let outcome = train_reward(llama(), some_head(), &preferences(), &config, 5, dir.path(), &mut Silent);
        let trained = outcome.unwrap().finished().unwrap();
        (bits(&trained.decoder), trained.head.values())
    };
    assert!(reward(false) == reward(true));
    let ppo = |critic, checkpointing| {
        let config = PpoConfig {
            steps: 2,
            prompts_per_step: 2,
            samples_per_prompt: 2,
            micro_batch_size: 2,
            optim: optim(checkpointing),
            critic_optim: optim(checkpointing),
            lora: lora(),
            critic,
            ..PpoConfig::default()
        };
        let prompts: Vec<_> =
            (0..3).map(|i| PromptIds { id: i.to_string(), ids: vec![60 + i, 30, 20] }).collect();
        let mut count = |_: &[u32], response: &[u32]| response.iter().filter(|&&id| id < 100).count() as f64;
        let dir = tempfile::tempdir().unwrap();
        let tuning = Tuning {
            policy: llama(),
            critic: Some((llama(), some_head())),
            prompts: &prompts,
            sampling: &sampling(6),
            reward: &mut count,
            watch: None,
        };
        let outcome = train_ppo(tuning, &config, 5, dir.path(), &mut Silent);
        let trained = outcome.unwrap().finished().unwrap();
        (bits(&trained.policy), trained.critic.map(|(trunk, _)| bits(&trunk)))
    };
    for critic in [CriticTrunk::Own, CriticTrunk::Policy] {
        assert!(ppo(critic, false) == ppo(critic, true));
    }
}

/// Other blocks: learned positions, one norm for both halves, norms behind them, windows, tied embeddings.
#[test]
fn every_family_learns_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rlaif-model/tests/golden/models");
    for family in ["mistral", "qwen2", "qwen3", "gemma3", "gpt_neox", "opt", "gpt2"] {
        let files = ModelFiles::open(folder.join(family).to_str().unwrap()).unwrap();
        let model = || Decoder::load(&files.config, files.weights.as_ref(), &device()).unwrap();
        let weights = |decoder: &Decoder| -> BTreeMap<String, Vec<f32>> {
            let floats = |values: Vec<u32>| values.into_iter().map(f32::from_bits).collect();
            bits(decoder).into_iter().map(|(name, values)| (name, floats(values))).collect()
        };
        let [plain, checkpointed] =
            [false, true].map(|checkpointing| weights(&dpo(model(), None, checkpointing)));
        assert!(plain != weights(&model()), "{family} learns");
        if family != "gpt_neox" {
            assert!(plain == checkpointed, "{family}");
        }
        for (name, values) in &plain {
            for (a, b) in values.iter().zip(&checkpointed[name]) {
                assert!((a - b).abs() < 1e-4, "{family}, {name}: {a} and {b}");
            }
        }
    }
}
