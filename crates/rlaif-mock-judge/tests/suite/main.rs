//! Tests of the mock judge, and of paying once against it. One binary, since each would hold the whole program once more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod batches;
mod batches_paid_once;
mod chaos;
mod chat;
mod common;
mod paying;
mod paying_once;
mod probes;
