//! The Llama decoder, Touvron et al. 2023 (<https://arxiv.org/abs/2302.13971>): pre-norm blocks of attention and SwiGLU.
//!
//! One forward pass serves training, scoring and sampling: [`Decoder::blocks`] runs the layers over a stream of tokens and
//! leaves open what a token attends to. Packed batches attend within the stream, sampling attends to its KV cache.

use burn::tensor::{Device, Int, Tensor, TensorData};
use rayon::prelude::*;
use rlaif_core::config::LoraConfig;

use crate::attention::{Heads, int_tensor};
use crate::batch::{PackedBatch, Reads};
use crate::config::ModelConfig;
use crate::error::{ModelError, Result};
use crate::logprobs::{self, TokenStatistics};
use crate::lora::{Lora, PROJECTIONS};
use crate::ops::{self, Attention};
use crate::params::Trainable;
use crate::rope::Rope;
use crate::weights::WeightSource;

/// A decoder-only language model. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub(crate) config: ModelConfig,
    pub(crate) device: Device,
    pub(crate) rope: Rope,
    pub(crate) embedding: Tensor<2>, // [V, H]
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Tensor<2>,         // [1, H]
    pub(crate) head: Option<Tensor<2>>, // [V, H]; none: the embedding
    pub(crate) trainable: Trainable,
}

/// One block.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub input_norm: Tensor<2>, // [1, H]
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub output: Linear,
    pub post_attention_norm: Tensor<2>, // [1, H]
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

/// A projection with its adapter.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub weight: Tensor<2>,       // [in, out]
    pub bias: Option<Tensor<2>>, // [1, out]
    pub lora: Option<Lora>,
}

impl Linear {
    /// `[N, in]` to `[N, out]`.
    fn forward(&self, x: &Tensor<2>) -> Tensor<2> {
        let mut y = x.clone().matmul(self.weight.clone());
        if let Some(bias) = &self.bias {
            y = y + bias.clone();
        }
        match &self.lora {
            Some(lora) => y + lora.forward(x.clone()),
            None => y,
        }
    }
}

impl Layer {
    /// The projections by their Hugging Face names, in file order.
    pub fn projections_mut(&mut self) -> [(&'static str, &mut Linear); 7] {
        [
            ("self_attn.q_proj", &mut self.query),
            ("self_attn.k_proj", &mut self.key),
            ("self_attn.v_proj", &mut self.value),
            ("self_attn.o_proj", &mut self.output),
            ("mlp.gate_proj", &mut self.gate),
            ("mlp.up_proj", &mut self.up),
            ("mlp.down_proj", &mut self.down),
        ]
    }
}

impl Decoder {
    /// Loads all weights to `device`; nothing is trainable yet.
    ///
    /// # Errors
    /// If the model does not fit the memory, or a tensor is missing, misshapen or not finite.
    pub fn load(config: &ModelConfig, weights: &dyn WeightSource, device: &Device) -> Result<Self> {
        config.check_memory()?;
        let device = device.clone().inner();
        let read = Reader { weights, device: &device };
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let (in_attention, in_mlp) = (config.attention_bias, config.mlp_bias);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for number in 0..config.num_hidden_layers {
            let name = |part: &str| format!("model.layers.{number}.{part}");
            layers.push(Layer {
                input_norm: read.vector(&name("input_layernorm.weight"), hidden)?,
                query: read.linear(&name("self_attn.q_proj"), hidden, queries, in_attention)?,
                key: read.linear(&name("self_attn.k_proj"), hidden, keys, in_attention)?,
                value: read.linear(&name("self_attn.v_proj"), hidden, keys, in_attention)?,
                output: read.linear(&name("self_attn.o_proj"), queries, hidden, in_attention)?,
                post_attention_norm: read.vector(&name("post_attention_layernorm.weight"), hidden)?,
                gate: read.linear(&name("mlp.gate_proj"), hidden, inner, in_mlp)?,
                up: read.linear(&name("mlp.up_proj"), hidden, inner, in_mlp)?,
                down: read.linear(&name("mlp.down_proj"), inner, hidden, in_mlp)?,
            });
        }
        Ok(Self {
            rope: Rope::new(config),
            embedding: read.matrix("model.embed_tokens.weight", [config.vocab_size, hidden])?,
            layers,
            norm: read.vector("model.norm.weight", hidden)?,
            head: match config.tie_word_embeddings {
                true => None,
                false => Some(read.matrix("lm_head.weight", [config.vocab_size, hidden])?),
            },
            trainable: Trainable::None,
            config: config.clone(),
            device,
        })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights are; never an autodiff device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Final hidden states, after the last norm.
    ///
    /// Shapes: returns `[N, H]` for a batch of `N` tokens.
    ///
    /// # Panics
    /// If a token id is outside the vocabulary: check ids where they enter the program, with
    /// [`check_ids`](Self::check_ids).
    pub fn hidden(&self, batch: &PackedBatch) -> Tensor<2> {
        let attention = Attention::new(batch, Heads::of(&self.config), &self.rope, &self.device);
        self.blocks(batch.ids(), &mut |_, q, k, v| attention.forward(q, k, v))
    }

    /// Runs all blocks over a stream of tokens; `attend(layer, q, k, v)` rotates queries and keys and attends.
    ///
    /// Shapes: `q`: `[N, heads * head_dim]`; `k`, `v`: `[N, kv_heads * head_dim]`; returns `[N, H]`.
    pub(crate) fn blocks(
        &self,
        ids: &[u32],
        attend: &mut dyn FnMut(usize, Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let ids: Tensor<1, Int> = int_tensor(ids.iter().map(|&id| i64::from(id)).collect(), &self.device);
        let epsilon = self.config.rms_norm_eps;
        let mut x = self.embedding.clone().select(0, ids); // [N, H]
        for (number, layer) in self.layers.iter().enumerate() {
            let h = ops::rms_norm(x.clone(), &layer.input_norm, epsilon);
            let attended =
                attend(number, layer.query.forward(&h), layer.key.forward(&h), layer.value.forward(&h));
            x = x + layer.output.forward(&attended);
            let h = ops::rms_norm(x.clone(), &layer.post_attention_norm, epsilon);
            x = x + layer.down.forward(&ops::swiglu(layer.gate.forward(&h), layer.up.forward(&h)));
        }
        ops::rms_norm(x, &self.norm, epsilon)
    }

    /// Log-probability of each target at its read, of the distribution softmax(logits / temperature).
    ///
    /// Shapes: `hidden`: `[N, H]` as [`hidden`](Self::hidden) returned it; returns `[R]` in the order of `reads`.
    pub fn logprobs(&self, hidden: &Tensor<2>, reads: &Reads, temperature: f64) -> Tensor<1> {
        logprobs::logprobs(hidden, self.output_head(), reads, temperature)
    }

    /// [`logprobs`](Self::logprobs) with the entropy of each distribution.
    pub fn token_statistics(&self, hidden: &Tensor<2>, reads: &Reads, temperature: f64) -> TokenStatistics {
        logprobs::statistics(hidden, self.output_head(), reads, temperature)
    }

    /// Logits of the next token at the given stream indices.
    ///
    /// Shapes: `hidden`: `[N, H]`; returns `[indices.len(), V]`.
    pub fn logits_at(&self, hidden: &Tensor<2>, indices: &[usize]) -> Tensor<2> {
        let index = int_tensor(indices.iter().map(|&i| i as i64).collect(), &self.device);
        hidden.clone().select(0, index).matmul(self.output_head().clone().transpose())
    }

    fn output_head(&self) -> &Tensor<2> {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Checks token ids and their number before they meet the model.
    ///
    /// # Errors
    /// If there are none, more than the context holds, or one that is outside the vocabulary.
    pub fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let (vocabulary, context) = (self.config.vocab_size, self.config.max_position_embeddings);
        let reason = if ids.is_empty() {
            "a sequence needs at least one token".to_string()
        } else if ids.len() > context {
            format!("{} tokens do not fit the model's context of {context}", ids.len())
        } else if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary) {
            format!("token id {id} is outside the model's vocabulary of {vocabulary}")
        } else {
            return Ok(());
        };
        Err(ModelError::Input { reason })
    }

    /// Attaches a fresh adapter to each projection that `config` names and makes the adapters the trainable parameters.
    ///
    /// # Errors
    /// If a target is not a projection, or the rank is 0.
    pub fn add_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        let unknown = config.targets.iter().find(|t| !PROJECTIONS.contains(&t.as_str()));
        if let Some(target) = unknown {
            let reason = format!("LoRA target `{target}` is none of `{}`", PROJECTIONS.join("`, `"));
            return Err(ModelError::Input { reason });
        }
        if config.rank == 0 || config.targets.is_empty() {
            let reason = "LoRA needs a rank of at least 1 and at least one target".to_string();
            return Err(ModelError::Input { reason });
        }
        let mut stream = 0;
        for layer in &mut self.layers {
            for (name, linear) in layer.projections_mut() {
                stream += 1; // counted for every projection: another choice of targets moves no other's numbers
                if config.targets.iter().any(|t| name.ends_with(t.as_str())) {
                    let [inputs, outputs] = linear.weight.dims();
                    linear.lora = Some(Lora::new(inputs, outputs, config, seed, stream, &self.device));
                }
            }
        }
        self.set_trainable(Trainable::Lora);
        Ok(())
    }

    /// Whether any projection has an adapter.
    pub fn has_lora(&self) -> bool {
        self.clone()
            .layers
            .iter_mut()
            .any(|l| l.projections_mut().iter().any(|(_, linear)| linear.lora.is_some()))
    }

    /// Adds the adapters to the weights and drops them; nothing is trainable afterwards.
    pub fn merge_lora(&mut self) {
        self.set_trainable(Trainable::None);
        for layer in &mut self.layers {
            for (_, linear) in layer.projections_mut() {
                if let Some(lora) = linear.lora.take() {
                    linear.weight = linear.weight.clone() + lora.delta();
                }
            }
        }
    }
}

/// Reads tensors of known shape.
struct Reader<'a> {
    weights: &'a dyn WeightSource,
    device: &'a Device,
}

impl Reader<'_> {
    fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let got =
            self.weights.shape(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_string() })?;
        if got != expected {
            return Err(ModelError::TensorShape { name: name.to_string(), expected: expected.to_vec(), got });
        }
        self.weights.load_f32(name)
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>> {
        Ok(Tensor::from_data(TensorData::new(self.values(name, &shape)?, shape), self.device))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Tensor<2>> {
        Ok(Tensor::from_data(TensorData::new(self.values(name, &[len])?, [1, len]), self.device))
    }

    fn linear(&self, name: &str, inputs: usize, outputs: usize, with_bias: bool) -> Result<Linear> {
        let stored = self.values(&format!("{name}.weight"), &[outputs, inputs])?;
        let weight = TensorData::new(transposed(&stored, outputs, inputs), [inputs, outputs]);
        let bias = if with_bias { Some(self.vector(&format!("{name}.bias"), outputs)?) } else { None };
        Ok(Linear { weight: Tensor::from_data(weight, self.device), bias, lora: None })
    }
}

/// `[rows, columns]` to `[columns, rows]`, both row-major.
pub(crate) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const BLOCK: usize = 32; // 32 rows of 32 floats fit the first-level cache twice
    let mut out = vec![0.0; values.len()];
    out.par_chunks_mut(rows * BLOCK).enumerate().for_each(|(block, out)| {
        let first = block * BLOCK;
        for row_block in (0..rows).step_by(BLOCK) {
            for (column, line) in out.chunks_mut(rows).enumerate() {
                for row in row_block..(row_block + BLOCK).min(rows) {
                    line[row] = values[row * columns + first + column];
                }
            }
        }
    });
    out
}
