//! AI judges: how they are asked, how their replies are read, and what their verdicts add up to.
//!
//! | module | holds |
//! |---|---|
//! | [`template`] | what a judge is asked and how its answer is read: files; responses cannot leave their slots |
//! | [`defence`] | what keeps a response from fooling its judge: secrets of a call, harmless texts, rules, probes |
//! | [`chat`] | the request, the raw reply, and every way in which a call fails |
//! | [`openai`] | the client of OpenAI-compatible endpoints: one call, one attempt |
//! | [`retry`] | which failures are worth another attempt, and when |
//! | [`budget`] | money set aside before a call is sent, so that the limit holds at any concurrency |
//! | [`limits`] | how fast an endpoint may be asked: pace, calls in flight, what its headers say |
//! | [`engine`] | many calls at once; the journal has each reply before anyone reads it |
//! | [`answer`] | raw reply → what the judge answered: text, tokens, or why neither |
//! | [`reply`] | raw reply → verdict and usage, a pure function |
//! | [`mod@parse`] | what a judge's text says, in every style that judges write; `rlaif parse` |
//! | [`local`] | judges that this program loads: contrastive and pairwise log-probabilities |
//! | [`pairwise`] | orders in which a pair is shown, and verdicts → preference |
//! | [`probe`] | how valid a judge is on labelled pairs |
//!
//! This crate knows no database and no tensors.

pub mod answer;
pub mod budget;
pub mod chat;
pub mod confidence;
pub mod defence;
pub mod engine;
pub mod limits;
pub mod local;
pub mod openai;
pub mod pairwise;
pub mod parse;
pub mod probe;
pub mod reply;
pub mod retry;
pub mod template;
pub mod usage;

pub use answer::{Answer, read_answer};
pub use budget::Budget;
pub use chat::{CallError, CallErrorKind, CallFate, ChatModel, ChatRequest, RawReply};
pub use engine::{Event, Journal, Stop, Task, TaskSource, judge_all};
pub use limits::{LimitHints, LimitOptions};
pub use local::{Greedy, LogprobModel, NextTokenItem, ScoreItem};
pub use openai::OpenAi;
pub use pairwise::{JudgeVerdict, aggregate, orders};
pub use parse::{Parsed, Style, parse};
pub use reply::{Reading, is_same_model, read_reply};
pub use template::{Asker, Settings, Template, View};
