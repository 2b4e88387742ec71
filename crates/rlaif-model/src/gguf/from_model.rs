//! A model as a GGUF that llama.cpp reads, by the conventions of its `convert_hf_to_gguf.py`.

use std::path::Path;

use super::dequantize::GgmlType;
use super::from_tokenizer::tokenizer_metadata;
use super::weights::{gguf_name, join_rotary_pairs};
use super::writer::{Entry, Planned, write_gguf};
use crate::config::{ModelConfig, RopeScaling};
use crate::error::{ModelError, Result};
use crate::heads::SCORE;
use crate::safetensors_io::check_fits_f16;
use crate::source::ModelFiles;

/// Writes a model as a GGUF, all of it or nothing; one tensor is in memory at a time.
///
/// Matrices are stored as `kind` (F32, F16, BF16 or Q8_0), norms and biases always as F32; a matrix whose rows are no whole blocks
/// of Q8_0 is stored as F16. `name` is what llama.cpp shows (`general.name`).
///
/// # Errors
/// If llama.cpp's form of the family, its tokenizer or a feature is not known here (it is named), a value does not fit float16 where
/// that is asked for, or the file cannot be written.
pub fn save_gguf(files: &ModelFiles, path: &Path, kind: GgmlType, name: &str) -> Result<()> {
    let config = &files.config;
    let family = family(files)?;
    let file_type = match kind {
        GgmlType::F32 => 0,
        GgmlType::F16 => 1,
        GgmlType::Q8_0 => 7,
        GgmlType::BF16 => 32,
        other => {
            let what = format!("writing {other:?}");
            return Err(ModelError::unsupported(what, "F32, F16, BF16, Q8_0"));
        }
    };
    let general = |key: &str, entry: Entry| (format!("general.{key}"), entry);
    let mut metadata = vec![
        general("architecture", Entry::Text(family.into())),
        general("type", Entry::Text("model".into())),
        general("name", Entry::Text(name.into())),
        general("file_type", Entry::U32(file_type)),
        general("quantization_version", Entry::U32(2)),
    ];
    metadata.extend(shape_metadata(config, family)?);
    metadata.extend(tokenizer_metadata(&files.tokenizer, config.vocab_size)?);

    let mut tensors: Vec<(Planned, Source)> = Vec::new();
    for (name, shape) in config.tensor_shapes() {
        let stored = gguf_name(&name).ok_or_else(|| ModelError::MissingTensor { name: name.clone() })?;
        let kind = kind_of(&shape, kind);
        tensors.push((Planned { name: stored, shape, kind }, Source::Model(name)));
    }
    if let Some(RopeScaling::Llama3 { .. }) = &config.rope_scaling {
        let divisors = llama3_divisors(config);
        let plan =
            Planned { name: "rope_freqs.weight".into(), shape: vec![divisors.len()], kind: GgmlType::F32 };
        tensors.push((plan, Source::Divisors(divisors)));
    }
    let (plans, sources): (Vec<Planned>, Vec<Source>) = tensors.into_iter().unzip();
    write_gguf(path, &metadata, &plans, |i| match &sources[i] {
        Source::Divisors(values) => Ok(values.clone()),
        Source::Model(name) => {
            let values = in_file_order(config, family, name, files.weights.load_f32(name)?, &plans[i].shape)?;
            match plans[i].kind {
                GgmlType::F16 => check_fits_f16(name, &values, 1.0)?,
                GgmlType::Q8_0 => check_fits_f16(name, &values, 127.0)?, // a block's scale
                _ => {}
            }
            Ok(values)
        }
    })
}

/// Where a tensor's values come from.
enum Source {
    /// The model, under its name there.
    Model(String),
    /// Llama 3's frequency divisors.
    Divisors(Vec<f32>),
}

/// llama.cpp's name of the family; Mistral is `llama` there.
fn family(files: &ModelFiles) -> Result<&'static str> {
    let config = &files.config;
    if files.extra_weights.iter().any(|name| name == SCORE) {
        let what = "a GGUF of a reward model (`score.weight`)";
        return Err(ModelError::unsupported(what, "language models; export it as safetensors"));
    }
    let family = match config.architecture.model_type() {
        "llama" | "mistral" => "llama",
        "qwen2" => "qwen2",
        "qwen3" => "qwen3",
        other => {
            let what = format!("a GGUF of the family `{other}`");
            return Err(ModelError::unsupported(what, "`llama`, `mistral`, `qwen2`, `qwen3`"));
        }
    };
    match config.sliding_window {
        Some(window) => Err(ModelError::unsupported(
            format!(
                "a GGUF of a `{family}` with a sliding window of {window}, which llama.cpp would ignore,"
            ),
            "models without one; export it as safetensors",
        )),
        None => Ok(family),
    }
}

fn shape_metadata(config: &ModelConfig, family: &str) -> Result<Vec<(String, Entry)>> {
    let number = |field: &str, value: usize| {
        let value = u32::try_from(value)
            .map_err(|_| ModelError::config(field, format!("does not fit a GGUF, got {value}")))?;
        Ok::<_, ModelError>((format!("{family}.{field}"), Entry::U32(value)))
    };
    let real = |field: &str, value: f64| (format!("{family}.{field}"), Entry::F32(value as f32));
    let mut metadata = vec![
        number("block_count", config.num_hidden_layers)?,
        number("context_length", config.max_position_embeddings)?,
        number("embedding_length", config.hidden_size)?,
        number("feed_forward_length", config.intermediate_size)?,
        number("attention.head_count", config.num_attention_heads)?,
        number("attention.head_count_kv", config.num_key_value_heads)?,
        number("attention.key_length", config.head_dim)?,
        number("attention.value_length", config.head_dim)?,
        number("rope.dimension_count", config.rotary_dim)?,
        number("vocab_size", config.vocab_size)?,
        real("attention.layer_norm_rms_epsilon", config.norm_eps),
        real("rope.freq_base", config.rope_theta),
    ];
    match &config.rope_scaling {
        None => {}
        Some(RopeScaling::Linear { factor }) => {
            metadata.push((format!("{family}.rope.scaling.type"), Entry::Text("linear".into())));
            metadata.push(real("rope.scaling.factor", *factor));
        }
        Some(RopeScaling::Llama3 { .. }) if family == "llama" => {} // a tensor of divisors
        Some(RopeScaling::Llama3 { .. }) => {
            let what = format!("a GGUF of a `{family}` with rope type `llama3`");
            return Err(ModelError::unsupported(what, "`default`, `linear`"));
        }
    }
    Ok(metadata)
}

/// Matrices are stored as asked, if a row of theirs is whole blocks; vectors as float32.
fn kind_of(shape: &[usize], asked: GgmlType) -> GgmlType {
    match shape {
        [_, columns] if columns.is_multiple_of(asked.block_len()) => asked,
        [_, _] => GgmlType::F16,
        _ => GgmlType::F32,
    }
}

/// Values as llama.cpp orders them: only Llama's queries and keys, whose rotary pairs are neighbours there.
fn in_file_order(
    config: &ModelConfig,
    family: &str,
    name: &str,
    values: Vec<f32>,
    shape: &[usize],
) -> Result<Vec<f32>> {
    let heads = match family {
        "llama" if name.contains("self_attn.q_proj.") => config.num_attention_heads,
        "llama" if name.contains("self_attn.k_proj.") => config.num_key_value_heads,
        _ => return Ok(values),
    };
    join_rotary_pairs(name, &values, shape, heads)
}

/// What llama.cpp divides the rotary frequencies by (`generate_extra_tensors` of its converter): Llama 3.1's ramp between wavelengths.
fn llama3_divisors(config: &ModelConfig) -> Vec<f32> {
    let Some(RopeScaling::Llama3 {
        factor,
        low_freq_factor,
        high_freq_factor,
        original_max_position_embeddings,
    }) = &config.rope_scaling
    else {
        return Vec::new();
    };
    let (low, high) = (*low_freq_factor, *high_freq_factor);
    let context = *original_max_position_embeddings as f64;
    let half = config.rotary_dim / 2;
    (0..half)
        .map(|i| {
            let wavelength = 2.0 * std::f64::consts::PI * config.rope_theta.powf(i as f64 / half as f64);
            if wavelength < context / high {
                1.0
            } else if wavelength > context / low {
                *factor as f32
            } else {
                let smooth = (context / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        })
        .collect()
}
