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
//! | [`engine`] | many calls at once; the journal has each reply before anyone reads it |
//! | [`answer`] | raw reply → what the judge answered: text, tokens, or why neither |
//! | [`reply`] | raw reply → verdict and usage, a pure function |
//! | [`mod@parse`] | what a judge's text says, in every style that judges write; `rlaif parse` |
//! | [`confidence`] | a confidence that the judge was asked to state, as a probability |
//! | [`local`] | judges that this program loads: contrastive and pairwise log-probabilities |
//! | [`pairwise`] | orders in which a pair is shown, and what one judge says over both orders and all votes |
//! | [`aggregate`](mod@aggregate) | what all judges' verdicts on a pair add up to: a preference |
//! | [`panel`] | judges weighed by what they are worth: Dawid-Skene and Bradley-Terry |
//! | [`cascade`] | which pairs the next, dearer judge is asked about |
//! | [`voter_report`] | what each judge and template said, by place |
//! | [`probe`] | how valid a judge is on labelled pairs |
//!
//! This crate knows no database and no tensors.

pub mod aggregate;
pub mod answer;
pub mod budget;
pub mod cascade;
pub mod chat;
pub mod confidence;
pub mod defence;
pub mod engine;
pub mod local;
pub mod openai;
pub mod pairwise;
pub mod panel;
pub mod parse;
pub mod probe;
pub mod reply;
pub mod retry;
pub mod template;
pub mod usage;
pub mod voter_report;

pub use aggregate::aggregate;
pub use answer::{Answer, read_answer};
pub use budget::Budget;
pub use chat::{CallError, CallErrorKind, CallFate, ChatModel, ChatRequest, RawReply};
pub use engine::{Event, Journal, Stop, Task, judge_all};
pub use local::{Greedy, LogprobModel, NextTokenItem, ScoreItem};
pub use openai::OpenAi;
pub use pairwise::{JudgeVerdict, orders, voters};
pub use panel::{FitItem, FittedPanel, FittedVoter};
pub use parse::{Parsed, Style, parse};
pub use reply::{Reading, read_reply};
pub use template::{Asker, Settings, Template, View};
pub use voter_report::{VoterReport, voter_reports};
