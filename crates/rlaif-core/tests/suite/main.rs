//! Tests of configs and of statistics on data. One binary, since each would hold the whole program once more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod config;
mod coverage;
mod golden_pandalm;
mod pandalm;
mod planted;
mod quickstart;
