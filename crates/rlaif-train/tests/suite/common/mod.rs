//! What the tests of trainers share: the golden tiny llama, preferences over it, hooks that stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use rlaif_core::config::{OptimConfig, Schedule};
use rlaif_core::metrics::MetricRow;
use rlaif_model::{Decoder, ModelFiles, SamplingConfig, ScalarHead, Tokenizer, Trainable, open_device};
use rlaif_train::dpo_trainer::ReferencedPair;
use rlaif_train::packing::Item;
use rlaif_train::{Hooks, PreferenceExample, sequence_logps};
use serde_json::Value;

/// Where models are in tests: the CPU, or the device that `RLAIF_TEST_DEVICE` names. Golden values are the same on each.
pub fn device() -> Device {
    open_device(std::env::var("RLAIF_TEST_DEVICE").as_deref().unwrap_or("cpu")).unwrap()
}

pub fn golden_llama() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rlaif-model/tests/golden/models/llama")
}

/// The tiny llama: 2 layers, hidden size 48, 320 tokens, bytes as its alphabet; token 2 ends a response.
pub fn llama() -> Decoder {
    let files = ModelFiles::open_folder(&golden_llama()).unwrap();
    Decoder::load(&files.config, &*files.weights, &device()).unwrap()
}

pub fn head(values: Vec<f32>) -> ScalarHead {
    ScalarHead::from_values(values, &device())
}

/// A small head that is not zero, so that gradients reach the trunk from the first step.
pub fn some_head() -> ScalarHead {
    head((0..48).map(|i| 0.05 * ((i * 7 % 11) as f32 - 5.0)).collect())
}

pub fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// AdamW at a rate that stays.
pub fn constant(learning_rate: f64) -> OptimConfig {
    OptimConfig { learning_rate, schedule: Schedule::Constant, warmup_ratio: 0.0, ..OptimConfig::default() }
}

/// The pairs of `training_steps.json` in file order, tokenised as TRL does: responses end with `<eos>`.
pub fn golden_pairs(golden: &Value) -> Vec<PreferenceExample> {
    const EOS: u32 = 2;
    let tokenizer = Tokenizer::from_folder(&golden_llama()).unwrap();
    let with_eos = |text: &Value| [tokenizer.encode(text.as_str().unwrap()).unwrap(), vec![EOS]].concat();
    let pairs: Vec<_> = golden["pairs"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(i, pair)| PreferenceExample {
            prompt_id: i.to_string(),
            prompt_ids: tokenizer.encode(pair[0].as_str().unwrap()).unwrap(),
            chosen_ids: with_eos(&pair[1]),
            rejected_ids: with_eos(&pair[2]),
            ..PreferenceExample::default()
        })
        .collect();
    let first = &golden["dpo"]["first_example"];
    assert_eq!(pairs[0].prompt_ids, ids(&first["prompt_ids"]));
    assert_eq!(pairs[0].chosen_ids, ids(&first["chosen_ids"]));
    assert_eq!(pairs[0].rejected_ids, ids(&first["rejected_ids"]));
    pairs
}

/// [`golden_pairs`] with the soft labels and weights of `dpo_weighted.json`.
pub fn weighted_pairs(steps: &Value) -> Vec<PreferenceExample> {
    let mut pairs = golden_pairs(&golden("training_steps.json"));
    let told = numbers(&steps["labels"]).into_iter().zip(numbers(&steps["weights"]));
    pairs.iter_mut().zip(told).for_each(|(pair, told)| (pair.p, pair.weight) = told);
    pairs
}

/// The whole distribution, up to so many tokens or token 2.
pub fn sampling(max_new_tokens: usize) -> SamplingConfig {
    SamplingConfig {
        temperature: 1.0,
        top_p: 1.0,
        top_k: 0,
        max_new_tokens,
        stop_ids: vec![2],
        batch_size: 64,
    }
}

/// Pairs with their log-probs under the tiny llama.
pub fn referenced(pairs: &[PreferenceExample]) -> Vec<ReferencedPair<'_>> {
    referenced_by(&llama(), pairs)
}

/// Pairs with their log-probs under a reference.
pub fn referenced_by<'a>(reference: &Decoder, pairs: &'a [PreferenceExample]) -> Vec<ReferencedPair<'a>> {
    let items: Vec<Item<'_>> = pairs
        .iter()
        .flat_map(|p| [(&p.prompt_ids[..], &p.chosen_ids[..]), (&p.prompt_ids[..], &p.rejected_ids[..])])
        .collect();
    let logps = sequence_logps(reference, &items, 64).unwrap();
    pairs
        .iter()
        .zip(logps.chunks(2))
        .map(|(example, logps)| ReferencedPair {
            example,
            ref_chosen: logps[0],
            ref_rejected: logps[1],
            unrelated: None,
        })
        .collect()
}

/// Within 1e-3 relative, and absolutely for what is 0 but for rounding.
#[track_caller]
pub fn assert_near(what: &str, got: f64, want: f64) {
    assert_within(what, got, want, 1e-3);
}

/// Within `tolerance` relative, and absolutely for what is 0 but for rounding.
#[track_caller]
pub fn assert_within(what: &str, got: f64, want: f64, tolerance: f64) {
    assert!((got - want).abs() <= tolerance * want.abs() + 2e-6, "{what}: got {got}, want {want}");
}

#[track_caller]
pub fn assert_all_near(what: &str, got: &[f64], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    got.iter().zip(want).for_each(|(&got, &want)| assert_near(what, got, want));
}

/// All weights of a decoder as bits.
pub fn bits(decoder: &Decoder) -> BTreeMap<String, Vec<u32>> {
    let mut all = decoder.clone();
    all.set_trainable(Trainable::Full);
    all.parameters()
        .into_iter()
        .map(|(name, p)| {
            let values: Vec<f32> = p.inner().into_data().try_into_vec().unwrap();
            (name, values.into_iter().map(f32::to_bits).collect())
        })
        .collect()
}

/// Twelve preferences over four prompts: the chosen response has more of token 70, the labels differ.
pub fn preferences() -> Vec<PreferenceExample> {
    (0..12u32)
        .map(|i| PreferenceExample {
            prompt_id: format!("p{}", i % 4),
            prompt_ids: vec![52 + i % 4, 29, 224, 21],
            chosen_ids: [vec![70; 3 + (i / 4) as usize], vec![2]].concat(),
            rejected_ids: vec![80 + i, 90, 100 + i, 2],
            p: [0.95, 0.8, 1.0][(i / 4) as usize],
            ..PreferenceExample::default()
        })
        .collect()
}

/// Three small heads that differ.
pub fn three_heads() -> ScalarHead {
    ScalarHead::ensemble(48, 0.1, &[1, 2, 3], &device())
}

/// Keeps metrics, and stops after a number of rows.
#[derive(Default)]
pub struct Recorder {
    pub rows: Vec<MetricRow>,
    pub warnings: Vec<String>,
    pub resumed: Option<u64>,
    pub stop_after: Option<usize>,
}

impl Recorder {
    pub fn stopping_after(rows: usize) -> Self {
        Self { stop_after: Some(rows), ..Self::default() }
    }
}

impl Hooks for Recorder {
    fn metrics(&mut self, row: &MetricRow) {
        self.rows.push(row.clone());
    }
    fn progress(&mut self, _: u64, _: u64, _: &str) {}
    fn should_stop(&self) -> bool {
        // What is measured before the first step, or by a watch between two, is no step.
        let steps = self.rows.iter().filter(|row| row.get("learning_rate").or(row.get("lr")).is_some());
        self.stop_after.is_some_and(|after| steps.count() >= after)
    }
    fn resumed(&mut self, step: u64) {
        self.resumed = Some(step);
    }
    fn warning(&mut self, message: &str) {
        self.warnings.push(message.to_string());
    }
}
