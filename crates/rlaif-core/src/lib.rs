//! Words, config and statistics of the rlaif pipeline.
//!
//! | module | holds |
//! |---|---|
//! | [`records`] | prompt, response, pair, presentation, verdict, preference: what stages read and write |
//! | [`config`] | one struct a section of `rlaif.toml`, with documentation, defaults and `validate()` |
//! | [`stats`] | intervals, agreement, calibration, position bias |
//! | [`money`] | micro-dollars, and what a call costs |
//! | [`prices`] | what judges charge: the config first, then a small table that ships |
//! | [`seed`] | random streams derived from (run seed, purpose, index) |
//! | [`pair_choice`] | which pairs are worth a judge's time |
//! | [`people`] | what people say of pairs, and what it comes to |
//! | [`audit`] | what an audit measured, and whether it is within bounds |
//! | [`preference_set`] | what is wrong with a set of preferences: duplicates, contradictions, imbalance, leaks, personal data |
//! | [`routing`] | who labels a pair: people, judges or both |
//! | [`clock`] | milliseconds since 1970 |
//! | [`failpoint`] | where a test lets the process die |
//! | [`similarity`] | when two responses are too near to make a pair |
//! | [`markdown`] | how much markdown is in a text |
//! | [`metrics`] | TRL's metric names, one row of `metrics/*.jsonl` |
//!
//! This crate knows no files, no network, no async runtime and no tensors.

pub mod audit;
pub mod clock;
pub mod config;
pub mod failpoint;
pub mod markdown;
pub mod metrics;
pub mod money;
pub mod pair_choice;
pub mod people;
pub mod preference_set;
pub mod prices;
pub mod records;
pub mod routing;
pub mod seed;
pub mod similarity;
pub mod stats;

pub use config::Config;
pub use money::MicroUsd;
