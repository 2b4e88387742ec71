//! What a judge is asked, and how its answer is read: templates as files, with a typed front matter.
//!
//! | module | holds |
//! |---|---|
//! | [`front_matter`] | what a template says of itself: protocol, fields, steps, how the verdict is written |
//! | [`mod@file`] | reading and compiling a file in a sandbox; the built-in ones in `templates/` |
//! | [`asker`] | a template with the criteria, examples and secrets of a run: it asks, and it reads |
//! | `slots` | texts that cannot leave their place |
//! | `labels` | how the responses are named: labels, or codes that no response could know |
//! | [`few_shot`] | examples whose verdicts lean to no place |
//! | `read` | replies → verdict or rating, a pure function |
//!
//! `docs/judges.md` says how to choose one and how to write one.

pub mod asker;
mod error;
pub mod few_shot;
pub mod file;
pub mod front_matter;
mod labels;
mod read;
mod slots;
#[cfg(test)]
mod tests;

pub use asker::{Asker, Settings, View};
pub use error::TemplateError;
pub use file::{Template, built_in_names};
pub use front_matter::{AnswerKind, Field, FrontMatter, Step, TemplateProtocol};

/// The seed of all that is random about a call: the same in every run of the same seed, so that requests keep their keys, and
/// unknown to whoever wrote the responses. `subject` is the pair, or the response of a rating; both orders of a pair share it.
pub fn nonce(run_seed: u64, subject: &str, vote: u32) -> u64 {
    rlaif_core::seed::derive(run_seed, &format!("nonce/{subject}"), u64::from(vote))
}
