//! Tests of trainers: golden steps, known optima, exact resume. One binary, since each would hold the whole program once more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod ahead;
mod best_checkpoint;
mod bfloat16;
mod common;
mod dpo_losses;
mod ensemble;
mod golden_group;
mod golden_optimizers;
mod golden_ppo;
mod golden_preference;
mod golden_sft;
mod gradient_checkpointing;
mod known_optimum;
mod kto;
mod over_optimisation;
mod resume;
mod reward_heads;
mod sft;
mod toy;
