//! Models for tests: the golden ones, and a tiny random one of any shape.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rlaif_model::{Decoder, ModelConfig, Result, WeightSource, open_device};
use serde_json::Value;

/// Where models are in tests: the CPU, or the device that `RLAIF_TEST_DEVICE` names. Golden values are the same on each.
pub fn device() -> Device {
    open_device(std::env::var("RLAIF_TEST_DEVICE").as_deref().unwrap_or("cpu")).unwrap()
}

/// Weights drawn from a seed; biases and norms too, so that a forgotten one shows.
pub struct RandomWeights(pub ModelConfig);

impl WeightSource for RandomWeights {
    fn names(&self) -> Vec<String> {
        self.0.tensor_shapes().into_iter().map(|(name, _)| name).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.tensor_shapes().into_iter().find(|(n, _)| n == name).map(|(_, shape)| shape)
    }

    fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        let shape = self.shape(name).expect("a tensor of the config");
        let seed = name.bytes().fold(17u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let center = if name.contains("norm") { 1.0 } else { 0.0 };
        Ok((0..shape.iter().product()).map(|_| center + rng.random_range(-0.3..0.3)).collect())
    }
}

/// Two layers, grouped-query attention, 41 tokens.
pub fn tiny_config() -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "llama", "vocab_size": 41, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "attention_bias": true, "eos_token_id": 2
    });
    ModelConfig::from_hf_json(&json).unwrap()
}

pub fn tiny() -> Decoder {
    let config = tiny_config();
    Decoder::load(&config, &RandomWeights(config.clone()), &device()).unwrap()
}

/// `count` token ids below 41.
pub fn ids(seed: u64, count: usize) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(3..41)).collect()
}

pub fn golden_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name)
}

/// A model of `tests/golden/models` with what transformers computed for it.
pub fn golden(name: &str) -> (Decoder, Value) {
    let folder = golden_folder(name);
    let json =
        |file: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap() };
    let config = ModelConfig::from_hf_json(&json("config.json")).unwrap();
    let weights = Stored(std::fs::read(folder.join("model.safetensors")).unwrap());
    let decoder = Decoder::load(&config, &weights, &device()).unwrap();
    (decoder, json("golden.json"))
}

/// A safetensors file read with nothing but the safetensors crate.
pub struct Stored(pub Vec<u8>);

impl WeightSource for Stored {
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = safetensors::SafeTensors::deserialize(&self.0)
            .unwrap()
            .names()
            .iter()
            .map(|n| n.to_string())
            .collect();
        names.sort();
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).ok().map(|t| t.shape().to_vec())
    }

    fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        let bytes = file.tensor(name).unwrap().data().to_vec();
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
    }
}

/// SmolLM2-135M-Instruct: `RLAIF_MODEL`, or where the quickstart keeps it; none, with a printed line, where there is neither.
pub fn smollm2() -> Option<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/SmolLM2-135M-Instruct.Q4_1.gguf");
    let path = std::env::var_os("RLAIF_MODEL").map_or(kept, PathBuf::from);
    if path.is_file() {
        return Some(path);
    }
    println!("skipped: no model at {}; scripts/quickstart fetches it, or set RLAIF_MODEL", path.display());
    None
}

pub fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

pub fn token_ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

pub fn values<const D: usize>(tensor: burn::tensor::Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[track_caller]
pub fn assert_close(found: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(found.len(), wanted.len());
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= tolerance, "element {i}: {f} is not within {tolerance} of {w}");
    }
}
