//! Gradient checkpointing, Chen et al. 2016 (<https://arxiv.org/abs/1604.06174>), a block of the decoder at a time: the forward pass
//! keeps what enters each block and nothing else, and the backward pass computes a block again when it comes to it.
//!
//! Memory for activations falls from that of all blocks to that of one and `[N, H]` a block; time grows by one forward pass. Gradients
//! are the same bit by bit where a block reads its input twice, as all families but GPT-NeoX do, whose sum of three has another order.

use burn::tensor::{Gradients, Tensor};

use crate::batch::PackedBatch;
use crate::decoder::{Decoder, LayerAttention, ReadRows};
use crate::params::Trainable;

/// What a forward pass kept for its backward pass.
#[derive(Debug)]
pub struct Checkpoints {
    batch: PackedBatch,
    read: Option<ReadRows>,
    /// What enters each block, `[N, H]`, without autodiff.
    inputs: Vec<Tensor<2>>,
    /// What leaves the last one; a leaf of the graph above it.
    output: Tensor<2>,
}

impl Decoder {
    /// [`Decoder::hidden_with_noise`] whose blocks are not in the graph of the hidden states: [`Checkpoints::backward`] goes on below it.
    pub fn checkpointed(
        &self,
        batch: &PackedBatch,
        read: &[usize],
        noise: Option<Vec<f32>>,
    ) -> (Tensor<2>, Checkpoints) {
        let read = ReadRows::of(read, batch.num_tokens(), self.device());
        let frozen = self.frozen();
        let attention = LayerAttention::new(&frozen, batch);
        let mut x = frozen.embed_batch(batch, noise);
        let mut inputs = Vec::with_capacity(frozen.layers.len());
        for number in 0..frozen.layers.len() {
            inputs.push(x.clone());
            x = frozen.block(number, x, read.as_ref(), &mut |layer, q, k, v| {
                attention.of(&frozen.config, layer).forward(q, k, v)
            });
        }
        let output = x.autodiff().require_grad();
        let hidden = self.last_norm(output.clone(), read.as_ref());
        (hidden, Checkpoints { batch: batch.clone(), read, inputs, output })
    }
}

impl Checkpoints {
    /// Goes on with a backward pass from the gradients above the blocks. `decoder` is the one that was
    /// [`checkpointed`](Decoder::checkpointed); `take` collects parameters' gradients, first of the graph above, then of each block
    /// from the last to the first, then of the embedding.
    pub fn backward(self, decoder: &Decoder, mut gradients: Gradients, take: &mut dyn FnMut(&mut Gradients)) {
        take(&mut gradients);
        let Some(mut gradient) = self.output.grad_remove(&mut gradients) else { return };
        drop(gradients);
        let attention = LayerAttention::new(decoder, &self.batch);
        for (number, input) in self.inputs.into_iter().enumerate().rev() {
            let input = input.autodiff().require_grad();
            let output = decoder.block(number, input.clone(), self.read.as_ref(), &mut |layer, q, k, v| {
                attention.of(&decoder.config, layer).forward(q, k, v)
            });
            let mut gradients = (output * gradient).sum().backward();
            take(&mut gradients);
            match input.grad_remove(&mut gradients) {
                Some(below) => gradient = below,
                None => return,
            }
        }
        if decoder.trainable() == Trainable::Full {
            let embedded = decoder.embed_batch(&self.batch, None); // noise moves no slope
            take(&mut (embedded * gradient).sum().backward());
        }
    }
}
