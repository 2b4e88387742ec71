//! Log-probabilities of tokens, read only where a loss needs them.
//!
//! On the CPU a fused kernel does the work; elsewhere, and as its reference, chunks of tensor operations.

use burn::tensor::{Tensor, TensorData, activation::log_softmax};

use crate::attention::int_tensor;
use crate::batch::Reads;

/// Rows of logits that exist at once; 256 rows of a vocabulary of 50k are 50 MB.
const CHUNK: usize = 256;

/// Log-probability, entropy and rank at each read.
pub struct TokenStatistics {
    /// log p(target | tokens before), `[R]`.
    pub logprobs: Tensor<1>,
    /// Entropy of the whole next-token distribution in nats, `[R]`; carries no gradient.
    pub entropy: Tensor<1>,
    /// 1 where no token is likelier than the target, else 0, `[R]`; carries no gradient.
    pub top: Tensor<1>,
}

/// log softmax(h W^T / temperature) at the targets.
///
/// Shapes: `hidden`: `[N, H]`; `head`: `[V, H]`; returns `[R]`, in the order of `reads`.
pub fn logprobs(hidden: &Tensor<2>, head: &Tensor<2>, reads: &Reads, temperature: f64) -> Tensor<1> {
    read(hidden, head, reads, temperature, false).logprobs
}

/// [`logprobs`] with the entropy of each distribution, -sum p log p, and whether the target is its likeliest token.
pub fn statistics(hidden: &Tensor<2>, head: &Tensor<2>, reads: &Reads, temperature: f64) -> TokenStatistics {
    read(hidden, head, reads, temperature, true)
}

fn read(
    hidden: &Tensor<2>,
    head: &Tensor<2>,
    reads: &Reads,
    temperature: f64,
    with_statistics: bool,
) -> TokenStatistics {
    #[cfg(feature = "flex")]
    if !reads.is_empty() && crate::device::is_flex(&hidden.device()) {
        let plan = crate::kernels::logprobs::ReadPlan {
            indices: reads.indices.clone(),
            targets: reads.targets.clone(),
            temperature: temperature as f32,
            with_statistics,
            precision: crate::matmul_precision::float32_matmul_precision(),
        };
        let count = reads.len();
        let rows = crate::kernels::token_statistics(hidden, head, plan); // [3, R]
        return TokenStatistics {
            logprobs: rows.clone().narrow(0, 0, 1).reshape([count]),
            entropy: rows.clone().inner().narrow(0, 1, 1).reshape([count]),
            top: rows.inner().narrow(0, 2, 1).reshape([count]),
        };
    }
    portable(hidden, head, reads, temperature, with_statistics)
}

pub(crate) fn portable(
    hidden: &Tensor<2>,
    head: &Tensor<2>,
    reads: &Reads,
    temperature: f64,
    with_statistics: bool,
) -> TokenStatistics {
    let device = hidden.device().inner();
    let (mut logprobs, mut entropy, mut top) = (Vec::new(), Vec::new(), Vec::new());
    for (indices, targets) in reads.indices.chunks(CHUNK).zip(reads.targets.chunks(CHUNK)) {
        let rows = indices.len();
        let read = hidden.clone().select(0, int_tensor(indices.iter().map(|&i| i as i64).collect(), &device));
        let logits = read.matmul(head.clone().transpose()).div_scalar(temperature); // [rows, V]
        let distribution = log_softmax(logits, 1);
        let targets = int_tensor(targets.iter().map(|&t| i64::from(t)).collect(), &device).reshape([rows, 1]);
        let chosen = distribution.clone().gather(1, targets); // [rows, 1]
        logprobs.push(chosen.clone().reshape([rows]));
        if with_statistics {
            let distribution = distribution.inner();
            top.push(chosen.inner().greater_equal(distribution.clone().max_dim(1)).float().reshape([rows]));
            let summed = (distribution.clone().exp() * distribution).sum_dim(1).neg();
            entropy.push(summed.reshape([rows]));
        }
    }
    let join = |parts: Vec<Tensor<1>>| match parts.is_empty() {
        true => Tensor::from_data(TensorData::new(Vec::<f32>::new(), [0]), &device),
        false => Tensor::cat(parts, 0),
    };
    TokenStatistics { logprobs: join(logprobs), entropy: join(entropy), top: join(top) }
}
