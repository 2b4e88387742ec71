//! The decoder: blocks of attention and MLP over a residual stream, put together as the family's table says
//! ([`crate::architecture`]).
//!
//! One forward pass serves training, scoring and sampling: [`Decoder::blocks`] runs the layers over a stream of tokens and
//! leaves open what a token attends to. Packed batches attend within the stream, sampling attends to its KV cache.

use std::collections::BTreeSet;

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData};
use rayon::prelude::*;
use rlaif_core::config::LoraConfig;

use crate::architecture::{Activation, NormKind, Place, Positions, Role};
use crate::attention::{Heads, int_tensor};
use crate::batch::{PackedBatch, Reads};
use crate::config::{ModelConfig, Projection};
use crate::error::{ModelError, Result};
use crate::logprobs::{self, TokenStatistics};
use crate::lora::{Dropout, Lora, PROJECTIONS};
use crate::ops::{self, Attention};
use crate::packed::{PackedTogether, PackedWeight};
use crate::params::Trainable;
use crate::rope::Rope;
use crate::weights::WeightSource;

/// A decoder-only language model. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub(crate) config: ModelConfig,
    pub(crate) device: Device,
    pub(crate) rope: Rope,
    pub(crate) local_rope: Rope,             // of windowed layers
    pub(crate) embedding: Tensor<2>,         // [V, H]
    pub(crate) positions: Option<Tensor<2>>, // [P, H], where they are learned
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Norm,
    pub(crate) head: Option<Tensor<2>>,  // [V, H]; none: the embedding
    pub(crate) lora: Option<LoraConfig>, // of the adapters, if there are any
    pub(crate) trainable: Trainable,
    pub(crate) packed_head: Option<PackedWeight>, // of a decoder that only samples
}

/// One block.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub input_norm: Norm,
    pub attention: QueryKeyValue,
    pub query_norm: Option<Norm>,
    pub key_norm: Option<Norm>,
    pub output: Linear,
    pub attention_norm: Option<Norm>, // behind attention
    pub mlp_norm: Norm,               // before the MLP
    pub gate: Option<Linear>,
    pub up: Linear,
    pub down: Linear,
    pub mlp_output_norm: Option<Norm>,               // behind the MLP
    pub packed_attention: Option<PackedTogether<3>>, // query, key and value, of a decoder that only samples
    pub packed_mlp: Option<PackedTogether<2>>,       // gate and up, likewise
}

/// The projections that attention begins with.
#[derive(Debug, Clone)]
pub(crate) enum QueryKeyValue {
    Separate { query: Linear, key: Linear, value: Linear },
    Fused(Linear),
}

/// A projection with its adapter.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub role: Role,
    pub name: &'static str,
    pub weight: Tensor<2>,       // [in, out]
    pub bias: Option<Tensor<2>>, // [1, out]
    pub lora: Option<Lora>,
    pub packed: Option<PackedWeight>, // of a decoder that only samples
}

/// The weights of a norm.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub name: &'static str,
    pub kind: NormKind,
    pub epsilon: f64,
    pub weight: Tensor<2>,       // [1, n]
    pub bias: Option<Tensor<2>>, // [1, n]
}

impl Linear {
    /// `[N, in]` to `[N, out]`.
    fn forward(&self, x: &Tensor<2>) -> Tensor<2> {
        match (&self.packed, &self.lora) {
            (Some(packed), _) => self.completed(packed.product(x), x),
            (None, Some(lora)) => self.biased(ops::lora_matmul(x.clone(), &self.weight, lora)),
            (None, None) => self.biased(ops::matmul(x.clone(), &self.weight)),
        }
    }

    /// y with the bias and what the adapter makes of x.
    fn completed(&self, y: Tensor<2>, x: &Tensor<2>) -> Tensor<2> {
        let y = self.biased(y);
        match &self.lora {
            Some(lora) => y + lora.forward(x.clone()),
            None => y,
        }
    }

    fn biased(&self, y: Tensor<2>) -> Tensor<2> {
        match &self.bias {
            Some(bias) => y + bias.clone(),
            None => y,
        }
    }

    /// Whether the weight and a bias are all there is to it.
    fn is_plain(&self) -> bool {
        self.lora.is_none() && self.packed.is_none()
    }

    /// Several of the same input; one product where they were packed together.
    fn forward_all<const K: usize>(
        linears: [&Self; K],
        packed: &Option<PackedTogether<K>>,
        x: &Tensor<2>,
    ) -> [Tensor<2>; K] {
        match packed {
            None => linears.map(|linear| linear.forward(x)),
            Some(packed) => {
                let mut products = packed.products(x).into_iter();
                linears.map(|linear| linear.completed(products.next().expect("one for each"), x))
            }
        }
    }

    /// Whether a LoRA target means this projection: by the family's name, or by Llama's for the same thing.
    fn is_target(&self, target: &str) -> bool {
        self.short_name() == target || self.role.llama_names().contains(&target)
    }

    fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

impl Norm {
    /// `[N, n]` to `[N, n]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match (self.kind, &self.bias) {
            (NormKind::Layer, Some(bias)) => ops::layer_norm(x, &self.weight, bias, self.epsilon),
            (NormKind::RmsOnePlus, _) => ops::rms_norm(x, &self.weight.clone().add_scalar(1.0), self.epsilon),
            (NormKind::Rms | NormKind::Layer, _) => ops::rms_norm(x, &self.weight, self.epsilon),
        }
    }
}

impl Layer {
    /// The projections, in the file's order.
    pub fn projections_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let first = match &mut self.attention {
            QueryKeyValue::Separate { query, key, value } => vec![query, key, value],
            QueryKeyValue::Fused(fused) => vec![fused],
        };
        let gate = self.gate.as_mut();
        first.into_iter().chain([&mut self.output]).chain(gate).chain([&mut self.up, &mut self.down])
    }

    /// Query, key and value, `[N, heads * head_dim]` each, not yet rotated.
    fn queries_keys_values(&self, h: &Tensor<2>, config: &ModelConfig) -> [Tensor<2>; 3] {
        let (dim, tokens) = (config.head_dim, h.dims()[0]);
        let heads = [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads];
        let [q, k, v] = match &self.attention {
            QueryKeyValue::Separate { query, key, value } => {
                Linear::forward_all([query, key, value], &self.packed_attention, h)
            }
            QueryKeyValue::Fused(fused) if config.architecture.fused_by_head => {
                let y = fused.forward(h).reshape([tokens, heads[0], 3, dim]);
                [0, 1, 2].map(|i| y.clone().narrow(2, i, 1).reshape([tokens, heads[0] * dim]))
            }
            QueryKeyValue::Fused(fused) => {
                let (y, widths) = (fused.forward(h), heads.map(|heads| heads * dim));
                let starts = [0, widths[0], widths[0] + widths[1]];
                [0, 1, 2].map(|i| y.clone().narrow(1, starts[i], widths[i]))
            }
        };
        let by_head = |x: Tensor<2>, norm: &Option<Norm>, heads: usize| match norm {
            None => x,
            Some(norm) => norm.forward(x.reshape([tokens * heads, dim])).reshape([tokens, heads * dim]),
        };
        [by_head(q, &self.query_norm, heads[0]), by_head(k, &self.key_norm, heads[1]), v]
    }

    /// The MLP, `[N, H]` to `[N, H]`.
    fn mlp(&self, h: &Tensor<2>, activation: Activation) -> Tensor<2> {
        let inner = match &self.gate {
            None => ops::activate(self.up.forward(h), activation),
            Some(gate) => {
                if let (Some(packed), Activation::Silu, None, None) =
                    (&self.packed_mlp, activation, &gate.bias, &self.up.bias)
                {
                    return self.down.forward(&packed.swiglu(h));
                }
                let [gate, up] = Linear::forward_all([gate, &self.up], &self.packed_mlp, h);
                match activation {
                    Activation::Silu if self.down.is_plain() => {
                        return self.down.biased(ops::swiglu_matmul(gate, up, &self.down.weight));
                    }
                    Activation::Silu => ops::swiglu(gate, up),
                    _ => ops::activate(gate, activation) * up,
                }
            }
        };
        self.down.forward(&inner)
    }
}

/// Positions that somebody reads, where that is not nearly all of them.
#[derive(Debug)]
pub(crate) struct ReadRows {
    rows: Tensor<1, Int>, // ascending, each once
    tokens: usize,
}

impl ReadRows {
    /// None where more than three quarters of the `tokens` are read: moving rows would cost what they save.
    pub(crate) fn of(read: &[usize], tokens: usize, device: &Device) -> Option<Self> {
        let rows: BTreeSet<usize> = read.iter().copied().collect();
        assert!(rows.last().is_none_or(|&last| last < tokens), "what is read lies in the stream");
        let few = !rows.is_empty() && 4 * rows.len() <= 3 * tokens;
        few.then(|| Self { rows: int_tensor(rows.iter().map(|&row| row as i64).collect(), device), tokens })
    }

    /// `[N, n]` to these rows of it.
    fn take(&self, x: Tensor<2>) -> Tensor<2> {
        x.select(0, self.rows.clone())
    }

    /// These rows to `[N, n]`, with zeros elsewhere.
    fn put_back(&self, x: Tensor<2>) -> Tensor<2> {
        let empty = Tensor::zeros([self.tokens, x.dims()[1]], &x.device());
        empty.select_assign(0, self.rows.clone(), x, IndexingUpdateOp::Add)
    }
}

/// Of a norm that may not be there.
fn normalized(x: Tensor<2>, norm: &Option<Norm>) -> Tensor<2> {
    match norm {
        None => x,
        Some(norm) => norm.forward(x),
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
        let read = Reader { config, weights, device: &device };
        let names = &config.architecture.names;
        let hidden = config.hidden_size;
        Ok(Self {
            rope: Rope::new(config),
            local_rope: Rope::local(config),
            embedding: read.matrix(names.embedding, [config.vocab_size, hidden])?,
            positions: match config.position_rows() {
                None => None,
                Some(rows) => Some(read.matrix(names.positions, [rows, hidden])?),
            },
            layers: (0..config.num_hidden_layers).map(|n| read.layer(n)).collect::<Result<_>>()?,
            norm: read.norm("", names.norm, hidden)?,
            head: match config.tie_word_embeddings {
                true => None,
                false => Some(read.matrix(names.head, [config.vocab_size, hidden])?),
            },
            lora: None,
            trainable: Trainable::None,
            packed_head: None,
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
    /// If a token id is outside the vocabulary, or a position outside a table of learned ones: check ids where they enter the
    /// program, with [`check_ids`](Self::check_ids).
    pub fn hidden(&self, batch: &PackedBatch) -> Tensor<2> {
        self.run(batch, None, None)
    }

    /// [`hidden`](Self::hidden) at the stream indices that are `read`; the other rows may be 0, since the last block computes
    /// what follows its attention where it is read alone.
    ///
    /// Shapes: returns `[N, H]`.
    ///
    /// # Panics
    /// As [`hidden`](Self::hidden), and if an index is outside the stream.
    pub fn hidden_at(&self, batch: &PackedBatch, read: &[usize]) -> Tensor<2> {
        self.hidden_with_noise(batch, read, None)
    }

    /// [`hidden_at`](Self::hidden_at) with `noise` added to the token embeddings, as NEFTune trains.
    ///
    /// Shapes: `noise`: `[N, H]`, row-major.
    ///
    /// # Panics
    /// As [`hidden_at`](Self::hidden_at), and if `noise` has another size.
    pub fn hidden_with_noise(
        &self,
        batch: &PackedBatch,
        read: &[usize],
        noise: Option<Vec<f32>>,
    ) -> Tensor<2> {
        self.run(batch, Some(read), noise)
    }

    fn run(&self, batch: &PackedBatch, read: Option<&[usize]>, noise: Option<Vec<f32>>) -> Tensor<2> {
        let attention = LayerAttention::new(self, batch);
        self.blocks_from(self.embed_batch(batch, noise), read, &mut |layer, q, k, v| {
            attention.of(&self.config, layer).forward(q, k, v)
        })
    }

    /// Embeddings of a batch with `noise` on them, `[N, H]`.
    pub(crate) fn embed_batch(&self, batch: &PackedBatch, noise: Option<Vec<f32>>) -> Tensor<2> {
        let shape = [batch.num_tokens(), self.config.hidden_size];
        let noise = noise.map(|noise| Tensor::from_data(TensorData::new(noise, shape), &self.device));
        self.embed(batch.ids(), batch.positions(), noise)
    }

    /// Runs all blocks over a stream of tokens, of which these or all are `read`; `attend(layer, q, k, v)` rotates queries and keys and
    /// attends.
    ///
    /// Shapes: `q`: `[N, heads * head_dim]`; `k`, `v`: `[N, kv_heads * head_dim]`; returns `[N, H]`.
    pub(crate) fn blocks(
        &self,
        ids: &[u32],
        positions: &[u32],
        read: Option<&[usize]>,
        attend: &mut dyn FnMut(usize, Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        self.blocks_from(self.embed(ids, positions, None), read, attend)
    }

    /// [`blocks`](Self::blocks) over what is embedded already, `[N, H]`.
    fn blocks_from(
        &self,
        mut x: Tensor<2>,
        read: Option<&[usize]>,
        attend: &mut dyn FnMut(usize, Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let read = read.and_then(|read| ReadRows::of(read, x.dims()[0], &self.device));
        for number in 0..self.layers.len() {
            x = self.block(number, x, read.as_ref(), attend);
        }
        self.last_norm(x, read.as_ref())
    }

    /// The norm of what leaves the last block, `[N, H]` or the rows that are read; returns `[N, H]`.
    pub(crate) fn last_norm(&self, x: Tensor<2>, read: Option<&ReadRows>) -> Tensor<2> {
        let x = self.norm.forward(x);
        match read {
            None => x,
            Some(read) => read.put_back(x),
        }
    }

    /// One block, `[N, H]` to `[N, H]`; the last gives the rows that are read, if not all are.
    pub(crate) fn block(
        &self,
        number: usize,
        x: Tensor<2>,
        read: Option<&ReadRows>,
        attend: &mut dyn FnMut(usize, Tensor<2>, Tensor<2>, Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let layer = &self.layers[number];
        let h = layer.input_norm.forward(x.clone());
        let [q, k, v] = layer.queries_keys_values(&h, &self.config);
        let (mut attended, mut x) = (attend(number, q, k, v), x);
        if let Some(read) = read.filter(|_| number + 1 == self.layers.len()) {
            (attended, x) = (read.take(attended), read.take(x));
        }
        let attended = layer.output.forward(&attended);
        let before = self.config.parallel_residual.then(|| x.clone());
        let x = x + normalized(attended, &layer.attention_norm);
        let h = layer.mlp_norm.forward(before.unwrap_or_else(|| x.clone()));
        x + normalized(layer.mlp(&h, self.config.activation), &layer.mlp_output_norm)
    }

    /// Embeddings of a stream of tokens, `[N, H]`, with `noise` of that shape on the tokens' own.
    fn embed(&self, ids: &[u32], positions: &[u32], noise: Option<Tensor<2>>) -> Tensor<2> {
        let select = |table: &Tensor<2>, rows: Vec<i64>| {
            let rows: Tensor<1, Int> = int_tensor(rows, &self.device);
            table.clone().select(0, rows)
        };
        let mut x = select(&self.embedding, ids.iter().map(|&id| i64::from(id)).collect());
        if self.config.architecture.scaled_embedding {
            x = x.mul_scalar((self.config.hidden_size as f64).sqrt());
        }
        if let Some(noise) = noise {
            x = x + noise;
        }
        if let (Some(table), Positions::Learned { offset }) =
            (&self.positions, self.config.architecture.positions)
        {
            x = x + select(table, positions.iter().map(|&p| i64::from(p) + offset as i64).collect());
        }
        x
    }

    /// Log-probability of each target at its read, of the distribution softmax(logits / temperature).
    ///
    /// Shapes: `hidden`: `[N, H]` as [`hidden`](Self::hidden) returned it; returns `[R]` in the order of `reads`.
    pub fn logprobs(&self, hidden: &Tensor<2>, reads: &Reads, temperature: f64) -> Tensor<1> {
        logprobs::logprobs(hidden, self.output_head(), reads, temperature)
    }

    /// [`logprobs`](Self::logprobs) with the entropy of each distribution and whether the target is its likeliest token.
    pub fn token_statistics(&self, hidden: &Tensor<2>, reads: &Reads, temperature: f64) -> TokenStatistics {
        logprobs::statistics(hidden, self.output_head(), reads, temperature)
    }

    /// Logits of the next token at the given stream indices.
    ///
    /// Shapes: `hidden`: `[N, H]`; returns `[indices.len(), V]`.
    pub fn logits_at(&self, hidden: &Tensor<2>, indices: &[usize]) -> Tensor<2> {
        let index = int_tensor(indices.iter().map(|&i| i as i64).collect(), &self.device);
        let rows = hidden.clone().select(0, index);
        match &self.packed_head {
            Some(packed) => packed.product(&rows),
            None => rows.matmul(self.output_head().clone().transpose()),
        }
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
    /// A target is a name of the family's (`c_attn`), or one of [`PROJECTIONS`] for what does the same here; those that have no
    /// counterpart, as the gate of an MLP without one, are passed over.
    ///
    /// # Errors
    /// If a target is not a projection, none is here, the rank is 0, or the dropout is not from 0 to below 1.
    pub fn add_lora(&mut self, config: &LoraConfig, seed: u64) -> Result<()> {
        let mut own: Vec<&str> = Vec::new();
        for linear in self.layers.iter_mut().take(1).flat_map(Layer::projections_mut) {
            if !own.contains(&linear.short_name()) {
                own.push(linear.short_name());
            }
        }
        let known = |target: &str| own.contains(&target) || PROJECTIONS.contains(&target);
        if let Some(target) = config.targets.iter().find(|target| !known(target)) {
            let reason = format!("LoRA target `{target}` is none of `{}`", own.join("`, `"));
            return Err(ModelError::Input { reason });
        }
        if config.rank == 0 || config.targets.is_empty() {
            let reason = "LoRA needs a rank of at least 1 and at least one target".to_string();
            return Err(ModelError::Input { reason });
        }
        if !(0.0..1.0).contains(&config.dropout) {
            let reason = format!("LoRA's dropout must be from 0 to below 1, got {}", config.dropout);
            return Err(ModelError::Input { reason });
        }
        let (mut stream, mut attached) = (0, 0);
        for linear in self.layers.iter_mut().flat_map(Layer::projections_mut) {
            stream += 1; // counted for every projection: another choice of targets moves no other's numbers
            if config.targets.iter().any(|target| linear.is_target(target)) {
                let [inputs, outputs] = linear.weight.dims();
                linear.lora = Some(Lora::new(inputs, outputs, config, seed, stream, &self.device));
                attached += 1;
            }
        }
        if attached == 0 {
            let (targets, own) = (config.targets.join("`, `"), own.join("`, `"));
            let reason = format!("this model has none of the LoRA targets `{targets}`; it has `{own}`");
            return Err(ModelError::Input { reason });
        }
        self.lora = Some(config.clone());
        self.set_trainable(Trainable::Lora);
        Ok(())
    }

    /// Whether any projection has an adapter.
    pub fn has_lora(&self) -> bool {
        self.lora.is_some()
    }

    /// This decoder with masks on what its adapters read, as [`LoraConfig::dropout`] says; `seed` decides them. For a forward pass
    /// that learns; without adapters or dropout it is the decoder itself.
    pub fn with_dropout(&self, seed: u64) -> Self {
        let mut masked = self.clone();
        let Some(rate) = self.lora.as_ref().map(|lora| lora.dropout).filter(|rate| *rate > 0.0) else {
            return masked;
        };
        let projections = masked.layers.iter_mut().flat_map(Layer::projections_mut);
        for (stream, linear) in (1..).zip(projections) {
            if let Some(lora) = &mut linear.lora {
                lora.dropout = Some(Dropout { rate, seed, stream });
            }
        }
        masked
    }

    /// Adds the adapters to the weights and drops them; nothing is trainable afterwards.
    pub fn merge_lora(&mut self) {
        self.set_trainable(Trainable::None);
        self.lora = None;
        for linear in self.layers.iter_mut().flat_map(Layer::projections_mut) {
            if let Some(lora) = linear.lora.take() {
                linear.weight = linear.weight.clone() + lora.delta();
            }
        }
    }
}

/// Attention over one packed batch, planned once for the layers with a window and once for those without.
pub(crate) struct LayerAttention {
    full: Option<Attention>,
    windowed: Option<Attention>,
}

impl LayerAttention {
    pub fn new(decoder: &Decoder, batch: &PackedBatch) -> Self {
        let config = &decoder.config;
        let (heads, device) = (Heads::of(config), &decoder.device);
        let layers = 0..config.num_hidden_layers;
        let plan = |rope, window| Attention::new(batch, heads, rope, window, device);
        Self {
            full: layers.clone().any(|l| config.window(l).is_none()).then(|| plan(&decoder.rope, None)),
            windowed: layers
                .into_iter()
                .find_map(|l| config.window(l))
                .map(|window| plan(&decoder.local_rope, Some(window))),
        }
    }

    pub fn of(&self, config: &ModelConfig, layer: usize) -> &Attention {
        let plan = if config.window(layer).is_some() { &self.windowed } else { &self.full };
        plan.as_ref().expect("a plan was made for every kind of layer")
    }
}

/// Reads tensors of known shape.
struct Reader<'a> {
    config: &'a ModelConfig,
    weights: &'a dyn WeightSource,
    device: &'a Device,
}

/// Why a table entry is there.
const IN_EVERY_BLOCK: &str = "every family has it, which a test of the tables checks";

impl Reader<'_> {
    fn layer(&self, number: usize) -> Result<Layer> {
        let architecture = self.config.architecture;
        let prefix = format!("{}.{number}.", architecture.names.layers);
        let optional_linear = |role: Role| match self.config.projections().find(|p| p.role == role) {
            None => Ok(None),
            Some(projection) => self.linear(&prefix, projection).map(Some),
        };
        let linear = |role: Role| Ok(optional_linear(role)?.expect(IN_EVERY_BLOCK));
        let optional_norm = |place: Place| match architecture.norm_name(place) {
            None => Ok(None),
            Some(name) => self.norm(&prefix, name, self.config.norm_width(place)).map(Some),
        };
        let norm = |place: Place| Ok(optional_norm(place)?.expect(IN_EVERY_BLOCK));
        Ok(Layer {
            input_norm: norm(Place::Input)?,
            attention: match optional_linear(Role::QueryKeyValue)? {
                Some(fused) => QueryKeyValue::Fused(fused),
                None => QueryKeyValue::Separate {
                    query: linear(Role::Query)?,
                    key: linear(Role::Key)?,
                    value: linear(Role::Value)?,
                },
            },
            query_norm: optional_norm(Place::Query)?,
            key_norm: optional_norm(Place::Key)?,
            output: linear(Role::Output)?,
            attention_norm: optional_norm(Place::AttentionOutput)?,
            mlp_norm: norm(Place::Mlp)?,
            gate: optional_linear(Role::Gate)?,
            up: linear(Role::Up)?,
            down: linear(Role::Down)?,
            mlp_output_norm: optional_norm(Place::MlpOutput)?,
            packed_attention: None,
            packed_mlp: None,
        })
    }

    fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>> {
        let got =
            self.weights.shape(name).ok_or_else(|| ModelError::MissingTensor { name: name.to_string() })?;
        if got != expected {
            return Err(ModelError::TensorShape { name: name.to_string(), expected: expected.to_vec(), got });
        }
        self.weights.load_f32(name)
    }

    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Tensor<2>> {
        let values = self.values(&format!("{name}.weight"), &shape)?;
        Ok(Tensor::from_data(TensorData::new(values, shape), self.device))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Tensor<2>> {
        Ok(Tensor::from_data(TensorData::new(self.values(name, &[len])?, [1, len]), self.device))
    }

    fn norm(&self, prefix: &str, name: &'static str, width: usize) -> Result<Norm> {
        let kind = self.config.architecture.norm;
        let bias = match kind {
            NormKind::Layer => Some(self.vector(&format!("{prefix}{name}.bias"), width)?),
            NormKind::Rms | NormKind::RmsOnePlus => None,
        };
        let weight = self.vector(&format!("{prefix}{name}.weight"), width)?;
        Ok(Norm { name, kind, epsilon: self.config.norm_eps, weight, bias })
    }

    fn linear(&self, prefix: &str, projection: Projection) -> Result<Linear> {
        let Projection { role, name, inputs, outputs, bias } = projection;
        let stored = format!("{prefix}{name}.weight");
        let weight = match self.config.architecture.conv1d {
            true => self.values(&stored, &[inputs, outputs])?,
            false => transposed(&self.values(&stored, &[outputs, inputs])?, outputs, inputs),
        };
        let weight = Tensor::from_data(TensorData::new(weight, [inputs, outputs]), self.device);
        let bias = if bias { Some(self.vector(&format!("{prefix}{name}.bias"), outputs)?) } else { None };
        Ok(Linear { role, name, weight, bias, lora: None, packed: None })
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
