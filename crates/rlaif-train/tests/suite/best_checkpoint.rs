//! Labels with a planted flaw: they want token 70 over and over, while whoever looks at held-out prompts wants it once in three tokens.
//! What comes out is the policy that they hold for the best, and not the last one.

use crate::common::{Recorder, bits, constant, head, llama, preferences, sampling, some_head};
use rlaif_core::config::{DpoConfig, PolicyWatchConfig, RewardConfig, RewardWatchConfig, SftConfig};
use rlaif_core::{metrics, seed};
use rlaif_model::{Decoder, GenerateRequest, generate};
use rlaif_train::packing::Item;
use rlaif_train::{
    DpoReport, HeldOut, HeldOutScore, PreferenceExample, PromptIds, SftExample, TrainError, TrainedPolicy,
    TrainedReward, train_dpo, train_dpo_watched, train_reward, train_sft_watched,
};
use std::path::Path;

const SEED: u64 = 3;
const TOKENS: usize = 9;

fn share_of_70(response: &[u32]) -> f64 {
    response.iter().filter(|&&id| id == 70).count() as f64 / response.len() as f64
}

/// Token 70 is good, up to a third of the response.
fn in_moderation(_: &[u32], response: &[u32]) -> f64 {
    1.0 - (share_of_70(response) - 1.0 / 3.0).abs()
}

fn as_labelled(_: &[u32], response: &[u32]) -> f64 {
    share_of_70(response)
}

fn prompts() -> Vec<PromptIds> {
    (0..24).map(|i| PromptIds { id: i.to_string(), ids: vec![60 + i, 30, 20] }).collect()
}

fn watch() -> PolicyWatchConfig {
    PolicyWatchConfig { eval_steps: 2, samples_per_prompt: 4, ..PolicyWatchConfig::default() }
}

fn config(watch: Option<PolicyWatchConfig>) -> DpoConfig {
    DpoConfig {
        epochs: 8,
        batch_size: 3,
        micro_batch_size: 3,
        save_steps: 1000,
        optim: constant(1e-2),
        watch,
        ..DpoConfig::default()
    }
}

fn dpo(
    watch: Option<PolicyWatchConfig>,
    score: &mut dyn HeldOutScore,
    dir: &Path,
    hooks: &mut Recorder,
) -> Result<TrainedPolicy, TrainError> {
    let held_out = HeldOut { prompts: &prompts(), sampling: &sampling(TOKENS), score };
    let trained =
        train_dpo_watched(llama(), &preferences(), Some(held_out), &config(watch), SEED, dir, hooks);
    Ok(trained?.finished().unwrap())
}

/// The curve that was looked at: step and score.
fn curve(hooks: &Recorder, name: &str) -> Vec<(u64, f64)> {
    hooks.rows.iter().filter_map(|row| Some((row.step, row.get(name)?))).collect()
}

fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}

/// The score of a policy on the held-out prompts, sampled as the watch of `stage` does.
fn score_of(policy: &Decoder, stage: &str) -> f64 {
    let requests: Vec<_> = prompts()
        .into_iter()
        .enumerate()
        .map(|(i, prompt)| GenerateRequest {
            prompt_ids: prompt.ids,
            n: 4,
            seed: seed::derive(SEED, &format!("{stage}/watch"), i as u64),
        })
        .collect();
    let samples = generate(policy, &requests, &sampling(TOKENS), &mut |_| {}).unwrap();
    mean(&samples.iter().flatten().map(|sample| in_moderation(&[], &sample.ids)).collect::<Vec<_>>())
}

fn check_choice(steps: u64, kept_step: u64, curve: &[(u64, f64)]) {
    let best = curve.iter().map(|(_, score)| *score).fold(f64::NEG_INFINITY, f64::max);
    assert!(kept_step > 0 && kept_step < steps, "step {kept_step} of {steps}: {curve:?}");
    assert!(curve.last().unwrap().1 < best - 0.1, "training goes too far: {curve:?}");
    assert!(curve.contains(&(kept_step, best)), "step {kept_step} is the best: {curve:?}");
}

#[test]
fn dpo_on_flawed_labels_gives_the_policy_that_the_held_out_score_holds_for_the_best() {
    let (dir, mut hooks) = (tempfile::tempdir().unwrap(), Recorder::default());
    let trained = dpo(Some(watch()), &mut in_moderation, dir.path(), &mut hooks).unwrap();
    let DpoReport { steps, watch: Some(chosen), holdout, .. } = trained.report else { panic!("no choice") };
    let curve = curve(&hooks, metrics::OBJECTIVE_HELD_OUT_SCORES);
    assert_eq!(
        curve.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        (0..=steps).step_by(2).collect::<Vec<_>>()
    );
    check_choice(steps, chosen.kept_step, &curve);
    let best = mean(&chosen.kept);
    assert!((score_of(&trained.policy, "dpo") - best).abs() < 1e-9, "the policy is that of the step");
    assert!((mean(&chosen.last) - curve.last().unwrap().1).abs() < 1e-9 && !chosen.stopped);
    assert!((mean(&chosen.first) - curve[0].1).abs() < 1e-9);
    assert_eq!(chosen.looks, steps / 2 + 1);

    // What is told of held-out pairs is of the policy that is kept.
    let unwatched_dir = tempfile::tempdir().unwrap();
    let last = train_dpo(
        llama(),
        &preferences(),
        &config(None),
        SEED,
        unwatched_dir.path(),
        &mut Recorder::default(),
    );
    let last = last.unwrap().finished().unwrap();
    assert!(score_of(&last.policy, "dpo") < best - 0.1, "without a watch the last policy comes out");
    assert!(
        last.report.holdout[0].margin > holdout[0].margin + 0.1,
        "the last policy follows the labels further"
    );
    assert_eq!(last.report.watch, None);
}

#[test]
fn where_the_last_policy_is_the_best_it_is_that_of_an_unwatched_run() {
    // A third of the steps: token 70 only becomes more frequent.
    let config = |watch| DpoConfig { epochs: 3, ..config(watch) };
    let run = |watch| {
        let dir = tempfile::tempdir().unwrap();
        let mut score = as_labelled;
        let held_out = HeldOut { prompts: &prompts(), sampling: &sampling(TOKENS), score: &mut score };
        let (config, mut hooks) = (config(watch), Recorder::default());
        train_dpo_watched(llama(), &preferences(), Some(held_out), &config, SEED, dir.path(), &mut hooks)
            .unwrap()
            .finished()
            .unwrap()
    };
    let (watched, last) = (run(Some(PolicyWatchConfig { eval_steps: 3, ..watch() })), run(None));
    assert_eq!((watched.report.watch.unwrap().kept_step, watched.report.steps), (9, 9));
    assert!(bits(&watched.policy) == bits(&last.policy), "a watch moved the training");
}

#[test]
fn training_ends_early_where_the_score_has_fallen() {
    let (dir, mut hooks) = (tempfile::tempdir().unwrap(), Recorder::default());
    let stopping = PolicyWatchConfig { max_drop: Some(0.05), ..watch() };
    let trained = dpo(Some(stopping), &mut in_moderation, dir.path(), &mut hooks).unwrap();
    let chosen = trained.report.watch.unwrap();
    assert!(chosen.stopped && trained.report.steps < 24, "{:?}", trained.report.steps);
    assert!(chosen.kept_step < trained.report.steps);
    assert!((score_of(&trained.policy, "dpo") - mean(&chosen.kept)).abs() < 1e-9);
    assert!(
        hooks.warnings[0].contains(&format!("step {} is kept", chosen.kept_step)),
        "{:?}",
        hooks.warnings
    );
    // Called again, it ends at the same look.
    let again = dpo(
        Some(PolicyWatchConfig { max_drop: Some(0.05), ..watch() }),
        &mut in_moderation,
        dir.path(),
        &mut Recorder::default(),
    );
    assert!(bits(&again.unwrap().policy) == bits(&trained.policy));
}

/// Fails at every second look, as a judge without a budget does, and keeps what it is shown.
#[derive(Default)]
struct Failing {
    looks: Vec<[Vec<Vec<u32>>; 2]>,
}

impl HeldOutScore for Failing {
    fn score(&mut self, said: &[Item<'_>], first: &[Item<'_>]) -> Result<Vec<Option<f64>>, TrainError> {
        let owned = |items: &[Item<'_>]| items.iter().map(|(_, response)| response.to_vec()).collect();
        self.looks.push([said, first].map(owned));
        match self.looks.len() % 2 {
            1 => Err(TrainError::Reward { reason: "no budget".into() }),
            _ => in_moderation.score(said, first),
        }
    }
}

#[test]
fn a_judge_that_stops_costs_no_training_and_is_asked_the_same_again() {
    let (straight, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let want = dpo(Some(watch()), &mut in_moderation, straight.path(), &mut Recorder::default()).unwrap();
    let mut judge = Failing::default();
    let mut resumed = Vec::new();
    let got = loop {
        let mut hooks = Recorder::default();
        let result = dpo(Some(watch()), &mut judge, dir.path(), &mut hooks);
        resumed.extend(hooks.resumed);
        match result {
            Ok(trained) => break trained,
            Err(error) => assert!(error.to_string().contains("no budget"), "{error}"),
        }
    };
    assert!(bits(&got.policy) == bits(&want.policy) && got.report.watch == want.report.watch);
    assert_eq!(judge.looks.len(), 2 * 13, "each look is taken once more after it failed");
    for looks in judge.looks.chunks(2) {
        assert!(looks[0] == looks[1], "the look is the same one again");
        assert!(looks[0][1] == judge.looks[0][0], "what was said first is remembered");
    }
    // It goes on at the look that failed: step 0 twice (at first there is no checkpoint), then every second step.
    assert_eq!(resumed, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24]);
}

#[test]
fn sft_on_flawed_rows_gives_the_best_policy_too() {
    let rows: Vec<SftExample> = preferences()
        .into_iter()
        .enumerate()
        .map(|(i, pair)| SftExample {
            id: i.to_string(),
            prompt_id: pair.prompt_id,
            mask: [vec![false; 4], vec![true; 9]].concat(),
            ids: [pair.prompt_ids, vec![70; 8], vec![2]].concat(),
        })
        .collect();
    let config = SftConfig {
        epochs: 8,
        batch_size: 4,
        save_steps: 1000,
        optim: constant(3e-3),
        watch: Some(watch()),
        ..SftConfig::default()
    };
    let (dir, mut hooks) = (tempfile::tempdir().unwrap(), Recorder::default());
    let held_out = HeldOut { prompts: &prompts(), sampling: &sampling(TOKENS), score: &mut in_moderation };
    let trained = train_sft_watched(llama(), &rows, Some(held_out), &config, SEED, dir.path(), &mut hooks);
    let trained = trained.unwrap().finished().unwrap();
    let chosen = trained.report.watch.unwrap();
    check_choice(trained.report.steps, chosen.kept_step, &curve(&hooks, metrics::OBJECTIVE_HELD_OUT_SCORES));
    assert!((score_of(&trained.policy, "sft") - mean(&chosen.kept)).abs() < 1e-9);
}

/// Judges want token 70; people, whose pairs hardly count in training, want the other response.
fn reward(source: Option<&str>, hooks: &mut Recorder) -> Result<TrainedReward, TrainError> {
    let people = (0..40u32).map(|i| PreferenceExample {
        prompt_id: format!("h{i}"),
        prompt_ids: vec![52, 29, 100 + i],
        chosen_ids: vec![80 + i % 20, 90, 100 + i, 2],
        rejected_ids: [vec![70; 1 + (i % 4) as usize], vec![110 + i, 2]].concat(),
        weight: 1e-3,
        source: "human".into(),
        ..PreferenceExample::default()
    });
    let judged = (0..4).flat_map(|round| {
        preferences().into_iter().map(move |pair| PreferenceExample {
            prompt_id: format!("{}-{round}", pair.prompt_id),
            source: "a+b".into(),
            ..pair
        })
    });
    let data: Vec<PreferenceExample> = judged.chain(people).collect();
    let watch = RewardWatchConfig {
        source: source.map(str::to_string),
        eval_steps: 1,
        ..RewardWatchConfig::default()
    };
    let config = RewardConfig {
        epochs: 2,
        batch_size: 8,
        holdout_fraction: 0.5,
        optim: constant(1e-3),
        watch: Some(watch),
        ..RewardConfig::default()
    };
    // Before training it says what people say.
    let contrary = head(some_head().values().into_iter().map(|weight| -weight).collect());
    let dir = tempfile::tempdir().unwrap();
    let trained = train_reward(llama(), contrary, &data, &config, SEED, dir.path(), hooks)?;
    Ok(trained.finished().unwrap())
}

#[test]
fn the_reward_model_is_the_one_that_agrees_best_with_whom_it_is_asked_to_agree() {
    let agreement = |trained: &TrainedReward, who: &str| {
        let right: Vec<f64> = trained
            .report
            .holdout
            .iter()
            .filter(|pair| pair.source == who)
            .map(|pair| f64::from(pair.is_right()))
            .collect();
        mean(&right)
    };
    let mut hooks = Recorder::default();
    let people = reward(Some("human"), &mut hooks).unwrap();
    let curve = curve(&hooks, metrics::EVAL_WATCH_ACCURACY);
    let chosen = people.report.watch.as_ref().unwrap();
    let best = curve.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    assert!(chosen.kept_step < people.report.steps && curve.last().unwrap().1 < best - 0.3, "{curve:?}");
    assert!((agreement(&people, "human") - best).abs() < 1e-9, "what is told is of the model that is kept");

    let judges = reward(Some("b"), &mut Recorder::default()).unwrap();
    assert!(judges.report.watch.as_ref().unwrap().kept_step > chosen.kept_step);
    assert!(agreement(&judges, "a+b") > agreement(&people, "a+b"));
    assert!(agreement(&judges, "human") < best - 0.3);

    let error = reward(Some("nobody"), &mut Recorder::default()).unwrap_err().to_string();
    assert!(error.contains("\"nobody\"") && error.contains("reward.watch.source"), "{error}");
}
