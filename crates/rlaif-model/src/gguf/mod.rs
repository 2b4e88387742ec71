//! GGUF, llama.cpp's one-file format: a header of typed metadata, then tensors, often in blocks of few bits
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! * [`reader`](Gguf) checks the header of a file that nobody vouches for.
//! * [`dequantize`] turns a tensor's blocks into float32.
//! * [`GgufWeights`] names and orders the tensors as transformers does.

mod dequantize;
mod reader;
mod to_config;
mod to_tokenizer;
mod weights;

pub use dequantize::{GgmlType, dequantize};
pub use reader::{Gguf, GgufTensor, GgufValue};
pub(crate) use to_tokenizer::{GgufTokenizer, tokenizer_from_gguf};
pub use weights::GgufWeights;
