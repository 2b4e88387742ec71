//! Several heads on one trunk, and cut responses: each does what its definition says.

use crate::common::{constant, llama, preferences, some_head, three_heads};
use rlaif_core::config::RewardConfig;
use rlaif_model::{SaveDtype, ScalarHead, Tokenizer, save_reward_model};
use rlaif_train::reward_trainer::RewardStep;
use rlaif_train::{
    PreferenceExample, RewardTrainer, Scored, Scorer, Silent, load_reward_heads, load_reward_model,
    split_by_prompt, train_reward,
};

fn config() -> RewardConfig {
    RewardConfig { micro_batch_size: 64, optim: constant(1e-3), ..RewardConfig::default() }
}

fn step(head: ScalarHead, config: &RewardConfig) -> RewardStep {
    let pairs = preferences();
    let pairs: Vec<&PreferenceExample> = pairs.iter().collect();
    RewardTrainer::new(llama(), head, config, 0).unwrap().update(&pairs, 1e-3, 1).unwrap()
}

#[test]
fn equal_heads_are_one_head_and_micro_batches_change_nothing() {
    let same = ScalarHead::from_heads(&vec![some_head().values(); 3], llama().device());
    let (alone, together) = (step(some_head(), &config()), step(same, &config()));
    assert!((alone.loss - together.loss).abs() < 1e-6, "{} and {}", alone.loss, together.loss);
    assert!((alone.mean_reward - together.mean_reward).abs() < 1e-6);
    let (whole, parts) = (
        step(three_heads(), &config()),
        step(three_heads(), &RewardConfig { micro_batch_size: 5, ..config() }),
    );
    assert!((whole.loss - parts.loss).abs() < 1e-6 * whole.loss);
    assert!((whole.grad_norm - parts.grad_norm).abs() < 1e-4 * whole.grad_norm);
}

#[test]
fn several_heads_rank_differ_and_come_back_from_disk() {
    let config = RewardConfig { epochs: 6, holdout_fraction: 0.25, heads: 3, ..config() };
    let dir = tempfile::tempdir().unwrap();
    let outcome =
        train_reward(llama(), three_heads(), &preferences(), &config, 1, dir.path(), &mut Silent).unwrap();
    let trained = outcome.finished().unwrap();
    assert_eq!(trained.report.accuracy, 1.0);
    assert!(trained.report.holdout.iter().all(|pair| pair.uncertainty.unwrap() > 0.0));
    let moved: Vec<Vec<f32>> = trained
        .head
        .each()
        .iter()
        .zip(three_heads().each())
        .map(|(after, before)| after.iter().zip(before).map(|(a, b)| a - b).collect())
        .collect();
    assert!(moved[0] != moved[1] && moved[1] != moved[2], "each head learns from pairs of its own");

    let folder = dir.path().join("saved");
    let tokenizer = Tokenizer::from_folder(&crate::common::golden_llama()).unwrap();
    save_reward_model(&trained.decoder, &trained.head, &tokenizer, &folder, SaveDtype::F32).unwrap();
    let (decoder, heads) = load_reward_heads(&folder, trained.decoder.device()).unwrap();
    let items: Vec<(&[u32], &[u32])> = vec![(&[52, 29], &[70, 70, 2]), (&[53], &[80])];
    let by_head = Scorer::new(&decoder, &heads, 64).by_member(&items).unwrap();
    assert_eq!(by_head, Scorer::new(&trained.decoder, &trained.head, 64).by_member(&items).unwrap());
    // What transformers and PPO load, `score.weight`, says the mean.
    let (decoder, mean) = load_reward_model(&folder, trained.decoder.device()).unwrap();
    assert_eq!(mean.count(), 1);
    for (mean, heads) in Scorer::new(&decoder, &mean, 64).rewards(&items).unwrap().iter().zip(&by_head) {
        assert!((mean - Scored::of(heads).reward).abs() < 1e-6);
        assert!(Scored::of(heads).uncertainty.unwrap() > 0.0);
    }
    // One head saved over them leaves none of them.
    save_reward_model(&decoder, &mean, &tokenizer, &folder, SaveDtype::F32).unwrap();
    assert_eq!(load_reward_heads(&folder, decoder.device()).unwrap().1.count(), 1);
}

#[test]
fn the_uncertainty_is_the_deviation_over_heads() {
    assert_eq!(Scored::of(&[1.0, 2.0, 3.0]), Scored { reward: 2.0, uncertainty: Some(1.0) });
    assert_eq!(Scored::of(&[0.7]), Scored { reward: 0.7, uncertainty: None });
}

/// Trained on whole responses alone, the model has no reason to prefer one to its beginning; with cut ones it learns to.
#[test]
fn cut_responses_teach_that_unfinished_loses() {
    let pairs: Vec<PreferenceExample> = (0..24u32)
        .map(|i| PreferenceExample {
            prompt_id: format!("p{i}"),
            prompt_ids: vec![52 + i, 29, 224, 21],
            chosen_ids: [vec![70 + i % 3; 6], vec![2]].concat(),
            rejected_ids: [vec![80 + i; 6], vec![2]].concat(),
            ..PreferenceExample::default()
        })
        .collect();
    let wins = |truncated_negatives: f64| {
        let config = RewardConfig {
            epochs: 4,
            holdout_fraction: 0.25,
            micro_batch_size: 8,
            batch_size: 8,
            truncated_negatives,
            ..config()
        };
        let dir = tempfile::tempdir().unwrap();
        let outcome =
            train_reward(llama(), some_head(), &pairs, &config, 1, dir.path(), &mut Silent).unwrap();
        let trained = outcome.finished().unwrap();
        assert_eq!(trained.report.train_pairs, 18);
        assert_eq!(trained.report.truncated_pairs, (18.0 * truncated_negatives) as usize);
        let held_out = split_by_prompt(&pairs, 0.25, 1).1;
        let scorer = Scorer::new(&trained.decoder, &trained.head, 64);
        let whole_wins = |pair: &&&PreferenceExample| {
            let items =
                [(&pair.prompt_ids[..], &pair.chosen_ids[..]), (&pair.prompt_ids, &pair.chosen_ids[..4])];
            let rewards = scorer.rewards(&items).unwrap();
            rewards[0] > rewards[1]
        };
        held_out.iter().filter(whole_wins).count()
    };
    let (without, with) = (wins(0.0), wins(1.0));
    assert!(with == 6 && without < 6, "{without} and {with} of 6");
}
