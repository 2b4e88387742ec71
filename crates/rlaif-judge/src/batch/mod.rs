//! Batches: the same requests at half the price, answered within a day.
//!
//! | file | holds |
//! |---|---|
//! | `openai` | the wire format of OpenAI, which `vllm run-batch` reads and writes too |
//! | `anthropic` | the wire format of Anthropic's message batches |
//! | `driver` | what happens when: intent, upload, create, poll, harvest; and where it goes on after a crash |
//!
//! Neither provider takes an idempotency key. So the intent is written down before anything is sent, and after a crash the
//! provider's list says whether the batch was made: OpenAI's by the metadata that it was given, Anthropic's by the time and the number
//! of its requests, and by their ids once it has ended.

mod anthropic;
mod driver;
mod openai;

pub use driver::{BatchLedger, BatchOptions, BatchStop, BatchSummary, OpenBatch, drive};
pub use openai::{export_lines, read_line as read_exported_line};

use crate::chat::{CallError, CallErrorKind, CallFate};
use crate::http::{Endpoint, Lines};
use crate::json_mend;
use crate::provider::Provider;
use serde_json::Value;
use std::time::SystemTime;

/// A request in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchItem {
    /// Its name in the batch and in its results: 1 to 64 letters, digits, `-` and `_`, each once. The ledger's key.
    pub custom_id: String,
    /// As a single call would send it, see [`crate::ChatModel::body`].
    pub body: String,
}

impl BatchItem {
    /// A bound on the bytes that it takes in a batch.
    pub fn size(&self) -> usize {
        self.custom_id.len() + self.body.len() + 96
    }
}

/// The most that one batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Requests.
    pub requests: usize,
    /// Bytes of the file or body.
    pub bytes: usize,
}

/// What the provider says of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteBatch {
    /// Its name there.
    pub id: String,
    /// The provider's word for its state.
    pub word: String,
    /// Whether nothing more will happen to it.
    pub ended: bool,
    /// Paths or URLs of its results; none yet, or none at all.
    pub results: Vec<String>,
    /// Why it failed, where it did.
    pub problem: Option<String>,
}

/// What became of one request of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemResult {
    /// Which one.
    pub custom_id: String,
    /// What.
    pub outcome: ItemOutcome,
}

/// See [`ItemResult`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOutcome {
    /// A reply, as a single call would have got it, marked as one of a batch so that it is priced as one.
    Replied(Vec<u8>),
    /// Not done and not billed, and worth another batch: expired, cancelled, overloaded.
    NotDone(String),
    /// Refused for good: the same request will be refused again.
    Refused(String),
}

/// The batches of one endpoint.
#[derive(Debug, Clone)]
pub struct BatchClient {
    endpoint: Endpoint,
    dialect: Dialect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    Anthropic,
}

/// What is known of an intent whose batch was not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// This one is it.
    Batch(RemoteBatch),
    /// It was never made.
    Nothing,
    /// One of these may be it, and only their results will tell.
    Perhaps(Vec<RemoteBatch>),
}

impl Provider {
    /// Its batches; `None` if it has none that this program knows.
    pub fn batches(&self) -> Option<BatchClient> {
        let dialect = match self {
            Self::OpenAi(_) => Dialect::OpenAi,
            Self::Anthropic(_) => Dialect::Anthropic,
            Self::Azure(_) => return None,
        };
        Some(BatchClient { endpoint: self.endpoint().clone(), dialect })
    }
}

impl BatchClient {
    /// Who pays: a hash of endpoint and key. Another key does not see the batches of this one.
    pub fn account(&self) -> String {
        self.endpoint.account()
    }

    /// The provider's limits; of bytes less than it allows, since a batch is held in memory while it is sent.
    pub fn limits(&self) -> BatchLimits {
        match self.dialect {
            Dialect::OpenAi => BatchLimits { requests: 50_000, bytes: 64 << 20 },
            Dialect::Anthropic => BatchLimits { requests: 100_000, bytes: 64 << 20 },
        }
    }

    /// Uploads what has to be uploaded first, and says its name.
    async fn upload(&self, name: &str, items: &[BatchItem]) -> Result<Option<String>, CallError> {
        match self.dialect {
            Dialect::OpenAi => openai::upload(&self.endpoint, name, items).await.map(Some),
            Dialect::Anthropic => Ok(None),
        }
    }

    /// Makes the batch.
    async fn create(
        &self,
        name: &str,
        file: Option<&str>,
        items: &[BatchItem],
    ) -> Result<RemoteBatch, CallError> {
        match self.dialect {
            Dialect::OpenAi => openai::create(&self.endpoint, name, file.unwrap_or_default()).await,
            Dialect::Anthropic => anthropic::create(&self.endpoint, items).await,
        }
    }

    /// Looks for the batch of an intent.
    async fn find(&self, open: &OpenBatch) -> Result<Found, CallError> {
        match self.dialect {
            Dialect::OpenAi => openai::find(&self.endpoint, &open.name, open.intended).await,
            Dialect::Anthropic => anthropic::find(&self.endpoint, open).await,
        }
    }

    /// Asks how a batch stands.
    async fn poll(&self, id: &str) -> Result<RemoteBatch, CallError> {
        match self.dialect {
            Dialect::OpenAi => openai::poll(&self.endpoint, id).await,
            Dialect::Anthropic => anthropic::poll(&self.endpoint, id).await,
        }
    }

    /// Opens one place of the results of a batch that has ended; they come in any order.
    async fn results(&self, place: &str) -> Result<Results, CallError> {
        let lines = match self.dialect {
            Dialect::OpenAi => openai::results(&self.endpoint, place).await?,
            Dialect::Anthropic => anthropic::results(&self.endpoint, place).await?,
        };
        Ok(Results { lines, dialect: self.dialect })
    }
}

/// Results as they come in.
#[derive(Debug)]
struct Results {
    lines: Lines,
    dialect: Dialect,
}

impl Results {
    /// The next one; lines that are none are left out, so that what they were about is asked again.
    async fn next(&mut self) -> Result<Option<ItemResult>, CallError> {
        while let Some(line) = self.lines.next().await? {
            let read = match self.dialect {
                Dialect::OpenAi => openai::read_line(&line),
                Dialect::Anthropic => anthropic::read_line(&line),
            };
            if read.is_some() {
                return Ok(read);
            }
        }
        Ok(None)
    }
}

/// The JSON of a reply that is about batches.
fn read_json(endpoint: &Endpoint, what: &str, body: &[u8]) -> Result<Value, CallError> {
    json_mend::parse(body).map_err(|_| odd(endpoint, what, body))
}

fn odd(endpoint: &Endpoint, what: &str, body: &[u8]) -> CallError {
    let said = endpoint.scrub(&String::from_utf8_lossy(body));
    let message =
        format!("`{}` answered {what} in a form that this program does not know: {said}", endpoint.path(""));
    CallError::new(CallErrorKind::BadRequest, CallFate::MaybeBilled, message)
}

/// Seconds since 1970.
pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
