//! AI judges: how they are asked, how their replies are read, and what their verdicts add up to.
//!
//! | module | holds |
//! |---|---|
//! | [`template`] | what a judge is asked and how its answer is read: files; responses cannot leave their slots |
//! | [`defence`] | what keeps a response from fooling its judge: secrets of a call, harmless texts, rules, probes |
//! | [`bias`] | social-bias probes: what should not move when one group is put in another's place |
//! | [`chat`] | the request, the raw reply, and every way in which a call fails |
//! | [`provider`] | whoever is asked: one type for all providers |
//! | [`openai`] | the dialect of OpenAI-compatible endpoints and Azure: one call, one attempt |
//! | [`anthropic`] | the dialect of Anthropic's messages |
//! | [`http`] | what their clients share: keys, limits, and what a failure means |
//! | [`capability`] | what an endpoint holds answers to: what is asked to find out, and how the answer is read |
//! | [`batch`] | the same requests at half the price, within a day |
//! | [`retry`] | which failures are worth another attempt, and when |
//! | [`budget`] | money set aside before a call is sent, so that the limit holds at any concurrency |
//! | [`limits`] | how fast an endpoint may be asked: pace, calls in flight, what its headers say |
//! | [`engine`] | many calls at once; the journal has each reply before anyone reads it |
//! | [`answer`] | raw reply → what the judge answered: text, tokens, or why neither |
//! | [`completion`] | raw reply of any provider → one struct |
//! | [`reply`] | raw reply → verdict and usage, a pure function |
//! | [`soft`] | token log-probabilities → soft labels and expected ratings |
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
pub mod anthropic;
pub mod batch;
pub mod bias;
pub mod budget;
pub mod capability;
pub mod cascade;
pub mod chat;
pub mod completion;
pub mod confidence;
pub mod defence;
pub mod engine;
pub mod http;
mod http_error;
mod json_mend;
pub mod limits;
pub mod local;
pub mod openai;
pub mod pairwise;
pub mod panel;
pub mod parse;
pub mod probe;
pub mod provider;
pub mod reply;
pub mod retry;
pub mod soft;
pub mod template;
pub mod usage;
pub mod voter_report;

pub use aggregate::aggregate;
pub use answer::{Answer, read_answer};
pub use anthropic::Anthropic;
pub use budget::Budget;
pub use capability::{Capabilities, Form};
pub use chat::{CallError, CallErrorKind, CallFate, ChatModel, ChatRequest, RawReply};
pub use completion::Completion;
pub use engine::{Event, Journal, Stop, Task, TaskSource, judge_all};
pub use limits::{LimitHints, LimitOptions};
pub use local::{Greedy, LogprobModel, NextTokenItem, ScoreItem};
pub use openai::OpenAi;
pub use pairwise::{JudgeVerdict, orders, voters};
pub use panel::{FitItem, FittedPanel, FittedVoter};
pub use parse::{Parsed, Style, parse};
pub use provider::Provider;
pub use reply::{Reading, is_same_model, read_completion, read_reply};
pub use soft::{LabelSet, SoftRating, SoftVerdict, soft_rating, soft_verdict, with_soft_label};
pub use template::{Asker, Settings, Template, View};
pub use voter_report::{VoterReport, voter_reports};
