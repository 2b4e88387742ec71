//! A judge to test and rehearse against. It speaks OpenAI's and Anthropic's protocols on this machine, knows how good each
//! response is, and is wrong, biased, slow, limited and broken exactly as much as it is told to be. What it was asked, answered
//! and billed is in its ledger, the truth that a client's own books are checked against.
//!
//! In a test:
//!
//! ```no_run
//! # async fn test() -> Result<(), rlaif_mock_judge::StartError> {
//! use rlaif_mock_judge::{MockJudge, Options};
//! let judge = MockJudge::start(Options { accuracy: 0.8, chaos: 0.2, ..Options::default() }).await?;
//! // … point a client at `judge.base_url()`, then:
//! assert_eq!(judge.settled_summary().await.bought_again, 0);
//! # Ok(()) }
//! ```
//!
//! On the command line: `rlaif-mock-judge --help`, and `docs/mock-judge.md` for a rehearsal of a whole run.
//!
//! A call goes through these modules in turn: [`server`](MockJudge) and `connection` (bytes), [`ask`] (what is wanted), `limits`,
//! [`chaos`](Mode) (what it meets), [`extract`] (the responses in the prompt), [`opinion`] (which one is named), [`writing`] and
//! `logprobs` (in which words), `wire` (in which provider's shape), [`ledger`](Ledger). Batches go through the same judge in `batch`.

pub mod ask;
mod batch;
mod call;
mod chaos;
mod connection;
pub mod extract;
mod ledger;
mod limits;
mod logprobs;
pub mod opinion;
mod options;
mod reply;
mod server;
mod wire;
pub mod writing;

pub use chaos::{Group, Mode, Weighted};
pub use ledger::{Entry, Ledger, LedgerError, Summary};
pub use options::{AnswerStyle, BatchEnd, FormKind, Latency, Options, OptionsError, Position};
pub use server::{MockJudge, StartError};
