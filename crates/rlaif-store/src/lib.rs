//! The ledger of a run, and JSONL in and out.
//!
//! | module | holds |
//! |---|---|
//! | [`store`] | [`Store`]: one SQLite file with prompts, responses, pairs, requests, replies, verdicts, scores, preferences |
//! | [`jsonl`] | prompts, preferences and probe pairs from JSONL, with bad rows kept aside; files written whole or not at all |
//!
//! What the ledger promises:
//!
//! * What was committed survives kill -9 and power loss (WAL with `synchronous=FULL`).
//! * A reply is committed as raw bytes before anything reads it, and a request that has one is never sent again.
//! * A request that was sent and not heard of again is counted as possibly billed when the ledger is next opened.
//! * Requests and replies are never deleted; verdicts and preferences are derived from them and can be computed again.
//! * Every insert can be repeated: a stage that was killed runs again over its units and changes nothing that is there.
//!
//! This crate knows neither judges nor models.

pub mod jsonl;
pub mod store;

mod error;

pub use error::StoreError;
pub use store::Store;

/// Results of this crate.
pub type Result<T> = std::result::Result<T, StoreError>;
