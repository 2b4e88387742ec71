//! GGUF files against the reference: llama.cpp's own Python package for the blocks, transformers' layout for the rest.

use std::path::Path;

use crate::common::{golden_folder, smollm2};
use crate::gguf_writer::{GgufFile, Meta, Tensor, golden_as_gguf, golden_llama_as_gguf};
use rlaif_model::{GgmlType, Gguf, ModelFiles, RopeScaling, dequantize};
use serde_json::Value;

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn blocks_of_every_type_give_the_reference_values_bit_by_bit() {
    let golden: Value = serde_json::from_str(include_str!("../golden/gguf_blocks.json")).unwrap();
    let kinds = [
        ("F32", GgmlType::F32),
        ("F16", GgmlType::F16),
        ("BF16", GgmlType::BF16),
        ("Q4_0", GgmlType::Q4_0),
        ("Q4_1", GgmlType::Q4_1),
        ("Q5_0", GgmlType::Q5_0),
        ("Q5_1", GgmlType::Q5_1),
        ("Q8_0", GgmlType::Q8_0),
        ("Q4_K", GgmlType::Q4_K),
        ("Q5_K", GgmlType::Q5_K),
        ("Q6_K", GgmlType::Q6_K),
    ];
    assert_eq!(golden["types"].as_object().unwrap().len(), kinds.len());
    for (name, kind) in kinds {
        let case = &golden["types"][name];
        let got = dequantize(kind, &from_hex(case["bytes"].as_str().unwrap()));
        let expected = case["values"].as_array().unwrap();
        assert_eq!(got.len(), expected.len(), "{name}");
        for (i, (got, bits)) in got.iter().zip(expected).enumerate() {
            let expected = f32::from_bits(bits.as_u64().unwrap() as u32);
            assert_eq!(*got, expected, "{name}, value {i}"); // equal up to the sign of zero
        }
    }
}

#[test]
fn many_blocks_are_dequantised_in_parallel_to_the_same_values() {
    // More values than one task has: every block the same, so every 32 values the same.
    let block: Vec<u8> = (0..34).map(|i| if i == 1 { 0x3c } else { i }).collect();
    let once = dequantize(GgmlType::Q8_0, &block);
    let many = dequantize(GgmlType::Q8_0, &block.repeat(5000));
    assert!(many.chunks(32).all(|chunk| chunk == once));
}

/// What the file's tensors would be if the converter to GGUF and our reader were each other's inverse.
#[test]
fn a_gguf_and_the_folder_it_was_converted_from_are_the_same_model() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("llama.gguf");
    std::fs::write(&path, golden_llama_as_gguf().bytes()).unwrap();
    let gguf = ModelFiles::open(path.to_str().unwrap()).unwrap();
    let folder = ModelFiles::open(golden_folder("llama").to_str().unwrap()).unwrap();
    assert_eq!(gguf.config, folder.config);
    assert_eq!(gguf.extra_weights, Vec::<String>::new());
    for (name, shape) in folder.config.tensor_shapes() {
        assert_eq!(gguf.weights.shape(&name), Some(shape), "{name}");
        assert_eq!(gguf.weights.load_f32(&name).unwrap(), folder.weights.load_f32(&name).unwrap(), "{name}");
    }
    for text in ["Explain it simply.", "  two  spaces\n\n", "naïve ☕ 中文 1234567"] {
        assert_eq!(gguf.tokenizer.encode(text).unwrap(), folder.tokenizer.encode(text).unwrap(), "{text}");
    }
    assert_eq!(gguf.tokenizer.pad(), Some(0));
    assert_eq!(gguf.tokenizer.eos_ids(), [2]);
    assert_ne!(gguf.fingerprint().unwrap(), folder.fingerprint().unwrap());
}

#[test]
fn qwen_in_a_gguf_is_the_folder_it_was_converted_from() {
    for family in ["qwen2", "qwen3"] {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("qwen.gguf");
        std::fs::write(&path, golden_as_gguf(family).bytes()).unwrap();
        let gguf = ModelFiles::open(path.to_str().unwrap()).unwrap();
        let folder = ModelFiles::open(golden_folder(family).to_str().unwrap()).unwrap();
        assert_eq!(gguf.config, folder.config);
        assert_eq!(gguf.extra_weights, Vec::<String>::new());
        for (name, _) in folder.config.tensor_shapes() {
            assert_eq!(
                gguf.weights.load_f32(&name).unwrap(),
                folder.weights.load_f32(&name).unwrap(),
                "{name}"
            );
        }
    }
}

#[test]
fn version_2_is_read_and_an_alignment_is_obeyed() {
    let mut file = golden_llama_as_gguf();
    file.version = 2;
    file.alignment = 128;
    file.set("general.alignment", Meta::U32(128));
    let gguf = Gguf::from_bytes(Path::new("v2.gguf"), file.bytes()).unwrap();
    let embedding = &file.tensors[0];
    let expected: Vec<f32> =
        embedding.bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(gguf.load_f32(&embedding.name).unwrap(), expected);
    assert_eq!(gguf.tensors()[&embedding.name].shape, [320, 48]);
}

#[test]
fn what_we_do_not_have_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut GgufFile)| {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("x.gguf");
        let mut file = golden_llama_as_gguf();
        change(&mut file);
        std::fs::write(&path, file.bytes()).unwrap();
        ModelFiles::open(path.to_str().unwrap()).err().expect("an error").to_string()
    };
    let text = |key: &'static str, value: &'static str| {
        move |file: &mut GgufFile| {
            file.set(key, Meta::Text(value.into()));
        }
    };
    let cases: [(String, &str); 9] = [
        (refused(&text("general.architecture", "gemma3")), "architecture `gemma3` in a GGUF"),
        (refused(&text("general.architecture", "mamba")), "architecture `mamba`"),
        (refused(&text("tokenizer.ggml.model", "llama")), "tokenizer `llama`"),
        (refused(&text("tokenizer.ggml.pre", "tekken")), "pre-tokenizer `tekken`"),
        (refused(&text("llama.rope.scaling.type", "yarn")), "rope scaling `yarn`"),
        (refused(&|file| file.tensors[3].kind = 20), "tensor type IQ4_NL"),
        (refused(&|file| file.tensors.truncate(5)), "no tensor `model.layers.0"),
        (
            refused(&|file| {
                file.set("llama.expert_count", Meta::U32(8));
            }),
            "mixture of experts",
        ),
        (
            refused(&|file| {
                file.set("llama.feed_forward_length", Meta::U32(64));
            }),
            "has shape [96, 48], and the config asks for [64, 48]",
        ),
    ];
    for (message, expected) in cases {
        assert!(message.contains(expected), "`{message}` should say `{expected}`");
    }
}

#[test]
fn a_nan_weight_is_refused_when_it_is_loaded_with_its_name() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("nan.gguf");
    let mut file = golden_llama_as_gguf();
    let norm = file.tensors.iter_mut().find(|tensor| tensor.name == "blk.1.ffn_norm.weight").unwrap();
    norm.bytes[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, file.bytes()).unwrap();
    let files = ModelFiles::open(path.to_str().unwrap()).unwrap();
    let error = files.weights.load_f32("model.layers.1.post_attention_layernorm.weight").unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor `model.layers.1.post_attention_layernorm.weight` has the value NaN at element 2; the checkpoint is broken"
    );
    files.weights.load_f32("model.layers.0.post_attention_layernorm.weight").unwrap();
}

#[test]
fn linear_and_llama3_rope_scaling_come_from_where_llama_cpp_puts_them() {
    let config = |change: &dyn Fn(&mut GgufFile)| {
        let mut file = golden_llama_as_gguf();
        change(&mut file);
        rlaif_model::ModelConfig::from_gguf(&Gguf::from_bytes(Path::new("x"), file.bytes()).unwrap())
    };
    let linear = config(&|file| {
        file.set("llama.rope.scaling.type", Meta::Text("linear".into()))
            .set("llama.rope.scaling.factor", Meta::F32(4.0));
    });
    assert_eq!(linear.unwrap().rope_scaling, Some(RopeScaling::Linear { factor: 4.0 }));
    let unknown = config(&|file| {
        file.tensors.push(Tensor::f32("rope_freqs.weight", &[6], &[1.0, 2.0, 1.0, 3.0, 8.0, 8.0]));
    });
    assert!(unknown.unwrap_err().to_string().contains("rope_freqs.weight"));
}

#[test]
fn smollm2_opens_with_the_values_of_the_reference() {
    let Some(path) = smollm2() else { return };
    let files = ModelFiles::open(path.to_str().unwrap()).unwrap();
    let config = &files.config;
    assert_eq!(
        (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.head_dim),
        (49_152, 576, 30, 64)
    );
    assert_eq!((config.rope_theta, config.norm_eps), (100_000.0, 1e-5));
    assert!(config.tie_word_embeddings);
    assert_eq!(config.num_parameters(), 134_515_008);
    // From `gguf.quants.dequantize` on the same file, q_proj un-permuted with transformers' `reverse_permute`.
    let sum = |name: &str| -> f64 {
        let values = files.weights.load_f32(name).unwrap();
        values.iter().enumerate().map(|(i, value)| f64::from(*value) * ((i % 1009) as f64 - 504.0)).sum()
    };
    for (name, expected) in SMOLLM2_SUMS {
        let got = sum(name);
        assert!((got - expected).abs() < 1e-6 * expected.abs().max(1.0), "{name}: {got} and {expected}");
    }
}

/// Sums of value times `index % 1009 - 504`, which a wrong order or a wrong block would change.
const SMOLLM2_SUMS: [(&str, f64); 5] = [
    ("model.embed_tokens.weight", -66877.3282699585),
    ("model.layers.0.self_attn.q_proj.weight", 2093.4718475341797),
    ("model.layers.7.self_attn.k_proj.weight", -4441.887535095215),
    ("model.layers.29.mlp.down_proj.weight", -86723.31587219238),
    ("model.norm.weight", -224581.22265625),
];
