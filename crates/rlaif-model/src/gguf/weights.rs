//! A GGUF's tensors under transformers' names, with transformers' order of rotary rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reader::Gguf;
use crate::config::ModelConfig;
use crate::error::{ModelError, Result};
use crate::weights::{WeightSource, check_finite};

/// The tensors of a GGUF, named as transformers names them.
pub struct GgufWeights {
    gguf: Arc<Gguf>,
    /// Hugging Face name to the file's name.
    names: BTreeMap<String, String>,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    /// Whether rotary pairs are neighbours in the file; Qwen's are where transformers has them.
    neighbouring_pairs: bool,
}

impl GgufWeights {
    /// Names the tensors of `gguf`; `config` tells how many heads to reorder.
    pub fn new(gguf: Arc<Gguf>, config: &ModelConfig) -> Self {
        let names = gguf.tensors().keys().map(|name| (hugging_face_name(name), name.clone())).collect();
        GgufWeights {
            gguf,
            names,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            neighbouring_pairs: config.architecture.model_type() == "llama",
        }
    }
}

impl WeightSource for GgufWeights {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let tensor = self.gguf.tensors().get(self.names.get(name)?)?;
        Some(tensor.shape.clone())
    }

    fn load_f32(&self, name: &str) -> Result<Vec<f32>> {
        let stored =
            self.names.get(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_string() })?;
        let values = self.gguf.load_f32(stored)?;
        check_finite(name, &values)?;
        let heads = if !self.neighbouring_pairs {
            return Ok(values);
        } else if name.contains("self_attn.q_proj.") {
            self.num_attention_heads
        } else if name.contains("self_attn.k_proj.") {
            self.num_key_value_heads
        } else {
            return Ok(values);
        };
        let shape = self.shape(name).unwrap_or_default();
        split_rotary_pairs(name, &values, &shape, heads)
    }
}

/// From llama.cpp's rotary rows, where a pair is two neighbours, to transformers', where it is `head_dim / 2` apart:
/// row `j head_dim/2 + i` of a head is the file's row `2 i + j` (`reverse_permute` in transformers).
fn split_rotary_pairs(name: &str, values: &[f32], shape: &[usize], heads: usize) -> Result<Vec<f32>> {
    reorder_rows(name, values, shape, heads, |row, half| 2 * (row % half) + row / half)
}

/// The other way round (`permute` in llama.cpp's converter): row `2 i + j` of the file is row `j head_dim/2 + i`.
pub(super) fn join_rotary_pairs(
    name: &str,
    values: &[f32],
    shape: &[usize],
    heads: usize,
) -> Result<Vec<f32>> {
    reorder_rows(name, values, shape, heads, |row, half| (row % 2) * half + row / 2)
}

/// Rows of each head in another order: `from(row, head_dim / 2)` says which row of the head stands at `row`.
fn reorder_rows(
    name: &str,
    values: &[f32],
    shape: &[usize],
    heads: usize,
    from: impl Fn(usize, usize) -> usize,
) -> Result<Vec<f32>> {
    let rows = shape.first().copied().unwrap_or(0);
    if heads == 0 || rows == 0 || !rows.is_multiple_of(2 * heads) {
        return Err(ModelError::TensorShape {
            name: name.to_string(),
            expected: vec![2 * heads],
            got: shape.to_vec(),
        });
    }
    let (width, head_dim) = (values.len() / rows, rows / heads);
    let mut ordered = Vec::with_capacity(values.len());
    for head in 0..heads {
        for row in 0..head_dim {
            let row = head * head_dim + from(row, head_dim / 2);
            ordered.extend_from_slice(&values[row * width..(row + 1) * width]);
        }
    }
    Ok(ordered)
}

/// llama.cpp's names and transformers', of what stands outside the blocks.
const OUTSIDE: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// The same of a block's parts: `blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`.
const PARTS: [(&str, &str); 11] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
];

/// A name that is not the decoder's stays as it is.
fn hugging_face_name(name: &str) -> String {
    if let Some((_, theirs)) = OUTSIDE.iter().find(|(gguf, _)| *gguf == name) {
        return theirs.to_string();
    }
    let parts: Vec<&str> = name.split('.').collect();
    let ["blk", layer, part, suffix @ ("weight" | "bias")] = parts.as_slice() else {
        return name.to_string();
    };
    match PARTS.iter().find(|(gguf, _)| gguf == part) {
        Some((_, part)) => format!("model.layers.{layer}.{part}.{suffix}"),
        None => name.to_string(),
    }
}

/// llama.cpp's name for a tensor of transformers' Llama and its kin.
pub(super) fn gguf_name(name: &str) -> Option<String> {
    if let Some((gguf, _)) = OUTSIDE.iter().find(|(_, theirs)| *theirs == name) {
        return Some(gguf.to_string());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (part, suffix) = rest.rsplit_once('.')?;
    let (gguf, _) = PARTS.iter().find(|(_, theirs)| *theirs == part)?;
    Some(format!("blk.{layer}.{gguf}.{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_rows_are_split_as_transformers_does() {
        // Two heads of four rows, one column: numpy's reshape(2, 2, 2, 1).swapaxes(2, 1) of 0..8.
        let values: Vec<f32> = (0..8).map(|row| row as f32).collect();
        let ordered = split_rotary_pairs("q", &values, &[8, 1], 2).unwrap();
        assert_eq!(ordered, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        assert!(split_rotary_pairs("q", &values, &[8, 1], 3).is_err());
        assert_eq!(join_rotary_pairs("q", &ordered, &[8, 1], 2).unwrap(), values);
    }

    #[test]
    fn unknown_names_stay_and_known_ones_go_both_ways() {
        for name in ["model.norm.weight", "model.layers.11.self_attn.k_norm.weight", "lm_head.weight"] {
            assert_eq!(hugging_face_name(&gguf_name(name).unwrap()), name);
        }
        assert_eq!(gguf_name("transformer.wte.weight"), None);
        assert_eq!(hugging_face_name("blk.3.attn_q.weight"), "model.layers.3.self_attn.q_proj.weight");
        assert_eq!(hugging_face_name("blk.3.attn_q.scale"), "blk.3.attn_q.scale");
        assert_eq!(hugging_face_name("rope_freqs.weight"), "rope_freqs.weight");
    }
}
