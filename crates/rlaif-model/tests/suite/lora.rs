//! Adapters: an identity at birth, alone in taking gradients, and gone without trace when merged.

use crate::common::*;
use rlaif_core::config::LoraConfig;
use rlaif_model::{Decoder, PackedBatch, Trainable};

fn lora(targets: &[&str]) -> LoraConfig {
    let targets = targets.iter().map(|t| t.to_string()).collect();
    LoraConfig { rank: 3, alpha: 6.0, targets, ..LoraConfig::default() }
}

fn hidden(decoder: &Decoder) -> Vec<f32> {
    let mut batch = PackedBatch::new();
    let prompt = batch.push_prompt(&ids(1, 8));
    batch.push_response(prompt, &ids(2, 5));
    values(decoder.hidden(&batch).inner())
}

/// A tiny model whose adapters are no longer zero.
fn trained() -> Decoder {
    let mut decoder = tiny();
    decoder.add_lora(&lora(&rlaif_model::PROJECTIONS), 1).unwrap();
    decoder.map_parameters(|_, p| {
        let wave = (p.clone().inner().mul_scalar(100.0)).add_scalar(1.0).sin();
        p.inner() + wave.mul_scalar(0.05)
    });
    decoder
}

#[test]
fn a_fresh_adapter_changes_nothing_and_alone_takes_gradients() {
    let mut decoder = tiny();
    let before = hidden(&decoder);
    decoder.add_lora(&lora(&["q_proj", "down_proj"]), 1).unwrap();
    assert_close(&hidden(&decoder), &before, 1e-5);
    assert_eq!(decoder.trainable(), Trainable::Lora);

    let names: Vec<String> = decoder.parameters().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names[..4],
        [
            "model.layers.0.self_attn.q_proj.lora_A.weight",
            "model.layers.0.self_attn.q_proj.lora_B.weight",
            "model.layers.0.mlp.down_proj.lora_A.weight",
            "model.layers.0.mlp.down_proj.lora_B.weight"
        ]
    );
    assert_eq!((names.len(), decoder.num_trainable()), (8, 2 * 3 * (24 + 24 + 40 + 24)));

    let mut batch = PackedBatch::new();
    let segment = batch.push_sequence(&ids(3, 6));
    let loss = decoder.logprobs(&decoder.hidden(&batch), &batch.sequence_reads(segment), 1.0).sum();
    let grads = loss.backward();
    for (name, p) in decoder.parameters() {
        let largest = values(p.grad(&grads).unwrap()).iter().fold(0f32, |m, g| m.max(g.abs()));
        // B = 0, so A has no effect yet and no gradient.
        assert_eq!(largest > 0.0, name.contains("lora_B"), "{name}: {largest}");
    }
}

#[test]
fn merging_equals_the_adapter() {
    let decoder = trained();
    let mut merged = decoder.clone();
    merged.merge_lora();
    assert!(!merged.has_lora() && decoder.has_lora());
    let (with, without) = (hidden(&decoder), hidden(&decoder.without_adapter()));
    assert_close(&hidden(&merged), &with, 2e-5);
    assert_eq!(without, hidden(&tiny()));
    let moved = with.iter().zip(&without).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(moved > 0.1, "the adapter does something: {moved}");
}

#[test]
fn parameters_go_out_and_come_back() {
    let decoder = trained();
    let saved: Vec<(String, Vec<f32>)> =
        decoder.parameters().into_iter().map(|(name, p)| (name, values(p.inner()))).collect();
    let mut other = tiny();
    other.add_lora(&lora(&rlaif_model::PROJECTIONS), 2).unwrap();
    let find = |name: &str| saved.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    other.import_parameters(&find).unwrap();
    assert_eq!(hidden(&other), hidden(&decoder));
    assert_eq!(other.parameters().len(), saved.len());

    let error = other.import_parameters(&|_| None).unwrap_err().to_string();
    assert!(error.contains("model.layers.0.self_attn.q_proj.lora_A.weight"), "{error}");
    assert!(other.import_parameters(&|_| Some(vec![0.0])).is_err());
    assert_eq!(hidden(&other), hidden(&decoder), "a failed import changes nothing");
}

#[test]
fn adapters_draw_from_their_own_streams() {
    let first_a = |targets: &[&str], seed| {
        let mut decoder = tiny();
        decoder.add_lora(&lora(targets), seed).unwrap();
        let find = |(name, p): (String, burn::tensor::Tensor<2>)| {
            name.contains("layers.1.mlp.up_proj.lora_A").then(|| values(p.inner()))
        };
        decoder.parameters().into_iter().find_map(find).unwrap()
    };
    let all = first_a(&rlaif_model::PROJECTIONS, 5);
    assert_eq!(first_a(&["up_proj"], 5), all, "another choice of targets moves no numbers");
    assert_ne!(first_a(&["up_proj"], 6), all);
}

#[test]
fn a_wrong_target_is_named() {
    let error = tiny().add_lora(&lora(&["q_proj", "query"]), 1).unwrap_err().to_string();
    assert!(error.contains("`query`") && error.contains("`q_proj`"), "{error}");
}

#[test]
fn dropout_masks_what_an_adapter_reads_and_only_where_it_is_asked_for() {
    let mut decoder = tiny();
    decoder.add_lora(&LoraConfig { dropout: 0.5, ..lora(&["down_proj"]) }, 1).unwrap();
    decoder.map_parameters(|_, p| p.inner().add_scalar(0.05));
    let plain = hidden(&decoder);
    let masked = hidden(&decoder.with_dropout(1));
    assert_eq!(hidden(&decoder.with_dropout(1)), masked, "a seed decides the masks");
    assert_ne!(hidden(&decoder.with_dropout(2)), masked);
    assert_ne!(masked, plain);
    assert_eq!(hidden(&decoder), plain, "the decoder itself has none");
    let mut merged = decoder.clone();
    merged.merge_lora();
    assert_close(&hidden(&merged), &plain, 1e-5);

    let mut none = tiny();
    none.add_lora(&lora(&["down_proj"]), 1).unwrap();
    none.map_parameters(|_, p| p.inner().add_scalar(0.05));
    assert_eq!(hidden(&none.with_dropout(1)), plain, "a rate of 0 is no dropout, bit by bit");
}

/// With all-ones A and B, the adapter adds scale · rank · Σ mask · x to each output: the mean over masks is what no mask gives.
#[test]
fn the_mean_over_masks_is_the_adapter_without_them() {
    let mut decoder = tiny();
    decoder.add_lora(&LoraConfig { dropout: 0.3, ..lora(&["o_proj"]) }, 1).unwrap();
    decoder.map_parameters(|_, p| p.inner().mul_scalar(0.0).add_scalar(1e-3));
    let plain = hidden(&decoder);
    let without = hidden(&decoder.without_adapter());
    const SEEDS: u64 = 400;
    let mut mean = vec![0f32; plain.len()];
    for seed in 0..SEEDS {
        mean.iter_mut().zip(hidden(&decoder.with_dropout(seed))).for_each(|(m, h)| *m += h / SEEDS as f32);
    }
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
    let (off, effect) = (distance(&mean, &plain), distance(&plain, &without));
    assert!(off < 0.15 * effect, "{off} of {effect}");
}

#[test]
fn rank_stabilised_scaling_divides_by_the_root() {
    let delta = |config: LoraConfig| {
        let mut decoder = tiny();
        let before = queries(&decoder);
        decoder.add_lora(&config, 1).unwrap();
        decoder.map_parameters(|_, p| p.inner().add_scalar(0.1));
        decoder.merge_lora();
        queries(&decoder).iter().zip(before).map(|(a, b)| a - b).collect::<Vec<f32>>()
    };
    let classic = delta(lora(&["q_proj"]));
    let stabilised = delta(LoraConfig { use_rslora: true, ..lora(&["q_proj"]) });
    let expected: Vec<f32> = classic.iter().map(|d| d * 3f32.sqrt()).collect(); // alpha / sqrt 3 instead of alpha / 3
    assert_close(&stabilised, &expected, 1e-5);
}

/// The queries' weight of the first layer.
fn queries(decoder: &Decoder) -> Vec<f32> {
    let mut all = decoder.frozen();
    all.set_trainable(Trainable::Full);
    let query = |(name, _): &(String, _)| name == "model.layers.0.self_attn.q_proj.weight";
    values(all.parameters().into_iter().find(query).unwrap().1.inner())
}
