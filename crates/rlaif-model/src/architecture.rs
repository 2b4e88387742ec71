//! The families of decoders, as data: what stands in a block, how positions enter, and what files call all of it.
//!
//! One decoder ([`crate::Decoder`]) reads these tables; a family that needs no new mathematics is one more entry.

/// A family of decoders.
pub struct Architecture {
    /// `model_type` in `config.json`.
    pub(crate) model_type: &'static str,
    /// What people know it by.
    pub(crate) released: &'static str,
    /// transformers' class of the language model, and of the classifier that a reward model is.
    pub(crate) causal_lm: &'static str,
    pub(crate) classifier: &'static str,

    pub(crate) norm: NormKind,
    pub(crate) positions: Positions,
    pub(crate) windows: Windows,
    /// Whether embeddings are multiplied by sqrt(hidden_size).
    pub(crate) scaled_embedding: bool,
    pub(crate) qkv_bias: Bias,
    pub(crate) output_bias: Bias,
    pub(crate) mlp_bias: Bias,
    /// Names in `config.json`; the first of a kind is the one we write.
    pub(crate) activations: &'static [(&'static str, Activation)],

    pub(crate) names: Names,
    /// The projections of a block. A gate is there or not, and query, key and value are three or one.
    pub(crate) projections: &'static [(Role, &'static str)],
    /// The norms of a block. Those behind attention and MLP, and of queries and keys, are there or not.
    pub(crate) norms: &'static [(Place, &'static str)],
    /// Whether linear weights are `[in, out]` in the file (GPT-2's `Conv1D`).
    pub(crate) conv1d: bool,
    /// Whether a fused projection holds query, key and value of one head after the other, not of all heads.
    pub(crate) fused_by_head: bool,
    /// Endings of buffers that checkpoints carry and nobody needs.
    pub(crate) buffers: &'static [&'static str],

    /// Our key and the family's in `config.json`, where they differ; `None`: it has no such key.
    pub(crate) keys: &'static [(&'static str, Option<&'static str>)],
    /// JSON: what transformers takes for keys that are not in the file.
    pub(crate) defaults: &'static str,
    /// JSON: keys that change the mathematics, with the only value that we have.
    pub(crate) fixed: &'static str,
}

/// How a norm is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// RMSNorm.
    Rms,
    /// RMSNorm whose factor is 1 + weight.
    RmsOnePlus,
    /// LayerNorm with a bias.
    Layer,
}

/// How tokens know where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Positions {
    /// Rotated queries and keys.
    Rotary,
    /// Learned vectors added to the embedding; position 0 is row `offset`.
    Learned { offset: usize },
}

/// Which layers attend to a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Windows {
    /// None.
    Never,
    /// All, if `sliding_window` is set.
    Always,
    /// With `use_sliding_window`: `layer_types`, or those from `max_window_layers` on.
    Upper,
    /// `layer_types`, or all but every sixth; they rotate by a base of their own.
    Local,
}

/// Whether projections have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    Never,
    Always,
    /// As this key of `config.json` says.
    Key(&'static str),
}

/// The function inside the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x sigmoid(x)
    Silu,
    /// x Phi(x), by the error function.
    Gelu,
    /// x Phi(x), by the tanh approximation.
    GeluTanh,
    /// max(x, 0)
    Relu,
}

/// What a projection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Query,
    Key,
    Value,
    /// The three in one.
    QueryKeyValue,
    Output,
    Gate,
    Up,
    Down,
}

impl Role {
    /// Llama's names for it, by which a LoRA target can name it in any family.
    pub fn llama_names(self) -> &'static [&'static str] {
        match self {
            Role::Query => &["q_proj"],
            Role::Key => &["k_proj"],
            Role::Value => &["v_proj"],
            Role::QueryKeyValue => &["q_proj", "k_proj", "v_proj"],
            Role::Output => &["o_proj"],
            Role::Gate => &["gate_proj"],
            Role::Up => &["up_proj"],
            Role::Down => &["down_proj"],
        }
    }
}

/// Where a norm stands in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before attention.
    Input,
    /// On each head of the queries, before they are rotated.
    Query,
    /// On each head of the keys.
    Key,
    /// Behind attention, before its result is added.
    AttentionOutput,
    /// Before the MLP.
    Mlp,
    /// Behind the MLP, before its result is added.
    MlpOutput,
}

/// Names of the tensors outside the blocks, without `.weight`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// What a file of the bare model leaves out.
    pub prefix: &'static str,
    pub embedding: &'static str,
    pub positions: &'static str,
    pub layers: &'static str,
    pub norm: &'static str,
    pub head: &'static str,
}

impl Architecture {
    /// `model_type` in `config.json`.
    pub fn model_type(&self) -> &'static str {
        self.model_type
    }

    /// The family of a `model_type`.
    pub(crate) fn find(model_type: &str) -> Option<&'static Architecture> {
        ARCHITECTURES.iter().find(|architecture| architecture.model_type == model_type)
    }

    /// All that we have, for a message.
    pub(crate) fn supported() -> String {
        let one = |a: &Architecture| format!("`{}` ({})", a.model_type, a.released);
        ARCHITECTURES.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The family's key for ours; `None` where its `config.json` has none.
    pub(crate) fn key(&self, ours: &'static str) -> Option<&'static str> {
        self.keys.iter().find(|(key, _)| *key == ours).map_or(Some(ours), |(_, theirs)| *theirs)
    }

    /// The name of a norm of a block.
    pub(crate) fn norm_name(&self, place: Place) -> Option<&'static str> {
        self.norms.iter().find(|(found, _)| *found == place).map(|(_, name)| *name)
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.model_type == other.model_type
    }
}

impl std::fmt::Debug for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.model_type)
    }
}

static ARCHITECTURES: [Architecture; 8] = [LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA3, GPT_NEOX, OPT, GPT2];

/// Touvron et al. 2023 (<https://arxiv.org/abs/2302.13971>): RMSNorm, rotary positions, SwiGLU.
const LLAMA: Architecture = Architecture {
    model_type: "llama",
    released: "Llama 2 and 3, SmolLM, TinyLlama",
    causal_lm: "LlamaForCausalLM",
    classifier: "LlamaForSequenceClassification",
    norm: NormKind::Rms,
    positions: Positions::Rotary,
    windows: Windows::Never,
    scaled_embedding: false,
    qkv_bias: Bias::Key("attention_bias"),
    output_bias: Bias::Key("attention_bias"),
    mlp_bias: Bias::Key("mlp_bias"),
    activations: &[("silu", Activation::Silu), ("swish", Activation::Silu)],
    names: Names {
        prefix: "model.",
        embedding: "model.embed_tokens",
        positions: "",
        layers: "model.layers",
        norm: "model.norm",
        head: "lm_head",
    },
    projections: &[
        (Role::Query, "self_attn.q_proj"),
        (Role::Key, "self_attn.k_proj"),
        (Role::Value, "self_attn.v_proj"),
        (Role::Output, "self_attn.o_proj"),
        (Role::Gate, "mlp.gate_proj"),
        (Role::Up, "mlp.up_proj"),
        (Role::Down, "mlp.down_proj"),
    ],
    norms: &[(Place::Input, "input_layernorm"), (Place::Mlp, "post_attention_layernorm")],
    conv1d: false,
    fused_by_head: false,
    buffers: &[".rotary_emb.inv_freq"],
    keys: &[("norm_eps", Some("rms_norm_eps")), ("use_parallel_residual", None)],
    defaults: r#"{"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048}"#,
    fixed: r#"{"sliding_window": null}"#,
};

/// Jiang et al. 2023 (<https://arxiv.org/abs/2310.06825>): Llama with a sliding window.
const MISTRAL: Architecture = Architecture {
    model_type: "mistral",
    released: "Mistral 7B, Zephyr",
    causal_lm: "MistralForCausalLM",
    classifier: "MistralForSequenceClassification",
    windows: Windows::Always,
    qkv_bias: Bias::Never,
    output_bias: Bias::Never,
    mlp_bias: Bias::Never,
    defaults: r#"{"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "num_key_value_heads": 8,
        "sliding_window": 4096}"#,
    fixed: "{}",
    ..LLAMA
};

/// Yang et al. 2024 (<https://arxiv.org/abs/2407.10671>): Llama with biases on query, key and value.
const QWEN2: Architecture = Architecture {
    model_type: "qwen2",
    released: "Qwen 1.5, 2 and 2.5",
    causal_lm: "Qwen2ForCausalLM",
    classifier: "Qwen2ForSequenceClassification",
    windows: Windows::Upper,
    qkv_bias: Bias::Always,
    output_bias: Bias::Never,
    mlp_bias: Bias::Never,
    defaults: r#"{"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 32,
        "sliding_window": 4096, "max_window_layers": 28}"#,
    fixed: "{}",
    ..LLAMA
};

/// Yang et al. 2025 (<https://arxiv.org/abs/2505.09388>): Llama with RMSNorm on the heads of queries and keys.
const QWEN3: Architecture = Architecture {
    model_type: "qwen3",
    released: "Qwen 3, dense",
    causal_lm: "Qwen3ForCausalLM",
    classifier: "Qwen3ForSequenceClassification",
    qkv_bias: Bias::Key("attention_bias"),
    output_bias: Bias::Key("attention_bias"),
    norms: &[
        (Place::Query, "self_attn.q_norm"),
        (Place::Key, "self_attn.k_norm"),
        (Place::Input, "input_layernorm"),
        (Place::Mlp, "post_attention_layernorm"),
    ],
    defaults: r#"{"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 32768, "num_key_value_heads": 32,
        "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28}"#,
    ..QWEN2
};

/// Gemma Team 2025 (<https://arxiv.org/abs/2503.19786>): norms on both sides of attention and MLP, five local layers to one
/// global.
const GEMMA3: Architecture = Architecture {
    model_type: "gemma3_text",
    released: "Gemma 3, text",
    causal_lm: "Gemma3ForCausalLM",
    classifier: "Gemma3TextForSequenceClassification",
    norm: NormKind::RmsOnePlus,
    windows: Windows::Local,
    scaled_embedding: true,
    mlp_bias: Bias::Never,
    activations: &[("gelu_pytorch_tanh", Activation::GeluTanh)],
    norms: &[
        (Place::Query, "self_attn.q_norm"),
        (Place::Key, "self_attn.k_norm"),
        (Place::Input, "input_layernorm"),
        (Place::AttentionOutput, "post_attention_layernorm"),
        (Place::Mlp, "pre_feedforward_layernorm"),
        (Place::MlpOutput, "post_feedforward_layernorm"),
    ],
    keys: &[
        ("norm_eps", Some("rms_norm_eps")),
        ("hidden_act", Some("hidden_activation")),
        ("use_parallel_residual", None),
    ],
    defaults: r#"{"hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "max_position_embeddings": 131072,
        "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "sliding_window_pattern": 6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
        "tie_word_embeddings": true}"#,
    fixed: r#"{"attn_logit_softcapping": null, "final_logit_softcapping": null, "use_bidirectional_attention": false}"#,
    ..LLAMA
};

/// Black et al. 2022 (<https://arxiv.org/abs/2204.06745>): attention and MLP side by side, a part of each head rotated.
const GPT_NEOX: Architecture = Architecture {
    model_type: "gpt_neox",
    released: "GPT-NeoX, Pythia",
    causal_lm: "GPTNeoXForCausalLM",
    classifier: "GPTNeoXForSequenceClassification",
    norm: NormKind::Layer,
    mlp_bias: Bias::Always,
    activations: PLAIN_ACTIVATIONS,
    names: Names {
        prefix: "gpt_neox.",
        embedding: "gpt_neox.embed_in",
        positions: "",
        layers: "gpt_neox.layers",
        norm: "gpt_neox.final_layer_norm",
        head: "embed_out",
    },
    projections: &[
        (Role::QueryKeyValue, "attention.query_key_value"),
        (Role::Output, "attention.dense"),
        (Role::Up, "mlp.dense_h_to_4h"),
        (Role::Down, "mlp.dense_4h_to_h"),
    ],
    fused_by_head: true,
    buffers: &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
    keys: &[
        ("norm_eps", Some("layer_norm_eps")),
        ("num_key_value_heads", None),
        ("head_dim", None),
        ("rope_theta", Some("rotary_emb_base")),
        ("partial_rotary_factor", Some("rotary_pct")),
    ],
    defaults: r#"{"hidden_act": "gelu", "layer_norm_eps": 1e-5, "max_position_embeddings": 2048, "rotary_pct": 0.25,
        "attention_bias": true, "use_parallel_residual": true}"#,
    fixed: "{}",
    ..LLAMA
};

/// Zhang et al. 2022 (<https://arxiv.org/abs/2205.01068>).
const OPT: Architecture = Architecture {
    model_type: "opt",
    released: "OPT but for 350M",
    causal_lm: "OPTForCausalLM",
    classifier: "OPTForSequenceClassification",
    norm: NormKind::Layer,
    positions: Positions::Learned { offset: 2 },
    qkv_bias: Bias::Key("enable_bias"),
    output_bias: Bias::Key("enable_bias"),
    mlp_bias: Bias::Key("enable_bias"),
    activations: PLAIN_ACTIVATIONS,
    names: Names {
        prefix: "model.",
        embedding: "model.decoder.embed_tokens",
        positions: "model.decoder.embed_positions",
        layers: "model.decoder.layers",
        norm: "model.decoder.final_layer_norm",
        head: "lm_head",
    },
    projections: &[
        (Role::Query, "self_attn.q_proj"),
        (Role::Key, "self_attn.k_proj"),
        (Role::Value, "self_attn.v_proj"),
        (Role::Output, "self_attn.out_proj"),
        (Role::Up, "fc1"),
        (Role::Down, "fc2"),
    ],
    norms: &[(Place::Input, "self_attn_layer_norm"), (Place::Mlp, "final_layer_norm")],
    buffers: &[],
    keys: &[
        ("norm_eps", None),
        ("num_key_value_heads", None),
        ("head_dim", None),
        ("intermediate_size", Some("ffn_dim")),
        ("hidden_act", Some("activation_function")),
        ("use_parallel_residual", None),
    ],
    defaults: r#"{"activation_function": "relu", "max_position_embeddings": 2048, "enable_bias": true,
        "tie_word_embeddings": true}"#,
    fixed: r#"{"do_layer_norm_before": true, "_remove_final_layer_norm": false, "layer_norm_elementwise_affine": true}"#,
    ..LLAMA
};

/// Radford et al. 2019.
const GPT2: Architecture = Architecture {
    model_type: "gpt2",
    released: "GPT-2, DistilGPT2",
    causal_lm: "GPT2LMHeadModel",
    classifier: "GPT2ForSequenceClassification",
    norm: NormKind::Layer,
    positions: Positions::Learned { offset: 0 },
    qkv_bias: Bias::Always,
    output_bias: Bias::Always,
    mlp_bias: Bias::Always,
    activations: PLAIN_ACTIVATIONS,
    names: Names {
        prefix: "transformer.",
        embedding: "transformer.wte",
        positions: "transformer.wpe",
        layers: "transformer.h",
        norm: "transformer.ln_f",
        head: "lm_head",
    },
    projections: &[
        (Role::QueryKeyValue, "attn.c_attn"),
        (Role::Output, "attn.c_proj"),
        (Role::Up, "mlp.c_fc"),
        (Role::Down, "mlp.c_proj"),
    ],
    norms: &[(Place::Input, "ln_1"), (Place::Mlp, "ln_2")],
    conv1d: true,
    buffers: &[".attn.bias", ".attn.masked_bias"],
    keys: &[
        ("norm_eps", Some("layer_norm_epsilon")),
        ("num_key_value_heads", None),
        ("head_dim", None),
        ("hidden_size", Some("n_embd")),
        ("intermediate_size", Some("n_inner")),
        ("num_hidden_layers", Some("n_layer")),
        ("num_attention_heads", Some("n_head")),
        ("max_position_embeddings", Some("n_positions")),
        ("hidden_act", Some("activation_function")),
        ("use_parallel_residual", None),
    ],
    defaults: r#"{"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_positions": 1024,
        "tie_word_embeddings": true}"#,
    fixed: r#"{"scale_attn_weights": true, "scale_attn_by_inverse_layer_idx": false, "add_cross_attention": false}"#,
    ..LLAMA
};

const PLAIN_ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_whole() {
        for architecture in &ARCHITECTURES {
            let has = |role| architecture.projections.iter().any(|(found, _)| *found == role);
            let separate = [Role::Query, Role::Key, Role::Value].map(has);
            assert_eq!(separate, [!has(Role::QueryKeyValue); 3], "{architecture:?}");
            assert!([Role::Output, Role::Up, Role::Down].into_iter().all(has), "{architecture:?}");
            let placed = |place| architecture.norm_name(place).is_some();
            assert!(placed(Place::Input) && placed(Place::Mlp), "{architecture:?}");
            for json in [architecture.defaults, architecture.fixed] {
                assert!(serde_json::from_str::<serde_json::Value>(json).unwrap().is_object(), "{json}");
            }
            let learned = matches!(architecture.positions, Positions::Learned { .. });
            assert_eq!(learned, !architecture.names.positions.is_empty());
        }
    }
}
