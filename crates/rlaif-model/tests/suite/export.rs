//! Models in other formats: what is written reads back as the same model, and is byte by byte what the references write
//! (llama.cpp's `gguf`, PEFT). `scripts/check_exports.py` loads it with transformers, PEFT and llama.cpp themselves.

use std::path::{Path, PathBuf};

use crate::common::{assert_close, device, golden, golden_folder, ids, values};
use crate::gguf_writer::golden_as_gguf;
use half::f16;
use rlaif_core::config::LoraConfig;
use rlaif_model::{
    Decoder, GgmlType, Gguf, GgufValue, ModelFiles, PackedBatch, SafetensorsWeights, SaveDtype, ScalarHead,
    WeightSource, export_adapter, export_safetensors, quantize, save_gguf, save_reward_model,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn open(path: &Path) -> ModelFiles {
    ModelFiles::open(path.to_str().unwrap()).unwrap()
}

fn golden_files(name: &str) -> ModelFiles {
    open(&golden_folder(name))
}

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A golden model's folder, with a value of its `config.json` changed.
fn bent(name: &str, change: impl Fn(&mut Value)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        std::fs::copy(golden_folder(name).join(file), folder.path().join(file)).unwrap();
    }
    edit(&folder.path().join("config.json"), change);
    folder
}

fn edit(path: &Path, change: impl Fn(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

fn written(files: &ModelFiles, kind: GgmlType) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    save_gguf(files, &path, kind, "tiny").unwrap();
    (folder, path)
}

/// Log-probs of 16 tokens.
fn logprobs(files: &ModelFiles) -> Vec<f32> {
    let decoder = Decoder::load(&files.config, files.weights.as_ref(), &device()).unwrap();
    let mut batch = PackedBatch::new();
    let segment = batch.push_sequence(&ids(7, 16));
    values(decoder.logprobs(&decoder.hidden(&batch), &batch.sequence_reads(segment), 1.0))
}

#[test]
fn blocks_are_what_the_reference_writes_byte_by_byte() {
    let golden: Value = serde_json::from_str(include_str!("../golden/gguf_quantized.json")).unwrap();
    let bits = golden["values"].as_array().unwrap().iter();
    let values: Vec<f32> = bits.map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32)).collect();
    for (name, kind) in [("F16", GgmlType::F16), ("BF16", GgmlType::BF16), ("Q8_0", GgmlType::Q8_0)] {
        let expected = from_hex(golden["bytes"][name].as_str().unwrap());
        assert_eq!(quantize(kind, &values).unwrap(), expected, "{name}");
    }
    assert_eq!(quantize(GgmlType::Q4_K, &[0.0; 256]), None);
}

#[test]
fn a_gguf_of_float32_is_the_model_itself() {
    for name in ["llama", "qwen2", "qwen3"] {
        let files = golden_files(name);
        let (_folder, path) = written(&files, GgmlType::F32);
        let back = open(&path);
        assert_eq!(back.config, files.config, "{name}");
        assert_eq!(back.extra_weights, Vec::<String>::new());
        for (tensor, _) in files.config.tensor_shapes() {
            let (got, expected) = (back.weights.load_f32(&tensor), files.weights.load_f32(&tensor));
            assert_eq!(got.unwrap(), expected.unwrap(), "{name}, {tensor}");
        }
        for text in ["Explain it simply.", "  two  spaces\n\n", "naïve ☕ 中文 1234567"] {
            assert_eq!(back.tokenizer.encode(text).unwrap(), files.tokenizer.encode(text).unwrap(), "{text}");
        }
        let template = |files: &ModelFiles| files.tokenizer.chat_template().map(|t| t.source().to_string());
        assert_eq!(template(&back), template(&files));
        assert_eq!(back.tokenizer.vocab_size(), files.tokenizer.vocab_size());
        assert_eq!(back.tokenizer.eos_ids(), files.tokenizer.eos_ids());
        assert_eq!(
            (back.tokenizer.bos(), back.tokenizer.pad()),
            (files.tokenizer.bos(), files.tokenizer.pad())
        );
    }
}

/// The tests of the reader have a writer of their own, made from llama.cpp's converter; ours must agree with it.
#[test]
fn tensors_and_metadata_are_those_of_the_converter() {
    for name in ["llama", "qwen2", "qwen3"] {
        let (_folder, path) = written(&golden_files(name), GgmlType::F32);
        let ours = Gguf::open(&path).unwrap();
        let theirs = Gguf::from_bytes(Path::new("theirs"), golden_as_gguf(name).bytes()).unwrap();
        let shapes = |gguf: &Gguf| -> Vec<(String, Vec<usize>)> {
            gguf.tensors().iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
        };
        assert_eq!(shapes(&ours), shapes(&theirs));
        for tensor in theirs.tensors().keys() {
            assert_eq!(ours.load_f32(tensor).unwrap(), theirs.load_f32(tensor).unwrap(), "{tensor}");
        }
        for (key, value) in theirs.metadata() {
            // The fixture has no entries for the rows of the embedding that are no token's.
            let ours = match (ours.get(key), value) {
                (Some(GgufValue::Array(ours)), GgufValue::Array(theirs)) => {
                    Some(GgufValue::Array(ours.iter().take(theirs.len()).cloned().collect()))
                }
                (ours, _) => ours.cloned(),
            };
            assert_eq!(ours.as_ref(), Some(value), "{key}");
        }
        for (key, expected) in [
            ("general.file_type", GgufValue::Unsigned(0)),
            ("general.type", GgufValue::String("model".into())),
            ("tokenizer.ggml.add_bos_token", GgufValue::Bool(false)),
            ("tokenizer.ggml.add_eos_token", GgufValue::Bool(false)),
        ] {
            assert_eq!(ours.get(key), Some(&expected), "{key}");
        }
    }
}

#[test]
fn a_gguf_of_fewer_bits_is_off_by_its_rounding() {
    let files = golden_files("llama");
    let exact = logprobs(&files);
    let largest = |kind| {
        let (_folder, path) = written(&files, kind);
        let gguf = Gguf::open(&path).unwrap();
        let kind_of = |name: &str| gguf.tensors()[name].kind;
        assert_eq!(kind_of("blk.0.attn_norm.weight"), GgmlType::F32);
        // A row of 48 is no whole blocks of 32, one of 96 is.
        let whole = if kind == GgmlType::Q8_0 { GgmlType::F16 } else { kind };
        assert_eq!((kind_of("token_embd.weight"), kind_of("blk.1.ffn_down.weight")), (whole, kind));
        let off = logprobs(&open(&path));
        exact.iter().zip(off).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max)
    };
    let (f16, bf16, q8_0) = (largest(GgmlType::F16), largest(GgmlType::BF16), largest(GgmlType::Q8_0));
    assert!(f16 > 0.0 && f16 < 5e-3, "{f16}");
    assert!(bf16 > f16 && bf16 < 5e-2, "{bf16}");
    assert!(q8_0 > f16 && q8_0 < 5e-2, "{q8_0}");
}

#[test]
fn long_context_scaling_is_written_where_llama_cpp_looks_for_it() {
    let llama3 = bent("llama3-rope", |config| {
        config["rope_parameters"]["original_max_position_embeddings"] = json!(8192);
    });
    let linear = bent("llama", |config| {
        config["rope_parameters"] = json!({"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0});
        config["rope_scaling"] = Value::Null;
    });
    for folder in [llama3, linear] {
        let files = open(folder.path());
        assert!(files.config.rope_scaling.is_some());
        let (_folder, path) = written(&files, GgmlType::F32);
        assert_eq!(open(&path).config, files.config);
    }
}

#[test]
fn a_beginning_that_the_tokenizer_adds_is_said() {
    let folder = bent("llama", |_| ());
    edit(&folder.path().join("tokenizer.json"), |json| {
        json["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1], "tokens": ["<bos>"]}},
        });
    });
    let (_folder, path) = written(&open(folder.path()), GgmlType::F16);
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.get("tokenizer.ggml.add_bos_token"), Some(&GgufValue::Bool(true)));
    assert_eq!(gguf.get("tokenizer.ggml.add_eos_token"), Some(&GgufValue::Bool(false)));
}

#[test]
fn what_llama_cpp_has_no_form_for_is_refused_by_name_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let refused = |files: &ModelFiles, kind| save_gguf(files, &path, kind, "x").unwrap_err().to_string();
    let f16 = |files: &ModelFiles| refused(files, GgmlType::F16);
    let with_tokenizer = |change: &dyn Fn(&mut Value)| {
        let folder = bent("llama", |_| ());
        edit(&folder.path().join("tokenizer.json"), change);
        f16(&open(folder.path()))
    };
    let reward = tempfile::tempdir().unwrap();
    let (decoder, _) = golden("llama");
    let head = ScalarHead::random(48, 0.2, 5, decoder.device());
    let tokenizer = golden_files("llama").tokenizer;
    save_reward_model(&decoder, &head, &tokenizer, reward.path(), SaveDtype::F32).unwrap();
    let large = tempfile::tempdir().unwrap();
    let shapes = golden_files("llama").config.tensor_shapes();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(golden_folder("llama").join(file), large.path().join(file)).unwrap();
    }
    let sizes = |name: &str| shapes.iter().find(|(n, _)| n == name).unwrap().1.iter().product::<usize>();
    rlaif_model::save_safetensors(&large.path().join("model.safetensors"), &shapes, SaveDtype::F32, |name| {
        Ok(vec![if name.contains("layers.1.mlp.up_proj") { 7e4 } else { 0.5 }; sizes(name)])
    })
    .unwrap();
    let large = open(large.path());

    for (message, expected) in [
        (f16(&golden_files("gpt2")), "a GGUF of the family `gpt2` is not supported"),
        (f16(&golden_files("gemma3")), "a GGUF of the family `gemma3_text`"),
        (f16(&golden_files("mistral")), "with a sliding window of 8"),
        (f16(&open(reward.path())), "a GGUF of a reward model"),
        (refused(&golden_files("llama"), GgmlType::Q5_K), "writing Q5_K"),
        (f16(&large), "`model.layers.1.mlp.up_proj.weight` has the value 70000, which is beyond float16"),
        (with_tokenizer(&|json| json["model"]["byte_fallback"] = json!(true)), "a SentencePiece tokenizer"),
        (
            with_tokenizer(&|json| json["pre_tokenizer"]["add_prefix_space"] = json!(true)),
            "a tokenizer that cuts text by [ByteLevel] in its own way",
        ),
        (with_tokenizer(&|json| json["normalizer"] = json!({"type": "NFKC"})), "in its own way"),
    ] {
        assert!(message.contains(expected), "`{message}` should say `{expected}`");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(export_safetensors(&large, folder.path(), SaveDtype::F16, usize::MAX).is_err());
    save_gguf(&large, &path, GgmlType::Q8_0, "x").unwrap_err(); // rows of 48 fall back to F16
    save_gguf(&large, &path, GgmlType::BF16, "x").unwrap();
}

#[test]
fn shards_hold_what_one_file_would() {
    let files = golden_files("llama");
    let folder = tempfile::tempdir().unwrap();
    export_safetensors(&files, folder.path(), SaveDtype::F16, 20_000).unwrap();
    let index: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("model.safetensors.index.json")).unwrap())
            .unwrap();
    assert_eq!(index["metadata"]["total_size"], 2 * files.config.num_parameters());
    // The embedding of 320 x 48 is larger than a shard may be and has one to itself.
    assert_eq!(index["weight_map"]["model.embed_tokens.weight"], "model-00001-of-00006.safetensors");
    let back = open(folder.path());
    assert_eq!(back.config, files.config);
    assert_eq!(back.config_json.as_ref().unwrap()["dtype"], "float16");
    for (name, _) in files.config.tensor_shapes() {
        let expected: Vec<f32> =
            files.weights.load_f32(&name).unwrap().iter().map(|v| f16::from_f32(*v).to_f32()).collect();
        assert_eq!(back.weights.load_f32(&name).unwrap(), expected, "{name}");
    }
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        let first = path.ends_with("model-00001-of-00006.safetensors");
        if path.extension().is_some_and(|end| end == "safetensors") && !first {
            assert!(path.metadata().unwrap().len() < 20_000 + 2_000, "{path:?}");
        }
    }
}

/// A golden model whose adapters are no longer zero.
fn adapted(name: &str, config: &LoraConfig) -> Decoder {
    let (mut decoder, _) = golden(name);
    decoder.add_lora(config, 1).unwrap();
    decoder.map_parameters(|_, p| {
        let wave = p.clone().inner().mul_scalar(100.0).add_scalar(1.0).sin();
        p.inner() + wave.mul_scalar(0.05)
    });
    decoder
}

#[test]
fn an_adapter_has_the_names_shapes_and_settings_of_peft() {
    let golden: Value = serde_json::from_str(include_str!("../golden/peft_layout.json")).unwrap();
    let lora = |rank, targets: &[&str], use_rslora| LoraConfig {
        rank,
        alpha: 4.0,
        use_rslora,
        dropout: 0.25,
        targets: targets.iter().map(|t| t.to_string()).collect(),
    };
    for (case, model, config) in [
        ("llama", "llama", lora(3, &["q_proj", "v_proj", "down_proj"], false)),
        ("llama_reward", "llama", lora(2, &["q_proj"], true)),
        // GPT-2 has two projections called `c_proj`; only one of them is meant here.
        ("gpt2", "gpt2", lora(2, &["q_proj", "o_proj"], false)),
        ("gpt_neox", "gpt_neox", lora(2, &["query_key_value", "dense"], false)),
    ] {
        let expected = &golden["cases"][case];
        let decoder = adapted(model, &config);
        let head = (case == "llama_reward").then(|| ScalarHead::random(48, 0.2, 5, decoder.device()));
        let folder = tempfile::tempdir().unwrap();
        decoder.adapter().unwrap().save(head.as_ref(), "owner/base", folder.path()).unwrap();
        let weights =
            SafetensorsWeights::open_files(vec![folder.path().join("adapter_model.safetensors")]).unwrap();
        let shapes: Value =
            weights.names().into_iter().map(|name| (name.clone(), json!(weights.shape(&name)))).collect();
        assert_eq!(shapes, expected["tensors"], "{case}");
        let config: Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("adapter_config.json")).unwrap())
                .unwrap();
        let mut targets: Vec<&str> =
            config["target_modules"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        targets.sort_unstable();
        assert_eq!(json!(targets), expected["target_modules"], "{case}");
        assert_eq!(config["modules_to_save"], expected["modules_to_save"], "{case}");
        assert_eq!(config["base_model_name_or_path"], "owner/base");
        for (key, value) in expected["config"].as_object().unwrap() {
            assert!(config[key] == *value || config[key].as_f64() == value.as_f64(), "{case}: {key}");
        }
    }
}

#[test]
fn an_adapter_added_to_its_base_by_hand_is_the_merged_model() {
    let config = LoraConfig { rank: 3, alpha: 6.0, use_rslora: true, ..LoraConfig::default() };
    let mut decoder = adapted("llama", &config);
    let folder = tempfile::tempdir().unwrap();
    let (kept, moved) = (folder.path().join("kept"), folder.path().join("moved"));
    decoder.adapter().unwrap().save(None, "runs/base", &kept).unwrap();
    assert_eq!(rlaif_model::adapter_base(&kept).unwrap(), "runs/base");
    export_adapter(&kept, &moved, "owner/name@v2", SaveDtype::F32).unwrap();
    let json: Value =
        serde_json::from_slice(&std::fs::read(moved.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&json["base_model_name_or_path"], &json["revision"]), (&json!("owner/name"), &json!("v2")));

    let adapter = SafetensorsWeights::open_files(vec![moved.join("adapter_model.safetensors")]).unwrap();
    let base = golden_files("llama");
    decoder.merge_lora();
    assert!(decoder.adapter().is_none());
    let merged = tempfile::tempdir().unwrap();
    rlaif_model::save_causal_lm(&decoder, &base.tokenizer, merged.path(), SaveDtype::F32).unwrap();
    let merged = open(merged.path());
    for module in ["layers.0.self_attn.k_proj", "layers.1.mlp.gate_proj"] {
        let of = |matrix: &str| {
            let name = format!("base_model.model.model.{module}.{matrix}.weight");
            (adapter.load_f32(&name).unwrap(), adapter.shape(&name).unwrap())
        };
        let ((a, a_shape), (b, b_shape)) = (of("lora_A"), of("lora_B"));
        let (rank, inputs, outputs) = (a_shape[0], a_shape[1], b_shape[0]);
        let mut weight = base.weights.load_f32(&format!("model.{module}.weight")).unwrap();
        for o in 0..outputs {
            for i in 0..inputs {
                let sum: f32 = (0..rank).map(|r| b[o * rank + r] * a[r * inputs + i]).sum();
                weight[o * inputs + i] += 6.0 / 3f32.sqrt() * sum;
            }
        }
        assert_close(&merged.weights.load_f32(&format!("model.{module}.weight")).unwrap(), &weight, 1e-6);
    }
}
