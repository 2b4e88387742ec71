//! Decoder language models: files in, a forward pass for training and scoring, sampling, files out.
//!
//! | to | see |
//! |---|---|
//! | open a model wherever it is | [`ModelFiles`], [`ModelConfig`], [`WeightSource`], [`Tokenizer`], [`ChatTemplate`] |
//! | run it | [`Decoder`] over a [`PackedBatch`], read at [`Reads`]; [`ScalarHead`] for scores and values |
//! | train it | [`Trainable`], [`Decoder::parameters`], [`Decoder::map_parameters`], [`Decoder::add_lora`], [`Decoder::checkpointed`],
//! | | [`Decoder::round_to_bfloat16`] |
//! | sample from it | [`Generator`], or [`generate`] for once, with [`SamplingConfig`] |
//! | write it down | [`save_causal_lm`], [`save_reward_model`], [`Adapter`]; in other formats [`export_safetensors`], [`save_gguf`] |
//!
//! There is one implementation of the mathematics. Every step has a portable form in Burn tensors; on the CPU, the steps where time
//! goes have a fused kernel with its own backward pass, tested against the portable form (`kernels/`).

mod adapter;
mod architecture;
mod attention;
mod batch;
mod cache;
mod chat_template;
mod config;
mod decoder;
mod device;
mod error;
mod generate;
mod gguf;
mod heads;
#[cfg(feature = "flex")]
mod kernels;
mod logprobs;
mod lora;
mod matmul_precision;
mod ops;
mod packed;
mod params;
mod precision;
mod recompute;
mod rope;
mod safetensors_io;
mod sampling;
mod save;
mod simd;
mod source;
mod tokenizer;
mod turns;
mod weights;
mod workers;

pub use adapter::{Adapter, adapter_base, export_adapter, is_adapter};
pub use architecture::{Activation, Architecture};
pub use batch::{PackedBatch, Reads, Segment, SegmentId, common_prefix};
pub use chat_template::{ChatTemplate, SpecialStrings};
pub use config::{ModelConfig, RopeScaling};
pub use decoder::Decoder;
pub use device::{available as available_devices, open_device};
pub use error::{ModelError, Result};
pub use generate::{GenerateProgress, GenerateRequest, Generator, Sample, generate};
pub use gguf::{GgmlType, Gguf, GgufTensor, GgufValue, GgufWeights, dequantize, quantize, save_gguf};
pub use heads::ScalarHead;
pub use logprobs::TokenStatistics;
pub use lora::PROJECTIONS;
pub use matmul_precision::{float32_matmul_precision, set_float32_matmul_precision};
pub use params::Trainable;
pub use precision::rounded_to_bfloat16;
pub use recompute::Checkpoints;
pub use safetensors_io::{SafetensorsWeights, SaveDtype, save_safetensors, save_sharded};
pub use sampling::{SamplingConfig, sample_token};
pub use save::{export_safetensors, save_causal_lm, save_reward_model};
pub use source::ModelFiles;
pub use tokenizer::Tokenizer;
pub use turns::Turn;
pub use weights::WeightSource;
