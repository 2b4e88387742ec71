//! Not being fooled: what stands between a response and the judge that reads it.
//!
//! The attacker is usually our own policy, which finds by gradient what a judge falls for. Each defence stops something else:
//!
//! | module | stops |
//! |---|---|
//! | [`codes`] | closing a slot (tags), asking for a verdict by name (verdict codes), reading the instructions out (canary) |
//! | [`rules`] | winning with nothing, or by length: decided or set aside before a call is paid |
//! | [`attacks`] | nothing; they show what a judge falls for: probes of an audit, tripwires of live traffic |
//! | [`tally`] | a judge that falls for a family: what the wins of the bad response mean |
//! | [`mod@neutralise`] | opening a turn with control tokens, saying what the reader does not see |

pub mod attacks;
pub mod codes;
pub mod neutralise;
pub mod rules;
pub mod tally;

pub use codes::{canary, leaks_canary, tag_code, verdict_codes};
pub use neutralise::neutralise;
pub use tally::{Finding, Tally};
