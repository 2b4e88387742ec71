//! Supervised fine-tuning: what is learnt, what packing, micro-batches and noise change, and what is refused.

use crate::common::{Recorder, assert_within, constant, golden_llama, llama};
use rlaif_core::config::SftConfig;
use rlaif_core::metrics;
use rlaif_core::records::{Demonstration, Message, PromptText};
use rlaif_model::{Decoder, Tokenizer, Trainable};
use rlaif_train::{SftExample, SftTrainer, Silent, train_sft};

fn config() -> SftConfig {
    SftConfig { batch_size: 6, micro_batch_size: 6, optim: constant(1e-3), ..SftConfig::default() }
}

/// Rows of different lengths, each with a completion that its prompt tells.
fn rows(count: u32) -> Vec<SftExample> {
    (0..count)
        .map(|i| {
            let prompt = [vec![40; 1 + (i % 5) as usize], vec![50 + i]].concat();
            let completion = [vec![100 + i; 2 + (i % 3) as usize], vec![2]].concat();
            SftExample {
                id: format!("rows.jsonl:{}", i + 1),
                prompt_id: format!("p{i}"),
                mask: [vec![false; prompt.len()], vec![true; completion.len()]].concat(),
                ids: [prompt, completion].concat(),
            }
        })
        .collect()
}

fn weights(decoder: &Decoder) -> Vec<f32> {
    let mut all = decoder.clone();
    all.set_trainable(Trainable::Full);
    all.parameters()
        .into_iter()
        .flat_map(|(_, p)| p.inner().into_data().try_into_vec::<f32>().unwrap())
        .collect()
}

/// Three steps on the same rows: loss and gradient norm of each, and the weights.
fn three_steps(config: &SftConfig, rows: &[SftExample]) -> (Vec<[f64; 2]>, Vec<f32>) {
    let mut trainer = SftTrainer::new(llama(), config, 3).unwrap();
    let rows: Vec<&SftExample> = rows.iter().collect();
    let steps = (1..4).map(|step| trainer.update(&rows, 1e-3, step).unwrap());
    let steps = steps.map(|step| [step.loss, step.grad_norm]).collect();
    (steps, weights(&trainer.learner.into_model().0))
}

#[track_caller]
fn assert_same(got: &(Vec<[f64; 2]>, Vec<f32>), want: &(Vec<[f64; 2]>, Vec<f32>)) {
    for (got, want) in got.0.iter().flatten().zip(want.0.iter().flatten()) {
        assert_within("loss or norm", *got, *want, 1e-5);
    }
    // AdamW's first steps move every weight by about the learning rate, also where the gradient is all rounding.
    let far = got.1.iter().zip(&want.1).filter(|(got, want)| (*got - *want).abs() > 2e-5).count();
    assert!(far * 1000 < want.1.len(), "{far} of {} weights differ", want.1.len());
}

/// A row beside others in one stream is what it is alone: no attention across, positions of its own.
#[test]
fn packing_and_micro_batches_change_nothing_beyond_rounding() {
    for neftune_noise_alpha in [None, Some(5.0)] {
        let alone = SftConfig { packing: false, neftune_noise_alpha, ..config() };
        let want = three_steps(&alone, &rows(6));
        for micro_batch_size in [6, 4, 1] {
            let packed = SftConfig { packing: true, micro_batch_size, ..alone.clone() };
            assert_same(&three_steps(&packed, &rows(6)), &want);
        }
    }
}

#[test]
fn what_is_not_learnt_is_read_all_the_same_and_other_rows_are_not() {
    let trainer = SftTrainer::new(llama(), &config(), 0).unwrap();
    let rows = rows(3);
    let of = |rows: &[SftExample]| trainer.evaluate(&rows.iter().collect::<Vec<_>>())[1].0;
    let before = of(&rows);
    let mut neighbours = rows.clone();
    neighbours[0].ids[0] = 77;
    neighbours[2].ids[1] = 77;
    assert_eq!(of(&neighbours), before, "a neighbour changed a row");
    let mut prompted = rows.clone();
    prompted[1].ids[0] = 77;
    assert_ne!(of(&prompted), before, "the prompt is not read");
}

/// Each learnt token weighs the same, so that the loss of a batch is that of its rows by their tokens.
#[test]
fn the_loss_is_a_mean_over_tokens_and_not_over_rows() {
    let rows = rows(6);
    let trainer = SftTrainer::new(llama(), &config(), 0).unwrap();
    let all: Vec<&SftExample> = rows.iter().collect();
    let sum: f64 = trainer.evaluate(&all).iter().map(|row| row.0).sum();
    let tokens: usize = rows.iter().map(SftExample::learnt).sum();
    let loss = SftTrainer::new(llama(), &config(), 0).unwrap().update(&all, 1e-3, 1).unwrap().loss;
    assert_within("loss", loss, -sum / tokens as f64, 1e-6);
    let by_row: f64 =
        trainer.evaluate(&all).iter().zip(&rows).map(|(row, of)| -row.0 / of.learnt() as f64).sum();
    assert!((loss - by_row / 6.0).abs() > 1e-3, "the rows are too alike for this to say anything");
}

#[test]
fn noise_is_off_by_default_differs_by_step_and_seed_and_grows_with_alpha() {
    let rows = rows(6);
    let loss = |alpha: Option<f64>, seed: u64, step: u64| {
        let config = SftConfig { neftune_noise_alpha: alpha, ..config() };
        let mut trainer = SftTrainer::new(llama(), &config, seed).unwrap();
        trainer.update(&rows.iter().collect::<Vec<_>>(), 1e-3, step).unwrap().loss
    };
    let off = loss(None, 0, 1);
    assert_eq!(off, loss(None, 1, 2), "without noise there is nothing random in a step");
    let on = loss(Some(5.0), 0, 1);
    assert_eq!(on, loss(Some(5.0), 0, 1));
    assert!(on != off && on != loss(Some(5.0), 1, 1) && on != loss(Some(5.0), 0, 2));
    assert!((loss(Some(1e-4), 0, 1) - off).abs() < 1e-4 * (on - off).abs().max(1.0));
}

#[test]
fn demonstrations_are_learnt_and_held_out_loss_falls() {
    let config =
        SftConfig { epochs: 30, holdout_fraction: 0.25, batch_size: 4, micro_batch_size: 4, ..config() };
    // Two completions to be told from the prompt, often enough to be learnt and not by heart.
    let rows: Vec<SftExample> = (0..24u32)
        .map(|i| SftExample {
            id: format!("rows.jsonl:{i}"),
            prompt_id: format!("p{i}"),
            ids: vec![30 + i, 60 + i % 2, 100 + i % 2, 110, 2],
            mask: vec![false, false, true, true, true],
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let mut hooks = Recorder::default();
    let trained = train_sft(llama(), &rows, &config, 1, dir.path(), &mut hooks).unwrap().finished().unwrap();
    assert_eq!((trained.report.train_rows, trained.report.holdout.len()), (18, 6));
    let evals: Vec<f64> = hooks.rows.iter().filter_map(|row| row.get(metrics::EVAL_LOSS)).collect();
    assert_eq!(evals.len(), 31, "one before training and one an epoch");
    assert!(evals[0] > 5.0 && evals[30] < 0.2, "{evals:?}");
    let last = hooks.rows.last().unwrap();
    assert_eq!(last.get(metrics::EVAL_MEAN_TOKEN_ACCURACY), Some(1.0));
    let mean =
        |of: fn(&rlaif_train::HoldoutRow) -> f64| trained.report.holdout.iter().map(of).sum::<f64>() / 6.0;
    assert_within("before", mean(|row| row.before), evals[0], 1e-9);
    assert_within("after", mean(|row| row.after), evals[30], 1e-9);
}

#[test]
fn rows_are_tokenised_with_one_end_and_learnt_as_asked() {
    let tokenizer = Tokenizer::from_folder(&golden_llama()).unwrap();
    let of = |row: &Demonstration, only: bool| SftExample::of("f:1".into(), row, &tokenizer, only).unwrap();
    let text = |text: &str| Demonstration::Text { text: text.into() };
    let row = of(&text("abc"), true);
    assert_eq!((row.ids.len(), row.ids[3], row.mask), (4, 2, vec![false, true, true, true]));
    assert_eq!(of(&text("abc<eos>"), true).ids, row.ids, "an end that is there is not doubled");
    assert_eq!(of(&text("a<eos>c"), true).ids.len(), 8, "elsewhere it is its letters");
    let completion = |prompt: PromptText| Demonstration::Completion { prompt, completion: "yz".into() };
    let plain = completion(PromptText::Text("ab".into()));
    assert_eq!(of(&plain, true).mask, [false, false, true, true, true]);
    assert_eq!(of(&plain, false).mask, [false, true, true, true, true]);
    let same = completion(PromptText::Messages(vec![Message::user("ab")]));
    assert_eq!(of(&same, true), of(&plain, true));
    let chat = Demonstration::Messages { messages: vec![Message::user("a"), Message::assistant("b")] };
    let error = SftExample::of("f:1".into(), &chat, &tokenizer, true).unwrap_err().to_string();
    assert!(error.contains("no chat template"), "{error}");
}

#[test]
fn rows_that_cannot_be_learnt_are_named() {
    let error = |rows: &[SftExample]| {
        let dir = tempfile::tempdir().unwrap();
        train_sft(llama(), rows, &config(), 0, dir.path(), &mut Silent).unwrap_err().to_string()
    };
    assert!(error(&[]).contains("sft has no row to train on"));
    let mut unlearnt = rows(3);
    unlearnt[1].mask.fill(false);
    assert!(error(&unlearnt).contains("`rows.jsonl:2`"), "{}", error(&unlearnt));
    let mut foreign = rows(3);
    foreign[2].ids[0] = 4000;
    assert!(error(&foreign).contains("`rows.jsonl:3`") && error(&foreign).contains("4000"));
}
