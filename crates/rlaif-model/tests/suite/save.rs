//! What is written loads again, has transformers' names and shapes, and holds the merged adapters.

use crate::common::*;
use rlaif_core::config::LoraConfig;
use rlaif_model::{
    Decoder, ModelFiles, PackedBatch, SaveDtype, ScalarHead, Tokenizer, WeightSource, save_causal_lm,
    save_reward_model,
};

fn hidden(decoder: &Decoder) -> Vec<f32> {
    let mut batch = PackedBatch::new();
    batch.push_sequence(&ids(1, 12));
    values(decoder.hidden(&batch))
}

fn reload(folder: &std::path::Path) -> (ModelFiles, Decoder) {
    let files = ModelFiles::open(folder.to_str().unwrap()).unwrap();
    let decoder = Decoder::load(&files.config, files.weights.as_ref(), &device()).unwrap();
    (files, decoder)
}

#[test]
fn a_saved_model_is_the_file_it_came_from() {
    for name in ["llama", "llama3-rope"] {
        let (decoder, _) = golden(name);
        let original = ModelFiles::open(golden_folder(name).to_str().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        save_causal_lm(&decoder, &original.tokenizer, folder.path(), SaveDtype::F32).unwrap();
        let (files, reloaded) = reload(folder.path());
        assert_eq!(files.config, original.config);
        assert_eq!(hidden(&reloaded), hidden(&decoder));

        let ours = Stored(std::fs::read(folder.path().join("model.safetensors")).unwrap());
        let theirs = Stored(std::fs::read(golden_folder(name).join("model.safetensors")).unwrap());
        assert_eq!(ours.names(), theirs.names());
        for tensor in theirs.names() {
            assert_eq!(ours.shape(&tensor), theirs.shape(&tensor), "{tensor}");
            assert_eq!(ours.load_f32(&tensor).unwrap(), theirs.load_f32(&tensor).unwrap(), "{tensor}");
        }
    }
}

#[test]
fn adapters_are_merged_into_what_is_written() {
    let (mut decoder, _) = golden("llama");
    let tokenizer = ModelFiles::open(golden_folder("llama").to_str().unwrap()).unwrap().tokenizer;
    let before = hidden(&decoder);
    decoder.add_lora(&LoraConfig { rank: 2, ..LoraConfig::default() }, 3).unwrap();
    decoder.map_parameters(|_, p| p.inner().add_scalar(0.02));
    let folder = tempfile::tempdir().unwrap();
    save_causal_lm(&decoder, &tokenizer, folder.path(), SaveDtype::F32).unwrap();
    let (_, reloaded) = reload(folder.path());
    assert!(decoder.has_lora() && !reloaded.has_lora());
    let after = hidden(&decoder.frozen());
    assert_close(&hidden(&reloaded), &after, 1e-4);
    assert!(before.iter().zip(&after).any(|(a, b)| (a - b).abs() > 0.05));
}

#[test]
fn a_reward_model_carries_its_head_and_says_what_it_is() {
    for name in ["llama", "llama3-rope"] {
        let (decoder, _) = golden(name);
        let tokenizer = ModelFiles::open(golden_folder(name).to_str().unwrap()).unwrap().tokenizer;
        let head = ScalarHead::random(48, 0.2, 5, decoder.device());
        let folder = tempfile::tempdir().unwrap();
        save_reward_model(&decoder, &head, &tokenizer, folder.path(), SaveDtype::F32).unwrap();
        let (files, reloaded) = reload(folder.path());
        assert_eq!(files.extra_weights, ["score.weight"]);
        let json = files.config_json.as_ref().unwrap();
        assert_eq!(json["architectures"][0], "LlamaForSequenceClassification");
        let found = ScalarHead::load(files.weights.as_ref(), reloaded.device()).unwrap().unwrap();
        assert_eq!(found.values(), head.values());
        assert_eq!(hidden(&reloaded), hidden(&decoder));
        assert!(ScalarHead::load(&RandomWeights(tiny_config()), decoder.device()).unwrap().is_none());
    }
}

#[test]
fn bfloat16_is_half_the_size_and_near() {
    let (decoder, _) = golden("llama");
    let tokenizer = ModelFiles::open(golden_folder("llama").to_str().unwrap()).unwrap().tokenizer;
    let folder = tempfile::tempdir().unwrap();
    save_causal_lm(&decoder, &tokenizer, folder.path(), SaveDtype::Bf16).unwrap();
    let (files, reloaded) = reload(folder.path());
    assert_eq!(files.config_json.unwrap()["dtype"], "bfloat16");
    assert_close(&hidden(&reloaded), &hidden(&decoder), 0.15);
    assert_ne!(hidden(&reloaded), hidden(&decoder));
}

#[test]
fn a_reward_model_is_not_padded_with_the_token_that_ends_a_turn() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let text = std::fs::read_to_string(golden_folder("llama").join(name)).unwrap();
        let text = text.replace(r#""pad_token": "<pad>""#, r#""pad_token": "<eos>""#);
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!((tokenizer.pad(), tokenizer.eos_ids()), (Some(2), [2].as_slice()));
    let (decoder, _) = golden("llama");
    let head = ScalarHead::zeros(48, decoder.device());
    let saved = tempfile::tempdir().unwrap();
    save_reward_model(&decoder, &head, &tokenizer, saved.path(), SaveDtype::F32).unwrap();
    let (files, _) = reload(saved.path());
    let pad = files.tokenizer.pad().unwrap();
    assert_ne!(pad, 2, "transformers would read the reward before the last token");
    assert_eq!(files.config_json.unwrap()["pad_token_id"], pad);
}
