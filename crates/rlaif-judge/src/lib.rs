//! AI judges: how they are asked, how their replies are read, and what their verdicts add up to.
//!
//! | module | holds |
//! |---|---|
//! | [`template`] | what a judge is asked and how its answer is read: files; responses cannot leave their slots |
//! | [`defence`] | what keeps a response from fooling its judge: secrets of a call, harmless texts, rules, probes |
//! | [`chat`] | the request, the raw reply, and every way in which a call fails |
//! | [`provider`] | whoever is asked: one type for all providers |
//! | [`openai`] | the dialect of OpenAI-compatible endpoints and Azure: one call, one attempt |
//! | [`anthropic`] | the dialect of Anthropic's messages |
//! | [`http`] | what their clients share: keys, limits, and what a failure means |
//! | [`capability`] | what an endpoint holds answers to, asked once |
//! | [`batch`] | the same requests at half the price, within a day |
//! | [`retry`] | which failures are worth another attempt, and when |
//! | [`budget`] | money set aside before a call is sent, so that the limit holds at any concurrency |
//! | [`engine`] | many calls at once; the journal has each reply before anyone reads it |
//! | [`answer`] | raw reply → what the judge answered: text, tokens, or why neither |
//! | [`completion`] | raw reply of any provider → one struct |
//! | [`reply`] | raw reply → verdict and usage, a pure function |
//! | [`soft`] | token log-probabilities → soft labels and expected ratings |
//! | [`mod@parse`] | what a judge's text says, in every style that judges write; `rlaif parse` |
//! | [`local`] | judges that this program loads: contrastive and pairwise log-probabilities |
//! | [`pairwise`] | orders in which a pair is shown, and verdicts → preference |
//! | [`probe`] | how valid a judge is on labelled pairs |
//!
//! This crate knows no database and no tensors.

pub mod answer;
pub mod anthropic;
pub mod batch;
pub mod budget;
pub mod capability;
pub mod chat;
pub mod completion;
pub mod confidence;
pub mod defence;
pub mod engine;
pub mod http;
mod http_error;
mod json_mend;
pub mod local;
pub mod openai;
pub mod pairwise;
pub mod parse;
pub mod probe;
pub mod provider;
pub mod reply;
pub mod retry;
pub mod soft;
pub mod template;
pub mod usage;

pub use answer::{Answer, read_answer};
pub use anthropic::Anthropic;
pub use budget::Budget;
pub use capability::{Capabilities, Form};
pub use chat::{CallError, CallErrorKind, CallFate, ChatModel, ChatRequest, RawReply};
pub use completion::Completion;
pub use engine::{Event, Journal, Stop, Task, judge_all};
pub use local::{Greedy, LogprobModel, NextTokenItem, ScoreItem};
pub use openai::OpenAi;
pub use pairwise::{JudgeVerdict, aggregate, orders};
pub use parse::{Parsed, Style, parse};
pub use provider::Provider;
pub use reply::{Reading, read_completion, read_reply};
pub use soft::{LabelSet, SoftRating, SoftVerdict, bare_verdict, soft_rating, soft_verdict, with_soft_label};
pub use template::{Asker, Settings, Template, View};
