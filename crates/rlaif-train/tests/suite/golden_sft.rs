//! Five optimizer steps of supervised fine-tuning, against TRL 1.16 on the same weights and rows (`golden/make_training_steps.py`).

use crate::common::{assert_within, constant, golden, golden_llama, ids, llama};
use rlaif_core::config::SftConfig;
use rlaif_core::records::{Demonstration, PromptText};
use rlaif_model::Tokenizer;
use rlaif_train::{SftExample, SftTrainer};
use serde_json::Value;

const LEARNING_RATE: f64 = 1e-3;

/// The first sides of the golden pairs.
pub fn rows(golden: &Value) -> Vec<SftExample> {
    let tokenizer = Tokenizer::from_folder(&golden_llama()).unwrap();
    let pairs = golden["pairs"].as_array().unwrap().iter().map(|pair| Demonstration::Completion {
        prompt: PromptText::Text(pair[0].as_str().unwrap().into()),
        completion: pair[1].as_str().unwrap().into(),
    });
    pairs.map(|row| SftExample::of("row".into(), &row, &tokenizer, true).unwrap()).collect()
}

#[test]
fn a_row_is_tokenised_as_trl_does() {
    let golden = golden("training_steps.json");
    let (row, first) = (&rows(&golden)[0], &golden["sft"]["first_example"]);
    assert_eq!(row.ids, ids(&first["input_ids"]));
    let learnt: Vec<bool> =
        first["labels"].as_array().unwrap().iter().map(|label| label.as_i64() != Some(-100)).collect();
    assert_eq!(row.mask, learnt);
}

#[test]
fn steps_are_trls_whatever_the_micro_batch_and_packed_or_not() {
    let golden = golden("training_steps.json");
    let rows = rows(&golden);
    for (micro_batch_size, packing) in [(1, true), (2, true), (2, false)] {
        let config =
            SftConfig { micro_batch_size, packing, optim: constant(LEARNING_RATE), ..SftConfig::default() };
        let mut trainer = SftTrainer::new(llama(), &config, 0).unwrap();
        let mut tokens = 0;
        for (i, want) in golden["sft"]["log"].as_array().unwrap().iter().enumerate() {
            let batch: Vec<&SftExample> = rows[2 * i..2 * i + 2].iter().collect();
            let got = trainer.update(&batch, LEARNING_RATE, i as u64 + 1).unwrap();
            tokens += got.tokens;
            let near = |name: &str, got: f64, tolerance: f64| {
                assert_within(
                    &format!("{name}, step {}", i + 1),
                    got,
                    want[name].as_f64().unwrap(),
                    tolerance,
                );
            };
            near("loss", got.loss, 1e-4);
            near("grad_norm", got.grad_norm, 1e-3);
            near("entropy", got.entropy, 1e-4);
            near("mean_token_accuracy", got.mean_token_accuracy, 1e-6);
            near("num_tokens", tokens as f64, 0.0);
        }
    }
}

/// What the golden steps would not be: rows without their end, with the prompt learnt, or with a token of the completion left out.
#[test]
fn another_choice_of_tokens_is_noticed() {
    let golden = golden("training_steps.json");
    let want = golden["sft"]["log"][0]["loss"].as_f64().unwrap();
    let loss = |change: fn(&mut SftExample)| {
        let mut rows = rows(&golden);
        rows.iter_mut().for_each(change);
        let mut trainer = SftTrainer::new(llama(), &SftConfig::default(), 0).unwrap();
        trainer.update(&[&rows[0], &rows[1]], LEARNING_RATE, 1).unwrap().loss
    };
    assert_within("unchanged", loss(|_| {}), want, 1e-4);
    let changes: [fn(&mut SftExample); 3] = [
        |row| {
            row.ids.pop();
            row.mask.pop();
        },
        |row| row.mask[1..].fill(true),
        |row| {
            let first = row.mask.iter().position(|learnt| *learnt).unwrap();
            row.mask[first] = false;
        },
    ];
    for change in changes {
        let got = loss(change);
        assert!((got - want).abs() > 3e-4 * want, "got {got}: within three times the bound");
    }
}
