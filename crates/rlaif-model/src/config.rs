//! What a decoder is, as data: `config.json` of the Hugging Face layout, or a GGUF's metadata, read into one struct.

use serde_json::{Map, Value, json};

use crate::architecture::{Activation, Architecture, Bias, NormKind, Place, Positions, Role, Windows};
use crate::error::{ModelError, Result};

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

impl RopeScaling {
    /// `rope_scaling` of transformers v4.
    fn to_json(&self) -> Map<String, Value> {
        let json = match self {
            RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
        };
        match json {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// The shape and constants of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family, which says what stands in a block.
    pub architecture: &'static Architecture,
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
    /// Width of a head.
    pub head_dim: usize,
    /// Added to the mean square, or to the variance, in the norms.
    pub norm_eps: f64,
    /// The function inside the MLP.
    pub activation: Activation,
    /// Whether attention and MLP read the same residual stream, side by side.
    pub parallel_residual: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies.
    pub rope_scaling: Option<RopeScaling>,
    /// How much of a head is rotated, from its beginning: pairs of `rotary_dim / 2`, rounded up; 0 with learned positions.
    pub rotary_dim: usize,
    /// Base of the rotary frequencies of windowed layers, if they have their own; it is not stretched.
    pub local_rope_theta: Option<f64>,
    /// How many tokens a token of a windowed layer attends to, itself among them.
    pub sliding_window: Option<usize>,
    /// Which layers are windowed.
    pub windowed_layers: Vec<bool>,
    /// Attention scores are multiplied by 1 / sqrt of this; mostly `head_dim`.
    pub query_pre_attn_scalar: f64,
    /// Whether the output projection is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether query, key and value have biases.
    pub qkv_bias: bool,
    /// Whether the projection behind attention has a bias.
    pub output_bias: bool,
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

/// A projection of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Projection {
    pub role: Role,
    pub name: &'static str,
    pub inputs: usize,
    pub outputs: usize,
    pub bias: bool,
}

impl ModelConfig {
    /// Reads `config.json`: both transformers v4 (`rope_theta`, `rope_scaling`) and v5 (`rope_parameters`).
    ///
    /// # Errors
    /// If a field is missing, impossible, or asks for a feature that we do not have; it is named.
    pub fn from_hf_json(json: &Value) -> Result<Self> {
        let object =
            json.as_object().ok_or_else(|| ModelError::config("config.json", "must be a JSON object"))?;
        let model_type = object.get("model_type").and_then(Value::as_str).unwrap_or("(none)");
        let architecture = Architecture::find(model_type).ok_or_else(|| {
            ModelError::unsupported(format!("model type `{model_type}`"), Architecture::supported())
        })?;
        let fields = Fields::new(object, architecture);
        fields.refuse_unknown_features()?;

        let hidden_size = fields.required_size("hidden_size")?;
        let num_attention_heads = fields.required_size("num_attention_heads")?;
        let num_hidden_layers = fields.required_size("num_hidden_layers")?;
        let max_position_embeddings = fields.required_size("max_position_embeddings")?;
        let head_dim = fields
            .optional_size("head_dim")?
            .unwrap_or_else(|| hidden_size.checked_div(num_attention_heads).unwrap_or(0));
        let intermediate_size = match (fields.optional_size("intermediate_size")?, architecture.conv1d) {
            (None, true) => 4 * hidden_size.min(1 << 17), // GPT-2 writes null
            _ => fields.required_size("intermediate_size")?,
        };
        let (sliding_window, windowed_layers) = fields.windows(num_hidden_layers)?;
        let rope = fields.rope(max_position_embeddings)?;
        let config = ModelConfig {
            architecture,
            vocab_size: fields.required_size("vocab_size")?,
            hidden_size,
            intermediate_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: fields.optional_size("num_key_value_heads")?.unwrap_or(num_attention_heads),
            head_dim,
            norm_eps: fields.number("norm_eps")?.unwrap_or(1e-5), // torch's own, which OPT takes
            activation: fields.activation()?,
            parallel_residual: fields.flag("use_parallel_residual")?,
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            rotary_dim: match architecture.positions {
                Positions::Rotary => (head_dim as f64 * rope.share) as usize,
                Positions::Learned { .. } => 0,
            },
            local_rope_theta: rope.local_theta,
            sliding_window,
            windowed_layers,
            query_pre_attn_scalar: fields.number("query_pre_attn_scalar")?.unwrap_or(head_dim as f64),
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
            qkv_bias: fields.bias(architecture.qkv_bias)?,
            output_bias: fields.bias(architecture.output_bias)?,
            mlp_bias: fields.bias(architecture.mlp_bias)?,
            max_position_embeddings,
            bos_token_id: token_ids(object, "bos_token_id")?.first().copied(),
            eos_token_ids: token_ids(object, "eos_token_id")?,
            pad_token_id: token_ids(object, "pad_token_id")?.first().copied(),
        };
        config.check()?;
        Ok(config)
    }

    /// `config.json` for a causal language model that transformers v4 and v5 both load.
    ///
    /// A reward model replaces `architectures` by the family's classifier and adds `"num_labels": 1`.
    pub fn to_hf_json(&self) -> Value {
        let architecture = self.architecture;
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [only] => json!(only),
            several => json!(several),
        };
        let activation = architecture.activations.iter().find(|(_, kind)| *kind == self.activation);
        let mut object = Map::new();
        object.insert("architectures".into(), json!([architecture.causal_lm]));
        object.insert("model_type".into(), json!(architecture.model_type));
        let mut set = |key: &'static str, value: Value| {
            if let Some(key) = architecture.key(key) {
                object.insert(key.into(), value);
            }
        };
        set("vocab_size", json!(self.vocab_size));
        set("hidden_size", json!(self.hidden_size));
        set("intermediate_size", json!(self.intermediate_size));
        set("num_hidden_layers", json!(self.num_hidden_layers));
        set("num_attention_heads", json!(self.num_attention_heads));
        set("num_key_value_heads", json!(self.num_key_value_heads));
        set("head_dim", json!(self.head_dim));
        set("hidden_act", json!(activation.map(|(name, _)| name)));
        set("norm_eps", json!(self.norm_eps));
        set("use_parallel_residual", json!(self.parallel_residual));
        if architecture.positions == Positions::Rotary {
            set("rope_theta", json!(self.rope_theta));
            set(
                "rope_scaling",
                self.rope_scaling.as_ref().map_or(Value::Null, |s| Value::Object(s.to_json())),
            );
            set("rope_parameters", self.rope_parameters());
        }
        if let Some(theta) = self.local_rope_theta {
            set("rope_local_base_freq", json!(theta));
            let scalar = self.query_pre_attn_scalar;
            // transformers 5 takes a whole number only.
            let whole = scalar.fract() == 0.0 && scalar < 1e9;
            set("query_pre_attn_scalar", if whole { json!(scalar as u64) } else { json!(scalar) });
        }
        if self.partly_rotated() {
            set("partial_rotary_factor", json!(self.rotary_share()));
        }
        if architecture.windows != Windows::Never {
            set("sliding_window", json!(self.sliding_window));
        }
        if matches!(architecture.windows, Windows::Upper | Windows::Local) {
            let name = |windowed: &bool| if *windowed { SLIDING } else { FULL };
            set("layer_types", self.windowed_layers.iter().map(name).collect());
        }
        if architecture.windows == Windows::Upper {
            set("use_sliding_window", json!(self.sliding_window.is_some()));
            if let Some(first) = self.windowed_layers.iter().position(|windowed| *windowed) {
                set("max_window_layers", json!(first));
            }
        }
        set("tie_word_embeddings", json!(self.tie_word_embeddings));
        let biases = [
            (architecture.qkv_bias, self.qkv_bias),
            (architecture.output_bias, self.output_bias),
            (architecture.mlp_bias, self.mlp_bias),
        ];
        for (bias, present) in biases {
            if let Bias::Key(key) = bias {
                set(key, json!(present));
            }
        }
        set("max_position_embeddings", json!(self.max_position_embeddings));
        set("bos_token_id", json!(self.bos_token_id));
        set("eos_token_id", eos);
        set("pad_token_id", json!(self.pad_token_id));
        set("use_cache", json!(true));
        Value::Object(object)
    }

    /// `rope_parameters` of transformers v5.
    fn rope_parameters(&self) -> Value {
        let default = || Map::from_iter([("rope_type".to_string(), json!("default"))]);
        let mut rope = self.rope_scaling.as_ref().map_or_else(default, RopeScaling::to_json);
        rope.insert("rope_theta".into(), json!(self.rope_theta));
        if self.partly_rotated() {
            rope.insert("partial_rotary_factor".into(), json!(self.rotary_share()));
        }
        match self.local_rope_theta {
            None => Value::Object(rope),
            Some(theta) => json!({FULL: rope, SLIDING: {"rope_type": "default", "rope_theta": theta}}),
        }
    }

    /// Whether the family rotates a part of each head; only then has `config.json` a place to say so.
    fn partly_rotated(&self) -> bool {
        self.architecture.key("partial_rotary_factor") != Some("partial_rotary_factor")
    }

    /// The share of a head that is rotated, such that `head_dim` times it is `rotary_dim` again after rounding down.
    fn rotary_share(&self) -> f64 {
        let share = self.rotary_dim as f64 / self.head_dim as f64;
        if (self.head_dim as f64 * share) as usize == self.rotary_dim { share } else { share.next_up() }
    }

    /// Every tensor of the decoder with its shape, in the file's names and layout.
    ///
    /// The output head is among them only where it is not the embedding.
    pub fn tensor_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let names = &self.architecture.names;
        let mut tensors =
            vec![(format!("{}.weight", names.embedding), vec![self.vocab_size, self.hidden_size])];
        if let Some(rows) = self.position_rows() {
            tensors.push((format!("{}.weight", names.positions), vec![rows, self.hidden_size]));
        }
        for layer in 0..self.num_hidden_layers {
            let prefix = format!("{}.{layer}", names.layers);
            for Projection { name, inputs, outputs, bias, .. } in self.projections() {
                let shape = if self.architecture.conv1d { [inputs, outputs] } else { [outputs, inputs] };
                tensors.push((format!("{prefix}.{name}.weight"), shape.to_vec()));
                if bias {
                    tensors.push((format!("{prefix}.{name}.bias"), vec![outputs]));
                }
            }
            for (place, name) in self.architecture.norms {
                self.push_norm(&mut tensors, format!("{prefix}.{name}"), self.norm_width(*place));
            }
        }
        self.push_norm(&mut tensors, names.norm.to_string(), self.hidden_size);
        if !self.tie_word_embeddings {
            tensors.push((format!("{}.weight", names.head), vec![self.vocab_size, self.hidden_size]));
        }
        tensors
    }

    fn push_norm(&self, tensors: &mut Vec<(String, Vec<usize>)>, name: String, width: usize) {
        tensors.push((format!("{name}.weight"), vec![width]));
        if self.architecture.norm == NormKind::Layer {
            tensors.push((format!("{name}.bias"), vec![width]));
        }
    }

    /// The projections of a block, in the file's order.
    pub(crate) fn projections(&self) -> impl Iterator<Item = Projection> {
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let queries = self.num_attention_heads * self.head_dim;
        let keys = self.num_key_value_heads * self.head_dim;
        self.architecture.projections.iter().map(move |(role, name)| {
            let (inputs, outputs, bias) = match role {
                Role::Query => (hidden, queries, self.qkv_bias),
                Role::Key | Role::Value => (hidden, keys, self.qkv_bias),
                Role::QueryKeyValue => (hidden, queries + 2 * keys, self.qkv_bias),
                Role::Output => (queries, hidden, self.output_bias),
                Role::Gate | Role::Up => (hidden, inner, self.mlp_bias),
                Role::Down => (inner, hidden, self.mlp_bias),
            };
            Projection { role: *role, name, inputs, outputs, bias }
        })
    }

    pub(crate) fn norm_width(&self, place: Place) -> usize {
        match place {
            Place::Query | Place::Key => self.head_dim,
            Place::Input | Place::AttentionOutput | Place::Mlp | Place::MlpOutput => self.hidden_size,
        }
    }

    /// Rows of the table of learned positions.
    pub(crate) fn position_rows(&self) -> Option<usize> {
        match self.architecture.positions {
            Positions::Rotary => None,
            Positions::Learned { offset } => Some(self.max_position_embeddings + offset),
        }
    }

    /// The window of a layer.
    pub(crate) fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.filter(|_| self.windowed_layers[layer])
    }

    /// How many numbers the decoder has. The caps that a config is checked against keep this within 64 bits.
    pub fn num_parameters(&self) -> u64 {
        let numbers = |shape: &[usize]| shape.iter().map(|&n| n as u64).product::<u64>();
        self.tensor_shapes().iter().map(|(_, shape)| numbers(shape)).sum()
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
        let key = |ours: &'static str| self.architecture.key(ours).unwrap_or(ours);
        for (field, value, cap) in sizes {
            if value == 0 || value > cap {
                return Err(ModelError::config(key(field), format!("must be from 1 to {cap}, got {value}")));
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
        if 2 * self.rotary_dim.div_ceil(2) > self.head_dim {
            let problem = format!("must be even for rotary positions, got {}", self.head_dim);
            return Err(ModelError::config("head_dim", problem));
        }
        if self.architecture.positions == Positions::Rotary && self.rotary_dim == 0 {
            return Err(ModelError::config(
                key("partial_rotary_factor"),
                "leaves nothing of a head to rotate",
            ));
        }
        if self.sliding_window == Some(0) {
            return Err(ModelError::config("sliding_window", "must be at least 1, got 0"));
        }
        positive(key("norm_eps"), self.norm_eps)?;
        positive(key("rope_theta"), self.rope_theta)?;
        positive("rope_local_base_freq", self.local_rope_theta.unwrap_or(1.0))?;
        positive("query_pre_attn_scalar", self.query_pre_attn_scalar)?;
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

const SLIDING: &str = "sliding_attention";
const FULL: &str = "full_attention";

/// What `config.json` says of rotary positions.
struct RopeFields {
    theta: f64,
    scaling: Option<RopeScaling>,
    /// How much of a head is rotated.
    share: f64,
    local_theta: Option<f64>,
}

/// `config.json`, read by our keys; errors name the family's.
struct Fields {
    architecture: &'static Architecture,
    map: Map<String, Value>,
}

impl Fields {
    /// Puts the family's defaults where a key is missing.
    fn new(object: &Map<String, Value>, architecture: &'static Architecture) -> Self {
        let mut map = object.clone();
        for (key, value) in object_of(architecture.defaults) {
            map.entry(key).or_insert(value);
        }
        Self { architecture, map }
    }

    /// Features that change the mathematics and that we do not have.
    fn refuse_unknown_features(&self) -> Result<()> {
        for (field, supported) in [
            (
                "quantization_config",
                "float32, float16 and bfloat16 safetensors, or GGUF for quantised weights",
            ),
            ("num_local_experts", "dense models"),
        ] {
            if self.map.get(field).is_some_and(|value| !value.is_null()) {
                return Err(ModelError::unsupported(format!("`{field}` in config.json"), supported));
            }
        }
        for (key, only) in object_of(self.architecture.fixed) {
            if self.map.get(&key).is_some_and(|value| !value.is_null() && *value != only) {
                let supported =
                    if only.is_null() { "a model without it".to_string() } else { format!("`{only}`") };
                return Err(ModelError::unsupported(format!("`{key} = {}`", self.map[&key]), supported));
            }
        }
        let (hidden, projected) = (self.map.get("hidden_size"), self.map.get("word_embed_proj_dim"));
        match projected {
            Some(width) if !width.is_null() && projected != hidden => Err(ModelError::unsupported(
                format!("`word_embed_proj_dim = {width}`"),
                "embeddings as wide as `hidden_size`",
            )),
            _ => Ok(()),
        }
    }

    fn activation(&self) -> Result<Activation> {
        let key = self.key("hidden_act");
        let name = self.map.get(key).and_then(Value::as_str).unwrap_or("(none)");
        let known = self.architecture.activations;
        known.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind).ok_or_else(|| {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
            ModelError::unsupported(format!("`{key} = \"{name}\"`"), names.join(", "))
        })
    }

    fn bias(&self, bias: Bias) -> Result<bool> {
        match bias {
            Bias::Never => Ok(false),
            Bias::Always => Ok(true),
            Bias::Key(key) => self.flag(key),
        }
    }

    /// The window's size, and which layers are windowed; no size where none is.
    fn windows(&self, layers: usize) -> Result<(Option<usize>, Vec<bool>)> {
        let layers = layers.min(1 << 10); // more are refused when all sizes are checked
        let on = match self.architecture.windows {
            Windows::Never => false,
            Windows::Always | Windows::Local => true,
            Windows::Upper => self.flag("use_sliding_window")?,
        };
        let window = if on { self.optional_size("sliding_window")? } else { None };
        let types = self.map.get("layer_types").filter(|value| !value.is_null());
        let windowed: Vec<bool> = match (self.architecture.windows, types) {
            (Windows::Never, _) => vec![false; layers],
            (Windows::Always, _) => vec![window.is_some(); layers],
            (_, None) if window.is_none() => vec![false; layers],
            (_, Some(types)) => layer_types(types, layers)?,
            (Windows::Upper, None) => {
                let first = self.required_size("max_window_layers")?;
                (0..layers).map(|layer| layer >= first).collect()
            }
            (Windows::Local, None) => {
                let every = self.required_size("sliding_window_pattern")?.max(1);
                (0..layers).map(|layer| !(layer + 1).is_multiple_of(every)).collect()
            }
        };
        if window.is_none() && windowed.contains(&true) {
            let problem = "is missing or switched off, and `layer_types` asks for it";
            return Err(ModelError::config("sliding_window", problem));
        }
        Ok((window.filter(|_| windowed.contains(&true)), windowed))
    }

    /// Theta and scaling, from v5's `rope_parameters` or v4's `rope_theta` and `rope_scaling`.
    fn rope(&self, max_positions: usize) -> Result<RopeFields> {
        let object = |field: &'static str| match self.map.get(field).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(Value::Object(settings)) => Ok(Some((field, settings))),
            Some(_) => Err(ModelError::config(field, "must be an object")),
        };
        let mut settings = match object("rope_parameters")? {
            Some(settings) => Some(settings),
            None => object("rope_scaling")?,
        };
        let mut local_theta = match self.architecture.windows {
            Windows::Local => self.number("rope_local_base_freq")?,
            _ => None,
        };
        if let Some((_, parameters)) = settings
            && self.architecture.windows == Windows::Local
            && let Some(Value::Object(full)) = parameters.get(FULL)
        {
            settings = Some(("rope_parameters", full));
            if let Some(Value::Object(local)) = parameters.get(SLIDING) {
                if rope_scaling("rope_parameters", local, max_positions)?.is_some() {
                    return Err(ModelError::unsupported("rope scaling of `sliding_attention`", "`default`"));
                }
                local_theta = number(local, "rope_theta")?.or(local_theta);
            }
        }
        let empty = Map::new();
        let (field, settings) = settings.unwrap_or(("rope_scaling", &empty));
        let share = number(settings, "partial_rotary_factor")?.or(self.number("partial_rotary_factor")?);
        let share = share.unwrap_or(1.0);
        let whole = self.architecture.key("partial_rotary_factor") == Some("partial_rotary_factor");
        if whole && share != 1.0 {
            return Err(ModelError::unsupported(format!("`partial_rotary_factor = {share}`"), "1"));
        }
        if !(0.0..=1.0).contains(&share) {
            let problem = format!("must be from 0 to 1, got {share}");
            return Err(ModelError::config(self.key("partial_rotary_factor"), problem));
        }
        Ok(RopeFields {
            theta: number(settings, "rope_theta")?.or(self.number("rope_theta")?).unwrap_or(10_000.0),
            scaling: rope_scaling(field, settings, max_positions)?,
            share,
            local_theta,
        })
    }

    fn key(&self, ours: &'static str) -> &'static str {
        self.architecture.key(ours).unwrap_or(ours)
    }

    fn optional_size(&self, ours: &'static str) -> Result<Option<usize>> {
        self.architecture.key(ours).map_or(Ok(None), |key| optional_size(&self.map, key))
    }

    fn required_size(&self, ours: &'static str) -> Result<usize> {
        self.optional_size(ours)?.ok_or_else(|| ModelError::config(self.key(ours), "is missing"))
    }

    fn number(&self, ours: &'static str) -> Result<Option<f64>> {
        self.architecture.key(ours).map_or(Ok(None), |key| number(&self.map, key))
    }

    fn flag(&self, ours: &'static str) -> Result<bool> {
        let Some(key) = self.architecture.key(ours) else { return Ok(false) };
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(value) => Err(ModelError::config(key, format!("must be true or false, got {value}"))),
        }
    }
}

/// A JSON object of the tables in `architecture.rs`.
fn object_of(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).expect("the tables hold JSON objects, which a test checks")
}

/// `layer_types`: true for a windowed layer.
fn layer_types(types: &Value, layers: usize) -> Result<Vec<bool>> {
    let types = types.as_array().filter(|types| types.len() == layers).ok_or_else(|| {
        ModelError::config("layer_types", format!("must be a list of {layers}, one for each layer"))
    })?;
    let windowed = |kind: &Value| match kind.as_str() {
        Some(SLIDING) => Ok(true),
        Some(FULL) => Ok(false),
        _ => Err(ModelError::unsupported(format!("layer type {kind}"), format!("`{FULL}`, `{SLIDING}`"))),
    };
    types.iter().map(windowed).collect()
}

fn rope_scaling(
    field: &str,
    settings: &Map<String, Value>,
    max_positions: usize,
) -> Result<Option<RopeScaling>> {
    let kind = settings.get("rope_type").or_else(|| settings.get("type")).and_then(Value::as_str);
    let required = |key: &str| {
        number(settings, key)?.ok_or_else(|| ModelError::config(format!("{field}.{key}"), "is missing"))
    };
    match kind.unwrap_or("default") {
        "default" => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor: required("factor")? })),
        "llama3" => Ok(Some(RopeScaling::Llama3 {
            factor: required("factor")?,
            low_freq_factor: required("low_freq_factor")?,
            high_freq_factor: required("high_freq_factor")?,
            original_max_position_embeddings: optional_size(settings, "original_max_position_embeddings")?
                .unwrap_or(max_positions),
        })),
        other => {
            Err(ModelError::unsupported(format!("rope type `{other}`"), "`default`, `linear`, `llama3`"))
        }
    }
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

fn number(fields: &Map<String, Value>, field: &str) -> Result<Option<f64>> {
    match fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(ModelError::config(field, format!("must be a number, got {value}"))),
        },
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
