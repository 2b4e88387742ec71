//! Ensembles of whole reward models: members differ in their seed and in nothing else, and say together what the definition says.

use crate::common::{bits, constant, llama, preferences, some_head};
use rlaif_core::config::{EnsembleReward, LoraConfig, RewardConfig};
use rlaif_model::{SaveDtype, Tokenizer, save_reward_model};
use rlaif_train::{
    Scored, Scorer, Seeds, Silent, TrainedReward, check_members, evaluate_members, load_members,
    load_reward_heads, member_folder, pooled, split_by_prompt, train_reward,
};
use std::path::Path;

const SEED: u64 = 1;

fn config() -> RewardConfig {
    RewardConfig {
        members: 3,
        epochs: 3,
        batch_size: 3,
        micro_batch_size: 3,
        holdout_fraction: 0.25,
        optim: constant(1e-3),
        ..RewardConfig::default()
    }
}

fn train(config: &RewardConfig, seeds: impl Into<Seeds>) -> TrainedReward {
    let dir = tempfile::tempdir().unwrap();
    let outcome = train_reward(llama(), some_head(), &preferences(), config, seeds, dir.path(), &mut Silent);
    outcome.unwrap().finished().unwrap()
}

fn members(config: &RewardConfig) -> Vec<TrainedReward> {
    (1..=config.members).map(|number| train(config, Seeds::of_member(SEED, number, config.members))).collect()
}

fn save(trained: &TrainedReward, folder: &Path) {
    let tokenizer = Tokenizer::from_folder(&crate::common::golden_llama()).unwrap();
    save_reward_model(&trained.decoder, &trained.head, &tokenizer, folder, SaveDtype::F32).unwrap();
}

#[test]
fn members_differ_hold_out_the_same_and_the_last_is_the_single_model() {
    let config = config();
    let all = members(&config);
    let of = |number: usize| bits(&all[number].decoder);
    assert!(of(0) != of(1) && of(1) != of(2) && of(0) != of(2));
    let single = train(&config, SEED);
    assert!(of(2) == bits(&single.decoder) && single.head.values() == all[2].head.values());
    let held_out = |number: usize| {
        let prompts = all[number].report.holdout.iter().map(|pair| pair.prompt_id.clone());
        prompts.collect::<Vec<_>>()
    };
    assert!(!held_out(0).is_empty() && held_out(0) == held_out(1) && held_out(1) == held_out(2));
}

#[test]
fn an_ensemble_comes_back_from_disk_and_is_the_mean_of_its_members() {
    let config = config();
    let dir = tempfile::tempdir().unwrap();
    let all = members(&config);
    for (number, trained) in (1..).zip(&all) {
        save(trained, &member_folder(dir.path(), number, config.members));
    }
    let device = llama().device().clone();
    let scorer = Scorer::of_members(&load_members(dir.path(), &device, load_reward_heads).unwrap(), 64);
    let data = preferences();
    let (_, holdout) = split_by_prompt(&data, config.holdout_fraction, SEED);
    let (together, alone) = evaluate_members(&scorer, &holdout).unwrap();
    assert_eq!(alone.len(), 3);
    for (place, pair) in together.iter().enumerate() {
        let margins: Vec<f64> = alone.iter().map(|pairs| pairs[place].margin).collect();
        let want = Scored::of(&margins);
        assert!((pair.margin - want.reward).abs() < 1e-9);
        assert!((pair.uncertainty.unwrap() - want.uncertainty.unwrap()).abs() < 1e-9);
        assert!(pair.uncertainty.unwrap() > 0.0);
        for (margin, trained) in margins.iter().zip(&all) {
            assert!((margin - trained.report.holdout[place].margin).abs() < 1e-5);
        }
    }

    let items: Vec<(&[u32], &[u32])> = vec![(&[52, 29], &[70, 70, 2]), (&[53], &[80])];
    let says = scorer.by_member(&items).unwrap();
    let rewards = |ensemble| scorer.clone().pooled_by(ensemble, 0.5).rewards(&items).unwrap();
    for (place, says) in says.iter().enumerate() {
        let least = says.iter().copied().fold(f64::INFINITY, f64::min);
        let Scored { reward, uncertainty } = Scored::of(says);
        assert_eq!(rewards(EnsembleReward::Mean)[place], reward);
        assert_eq!(rewards(EnsembleReward::WorstCase)[place], least);
        assert_eq!(rewards(EnsembleReward::UncertaintyWeighted)[place], reward - 0.5 * uncertainty.unwrap());
    }

    std::fs::remove_dir_all(dir.path().join("members/1")).unwrap();
    let error = load_members(dir.path(), &device, load_reward_heads).unwrap_err().to_string();
    assert!(error.contains("members/1"), "{error}");
}

#[test]
fn what_members_say_becomes_one_number() {
    let says = [1.0, 2.0, 6.0]; // deviation √7
    assert_eq!(pooled(&says, EnsembleReward::Mean, 9.0), 3.0);
    assert_eq!(pooled(&says, EnsembleReward::WorstCase, 9.0), 1.0);
    let weighted = pooled(&says, EnsembleReward::UncertaintyWeighted, 0.5);
    assert!((weighted - (3.0 - 0.5 * 7f64.sqrt())).abs() < 1e-12, "{weighted}");
    assert_eq!(pooled(&[2.0], EnsembleReward::UncertaintyWeighted, 0.5), 2.0);
}

/// One step an epoch has all pairs, whatever the seed.
#[test]
fn members_that_would_be_one_model_are_refused() {
    let data = preferences();
    let check = |config: RewardConfig| check_members(&data, &config, SEED);
    let whole = || RewardConfig { batch_size: 64, ..config() };
    let error = check(whole()).unwrap_err().to_string();
    assert!(
        error.contains("members 1 and 2 of the reward model would be one model twice")
            && error.contains("9 pairs"),
        "{error}"
    );
    let all = members(&RewardConfig { members: 2, ..whole() });
    for (a, b) in all[0].report.holdout.iter().zip(&all[1].report.holdout) {
        assert!(
            (a.margin - b.margin).abs() < 1e-4,
            "nothing but rounding differs: {} and {}",
            a.margin,
            b.margin
        );
    }
    check(config()).unwrap();
    check(RewardConfig { members: 1, ..whole() }).unwrap();
    check(RewardConfig { truncated_negatives: 0.5, ..whole() }).unwrap();
    check(RewardConfig { lora: Some(LoraConfig::default()), ..whole() }).unwrap();
    check(RewardConfig { heads: 2, ..whole() }).unwrap();
}
