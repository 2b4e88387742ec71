//! From planned requests to harvested replies, through batches, with every step written down before the next.
//!
//! ```text
//! intend ─▶ upload ─▶ creating ─▶ create ─▶ created ─▶ poll … ─▶ harvest ─▶ ended
//!   │                    │                                                   │
//!   └ a crash here:      └ a crash here: the provider's list says            └ what has no result is sent again
//!     nothing was made     whether it was made
//! ```

use super::{BatchClient, BatchItem, BatchLimits, Found, ItemOutcome, ItemResult, RemoteBatch};
use crate::chat::{CallError, CallFate};
use std::collections::HashSet;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// Results that are handed to the ledger at once.
const RESULTS_A_COMMIT: usize = 256;

/// A batch, or the intent of one, that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenBatch {
    /// Our name for it.
    pub name: String,
    /// Who was to pay.
    pub account: String,
    /// When it was intended.
    pub intended: SystemTime,
    /// How many requests it has.
    pub items: usize,
    /// Whether it may have been made: the call that makes it was about to be sent.
    pub creating: bool,
    /// Its name at the provider, once that is known.
    pub id: Option<String>,
    /// The provider's names of batches that are known to be others.
    pub others: Vec<String>,
}

/// Where batches are written down. Each call is durable when it returns.
pub trait BatchLedger {
    /// What can go wrong inside, such as a full disk.
    type Error;

    /// Batches that have not ended.
    ///
    /// # Errors
    /// If they cannot be read.
    fn open(&mut self) -> impl Future<Output = Result<Vec<OpenBatch>, Self::Error>>;

    /// Requests that are in no open batch, have no reply and are not given up: as many as one batch holds.
    ///
    /// # Errors
    /// If they cannot be read.
    fn unsent(&mut self, limits: BatchLimits) -> impl Future<Output = Result<Vec<BatchItem>, Self::Error>>;

    /// A batch is going to be made of these requests.
    ///
    /// # Errors
    /// If it cannot be written.
    fn intend(
        &mut self,
        name: &str,
        account: &str,
        items: &[BatchItem],
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// The call that makes it is going to be sent.
    ///
    /// # Errors
    /// If it cannot be written.
    fn creating(&mut self, name: &str) -> impl Future<Output = Result<(), Self::Error>>;

    /// It was made.
    ///
    /// # Errors
    /// If it cannot be written.
    fn created(&mut self, name: &str, id: &str) -> impl Future<Output = Result<(), Self::Error>>;

    /// It was not made: its requests are unsent again.
    ///
    /// # Errors
    /// If it cannot be written.
    fn forget(&mut self, name: &str) -> impl Future<Output = Result<(), Self::Error>>;

    /// Results of some of its requests. The same may come again after a crash; a reply that is there is kept.
    ///
    /// # Errors
    /// If they cannot be written.
    fn harvest(
        &mut self,
        name: &str,
        results: Vec<ItemResult>,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// It has ended and all its results are harvested. Requests without a reply are unsent again; the ledger gives up those that came
    /// back without one too often.
    ///
    /// # Errors
    /// If it cannot be written.
    fn ended(
        &mut self,
        name: &str,
        word: &str,
        problem: Option<&str>,
    ) -> impl Future<Output = Result<(), Self::Error>>;

    /// Whether a request is one of this batch.
    ///
    /// # Errors
    /// If it cannot be read.
    fn holds(&mut self, name: &str, custom_id: &str) -> impl Future<Output = Result<bool, Self::Error>>;
}

/// How batches are driven.
#[derive(Debug, Clone)]
pub struct BatchOptions {
    /// The most that one batch holds; never more than the provider allows.
    pub limits: BatchLimits,
    /// Batches that are open at once.
    pub most_open: usize,
    /// First wait between two looks at the open batches; it doubles up to `poll_at_most`.
    pub poll: Duration,
    /// Longest wait between two looks.
    pub poll_at_most: Duration,
    /// A batch that is in no list this long after its intent was never made.
    pub settle: Duration,
    /// Set to true to leave the batches with the provider and return.
    pub stop: watch::Receiver<bool>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchSummary {
    /// Batches made.
    pub created: usize,
    /// Batches whose making was not recorded and that were found again.
    pub found_again: usize,
    /// Replies harvested.
    pub replies: usize,
    /// Results without a reply.
    pub without_reply: usize,
    /// True if `stop` was set; open batches go on at the provider.
    pub interrupted: bool,
}

/// Why it cannot go on. Everything that came is in the ledger; open batches go on at the provider.
#[derive(Debug, thiserror::Error)]
pub enum BatchStop<E> {
    /// The provider refuses.
    #[error("{0}")]
    Call(CallError),
    /// A batch belongs to another account, whose key would be needed to fetch it.
    #[error(
        "the batch `{id}` was made with another key or at another endpoint; use that one until it has ended"
    )]
    OtherAccount {
        /// Its name at the provider, or ours.
        id: String,
    },
    /// Batches fail before any of their requests is done.
    #[error("the batch `{id}` failed: {problem}")]
    Failed {
        /// Its name at the provider.
        id: String,
        /// The provider's words.
        problem: String,
    },
    /// Something could not be stored or read.
    #[error("a batch could not be recorded")]
    Ledger(E),
}

/// Sends all unsent requests in batches and waits until every batch has ended. Goes on where a crash left it: no batch is made
/// twice, and no result is left.
///
/// Dropping the future is as safe as a crash.
///
/// # Errors
/// See [`BatchStop`].
pub async fn drive<L: BatchLedger>(
    client: &BatchClient,
    ledger: &mut L,
    options: &BatchOptions,
) -> Result<BatchSummary, BatchStop<L::Error>> {
    let mut summary = BatchSummary::default();
    let account = client.account();
    let mut wait = options.poll;
    let mut failed_in_a_row = 0;
    let provider = client.limits();
    let limits = BatchLimits {
        requests: options.limits.requests.min(provider.requests).max(1),
        bytes: options.limits.bytes.min(provider.bytes),
    };
    loop {
        let mut moved = false;
        let open = ledger.open().await.map_err(BatchStop::Ledger)?;
        let mut left = open.len();
        for batch in &open {
            if batch.account != account {
                return Err(BatchStop::OtherAccount {
                    id: batch.id.clone().unwrap_or_else(|| batch.name.clone()),
                });
            }
            let remote = match &batch.id {
                Some(id) => transient(client.poll(id).await)?,
                None => match recover(client, ledger, batch, options).await? {
                    Recovered::Found(remote) => {
                        summary.found_again += 1;
                        moved = true;
                        Some(remote)
                    }
                    Recovered::NeverMade => {
                        left -= 1;
                        moved = true;
                        None
                    }
                    Recovered::NotYetKnown => None,
                },
            };
            if let Some(remote) = remote.filter(|remote| remote.ended) {
                let replies = summary.replies;
                let Some(()) = transient(harvest(client, ledger, batch, &remote, &mut summary).await?)?
                else {
                    continue;
                };
                ledger
                    .ended(&batch.name, &remote.word, remote.problem.as_deref())
                    .await
                    .map_err(BatchStop::Ledger)?;
                left -= 1;
                moved = true;
                failed_in_a_row = if summary.replies > replies { 0 } else { failed_in_a_row + 1 };
                // A provider that is asked for too much at once says so by failing; two in a row with nothing else open will not mend.
                if let Some(problem) = remote.problem.filter(|_| failed_in_a_row >= 2 && left == 0) {
                    return Err(BatchStop::Failed { id: remote.id, problem });
                }
            }
        }
        if *options.stop.borrow() {
            summary.interrupted = true;
            return Ok(summary);
        }
        while left < options.most_open.max(1) && (failed_in_a_row == 0 || left == 0) {
            let items = ledger.unsent(limits).await.map_err(BatchStop::Ledger)?;
            if items.is_empty() {
                break;
            }
            if !submit(client, ledger, &account, &items, &mut summary).await? {
                break;
            }
            left += 1;
            moved = true;
        }
        if left == 0 && !moved {
            return Ok(summary);
        }
        if left == 0 {
            continue;
        }
        wait = if moved { options.poll } else { (wait * 2).min(options.poll_at_most) };
        let mut stop = options.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            stopped = stop.wait_for(|&stop| stop) => if stopped.is_err() {
                tokio::time::sleep(wait).await; // nobody is left who could ask
            },
        }
    }
}

/// `None` for a failure that another look may mend.
fn transient<T, E>(outcome: Result<T, CallError>) -> Result<Option<T>, BatchStop<E>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind.is_transient() => {
            tracing::warn!(error = %error, "batches are looked at again later");
            Ok(None)
        }
        Err(error) => Err(BatchStop::Call(error)),
    }
}

/// Makes one batch. False if the provider cannot take one now.
async fn submit<L: BatchLedger>(
    client: &BatchClient,
    ledger: &mut L,
    account: &str,
    items: &[BatchItem],
    summary: &mut BatchSummary,
) -> Result<bool, BatchStop<L::Error>> {
    let name = name_of(items);
    ledger.intend(&name, account, items).await.map_err(BatchStop::Ledger)?;
    let file = match client.upload(&name, items).await {
        Ok(file) => file,
        // A file costs nothing, so that it does not matter whether it arrived.
        Err(error) => {
            ledger.forget(&name).await.map_err(BatchStop::Ledger)?;
            return transient(Err::<(), _>(error)).map(|_| false);
        }
    };
    ledger.creating(&name).await.map_err(BatchStop::Ledger)?;
    match client.create(&name, file.as_deref(), items).await {
        Ok(remote) => {
            ledger.created(&name, &remote.id).await.map_err(BatchStop::Ledger)?;
            summary.created += 1;
            Ok(true)
        }
        // It stays an intent that may have been made; the next look finds out.
        Err(error) if error.fate == CallFate::MaybeBilled || error.status.is_some_and(|s| s >= 500) => {
            transient(Err::<(), _>(error)).map(|_| true)
        }
        Err(error) => {
            ledger.forget(&name).await.map_err(BatchStop::Ledger)?;
            transient(Err::<(), _>(error)).map(|_| false)
        }
    }
}

enum Recovered {
    Found(RemoteBatch),
    NeverMade,
    NotYetKnown,
}

/// Finds out what became of an intent.
async fn recover<L: BatchLedger>(
    client: &BatchClient,
    ledger: &mut L,
    open: &OpenBatch,
    options: &BatchOptions,
) -> Result<Recovered, BatchStop<L::Error>> {
    if !open.creating {
        ledger.forget(&open.name).await.map_err(BatchStop::Ledger)?;
        return Ok(Recovered::NeverMade);
    }
    let Some(found) = transient(client.find(open).await)? else { return Ok(Recovered::NotYetKnown) };
    match found {
        Found::Batch(remote) => {
            ledger.created(&open.name, &remote.id).await.map_err(BatchStop::Ledger)?;
            return Ok(Recovered::Found(remote));
        }
        Found::Perhaps(candidates) => {
            let mut unsure = false;
            for candidate in candidates {
                let Some(remote) = transient(client.poll(&candidate.id).await)? else {
                    return Ok(Recovered::NotYetKnown);
                };
                if !remote.ended {
                    unsure = true;
                    continue;
                }
                let Some(first) = transient(first_id(client, &remote).await)? else {
                    return Ok(Recovered::NotYetKnown);
                };
                let Some(first) = first else { continue };
                if ledger.holds(&open.name, &first).await.map_err(BatchStop::Ledger)? {
                    ledger.created(&open.name, &remote.id).await.map_err(BatchStop::Ledger)?;
                    return Ok(Recovered::Found(remote));
                }
            }
            // Until all of them have ended, its requests wait: sent again, they might be paid for twice.
            if unsure {
                return Ok(Recovered::NotYetKnown);
            }
        }
        Found::Nothing => {}
    }
    let age = SystemTime::now().duration_since(open.intended).unwrap_or_default();
    if age < options.settle {
        return Ok(Recovered::NotYetKnown);
    }
    ledger.forget(&open.name).await.map_err(BatchStop::Ledger)?;
    Ok(Recovered::NeverMade)
}

/// The id of any result of a batch.
async fn first_id(client: &BatchClient, remote: &RemoteBatch) -> Result<Option<String>, CallError> {
    for place in &remote.results {
        if let Some(result) = client.results(place).await?.next().await? {
            return Ok(Some(result.custom_id));
        }
    }
    Ok(None)
}

/// Hands all results to the ledger. The inner error is the provider's, the outer one the ledger's.
async fn harvest<L: BatchLedger>(
    client: &BatchClient,
    ledger: &mut L,
    open: &OpenBatch,
    remote: &RemoteBatch,
    summary: &mut BatchSummary,
) -> Result<Result<(), CallError>, BatchStop<L::Error>> {
    let mut seen: HashSet<String> = HashSet::new();
    for place in &remote.results {
        let mut results = match client.results(place).await {
            Ok(results) => results,
            Err(error) => return Ok(Err(error)),
        };
        let mut page = Vec::new();
        loop {
            let next = match results.next().await {
                Ok(next) => next,
                Err(error) => return Ok(Err(error)),
            };
            let ended = next.is_none();
            // A provider that gives an id twice is believed the first time.
            page.extend(next.filter(|result| seen.insert(result.custom_id.clone())));
            if page.len() >= RESULTS_A_COMMIT || (ended && !page.is_empty()) {
                for result in &page {
                    match result.outcome {
                        ItemOutcome::Replied(_) => summary.replies += 1,
                        ItemOutcome::NotDone(_) | ItemOutcome::Refused(_) => summary.without_reply += 1,
                    }
                }
                let page = std::mem::take(&mut page);
                ledger.harvest(&open.name, page).await.map_err(BatchStop::Ledger)?;
            }
            if ended {
                break;
            }
        }
    }
    Ok(Ok(()))
}

/// A name that no other intent has: the same requests in a later batch make another.
fn name_of(items: &[BatchItem]) -> String {
    let mut hasher = blake3::Hasher::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    hasher.update(&now.as_nanos().to_le_bytes());
    for item in items {
        hasher.update(item.custom_id.as_bytes());
        hasher.update(b"\n");
        hasher.update(item.body.as_bytes());
        hasher.update(b"\n");
    }
    hasher.finalize().to_hex()[..32].to_owned()
}
