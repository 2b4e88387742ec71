//! GGUF, llama.cpp's one-file format: a header of typed metadata, then tensors, often in blocks of few bits
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! * [`reader`](Gguf) checks the header of a file that nobody vouches for.
//! * [`dequantize`] turns a tensor's blocks into float32.
//! * [`GgufWeights`] names and orders the tensors as transformers does.
//! * [`save_gguf`] writes a model as llama.cpp's `convert_hf_to_gguf.py` does, for llama.cpp.

mod dequantize;
mod from_model;
mod from_tokenizer;
mod quantize;
mod reader;
mod to_config;
mod to_tokenizer;
mod weights;
mod writer;

pub use dequantize::{GgmlType, dequantize};
pub use from_model::save_gguf;
pub use quantize::quantize;
pub use reader::{Gguf, GgufTensor, GgufValue};
pub(crate) use to_tokenizer::{GgufTokenizer, tokenizer_from_gguf};
pub use weights::GgufWeights;
