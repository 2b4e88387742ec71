//! Writes GGUF files, sound and unsound, for the tests of the reader.

use crate::common::golden_folder;
use rlaif_model::{ModelConfig, SafetensorsWeights, WeightSource};
use serde_json::Value;

/// A metadata value as the file has it.
#[derive(Clone)]
pub enum Meta {
    U32(u32),
    F32(f32),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    /// Type number and bytes as they are.
    Raw(u32, Vec<u8>),
}

/// A tensor: name, dimensions as the file has them (innermost first), type number, bytes; `offset` overrides its place.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dims: Vec<u64>,
    pub kind: u32,
    pub bytes: Vec<u8>,
    pub offset: Option<u64>,
}

impl Tensor {
    pub fn f32(name: &str, dims: &[u64], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { name: name.to_string(), dims: dims.to_vec(), kind: 0, bytes, offset: None }
    }
}

/// Everything of a file that a test may want to bend.
#[derive(Clone)]
pub struct GgufFile {
    pub magic: [u8; 4],
    pub version: u32,
    pub num_tensors: Option<u64>,
    pub num_metadata: Option<u64>,
    pub metadata: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
    pub alignment: usize,
}

pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn array(kind: u32, count: usize, elements: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend_from_slice(&(count as u64).to_le_bytes());
    bytes.extend(elements.flatten());
    bytes
}

impl GgufFile {
    pub fn new() -> Self {
        GgufFile {
            magic: *b"GGUF",
            version: 3,
            num_tensors: None,
            num_metadata: None,
            metadata: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
        }
    }

    pub fn set(&mut self, key: &str, value: Meta) -> &mut Self {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.to_string(), value));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.num_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend_from_slice(&self.num_metadata.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            out.extend(string(key));
            let (kind, bytes) = match value {
                Meta::U32(value) => (4, value.to_le_bytes().to_vec()),
                Meta::F32(value) => (6, value.to_le_bytes().to_vec()),
                Meta::Text(text) => (8, string(text)),
                Meta::Texts(texts) => (9, array(8, texts.len(), texts.iter().map(|text| string(text)))),
                Meta::I32s(values) => {
                    (9, array(5, values.len(), values.iter().map(|v| v.to_le_bytes().to_vec())))
                }
                Meta::Raw(kind, bytes) => (*kind, bytes.clone()),
            };
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend(bytes);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0u8);
            out.extend(string(&tensor.name));
            out.extend_from_slice(&(tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                out.extend_from_slice(&dim.to_le_bytes());
            }
            out.extend_from_slice(&tensor.kind.to_le_bytes());
            out.extend_from_slice(&tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend_from_slice(&tensor.bytes);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }
}

/// From transformers' rotary rows to llama.cpp's (`permute` in its `convert_hf_to_gguf.py`).
fn to_neighbouring_pairs(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, head_dim) = (values.len() / rows, rows / heads);
    let mut permuted = Vec::with_capacity(values.len());
    for head in 0..heads {
        for i in 0..head_dim / 2 {
            for j in 0..2 {
                let row = head * head_dim + j * (head_dim / 2) + i;
                permuted.extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    permuted
}

/// The golden Llama as llama.cpp's converter would write it, with its tokenizer.
pub fn golden_llama_as_gguf() -> GgufFile {
    golden_as_gguf("llama")
}

/// The same of another family; only Llama's rotary rows are written in another order.
pub fn golden_as_gguf(family: &str) -> GgufFile {
    let folder = golden_folder(family);
    let key = |name: &str| format!("{family}.{name}");
    let json =
        |file: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap() };
    let config = ModelConfig::from_hf_json(&json("config.json")).unwrap();
    let weights = SafetensorsWeights::open(&folder).unwrap();
    let mut file = GgufFile::new();
    file.set("general.architecture", Meta::Text(family.into()))
        .set(&key("block_count"), Meta::U32(config.num_hidden_layers as u32))
        .set(&key("context_length"), Meta::U32(config.max_position_embeddings as u32))
        .set(&key("embedding_length"), Meta::U32(config.hidden_size as u32))
        .set(&key("feed_forward_length"), Meta::U32(config.intermediate_size as u32))
        .set(&key("attention.head_count"), Meta::U32(config.num_attention_heads as u32))
        .set(&key("attention.head_count_kv"), Meta::U32(config.num_key_value_heads as u32))
        .set(&key("attention.layer_norm_rms_epsilon"), Meta::F32(config.norm_eps as f32))
        .set(&key("rope.freq_base"), Meta::F32(config.rope_theta as f32))
        .set(&key("rope.dimension_count"), Meta::U32(config.head_dim as u32))
        .set(&key("attention.key_length"), Meta::U32(config.head_dim as u32))
        .set("tokenizer.ggml.model", Meta::Text("gpt2".into()))
        .set("tokenizer.ggml.pre", Meta::Text("gpt-2".into()))
        .set("tokenizer.ggml.bos_token_id", Meta::U32(1))
        .set("tokenizer.ggml.eos_token_id", Meta::U32(2))
        .set("tokenizer.ggml.padding_token_id", Meta::U32(0));
    let tokenizer = json("tokenizer.json");
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    let types = (0..tokens.len()).map(|id| if id < 4 { 3 } else { 1 }).collect();
    let merges = tokenizer["model"]["merges"].as_array().unwrap().iter().map(|merge| match merge {
        Value::String(text) => text.clone(),
        pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
    });
    file.set("tokenizer.ggml.merges", Meta::Texts(merges.collect()));
    file.set("tokenizer.ggml.tokens", Meta::Texts(tokens));
    file.set("tokenizer.ggml.token_type", Meta::I32s(types));

    for (name, shape) in config.tensor_shapes() {
        let mut values = weights.load_f32(&name).unwrap();
        if family == "llama" && name.contains("q_proj") {
            values = to_neighbouring_pairs(&values, shape[0], config.num_attention_heads);
        } else if family == "llama" && name.contains("k_proj") {
            values = to_neighbouring_pairs(&values, shape[0], config.num_key_value_heads);
        }
        let dims: Vec<u64> = shape.iter().rev().map(|dim| *dim as u64).collect();
        file.tensors.push(Tensor::f32(&llama_cpp_name(&name), &dims, &values));
    }
    file
}

fn llama_cpp_name(name: &str) -> String {
    let mut short = name.to_string();
    for (long, brief) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
    ] {
        short = short.replace(long, brief);
    }
    short
}
