//! Adapters: an identity at birth, alone in taking gradients, and gone without trace when merged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;

use common::*;
use rlaif_core::config::LoraConfig;
use rlaif_model::{Decoder, PackedBatch, Trainable};

fn lora(targets: &[&str]) -> LoraConfig {
    LoraConfig { rank: 3, alpha: 6.0, targets: targets.iter().map(|t| t.to_string()).collect() }
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
