//! Tests of the program, as its users run it. One binary, since each would hold the whole program once more.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod asking;
mod audit_people;
mod audit_preferences;
mod audit_study;
mod bad_input;
mod batches;
mod bias;
mod cards;
mod chromium;
mod common;
mod end_to_end;
mod evaluate;
mod evaluate_lab;
mod export;
#[cfg(feature = "hub")]
mod hub;
mod iterate;
mod judge_server;
mod keys;
mod pipes;
mod preference_data;
mod report;
mod report_browser;
mod review;
mod review_browser;
mod review_lab;
mod revise;
mod robustness;
mod routing;
mod sft;
mod watch;
