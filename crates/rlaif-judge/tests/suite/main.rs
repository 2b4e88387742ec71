//! Tests of asking judges: clients, engine, batches, verdicts. One binary, since each would hold the whole program once more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod batches;
mod engine;
mod openai;
mod planted_judge;
mod properties;
mod providers;
mod transcripts;
