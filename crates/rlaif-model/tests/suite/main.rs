//! Tests of models: forward, sampling, adapters, files. One binary, since each would hold the whole program once more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod architectures;
mod common;
mod export;
mod forward;
mod generate;
mod gguf;
mod gguf_writer;
mod hostile_files;
mod instructions;
mod lora;
mod rounded;
mod save;
mod smollm2;
mod tokenizer;
