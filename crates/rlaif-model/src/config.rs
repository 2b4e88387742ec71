//! What a decoder is, as data: `config.json` of the Hugging Face layout, or a GGUF's metadata, read into one struct.

use serde_json::{Map, Value, json};

use crate::error::{ModelError, Result};

/// The decoder families whose mathematics we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// RMSNorm before each block, rotary positions, grouped-query attention, SwiGLU (Touvron et al. 2023).
    Llama,
}

impl Architecture {
    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
        }
    }
}

/// How rotary frequencies are stretched for long contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Every frequency divided by `factor` (Chen et al. 2023, position interpolation).
    Linear {
        /// How many times longer the context becomes.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths above `original_max_position_embeddings / low_freq_factor` are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_position_embeddings / high_freq_factor` are high frequencies.
        high_freq_factor: f64,
        /// Context length before scaling.
        original_max_position_embeddings: usize,
    },
}

/// The shape and constants of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which mathematics.
    pub architecture: Architecture,
    /// Rows of the embedding; may be more than the tokenizer knows.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even, for rotary pairs.
    pub head_dim: usize,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Whether the MLP projections have biases.
    pub mlp_bias: bool,
    /// Longest context the model was made for.
    pub max_position_embeddings: usize,
    /// Beginning of a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation.
    pub eos_token_ids: Vec<u32>,
    /// Padding; we need none, but transformers does.
    pub pad_token_id: Option<u32>,
}

const SUPPORTED_MODELS: &str = "`llama` (Llama 2 and 3, SmolLM, TinyLlama)";

impl ModelConfig {
    /// Reads `config.json`: both transformers v4 (`rope_theta`, `rope_scaling`) and v5 (`rope_parameters`).
    ///
    /// # Errors
    /// If a field is missing, impossible, or asks for a feature that we do not have; it is named.
    pub fn from_hf_json(json: &Value) -> Result<Self> {
        let fields =
            json.as_object().ok_or_else(|| ModelError::config("config.json", "must be a JSON object"))?;
        let model_type = fields.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
        let architecture = match model_type {
            "llama" => Architecture::Llama,
            other => {
                return Err(ModelError::unsupported(format!("model type `{other}`"), SUPPORTED_MODELS));
            }
        };
        refuse_unknown_features(fields)?;

        let hidden_size = required_size(fields, "hidden_size")?;
        let num_attention_heads = required_size(fields, "num_attention_heads")?;
        let max_position_embeddings = optional_size(fields, "max_position_embeddings")?.unwrap_or(2048);
        let (rope_theta, rope_scaling) = rope(fields, max_position_embeddings)?;
        let config = ModelConfig {
            architecture,
            vocab_size: required_size(fields, "vocab_size")?,
            hidden_size,
            intermediate_size: required_size(fields, "intermediate_size")?,
            num_hidden_layers: required_size(fields, "num_hidden_layers")?,
            num_attention_heads,
            num_key_value_heads: optional_size(fields, "num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim: optional_size(fields, "head_dim")?
                .unwrap_or_else(|| hidden_size.checked_div(num_attention_heads).unwrap_or(0)),
            rms_norm_eps: number(fields, "rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: flag(fields, "tie_word_embeddings")?,
            attention_bias: flag(fields, "attention_bias")?,
            mlp_bias: flag(fields, "mlp_bias")?,
            max_position_embeddings,
            bos_token_id: token_ids(fields, "bos_token_id")?.first().copied(),
            eos_token_ids: token_ids(fields, "eos_token_id")?,
            pad_token_id: token_ids(fields, "pad_token_id")?.first().copied(),
        };
        config.check()?;
        Ok(config)
    }

    /// `config.json` for a causal language model that transformers v4 and v5 both load.
    ///
    /// A reward model replaces `architectures` by `LlamaForSequenceClassification` and adds `"num_labels": 1`.
    pub fn to_hf_json(&self) -> Value {
        let mut rope = Map::new();
        match &self.rope_scaling {
            None => {
                rope.insert("rope_type".into(), "default".into());
            }
            Some(RopeScaling::Linear { factor }) => {
                rope.insert("rope_type".into(), "linear".into());
                rope.insert("factor".into(), json!(factor));
            }
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                rope.insert("rope_type".into(), "llama3".into());
                rope.insert("factor".into(), json!(factor));
                rope.insert("low_freq_factor".into(), json!(low_freq_factor));
                rope.insert("high_freq_factor".into(), json!(high_freq_factor));
                rope.insert(
                    "original_max_position_embeddings".into(),
                    json!(original_max_position_embeddings),
                );
            }
        }
        let rope_scaling = self.rope_scaling.as_ref().map(|_| Value::Object(rope.clone()));
        rope.insert("rope_theta".into(), json!(self.rope_theta));
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [only] => json!(only),
            several => json!(several),
        };
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": self.architecture.model_type(),
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": rope_scaling,
            "rope_parameters": rope,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "max_position_embeddings": self.max_position_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos,
            "pad_token_id": self.pad_token_id,
            "use_cache": true,
        })
    }

    /// Every tensor of the decoder with its shape, in transformers' names and order.
    ///
    /// `lm_head.weight` is among them only where it is not the embedding.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        let mut tensors = vec![("model.embed_tokens.weight".to_string(), vec![self.vocab_size, hidden])];
        for layer in 0..self.num_hidden_layers {
            let prefix = format!("model.layers.{layer}");
            let projections = [
                ("self_attn.q_proj", queries, hidden, self.attention_bias),
                ("self_attn.k_proj", keys, hidden, self.attention_bias),
                ("self_attn.v_proj", keys, hidden, self.attention_bias),
                ("self_attn.o_proj", hidden, queries, self.attention_bias),
                ("mlp.gate_proj", inner, hidden, self.mlp_bias),
                ("mlp.up_proj", inner, hidden, self.mlp_bias),
                ("mlp.down_proj", hidden, inner, self.mlp_bias),
            ];
            for (name, rows, columns, bias) in projections {
                tensors.push((format!("{prefix}.{name}.weight"), vec![rows, columns]));
                if bias {
                    tensors.push((format!("{prefix}.{name}.bias"), vec![rows]));
                }
            }
            tensors.push((format!("{prefix}.input_layernorm.weight"), vec![hidden]));
            tensors.push((format!("{prefix}.post_attention_layernorm.weight"), vec![hidden]));
        }
        tensors.push(("model.norm.weight".to_string(), vec![hidden]));
        if !self.tie_word_embeddings {
            tensors.push(("lm_head.weight".to_string(), vec![self.vocab_size, hidden]));
        }
        tensors
    }

    /// How many numbers the decoder has. The caps that a config is checked against keep this within 64 bits.
    pub fn num_parameters(&self) -> u64 {
        let (hidden, inner) = (self.hidden_size as u64, self.intermediate_size as u64);
        let queries = (self.num_attention_heads * self.head_dim) as u64;
        let keys = (self.num_key_value_heads * self.head_dim) as u64;
        let attention_bias = if self.attention_bias { queries + 2 * keys + hidden } else { 0 };
        let mlp_bias = if self.mlp_bias { 2 * inner + hidden } else { 0 };
        let layer =
            2 * hidden * (queries + keys) + 3 * hidden * inner + 2 * hidden + attention_bias + mlp_bias;
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        embeddings * self.vocab_size as u64 * hidden + self.num_hidden_layers as u64 * layer + hidden
    }

    /// Refuses a model whose float32 weights alone are more than the machine's memory, before a byte of them is read.
    ///
    /// # Errors
    /// [`ModelError::Memory`]. Where the system does not tell its memory, nothing is refused.
    pub fn check_memory(&self) -> Result<()> {
        let needed = self.num_parameters().saturating_mul(4);
        match physical_memory() {
            Some(available) if needed > available => Err(ModelError::Memory { needed, available }),
            _ => Ok(()),
        }
    }

    /// Refuses sizes that no real model has, and those that contradict each other.
    ///
    /// The caps are several times the values of Llama 3.1 405B, and small enough that no product of them overflows
    /// 64 bits.
    pub(crate) fn check(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size, 1 << 22),
            ("hidden_size", self.hidden_size, 1 << 17),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 12),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 12),
            ("head_dim", self.head_dim, 1 << 12),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 26),
        ];
        for (field, value, cap) in sizes {
            if value == 0 || value > cap {
                return Err(ModelError::config(field, format!("must be from 1 to {cap}, got {value}")));
            }
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(ModelError::config(
                "num_key_value_heads",
                format!(
                    "must divide `num_attention_heads` ({}), got {}",
                    self.num_attention_heads, self.num_key_value_heads
                ),
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            let problem = format!("must be even for rotary positions, got {}", self.head_dim);
            return Err(ModelError::config("head_dim", problem));
        }
        positive("rms_norm_eps", self.rms_norm_eps)?;
        positive("rope_theta", self.rope_theta)?;
        match &self.rope_scaling {
            None => {}
            Some(RopeScaling::Linear { factor }) => positive("rope factor", *factor)?,
            Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, .. }) => {
                positive("rope factor", *factor)?;
                positive("low_freq_factor", *low_freq_factor)?;
                positive("high_freq_factor", *high_freq_factor)?;
                if high_freq_factor <= low_freq_factor {
                    let problem = format!(
                        "must be above `low_freq_factor` ({low_freq_factor}), got {high_freq_factor}"
                    );
                    return Err(ModelError::config("high_freq_factor", problem));
                }
            }
        }
        let named = self.bos_token_id.iter().chain(&self.eos_token_ids).chain(&self.pad_token_id);
        for id in named {
            if *id as usize >= self.vocab_size {
                let problem = format!("must be below `vocab_size` ({}), got {id}", self.vocab_size);
                return Err(ModelError::config("bos, eos or pad token id", problem));
            }
        }
        Ok(())
    }
}

/// Features of the Llama family's config that change the mathematics and that we do not have.
fn refuse_unknown_features(fields: &Map<String, Value>) -> Result<()> {
    let activation = fields.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
    if activation != "silu" && activation != "swish" {
        return Err(ModelError::unsupported(format!("`hidden_act = \"{activation}\"`"), "`silu`"));
    }
    for (field, supported) in [
        ("quantization_config", "float32, float16 and bfloat16 safetensors, or GGUF for quantised weights"),
        ("sliding_window", "full attention"),
        ("num_local_experts", "dense models"),
    ] {
        if fields.get(field).is_some_and(|value| !value.is_null()) {
            return Err(ModelError::unsupported(format!("`{field}` in config.json"), supported));
        }
    }
    if let Some(share) = number(fields, "partial_rotary_factor")?
        && share != 1.0
    {
        return Err(ModelError::unsupported(format!("`partial_rotary_factor = {share}`"), "1"));
    }
    Ok(())
}

/// Theta and scaling, from v5's `rope_parameters` or v4's `rope_theta` and `rope_scaling`.
fn rope(fields: &Map<String, Value>, max_positions: usize) -> Result<(f64, Option<RopeScaling>)> {
    let settings = ["rope_parameters", "rope_scaling"]
        .into_iter()
        .find_map(|field| fields.get(field).filter(|value| !value.is_null()).map(|value| (field, value)));
    let top_theta = number(fields, "rope_theta")?;
    let Some((field, settings)) = settings else {
        return Ok((top_theta.unwrap_or(10_000.0), None));
    };
    let settings = settings.as_object().ok_or_else(|| ModelError::config(field, "must be an object"))?;
    let theta = number(settings, "rope_theta")?.or(top_theta).unwrap_or(10_000.0);
    let kind = settings.get("rope_type").or_else(|| settings.get("type")).and_then(Value::as_str);
    let required = |key: &str| {
        number(settings, key)?.ok_or_else(|| ModelError::config(format!("{field}.{key}"), "is missing"))
    };
    let scaling = match kind.unwrap_or("default") {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: required("factor")? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: required("factor")?,
            low_freq_factor: required("low_freq_factor")?,
            high_freq_factor: required("high_freq_factor")?,
            original_max_position_embeddings: optional_size(settings, "original_max_position_embeddings")?
                .unwrap_or(max_positions),
        }),
        other => {
            return Err(ModelError::unsupported(
                format!("rope type `{other}`"),
                "`default`, `linear`, `llama3`",
            ));
        }
    };
    Ok((theta, scaling))
}

fn optional_size(fields: &Map<String, Value>, field: &str) -> Result<Option<usize>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => {
                Err(ModelError::config(field, format!("must be a whole number not below 0, got {value}")))
            }
        },
    }
}

fn required_size(fields: &Map<String, Value>, field: &str) -> Result<usize> {
    optional_size(fields, field)?.ok_or_else(|| ModelError::config(field, "is missing"))
}

fn number(fields: &Map<String, Value>, field: &str) -> Result<Option<f64>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(ModelError::config(field, format!("must be a number, got {value}"))),
        },
    }
}

fn flag(fields: &Map<String, Value>, field: &str) -> Result<bool> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(value) => Err(ModelError::config(field, format!("must be true or false, got {value}"))),
    }
}

/// A token id, a list of them, null, or -1 (which some files write for none).
pub(crate) fn token_ids(fields: &Map<String, Value>, field: &str) -> Result<Vec<u32>> {
    let one = |value: &Value| -> Result<Option<u32>> {
        if value.as_i64() == Some(-1) {
            return Ok(None);
        }
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.map(Some).ok_or_else(|| {
            ModelError::config(field, format!("must be a token id or a list of them, got {value}"))
        })
    };
    match fields.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => {
            values.iter().map(one).filter_map(Result::transpose).collect::<Result<Vec<u32>>>()
        }
        Some(value) => Ok(one(value)?.into_iter().collect()),
    }
}

fn positive(field: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(ModelError::config(field, format!("must be a finite number above 0, got {value}")))
    }
}

/// Bytes of memory the machine has, on Linux; elsewhere `None`.
fn physical_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}
