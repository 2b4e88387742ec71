//! Not being fooled: what stands between a response and the judge that reads it.
//!
//! The attacker is usually our own policy, which finds by gradient what a judge falls for. Each defence stops something else:
//!
//! | module | stops |
//! |---|---|
//! | [`codes`] | closing a slot (tags), asking for a verdict by name (verdict codes), reading the instructions out (canary) |
//! | [`mod@neutralise`] | opening a turn with control tokens, saying what the reader does not see |

pub mod codes;
pub mod neutralise;

pub use codes::{canary, leaks_canary, tag_code, verdict_codes};
pub use neutralise::neutralise;
