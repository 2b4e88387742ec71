//! Files that lie: every one ends in an error that says so, none in a panic, a long wait or a large allocation.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::common::golden_folder;
use crate::gguf_writer::{GgufFile, Meta, Tensor, golden_llama_as_gguf, string};
use proptest::prelude::*;
use rlaif_model::{
    Gguf, ModelConfig, ModelError, ModelFiles, SafetensorsWeights, SaveDtype, Tokenizer, WeightSource,
    save_safetensors,
};
use serde_json::{Value, json};

fn read(bytes: Vec<u8>) -> Result<Gguf, ModelError> {
    Gguf::from_bytes(Path::new("hostile.gguf"), bytes)
}

/// All that opening a model does with a GGUF, but for the file itself.
fn use_everything(bytes: Vec<u8>) -> Result<(), ModelError> {
    let gguf = read(bytes)?;
    for name in gguf.tensors().keys() {
        gguf.load_f32(name)?;
    }
    let config = ModelConfig::from_gguf(&gguf);
    let tokenizer = Tokenizer::from_gguf(&gguf);
    let weights = rlaif_model::GgufWeights::new(std::sync::Arc::new(gguf), &config?);
    for name in weights.names() {
        weights.load_f32(&name)?;
    }
    tokenizer?.encode("some text <eos>")?;
    Ok(())
}

/// A sound file of some 400 bytes.
fn small() -> GgufFile {
    let mut file = GgufFile::new();
    file.set("general.architecture", Meta::Text("llama".into()))
        .set("general.alignment", Meta::U32(32))
        .set("tokenizer.ggml.tokens", Meta::Texts(vec!["a".into(), "b".into()]))
        .set("tokenizer.ggml.token_type", Meta::I32s(vec![1, 3]));
    file.tensors.push(Tensor::f32("a", &[4, 2], &[1.0; 8]));
    file.tensors.push(Tensor::f32("b", &[3], &[2.0; 3]));
    file
}

#[track_caller]
fn refused(expected: &str, change: impl FnOnce(&mut GgufFile)) {
    let mut file = small();
    change(&mut file);
    let message = read(file.bytes()).err().expect("a hostile file was read").to_string();
    assert!(message.contains(expected), "`{message}` should say `{expected}`");
}

#[test]
fn a_sound_small_file_is_read() {
    let gguf = read(small().bytes()).unwrap();
    assert_eq!(gguf.load_f32("a").unwrap(), [1.0; 8]);
    assert_eq!(gguf.load_f32("b").unwrap(), [2.0; 3]);
    assert!(matches!(gguf.load_f32("c"), Err(ModelError::MissingTensor { .. })));
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let bytes = small().bytes();
    for length in 0..bytes.len() {
        let error =
            read(bytes[..length].to_vec()).err().unwrap_or_else(|| panic!("{length} bytes were read"));
        assert!(matches!(error, ModelError::Corrupt { .. }), "{error}");
    }
    let bytes = golden_llama_as_gguf().bytes();
    for length in (0..bytes.len()).step_by(997) {
        assert!(use_everything(bytes[..length].to_vec()).is_err(), "{length} bytes were read");
    }
    use_everything(bytes).unwrap();
}

#[test]
fn headers_that_lie_are_refused_with_the_reason() {
    refused("does not begin with `GGUF`", |file| file.magic = *b"GGML");
    refused("GGUF version 1 is not supported", |file| file.version = 1);
    refused("big-endian", |file| file.version = 3u32.swap_bytes());
    refused("claims 18446744073709551615 tensors", |file| file.num_tensors = Some(u64::MAX));
    refused("claims 18446744073709551615 metadata entries", |file| file.num_metadata = Some(u64::MAX));
    refused("tensor `` claims 0 dimensions", |file| file.num_tensors = Some(100_000)); // it reads on in the padding
    refused("a metadata key at byte", |file| file.num_metadata = Some(100));
    for alignment in [0, 3, 48, u32::MAX] {
        refused("`general.alignment` must be a power of two", |file| {
            file.set("general.alignment", Meta::U32(alignment));
        });
    }
    refused("`general.alignment` must be a power of two", |file| {
        file.set("general.alignment", Meta::Text("32".into()));
    });
    refused("the metadata key `a` is there twice", |file| {
        file.metadata.extend([("a".into(), Meta::U32(1)), ("a".into(), Meta::U32(2))]);
    });
    refused("the tensor `a` is there twice", |file| file.tensors.push(file.tensors[0].clone()));
    refused("is not UTF-8", |file| {
        let mut bytes = string("ab");
        bytes[8] = 0xff;
        file.set("x", Meta::Raw(8, bytes));
    });
    refused("a boolean at byte", |file| {
        file.set("x", Meta::Raw(7, vec![2]));
    });
    refused("metadata type 13 does not exist", |file| {
        file.set("x", Meta::Raw(13, vec![0; 8]));
    });
}

#[test]
fn lengths_beyond_the_file_cost_nothing() {
    let array = |kind: u32, count: u64| {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        Meta::Raw(9, bytes)
    };
    for (kind, count) in [(0, 1 << 40), (8, 1 << 40), (12, u64::MAX), (9, u64::MAX / 12 + 2), (5, 1 << 30)] {
        refused("elements and", |file| {
            file.set("x", array(kind, count));
        });
    }
    refused("claims 18446744073709551615 bytes", |file| {
        file.set("x", Meta::Raw(8, u64::MAX.to_le_bytes().to_vec()));
    });
    refused("needs 4000000 bytes", |file| {
        file.set("x", Meta::Raw(8, 4_000_000u64.to_le_bytes().to_vec()));
    });
    // Arrays in arrays in arrays, each of one element.
    let mut nested = 9u32.to_le_bytes().to_vec();
    for _ in 0..1000 {
        nested.extend(1u64.to_le_bytes());
        nested.extend(9u32.to_le_bytes());
    }
    refused("arrays more than 2 deep", |file| {
        file.set("x", Meta::Raw(9, nested));
    });
    // A true length, but eight times as many elements as any vocabulary.
    let mut many = 0u32.to_le_bytes().to_vec();
    many.extend((9u64 << 20).to_le_bytes());
    many.extend(vec![0; 9 << 20]);
    refused("elements together", |file| {
        file.set("x", Meta::Raw(9, many));
    });
}

#[test]
fn tensors_that_lie_about_their_place_are_refused() {
    refused("claims 5 dimensions", |file| file.tensors[0].dims = vec![1; 5]);
    refused("claims 0 dimensions", |file| file.tensors[0].dims = vec![]);
    refused("impossible shape", |file| file.tensors[0].dims = vec![1 << 40, 1 << 40]);
    refused("impossible shape", |file| file.tensors[0].dims = vec![4, 0]);
    refused("impossible shape", |file| file.tensors[0].dims = vec![1 << 63]);
    refused("ends beyond the file", |file| file.tensors[0].dims = vec![1 << 40]);
    refused("ends beyond the file", |file| file.tensors[0].offset = Some(u64::MAX - 31));
    refused("ends beyond the file", |file| file.tensors[1].offset = Some(1 << 20));
    refused("not a multiple of 32", |file| file.tensors[1].offset = Some(4));
    refused("tensors `b` and `a` overlap", |file| file.tensors[1].offset = Some(0));
    refused("tensor type IQ4_NL (tensor `a`)", |file| file.tensors[0].kind = 20);
    refused("tensor type number 4000000000", |file| file.tensors[0].kind = 4_000_000_000);
    refused("rows of 4 and Q4_0 blocks of 32", |file| file.tensors[0].kind = 2);
}

#[test]
fn a_gguf_whose_tokenizer_contradicts_itself_is_refused() {
    let refused = |expected: &str, change: &dyn Fn(&mut GgufFile)| {
        let mut file = golden_llama_as_gguf();
        change(&mut file);
        let gguf = read(file.bytes()).unwrap();
        let message = Tokenizer::from_gguf(&gguf).expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` should say `{expected}`");
    };
    refused("has a token twice", &|file| {
        file.set("tokenizer.ggml.tokens", Meta::Texts(vec!["a".into(); 320]));
    });
    refused("as long as", &|file| {
        file.set("tokenizer.ggml.token_type", Meta::I32s(vec![1; 3]));
    });
    refused("not two tokens", &|file| {
        file.set("tokenizer.ggml.merges", Meta::Texts(vec!["ab".into()]));
    });
    refused("tokenizer: ", &|file| {
        file.set("tokenizer.ggml.merges", Meta::Texts(vec!["no such".into()]));
    });
    refused("is not one of the 260 tokens", &|file| {
        file.set("tokenizer.ggml.eos_token_id", Meta::U32(320));
    });
    refused("must be an array of strings", &|file| {
        file.set("tokenizer.ggml.tokens", Meta::I32s(vec![1]));
    });
    refused("chat template `tokenizer.chat_template`, line 1", &|file| {
        file.set("tokenizer.chat_template", Meta::Text("{% for %}".into()));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_mutated_gguf_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = small().bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = use_everything(bytes);
    }

    #[test]
    fn a_mutated_safetensors_header_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = TWO_TENSORS.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        if let Ok(weights) = SafetensorsWeights::open(folder.path()) {
            for name in weights.names() {
                let _ = weights.load_f32(&name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_mutated_model_never_panics(changes in prop::collection::vec((0usize..10_000, any::<u8>()), 1..4)) {
        let mut bytes = GOLDEN_LLAMA.clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        let _ = use_everything(bytes);
    }
}

/// Its header, metadata, tokenizer and tensor list are some 10,000 bytes.
static GOLDEN_LLAMA: LazyLock<Vec<u8>> = LazyLock::new(|| golden_llama_as_gguf().bytes());

/// The bytes of a safetensors file with two small tensors.
static TWO_TENSORS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::read(write_tensors(folder.path(), "model.safetensors", &["a", "b"])).unwrap()
});

fn write_tensors(folder: &Path, file: &str, names: &[&str]) -> PathBuf {
    let tensors: Vec<_> = names.iter().map(|name| (name.to_string(), vec![2, 3])).collect();
    let path = folder.join(file);
    save_safetensors(&path, &tensors, SaveDtype::F32, |_| Ok(vec![0.5; 6])).unwrap();
    path
}

#[test]
fn safetensors_are_written_as_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors = [("b".to_string(), vec![2, 2]), ("a".to_string(), vec![3])];
    let values =
        |name: &str| Ok(if name == "a" { vec![1.0, -2.5, 1.0 / 3.0] } else { vec![0.0, 1e-30, 3.0, -4.0] });
    save_safetensors(&path, &tensors, SaveDtype::F32, values).unwrap();
    let weights = SafetensorsWeights::open(folder.path()).unwrap();
    assert_eq!(weights.names(), ["a", "b"]);
    assert_eq!(weights.shape("b"), Some(vec![2, 2]));
    assert_eq!(weights.load_f32("a").unwrap(), values("a").unwrap());
    assert_eq!(weights.load_f32("b").unwrap(), values("b").unwrap());

    save_safetensors(&path, &tensors, SaveDtype::Bf16, values).unwrap();
    let weights = SafetensorsWeights::open(folder.path()).unwrap();
    assert_eq!(weights.load_f32("a").unwrap(), [1.0, -2.5, 171.0 / 512.0]);
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["model.safetensors"], "no temporary file stays");
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_tensors(folder.path(), "model.safetensors", &["a"]);
    let before = std::fs::read(&path).unwrap();
    let tensors = [("a".to_string(), vec![2])];
    let nan = save_safetensors(&path, &tensors, SaveDtype::F32, |_| Ok(vec![1.0, f32::NAN]));
    assert!(matches!(nan, Err(ModelError::NonFinite { index: 1, .. })));
    let short = save_safetensors(&path, &tensors, SaveDtype::F32, |_| Ok(vec![1.0]));
    assert!(matches!(short, Err(ModelError::TensorShape { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn safetensors_headers_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let open = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        std::fs::write(&path, bytes).unwrap();
        SafetensorsWeights::open(folder.path()).map(|_| ())
    };
    let entry = |shape: &str, start: u64, end: u64| {
        format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}}}")
    };
    open(&entry("[2,3]", 0, 24), 24).unwrap();
    for (header, data) in [
        (entry("[2,3]", 0, 24), 20),
        (entry("[2,3]", 0, 24), 28),
        (entry("[2,4]", 0, 24), 24),
        (entry("[4611686018427387904,4]", 0, 24), 24),
        (entry("[2,3]", 24, 0), 24),
        (entry("[2,3]", 0, u64::MAX), 24),
        ("{".to_string(), 24),
        ("[]".to_string(), 24),
    ] {
        let error = open(&header, data).expect_err(&header).to_string();
        assert!(error.contains("model.safetensors` is damaged"), "{error}");
    }
    std::fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(SafetensorsWeights::open(folder.path()).is_err());
    std::fs::write(&path, []).unwrap();
    assert!(SafetensorsWeights::open(folder.path()).is_err());
    open("{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8).unwrap();
    let error = SafetensorsWeights::open(folder.path()).unwrap().load_f32("a").unwrap_err().to_string();
    assert!(error.contains("dtype I64 (tensor `a`)"), "{error}");
}

#[test]
fn a_shard_index_cannot_leave_its_folder() {
    let outside = tempfile::tempdir().unwrap();
    let folder = outside.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    let secret = write_tensors(outside.path(), "secret.safetensors", &["a"]);
    write_tensors(&folder, "one.safetensors", &["a"]);
    write_tensors(&folder, "two.safetensors", &["b"]);
    let open = |map: Value| {
        let index = json!({"metadata": {}, "weight_map": map});
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
        SafetensorsWeights::open(&folder)
    };
    let weights = open(json!({"a": "one.safetensors", "b": "two.safetensors"})).unwrap();
    assert_eq!(weights.names(), ["a", "b"]);
    assert_eq!(weights.load_f32("b").unwrap(), [0.5; 6]);

    let absolute = secret.to_str().unwrap();
    for file in [
        "../secret.safetensors",
        absolute,
        "x/../../secret.safetensors",
        "..",
        ".",
        "",
        "..\\secret.safetensors",
    ] {
        let error = open(json!({"a": file})).map(|_| ()).expect_err(file).to_string();
        assert!(error.contains("not a file of its folder"), "{file}: {error}");
    }
    let error = open(json!({"a": "three.safetensors"})).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("`three.safetensors`, which is not there"), "{error}");
    let error = open(json!({"b": "one.safetensors"})).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("`b` is not in the file it names"), "{error}");
    assert!(open(json!({"a": 1})).is_err());
    assert!(open(json!([])).is_err());
    write_tensors(&folder, "again.safetensors", &["a"]);
    let error = open(json!({"a": "one.safetensors", "b": "again.safetensors"})).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("the tensor `a` is in two files"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_refused_but_for_the_hubs_cache() {
    let outside = tempfile::tempdir().unwrap();
    let index = json!({"weight_map": {"a": "one.safetensors"}}).to_string();
    let make = |folder: &Path, target: &str| {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("model.safetensors.index.json"), &index).unwrap();
        std::os::unix::fs::symlink(target, folder.join("one.safetensors")).unwrap();
    };
    let blobs = outside.path().join("blobs");
    std::fs::create_dir(&blobs).unwrap();
    write_tensors(&blobs, "0123", &["a"]);
    let plain = outside.path().join("model");
    make(&plain, "../blobs/0123");
    assert!(SafetensorsWeights::open(&plain).is_err());
    let snapshot = outside.path().join("snapshots/main");
    make(&snapshot, "../../blobs/0123");
    assert_eq!(SafetensorsWeights::open(&snapshot).unwrap().names(), ["a"]);
}

#[test]
fn pickles_are_refused_by_name_and_missing_files_named() {
    let folder = tempfile::tempdir().unwrap();
    let open = || ModelFiles::open(folder.path().to_str().unwrap()).err().unwrap().to_string();
    assert!(open().contains("no `config.json`"));
    std::fs::copy(golden_folder("llama").join("config.json"), folder.path().join("config.json")).unwrap();
    assert!(open().contains("neither `model.safetensors` nor"));
    std::fs::write(folder.path().join("pytorch_model.bin"), b"\x80\x02").unwrap();
    let message = open();
    assert!(message.contains("pytorch_model.bin` is a Python pickle"), "{message}");
    let file = folder.path().join("pytorch_model.bin");
    let message = ModelFiles::open(file.to_str().unwrap()).err().unwrap().to_string();
    assert!(message.contains("pytorch_model.bin` is not supported"), "{message}");
    let message = ModelFiles::open("models/nowhere.gguf").err().unwrap().to_string();
    assert!(message.contains("no model at `models/nowhere.gguf`"), "{message}");
}

#[test]
fn impossible_configs_are_refused_in_the_words_of_the_file() {
    let good: Value =
        serde_json::from_slice(&std::fs::read(golden_folder("llama").join("config.json")).unwrap()).unwrap();
    let cases = [
        ("model_type", json!("mamba"), "model type `mamba` is not supported"),
        ("hidden_act", json!("gelu"), "`hidden_act = \"gelu\"` is not supported"),
        ("quantization_config", json!({"bits": 4}), "`quantization_config` in config.json is not supported"),
        ("rope_parameters", json!({"rope_type": "yarn"}), "rope type `yarn` is not supported"),
        ("rope_parameters", json!({"rope_type": "llama3"}), "`rope_parameters.factor` is missing"),
        ("vocab_size", json!(1u64 << 60), "`vocab_size` must be from 1 to"),
        ("hidden_size", json!(-1), "`hidden_size` must be a whole number"),
        ("num_hidden_layers", Value::Null, "`num_hidden_layers` is missing"),
        ("num_attention_heads", json!(0), "`num_attention_heads` must be from 1"),
        ("num_key_value_heads", json!(3), "must divide `num_attention_heads` (4), got 3"),
        ("head_dim", json!(11), "`head_dim` must be even"),
        ("rms_norm_eps", json!(0), "`rms_norm_eps` must be a finite number above 0"),
        ("eos_token_id", json!(320), "must be below `vocab_size` (320), got 320"),
        ("tie_word_embeddings", json!("yes"), "`tie_word_embeddings` must be true or false"),
    ];
    for (field, value, expected) in cases {
        let mut json = good.clone();
        json[field] = value;
        let message = ModelConfig::from_hf_json(&json).expect_err(expected).to_string();
        assert!(message.contains(expected), "`{message}` should say `{expected}`");
    }
    let mut huge = good.clone();
    huge["num_hidden_layers"] = json!(1000);
    huge["intermediate_size"] = json!(1 << 20);
    huge["hidden_size"] = json!(1 << 17);
    let huge = ModelConfig::from_hf_json(&huge).unwrap();
    if cfg!(target_os = "linux") {
        assert!(matches!(huge.check_memory(), Err(ModelError::Memory { .. })));
    }
}

#[test]
fn both_generations_of_config_json_mean_the_same_and_come_back() {
    for name in ["llama", "llama3-rope"] {
        let v5: Value =
            serde_json::from_slice(&std::fs::read(golden_folder(name).join("config.json")).unwrap()).unwrap();
        let config = ModelConfig::from_hf_json(&v5).unwrap();
        let mut v4 = v5.clone();
        let mut rope = v4.as_object_mut().unwrap().remove("rope_parameters").unwrap();
        v4["rope_theta"] = rope.as_object_mut().unwrap().remove("rope_theta").unwrap();
        v4["rope_scaling"] = if name == "llama" { Value::Null } else { rope };
        assert_eq!(ModelConfig::from_hf_json(&v4).unwrap(), config);
        assert_eq!(ModelConfig::from_hf_json(&config.to_hf_json()).unwrap(), config);
        let parameters: usize =
            config.tensor_shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        assert_eq!(config.num_parameters(), parameters as u64);
    }
}

#[test]
fn extra_tensors_are_listed_and_a_fingerprint_follows_the_contents() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(golden_folder("llama").join(name), folder.path().join(name)).unwrap();
    }
    let source = SafetensorsWeights::open(&golden_folder("llama")).unwrap();
    let mut tensors: Vec<_> = source.names().iter().map(|n| (n.clone(), source.shape(n).unwrap())).collect();
    tensors.push(("score.weight".to_string(), vec![1, 48]));
    let save = |score: f32| {
        let load =
            |name: &str| if name == "score.weight" { Ok(vec![score; 48]) } else { source.load_f32(name) };
        save_safetensors(&folder.path().join("model.safetensors"), &tensors, SaveDtype::F32, load).unwrap();
        ModelFiles::open(folder.path().to_str().unwrap()).unwrap()
    };
    let one = save(1.0);
    assert_eq!(one.extra_weights, ["score.weight"]);
    assert_eq!(one.config.eos_token_ids, [2]);
    let fingerprint = one.fingerprint().unwrap();
    assert_eq!(fingerprint.len(), 64);
    assert_eq!(save(1.0).fingerprint().unwrap(), fingerprint);
    assert_ne!(save(2.0).fingerprint().unwrap(), fingerprint);
}
