//! A GGUF's metadata as a [`ModelConfig`].

use super::reader::{Gguf, GgufValue};
use crate::architecture::{Activation, Architecture};
use crate::config::{ModelConfig, RopeScaling};
use crate::error::{ModelError, Result};

impl ModelConfig {
    /// Reads the metadata of a GGUF (`llama.*`, `tokenizer.ggml.*`) and the presence of its optional tensors. Qwen 2 and 3 have
    /// the same under their own names.
    ///
    /// # Errors
    /// If a field is missing, impossible, or asks for a feature that we do not have; it is named.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let family = gguf.get("general.architecture").and_then(GgufValue::as_str).unwrap_or("(none)");
        let architecture =
            Architecture::find(family).filter(|_| FAMILIES.contains(&family)).ok_or_else(|| {
                let supported = format!("`{}`; others as safetensors", FAMILIES.join("`, `"));
                ModelError::unsupported(format!("architecture `{family}` in a GGUF"), supported)
            })?;
        let key = |name: &str| format!("{family}.{name}");
        if optional(gguf, &key("expert_count"))?.is_some_and(|experts| experts > 0) {
            let what = format!("a mixture of experts (`{}`)", key("expert_count"));
            return Err(ModelError::unsupported(what, "dense models"));
        }
        let num_hidden_layers = required(gguf, &key("block_count"))?;
        let hidden_size = required(gguf, &key("embedding_length"))?;
        let num_attention_heads = required(gguf, &key("attention.head_count"))?;
        let head_dim = match optional(gguf, &key("attention.key_length"))? {
            Some(length) => length,
            None => hidden_size.checked_div(num_attention_heads).unwrap_or(0),
        };
        for name in ["rope.dimension_count", "attention.value_length"] {
            if let Some(other) = optional(gguf, &key(name))?
                && other != head_dim
            {
                let what = format!("`{} = {other}` with heads of {head_dim}", key(name));
                return Err(ModelError::unsupported(what, "the whole head"));
            }
        }
        let rows = |name: &str| gguf.tensors().get(name).and_then(|tensor| tensor.shape.first().copied());
        let vocab_size = match rows("token_embd.weight") {
            Some(rows) => rows,
            None => required(gguf, &key("vocab_size"))?,
        };
        let has_bias = |part: &str| gguf.tensors().contains_key(&format!("blk.0.{part}.bias"));
        let token = |key: &str| -> Result<Option<u32>> {
            let id = optional(gguf, key)?.filter(|id| *id != u32::MAX as usize);
            id.map(|id| {
                u32::try_from(id).map_err(|_| ModelError::config(key, format!("is no token id: {id}")))
            })
            .transpose()
        };
        let mut eos_token_ids: Vec<u32> = Vec::new();
        for key in
            ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"]
        {
            eos_token_ids.extend(token(key)?.filter(|id| !eos_token_ids.contains(id)));
        }
        let config = ModelConfig {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: required(gguf, &key("feed_forward_length"))?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: optional(gguf, &key("attention.head_count_kv"))?
                .unwrap_or(num_attention_heads),
            head_dim,
            norm_eps: shortest(float(gguf, &key("attention.layer_norm_rms_epsilon"))?.unwrap_or(1e-5)),
            rope_theta: shortest(float(gguf, &key("rope.freq_base"))?.unwrap_or(10_000.0)),
            rope_scaling: rope_scaling(gguf, family)?,
            rotary_dim: head_dim,
            local_rope_theta: None,
            sliding_window: None,
            windowed_layers: vec![false; num_hidden_layers.min(1 << 10)],
            query_pre_attn_scalar: head_dim as f64,
            activation: Activation::Silu,
            parallel_residual: false,
            tie_word_embeddings: rows("output.weight").is_none(),
            qkv_bias: has_bias("attn_q"),
            output_bias: has_bias(if family == "llama" { "attn_q" } else { "attn_output" }),
            mlp_bias: has_bias("ffn_gate"),
            max_position_embeddings: required(gguf, &key("context_length"))?,
            bos_token_id: token("tokenizer.ggml.bos_token_id")?,
            eos_token_ids,
            pad_token_id: token("tokenizer.ggml.padding_token_id")?,
        };
        config.check()?;
        Ok(config)
    }
}

/// The families that we read from a GGUF.
const FAMILIES: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// A float32 as the float64 a person would have written: `9.999999747378752e-6` is `1e-5`.
///
/// transformers computes RMSNorm in float32 and cannot tell them apart; a saved `config.json` reads better.
fn shortest(value: f64) -> f64 {
    let narrow = value as f32;
    if f64::from(narrow) == value { narrow.to_string().parse().unwrap_or(value) } else { value }
}

/// `llama.rope.scaling.*`; Llama 3.1's kind is not there, but as the tensor `rope_freqs.weight` of frequency divisors.
fn rope_scaling(gguf: &Gguf, family: &str) -> Result<Option<RopeScaling>> {
    let key = |name: &str| format!("{family}.{name}");
    let kind = match gguf.get(&key("rope.scaling.type")) {
        Some(value) => value.as_str().unwrap_or("(not text)"),
        None => "none",
    };
    match kind {
        "none" => {}
        "linear" => {
            let factor = float(gguf, &key("rope.scaling.factor"))?
                .ok_or_else(|| ModelError::config(key("rope.scaling.factor"), "is missing"))?;
            return Ok(Some(RopeScaling::Linear { factor }));
        }
        other => return Err(ModelError::unsupported(format!("rope scaling `{other}`"), "`none`, `linear`")),
    }
    if !gguf.tensors().contains_key("rope_freqs.weight") {
        return Ok(None);
    }
    let divisors = gguf.load_f32("rope_freqs.weight")?;
    let theta = float(gguf, &key("rope.freq_base"))?.unwrap_or(10_000.0);
    match llama3_scaling(&divisors, theta) {
        Some(scaling) => Ok(Some(scaling)),
        None if divisors.iter().all(|divisor| *divisor == 1.0) => Ok(None),
        None => Err(ModelError::unsupported(
            "this file's `rope_freqs.weight`",
            "the divisors of Llama 3.1 to 3.3 (low 1, high 4, original context 8192)",
        )),
    }
}

/// The Llama 3.1 scaling whose divisors these are: all released models have low 1, high 4 and 8192 positions, and the
/// lowest frequency is divided by the factor itself.
fn llama3_scaling(divisors: &[f32], theta: f64) -> Option<RopeScaling> {
    const LOW: f64 = 1.0;
    const HIGH: f64 = 4.0;
    const CONTEXT: f64 = 8192.0;
    let factor = f64::from(*divisors.last()?);
    if !factor.is_finite() || factor <= 1.0 {
        return None;
    }
    let half = divisors.len() as f64;
    for (i, divisor) in divisors.iter().enumerate() {
        let wavelength = 2.0 * std::f64::consts::PI * theta.powf(i as f64 / half);
        let expected = if wavelength < CONTEXT / HIGH {
            1.0
        } else if wavelength > CONTEXT / LOW {
            factor
        } else {
            let smooth = (CONTEXT / wavelength - LOW) / (HIGH - LOW);
            1.0 / ((1.0 - smooth) / factor + smooth)
        };
        if (f64::from(*divisor) - expected).abs() > 1e-3 * expected {
            return None;
        }
    }
    Some(RopeScaling::Llama3 {
        factor,
        low_freq_factor: LOW,
        high_freq_factor: HIGH,
        original_max_position_embeddings: CONTEXT as usize,
    })
}

fn optional(gguf: &Gguf, key: &str) -> Result<Option<usize>> {
    match gguf.get(key) {
        None => Ok(None),
        Some(value) => match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
            Some(value) => Ok(Some(value)),
            None => Err(ModelError::config(
                key,
                format!("must be one whole number not below 0, got {}", brief(value)),
            )),
        },
    }
}

fn required(gguf: &Gguf, key: &str) -> Result<usize> {
    optional(gguf, key)?.ok_or_else(|| ModelError::config(key, "is missing"))
}

fn float(gguf: &Gguf, key: &str) -> Result<Option<f64>> {
    match gguf.get(key) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(value) => Ok(Some(value)),
            None => Err(ModelError::config(key, format!("must be a number, got {}", brief(value)))),
        },
    }
}

/// A value for a message: an array may be long.
fn brief(value: &GgufValue) -> String {
    match value {
        GgufValue::Array(values) => format!("an array of {}", values.len()),
        GgufValue::String(text) => format!("\"{}\"", text.chars().take(40).collect::<String>()),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float32_metadata_reads_as_people_wrote_it() {
        assert_eq!(shortest(f64::from(1e-5f32)), 1e-5);
        assert_eq!(shortest(100_000.0), 100_000.0);
        assert_eq!(shortest(0.1), 0.1);
    }

    #[test]
    fn llama3_divisors_are_recognised_and_others_are_not() {
        let theta: f64 = 500_000.0;
        let mut divisors: Vec<f32> = (0..32)
            .map(|i| {
                let wavelength = 2.0 * std::f64::consts::PI * theta.powf(f64::from(i) / 32.0);
                if wavelength < 2048.0 {
                    1.0
                } else if wavelength > 8192.0 {
                    32.0
                } else {
                    let smooth = (8192.0 / wavelength - 1.0) / 3.0;
                    (1.0 / ((1.0 - smooth) / 32.0 + smooth)) as f32
                }
            })
            .collect();
        let Some(RopeScaling::Llama3 { factor, .. }) = llama3_scaling(&divisors, theta) else {
            panic!("Llama 3.2's divisors were not recognised");
        };
        assert_eq!(factor, 32.0);
        divisors[3] = 1.5;
        assert_eq!(llama3_scaling(&divisors, theta), None);
    }
}
