//! Every family of decoders: equal to transformers in what it computes, samples and writes, and differentiable.

use crate::common::*;
use burn::tensor::{Tensor, TensorData};
use rlaif_core::config::LoraConfig;
use rlaif_model::{
    Decoder, GenerateRequest, ModelConfig, ModelFiles, PackedBatch, Reads, SamplingConfig, SaveDtype,
    ScalarHead, Trainable, WeightSource, generate, save_causal_lm, save_reward_model,
};
use serde_json::{Value, json};

const FAMILIES: [&str; 9] =
    ["llama", "llama3-rope", "mistral", "qwen2", "qwen3", "gemma3", "gpt_neox", "opt", "gpt2"];

/// The unpadded sequences of a golden file: of 24, 17 and 9 tokens, so that windows of 8 show.
fn sequences(golden: &Value) -> Vec<Vec<u32>> {
    let rows = golden["input_ids"].as_array().unwrap().iter().map(token_ids);
    let masks = golden["attention_mask"].as_array().unwrap().iter().map(token_ids);
    let seen = |(ids, mask): (Vec<u32>, Vec<u32>)| {
        ids.into_iter().zip(mask).filter(|(_, seen)| *seen == 1).map(|(id, _)| id).collect()
    };
    rows.zip(masks).map(seen).collect()
}

fn open(folder: &std::path::Path) -> (ModelFiles, Decoder) {
    let files = ModelFiles::open(folder.to_str().unwrap()).unwrap();
    let decoder = Decoder::load(&files.config, files.weights.as_ref(), &device()).unwrap();
    (files, decoder)
}

/// Log-probs of every token of the golden sequences but the first, packed in one stream.
fn logprobs(decoder: &Decoder, golden: &Value) -> Tensor<1> {
    let mut batch = PackedBatch::new();
    let mut reads = Reads::new();
    for ids in sequences(golden) {
        let segment = batch.push_sequence(&ids);
        reads.append(batch.sequence_reads(segment));
    }
    decoder.logprobs(&decoder.hidden(&batch), &reads, 1.0)
}

fn wanted(golden: &Value) -> Vec<f32> {
    golden["token_logprobs"].as_array().unwrap().iter().flat_map(numbers).collect()
}

#[test]
fn logprobs_and_logits_are_those_of_transformers() {
    for name in FAMILIES {
        println!("{name}");
        let (decoder, golden) = golden(name);
        assert_close(&values(logprobs(&decoder, &golden)), &wanted(&golden), 1e-4);
        let sequences = sequences(&golden);
        for (ids, wanted) in sequences.iter().zip(golden["last_logits_first16"].as_array().unwrap()) {
            let mut batch = PackedBatch::new();
            let segment = batch.push_sequence(ids);
            let hidden = decoder.hidden(&batch);
            let logits = values(decoder.logits_at(&hidden, &[batch.last_index(segment)]));
            assert_close(&logits[..16], &numbers(wanted), 1e-4);
        }
    }
}

/// Settings that the golden values would not notice would not be tested by them.
#[test]
fn golden_values_notice_every_setting() {
    let cases = [
        ("llama", "rms_norm_eps", json!(0.01)),
        ("llama3-rope", "rope_parameters", json!({"rope_type": "default", "rope_theta": 500_000.0})),
        ("mistral", "sliding_window", Value::Null),
        ("mistral", "sliding_window", json!(9)),
        ("qwen3", "rope_parameters", json!({"rope_type": "default", "rope_theta": 11_000.0})),
        ("gemma3", "sliding_window", json!(7)),
        ("gemma3", "layer_types", json!(["full_attention", "sliding_attention"])),
        ("gemma3", "query_pre_attn_scalar", json!(17)),
        (
            "gemma3",
            "rope_parameters",
            json!({"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e6}}),
        ),
        (
            "gemma3",
            "rope_parameters",
            json!({"full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e4}}),
        ),
        ("gpt_neox", "use_parallel_residual", json!(false)),
        ("gpt_neox", "rope_parameters", json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5})),
        ("gpt_neox", "hidden_act", json!("gelu_new")),
        ("gpt_neox", "layer_norm_eps", json!(0.001)),
        ("opt", "activation_function", json!("gelu")),
        ("gpt2", "activation_function", json!("gelu")),
    ];
    let device = device();
    for (name, key, value) in cases {
        let (files, _) = open(&golden_folder(name));
        let golden = golden(name).1;
        let mut json = files.config_json.unwrap();
        json[key] = value.clone();
        let config = ModelConfig::from_hf_json(&json).unwrap();
        let decoder = Decoder::load(&config, files.weights.as_ref(), &device).unwrap();
        let found = values(logprobs(&decoder, &golden));
        let distance = found.iter().zip(wanted(&golden)).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(distance > 1e-4, "{name}, {key} = {value}: {distance}");
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers() {
    let sampling = SamplingConfig {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        max_new_tokens: 16,
        stop_ids: vec![],
        batch_size: 4,
    };
    for name in FAMILIES {
        let (decoder, golden) = golden(name);
        let prompt_ids = token_ids(&golden["greedy_prompt"]);
        let requests = [GenerateRequest { prompt_ids, n: 1, seed: 0 }];
        let samples = generate(&decoder, &requests, &sampling, &mut |_| {}).unwrap();
        assert_eq!(samples[0][0].ids, token_ids(&golden["greedy_new_tokens"]), "{name}");
    }
}

/// 60 tokens cross a cache block, and every window many times.
#[test]
fn sampled_logprobs_are_those_that_training_recomputes() {
    let sampling = SamplingConfig {
        temperature: 0.9,
        top_p: 1.0,
        top_k: 0,
        max_new_tokens: 60,
        stop_ids: vec![],
        batch_size: 3,
    };
    for name in FAMILIES {
        println!("{name}");
        let (decoder, golden) = golden(name);
        for prompt_ids in sequences(&golden) {
            let requests = [GenerateRequest { prompt_ids: prompt_ids.clone(), n: 2, seed: 1 }];
            let samples = generate(&decoder, &requests, &sampling, &mut |_| {}).unwrap();
            let mut batch = PackedBatch::new();
            let prompt = batch.push_prompt(&prompt_ids);
            let mut reads = Reads::new();
            for sample in &samples[0] {
                let response = batch.push_response(prompt, &sample.ids);
                reads.append(batch.response_reads(response));
            }
            let recomputed = values(decoder.logprobs(&decoder.hidden(&batch), &reads, 0.9));
            let sampled: Vec<f32> = samples[0].iter().flat_map(|s| s.logprobs.clone()).collect();
            assert_close(&sampled, &recomputed, 1e-4);
        }
    }
}

/// transformers reads these with padding on the right and on the left; here there is none, only neighbours.
#[test]
fn neighbours_in_the_stream_change_nothing() {
    for name in FAMILIES {
        println!("{name}");
        let (decoder, golden) = golden(name);
        let (prompt, rest): (Vec<u32>, Vec<u32>) = {
            let ids = sequences(&golden)[0].clone();
            (ids[..11].to_vec(), ids[11..].to_vec())
        };
        let mut alone = PackedBatch::new();
        let segment = alone.push_sequence(&[prompt.clone(), rest.clone()].concat());
        let mut reads = alone.sequence_reads(segment);
        reads.indices.drain(..10);
        reads.targets.drain(..10);
        let wanted = values(decoder.logprobs(&decoder.hidden(&alone), &reads, 1.0));

        let mut packed = PackedBatch::new();
        packed.push_sequence(&[5; 30]);
        let shared = packed.push_prompt(&prompt);
        packed.push_response(shared, &[7; 20]);
        let response = packed.push_response(shared, &rest);
        let reads = packed.response_reads(response);
        assert_close(&values(decoder.logprobs(&decoder.hidden(&packed), &reads, 1.0)), &wanted, 1e-4);
    }
}

/// Where few positions are read, the last block runs for those alone: the same log-probs and gradients as of all.
#[test]
fn what_nobody_reads_changes_nothing() {
    for name in FAMILIES {
        println!("{name}");
        let (mut decoder, golden) = golden(name);
        decoder.set_trainable(Trainable::Full);
        let mut batch = PackedBatch::new();
        let mut reads = Reads::new();
        for ids in sequences(&golden) {
            let (prompt, response) = ids.split_at(ids.len() - 3);
            let prompt = batch.push_prompt(prompt);
            for response in [response, &response[..1]] {
                let response = batch.push_response(prompt, response); // both read the prompt's last token
                reads.append(batch.response_reads(response));
            }
        }
        let run = |hidden: Tensor<2>| {
            let logprobs = decoder.logprobs(&hidden, &reads, 1.0);
            let weights: Vec<f32> = (0..reads.len()).map(|r| 1.0 + r as f32 / 3.0).collect();
            let grads =
                (logprobs.clone() * Tensor::from_floats(&weights[..], decoder.device())).sum().backward();
            let gradients =
                decoder.parameters().into_iter().map(move |(_, p)| values(p.grad(&grads).unwrap()));
            (values(hidden.inner()), values(logprobs.inner()), gradients.collect::<Vec<_>>())
        };
        let (whole, all) = (run(decoder.hidden(&batch)), run(decoder.hidden_at(&batch, &reads.indices)));
        let width = decoder.config().hidden_size;
        assert!(all.0[..width].iter().all(|&h| h == 0.0), "the first token of a prompt is not read");
        assert_close(&all.1, &whole.1, 1e-5);
        for (found, wanted) in all.2.iter().zip(&whole.2) {
            let scale = wanted.iter().fold(1f32, |m, g| m.max(g.abs()));
            assert_close(found, wanted, 1e-5 * scale);
        }
    }
}

/// Moves one number of one parameter.
fn moved(decoder: &Decoder, parameter: &str, index: usize, by: f32) -> Decoder {
    let mut copy = decoder.clone();
    copy.map_parameters(|name, p| {
        let (shape, mut numbers) = (p.dims(), values(p.clone().inner()));
        if name == parameter {
            numbers[index] += by;
        }
        Tensor::from_data(TensorData::new(numbers, shape), decoder.device())
    });
    copy
}

/// Checks the largest element of each trainable parameter's gradient by central differences.
fn gradients_are_finite_differences(decoder: &Decoder, golden: &Value, may_vanish: &dyn Fn(&str) -> bool) {
    let loss = logprobs(decoder, golden).mean();
    let grads = loss.backward();
    for (name, parameter) in decoder.parameters() {
        let gradient = values(parameter.grad(&grads).unwrap_or_else(|| panic!("{name} has no gradient")));
        let (index, exact) =
            gradient.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap();
        assert!(*exact != 0.0 || may_vanish(&name), "{name} has a gradient of zeros");
        let step = 4e-3;
        let at = |by: f32| {
            f64::from(values(logprobs(&moved(decoder, &name, index, by), golden).mean().inner())[0])
        };
        let numeric = ((at(step) - at(-step)) / (2.0 * f64::from(step))) as f32;
        // float32 losses near 6 have steps of 5e-7, over 8e-3: 6e-5.
        assert!((numeric - exact).abs() < 2e-4 + 0.02 * exact.abs(), "{name}: {numeric} and {exact}");
    }
}

#[test]
fn gradients_of_all_weights_are_finite_differences() {
    for name in FAMILIES {
        println!("{name}");
        let (mut decoder, golden) = golden(name);
        decoder.set_trainable(Trainable::Full);
        let file = Stored(std::fs::read(golden_folder(name).join("model.safetensors")).unwrap());
        let mut names: Vec<String> = decoder.parameters().into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, file.names(), "every tensor of the file trains under its own name");
        // A key's bias moves all scores of a query alike, and softmax does not see it.
        gradients_are_finite_differences(&decoder, &golden, &|name| name.ends_with("k_proj.bias"));
    }
}

/// Targets by Llama's names, which stand for what does the same, and by the family's own.
fn targets(name: &str) -> (&'static [&'static str], usize) {
    match name {
        "gpt2" => (&["c_attn", "c_proj", "c_fc"], 4),
        "gpt_neox" => (&["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"], 4),
        "opt" => (&["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], 6),
        _ => (&rlaif_model::PROJECTIONS, 7),
    }
}

fn with_lora(decoder: &Decoder, targets: &[&str]) -> Decoder {
    let targets = targets.iter().map(|target| target.to_string()).collect();
    let mut adapted = decoder.clone();
    adapted.add_lora(&LoraConfig { rank: 2, alpha: 4.0, targets, ..LoraConfig::default() }, 3).unwrap();
    adapted.map_parameters(|_, p| p.inner().add_scalar(0.03));
    adapted
}

#[test]
fn adapters_take_gradients_under_both_names_and_merge() {
    for name in FAMILIES {
        println!("{name}");
        let (decoder, golden) = golden(name);
        let (own, count) = targets(name);
        let adapted = with_lora(&decoder, own);
        let by_llama = with_lora(&decoder, &rlaif_model::PROJECTIONS);
        let names = |d: &Decoder| d.parameters().into_iter().map(|(name, _)| name).collect::<Vec<String>>();
        assert_eq!(names(&adapted), names(&by_llama));
        assert_eq!(names(&adapted).len(), 2 * 2 * count);
        gradients_are_finite_differences(&adapted, &golden, &|_| false);

        let mut merged = adapted.clone();
        merged.merge_lora();
        let with = values(logprobs(&adapted, &golden).inner());
        assert_close(&values(logprobs(&merged, &golden)), &with, 1e-4);
        let distance = with.iter().zip(wanted(&golden)).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(distance > 0.01, "the adapters do something: {distance}");
    }
}

#[test]
fn targets_that_a_family_does_not_have_are_named() {
    let attach = |name: &str, targets: &[&str]| {
        let targets = targets.iter().map(|target| target.to_string()).collect();
        let (mut decoder, _) = golden(name);
        decoder.add_lora(&LoraConfig { targets, ..LoraConfig::default() }, 1).unwrap_err().to_string()
    };
    assert_eq!(attach("gpt2", &["c_attn", "fc1"]), "LoRA target `fc1` is none of `c_attn`, `c_proj`, `c_fc`");
    assert_eq!(
        attach("opt", &["gate_proj"]),
        "this model has none of the LoRA targets `gate_proj`; it has `q_proj`, `k_proj`, `v_proj`, `out_proj`, `fc1`, `fc2`"
    );
}

#[test]
fn a_saved_model_is_the_file_it_came_from() {
    for name in FAMILIES {
        let (original, decoder) = open(&golden_folder(name));
        let folder = tempfile::tempdir().unwrap();
        save_causal_lm(&decoder, &original.tokenizer, folder.path(), SaveDtype::F32).unwrap();
        let (files, _) = open(folder.path());
        assert_eq!(files.config, original.config, "{name}");
        let theirs = original.config_json.unwrap();
        let ours = files.config_json.unwrap();
        assert_eq!(ours["architectures"], theirs["architectures"]);
        for (key, value) in ours.as_object().unwrap() {
            let found = theirs.get(key).unwrap_or(&Value::Null);
            assert!(found.is_null() || value == found, "{name}, {key}: {value} and {found}");
        }
        let read =
            |folder: &std::path::Path| Stored(std::fs::read(folder.join("model.safetensors")).unwrap());
        let (ours, theirs) = (read(folder.path()), read(&golden_folder(name)));
        assert_eq!(ours.names(), theirs.names(), "{name}");
        for tensor in theirs.names() {
            assert_eq!(ours.shape(&tensor), theirs.shape(&tensor), "{name}, {tensor}");
            assert_eq!(
                ours.load_f32(&tensor).unwrap(),
                theirs.load_f32(&tensor).unwrap(),
                "{name}, {tensor}"
            );
        }
    }
}

#[test]
fn a_tuned_model_and_a_reward_model_come_back() {
    for name in FAMILIES {
        println!("{name}");
        let (original, decoder) = open(&golden_folder(name));
        let golden = golden(name).1;
        let adapted = with_lora(&decoder, targets(name).0);
        let folder = tempfile::tempdir().unwrap();
        save_causal_lm(&adapted, &original.tokenizer, folder.path(), SaveDtype::F32).unwrap();
        let (_, reloaded) = open(folder.path());
        let tuned = values(logprobs(&adapted, &golden).inner());
        assert_close(&values(logprobs(&reloaded, &golden)), &tuned, 1e-4);

        let head = ScalarHead::random(48, 0.2, 5, decoder.device());
        save_reward_model(&decoder, &head, &original.tokenizer, folder.path(), SaveDtype::F32).unwrap();
        let (files, reloaded) = open(folder.path());
        assert_eq!(files.extra_weights, ["score.weight"]);
        let class = files.config_json.as_ref().unwrap()["architectures"][0].as_str().unwrap().to_string();
        assert!(class.ends_with("ForSequenceClassification"), "{class}");
        let found = ScalarHead::load(files.weights.as_ref(), reloaded.device()).unwrap().unwrap();
        let mut batch = PackedBatch::new();
        let segment = batch.push_sequence(&sequences(&golden)[0]);
        let score = |decoder: &Decoder, head: &ScalarHead| {
            values(head.forward(&decoder.hidden(&batch), &[batch.last_index(segment)]))
        };
        assert_eq!(score(&reloaded, &found), score(&decoder, &head));
    }
}

/// How configs are written by transformers before version 5, and by the models' own authors.
#[test]
fn both_generations_of_config_json_mean_the_same() {
    for name in FAMILIES {
        let v5: Value =
            serde_json::from_slice(&std::fs::read(golden_folder(name).join("config.json")).unwrap()).unwrap();
        let config = ModelConfig::from_hf_json(&v5).unwrap();
        let mut v4 = v5.clone();
        let rope = v4.as_object_mut().unwrap().remove("rope_parameters");
        match name {
            "gemma3" => {
                v4["rope_theta"] = json!(1_000_000.0);
                v4["rope_local_base_freq"] = json!(10_000.0);
                v4["rope_scaling"] = Value::Null;
            }
            "gpt_neox" => {
                v4["rotary_emb_base"] = json!(10_000);
                v4["rotary_pct"] = json!(0.25);
            }
            "opt" | "gpt2" => {
                v4.as_object_mut().unwrap().remove("tie_word_embeddings");
            }
            _ => {
                let mut rope = rope.unwrap();
                v4["rope_theta"] = rope.as_object_mut().unwrap().remove("rope_theta").unwrap();
                v4["rope_scaling"] = if name == "llama3-rope" { rope } else { Value::Null };
            }
        }
        assert_eq!(ModelConfig::from_hf_json(&v4).unwrap(), config, "{name}");
        assert_eq!(ModelConfig::from_hf_json(&config.to_hf_json()).unwrap(), config, "{name}");
        let parameters: usize =
            config.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(config.num_parameters(), parameters as u64, "{name}");
    }
}

#[test]
fn windows_are_where_the_config_puts_them() {
    let config = |name: &str, changes: Value| {
        let folder = golden_folder(name);
        let mut json: Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        json["num_hidden_layers"] = json!(8);
        json.as_object_mut().unwrap().remove("layer_types");
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        let config = ModelConfig::from_hf_json(&json).unwrap();
        assert_eq!(ModelConfig::from_hf_json(&config.to_hf_json()).unwrap(), config);
        let windowed: String = config.windowed_layers.iter().map(|w| if *w { 'w' } else { '-' }).collect();
        (config.sliding_window, windowed)
    };
    assert_eq!(config("mistral", json!({})), (Some(8), "wwwwwwww".into()));
    assert_eq!(config("mistral", json!({"sliding_window": null})), (None, "--------".into()));
    assert_eq!(config("gemma3", json!({})), (Some(8), "wwwww-ww".into()));
    assert_eq!(config("gemma3", json!({"sliding_window_pattern": 3})), (Some(8), "ww-ww-ww".into()));
    assert_eq!(config("qwen2", json!({"sliding_window": 16})), (None, "--------".into()));
    let on = json!({"use_sliding_window": true, "sliding_window": 16, "max_window_layers": 6});
    assert_eq!(config("qwen3", on), (Some(16), "------ww".into()));
}

#[test]
fn what_we_do_not_have_is_refused_by_name() {
    let cases = [
        (
            "gemma3",
            "final_logit_softcapping",
            json!(30.0),
            "`final_logit_softcapping = 30.0` is not supported",
        ),
        ("gemma3", "attn_logit_softcapping", json!(50.0), "`attn_logit_softcapping = 50.0` is not supported"),
        ("gemma3", "use_bidirectional_attention", json!(true), "`use_bidirectional_attention = true`"),
        (
            "gemma3",
            "layer_types",
            json!(["sliding_attention", "chunked_attention"]),
            "layer type \"chunked_attention\"",
        ),
        ("gemma3", "layer_types", json!(["full_attention"]), "`layer_types` must be a list of 2"),
        ("gemma3", "hidden_activation", json!("silu"), "`hidden_activation = \"silu\"` is not supported"),
        (
            "gemma3",
            "model_type",
            json!("gemma3"),
            "model type `gemma3` is not supported; supported: `llama` (Llama 2 and 3",
        ),
        (
            "gemma3",
            "query_pre_attn_scalar",
            json!(0),
            "`query_pre_attn_scalar` must be a finite number above 0",
        ),
        ("mistral", "sliding_window", json!(0), "`sliding_window` must be at least 1"),
        ("gemma3", "sliding_window", Value::Null, "`sliding_window` is missing or switched off"),
        ("mistral", "model_type", json!("mixtral"), "model type `mixtral` is not supported"),
        ("llama", "sliding_window", json!(8), "`sliding_window = 8` is not supported"),
        ("qwen2", "rope_parameters", json!({"rope_type": "yarn"}), "rope type `yarn` is not supported"),
        (
            "qwen3",
            "num_local_experts",
            json!(8),
            "`num_local_experts` in config.json is not supported; supported: dense models",
        ),
        (
            "opt",
            "do_layer_norm_before",
            json!(false),
            "`do_layer_norm_before = false` is not supported; supported: `true`",
        ),
        ("opt", "word_embed_proj_dim", json!(24), "`word_embed_proj_dim = 24` is not supported"),
        ("opt", "ffn_dim", Value::Null, "`ffn_dim` is missing"),
        ("gpt2", "scale_attn_by_inverse_layer_idx", json!(true), "`scale_attn_by_inverse_layer_idx = true`"),
        ("gpt2", "n_embd", json!(0), "`n_embd` must be from 1 to"),
        ("gpt2", "activation_function", json!("tanh"), "`activation_function = \"tanh\"` is not supported"),
        ("gpt_neox", "layer_norm_eps", json!(-1), "`layer_norm_eps` must be a finite number above 0"),
        (
            "gpt_neox",
            "rope_parameters",
            json!({"partial_rotary_factor": 1.5}),
            "must be from 0 to 1, got 1.5",
        ),
        ("llama", "partial_rotary_factor", json!(0.5), "`partial_rotary_factor = 0.5` is not supported"),
    ];
    for (name, field, value, expected) in cases {
        let folder = golden_folder(name);
        let mut json: Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
        json[field] = value;
        let message = ModelConfig::from_hf_json(&json).expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` should say `{expected}`");
    }
}

/// Writes a golden model's tensors anew: in `dtype` (`F32`, `F16`, `BF16`), over two shards if there is an index.
fn rewritten(name: &str, dtype: &str, sharded: bool, rename: &dyn Fn(&str) -> String) -> tempfile::TempDir {
    use safetensors::{Dtype, tensor::TensorView};
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(golden_folder(name).join(file), folder.path().join(file)).unwrap();
    }
    let source = Stored(std::fs::read(golden_folder(name).join("model.safetensors")).unwrap());
    let dtype_of = match dtype {
        "F16" => Dtype::F16,
        "BF16" => Dtype::BF16,
        _ => Dtype::F32,
    };
    let narrow = |value: f32| match dtype {
        "F16" => half::f16::from_f32(value).to_le_bytes().to_vec(),
        "BF16" => half::bf16::from_f32(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = source
        .names()
        .iter()
        .map(|tensor| {
            let bytes = source.load_f32(tensor).unwrap().into_iter().flat_map(narrow).collect();
            (rename(tensor), source.shape(tensor).unwrap(), bytes)
        })
        .collect();
    let half = if sharded { tensors.len() / 2 } else { tensors.len() };
    let mut map = serde_json::Map::new();
    for (number, part) in [&tensors[..half], &tensors[half..]].into_iter().enumerate() {
        let file = if sharded {
            format!("model-0000{}-of-00002.safetensors", number + 1)
        } else {
            "model.safetensors".into()
        };
        if part.is_empty() {
            continue;
        }
        map.extend(part.iter().map(|(tensor, _, _)| (tensor.clone(), json!(file))));
        let views = part.iter().map(|(tensor, shape, bytes)| {
            (tensor.as_str(), TensorView::new(dtype_of, shape.clone(), bytes).unwrap())
        });
        std::fs::write(folder.path().join(&file), safetensors::serialize(views, None).unwrap()).unwrap();
    }
    if sharded {
        let index = json!({"metadata": {"total_size": 0}, "weight_map": map}).to_string();
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    }
    folder
}

#[test]
fn half_precision_and_sharded_checkpoints_are_the_same_model() {
    for name in ["llama", "gpt2"] {
        let golden = golden(name).1;
        // 8 and 11 bits of mantissa: what rounding does to these models, far below what a wrong byte order would do.
        for (dtype, tolerance) in [("F32", 1e-4), ("F16", 1e-2), ("BF16", 1e-1)] {
            for sharded in [false, true] {
                let folder = rewritten(name, dtype, sharded, &str::to_string);
                let (files, decoder) = open(folder.path());
                let found = values(logprobs(&decoder, &golden));
                assert_close(&found, &wanted(&golden), tolerance);
                let (one, other) = (found[0], wanted(&golden)[0]);
                assert!(dtype == "F32" || one != other, "{dtype} rounds");
                assert!(files.extra_weights.is_empty());
            }
        }
    }
}

/// As `openai-community/gpt2` is on the Hub.
#[test]
fn a_bare_model_is_found_without_its_prefix() {
    for (name, prefix) in [("gpt2", "transformer."), ("opt", "model."), ("qwen3", "model.")] {
        let bare = |tensor: &str| tensor.strip_prefix(prefix).unwrap_or(tensor).to_string();
        let folder = rewritten(name, "F32", false, &bare);
        let (files, decoder) = open(folder.path());
        let golden = golden(name).1;
        assert_close(&values(logprobs(&decoder, &golden)), &wanted(&golden), 1e-4);
        assert_eq!(files.extra_weights, Vec::<String>::new(), "{name}");
    }
}
