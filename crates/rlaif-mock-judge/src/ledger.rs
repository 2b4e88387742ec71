//! What was asked, answered and billed: the truth that a client's own books are checked against.

use crate::chaos::Mode;
use rlaif_core::money::{MicroUsd, Usage};
use rlaif_core::records::Choice;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One call, as the server saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of the call in this ledger, from 0, in the order of their ends.
    pub number: u64,
    /// `chat`, `messages`, `chat_batch`, `messages_batch` or `download`.
    pub endpoint: String,
    /// BLAKE3 of the raw body, in hexadecimal; of a batch's request, of its body as it stands in the file.
    pub request: String,
    /// How often this request had come, from 1.
    pub attempt: u32,
    /// What it met: a name of [`Mode`].
    pub mode: String,
    /// The status that was sent, where one was.
    pub status: Option<u16>,
    /// True if every byte of the reply was handed to the operating system. In a batch: the result is in a file.
    pub written: bool,
    /// True if the call costs money.
    pub billed: bool,
    /// The tokens that are billed; all 0 where nothing is.
    #[serde(flatten)]
    pub usage: Usage,
    /// What is billed.
    #[serde(rename = "cost_micro_usd")]
    pub cost: MicroUsd,
    /// The response that the verdict names, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Choice>,
    /// True if the fixed position was named, whatever stood there.
    #[serde(default)]
    pub position_biased: bool,
    /// When the body had come, in microseconds since 1970.
    pub received_us: u64,
    /// When the call was over, in microseconds since 1970.
    pub finished_us: u64,
    /// The batch that it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// Its `custom_id` in the batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_id: Option<String>,
}

impl Entry {
    /// A call that has just come and has met nothing yet.
    pub(crate) fn new(endpoint: &str, request: &blake3::Hash, attempt: u32, mode: Mode) -> Self {
        Self {
            number: 0,
            endpoint: endpoint.to_owned(),
            request: request.to_hex().to_string(),
            attempt,
            mode: mode.as_str().to_owned(),
            status: None,
            written: false,
            billed: false,
            usage: Usage::default(),
            cost: MicroUsd::ZERO,
            said: None,
            position_biased: false,
            received_us: now_us(),
            finished_us: 0,
            batch: None,
            custom_id: None,
        }
    }

    /// True if a whole reply was paid for and delivered in which nothing was wrong: what must not be bought again.
    pub fn is_bought(&self) -> bool {
        self.billed
            && self.written
            && (self.mode == Mode::Answer.as_str() || self.mode == Mode::WrongModel.as_str())
    }
}

/// Totals.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Calls that are over.
    pub calls: u64,
    /// Calls that are not over yet.
    pub open: u64,
    /// Different requests.
    pub requests: u64,
    /// Calls whose reply was written to its end.
    pub written: u64,
    /// Calls that cost money.
    pub billed: u64,
    /// Replies without fault that were delivered and paid for.
    pub bought: u64,
    /// Those of `bought` beyond the first of each request: money spent twice.
    pub bought_again: u64,
    /// Billed calls beyond the first of each request, for whatever reason.
    pub billed_again: u64,
    /// Connections that were reset before a byte was read.
    pub refused_connections: u64,
    /// Lines that could not be written to the file.
    pub unwritten_lines: u64,
    /// Tokens billed.
    #[serde(flatten)]
    pub usage: Usage,
    /// Money billed.
    #[serde(rename = "cost_micro_usd")]
    pub cost: MicroUsd,
    /// Calls by what they met.
    pub modes: BTreeMap<String, u64>,
}

/// Why a ledger's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use `{}` as ledger", path.display())]
pub struct LedgerError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The ledger. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    open: AtomicU64,
    refused: AtomicU64,
    keep: bool,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    file: Option<File>,
    entries: Vec<Entry>,
    summary: Summary,
    /// Times billed and times bought, by request.
    requests: HashMap<String, (u64, u64)>,
}

impl Ledger {
    /// A ledger in memory (`keep`), in a file, both or neither. A file that is there already is read and added to.
    ///
    /// # Errors
    /// If the file cannot be read or opened.
    pub(crate) fn open(path: Option<&Path>, keep: bool) -> Result<(Self, Vec<Entry>), LedgerError> {
        let mut books = Books::default();
        let mut earlier = Vec::new();
        if let Some(path) = path {
            let failed = |source| LedgerError { path: path.to_owned(), source };
            let mut file = File::options().read(true).append(true).create(true).open(path).map_err(failed)?;
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(failed)?;
            if !text.is_empty() && !text.ends_with('\n') {
                // The last line of a mock that was killed while writing is no entry.
                file.write_all(b"\n").map_err(failed)?;
            }
            earlier = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            for entry in &earlier {
                books.count(entry);
            }
            if keep {
                books.entries.clone_from(&earlier);
            }
            books.file = Some(file);
        }
        let inner =
            Inner { open: AtomicU64::new(0), refused: AtomicU64::new(0), keep, books: Mutex::new(books) };
        Ok((Self { inner: Arc::new(inner) }, earlier))
    }

    /// A panic elsewhere leaves the books as they were after a whole entry.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.inner.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every call that is over, in the order of their ends; empty if calls are not kept.
    pub fn entries(&self) -> Vec<Entry> {
        self.books().entries.clone()
    }

    /// The totals.
    pub fn summary(&self) -> Summary {
        let books = self.books();
        Summary {
            open: self.inner.open.load(Ordering::SeqCst),
            refused_connections: self.inner.refused.load(Ordering::SeqCst),
            requests: books.requests.len() as u64,
            ..books.summary.clone()
        }
    }

    /// Waits until no call is open, so that the ledger holds whatever a client has seen. False if some still are after `most`.
    pub async fn settled(&self, most: Duration) -> bool {
        let end = std::time::Instant::now() + most;
        while self.inner.open.load(Ordering::SeqCst) > 0 {
            if std::time::Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    pub(crate) fn refused_connection(&self) {
        self.inner.refused.fetch_add(1, Ordering::SeqCst);
    }

    /// Begins a call, which is recorded when it is dropped, whatever became of it.
    pub(crate) fn begin(&self, entry: Entry) -> Call {
        self.inner.open.fetch_add(1, Ordering::SeqCst);
        Call { ledger: self.clone(), entry }
    }

    /// Records an entry that is over.
    pub(crate) fn record(&self, mut entry: Entry) {
        entry.finished_us = now_us();
        let mut books = self.books();
        entry.number = books.summary.calls;
        let mut line = serde_json::to_vec(&entry).expect("an entry has text keys only");
        line.push(b'\n');
        // One write a line: lines of several processes, and a kill in between, leave whole lines.
        let failed = books.file.as_mut().and_then(|file| file.write_all(&line).err());
        if let Some(error) = failed {
            if books.summary.unwritten_lines == 0 {
                eprintln!("warning: the ledger's file has gaps from here on: {error}");
            }
            books.summary.unwritten_lines += 1;
        }
        books.count(&entry);
        if self.inner.keep {
            books.entries.push(entry);
        }
    }
}

impl Books {
    fn count(&mut self, entry: &Entry) {
        let summary = &mut self.summary;
        summary.calls += 1;
        summary.written += u64::from(entry.written);
        match summary.modes.get_mut(&entry.mode) {
            Some(count) => *count += 1,
            None => drop(summary.modes.insert(entry.mode.clone(), 1)),
        }
        if entry.endpoint == "download" {
            return;
        }
        let (billed, bought) = self.requests.entry(entry.request.clone()).or_default();
        if entry.billed {
            summary.billed += 1;
            summary.billed_again += u64::from(*billed > 0);
            *billed += 1;
            summary.usage = summary.usage.plus(entry.usage);
            summary.cost = [summary.cost, entry.cost].iter().sum();
        }
        if entry.is_bought() {
            summary.bought += 1;
            summary.bought_again += u64::from(*bought > 0);
            *bought += 1;
        }
    }
}

/// An open call.
#[derive(Debug)]
pub(crate) struct Call {
    ledger: Ledger,
    /// What is known of it so far.
    pub(crate) entry: Entry,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.ledger.record(self.entry.clone());
        self.ledger.inner.open.fetch_sub(1, Ordering::SeqCst);
    }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bought(index: u8) -> Entry {
        Entry {
            written: true,
            billed: true,
            cost: MicroUsd(7),
            usage: Usage { prompt_tokens: 5, completion_tokens: 2, ..Usage::default() },
            ..Entry::new("chat", &blake3::hash(&[index]), 1, Mode::Answer)
        }
    }

    #[test]
    fn totals_know_what_was_bought_twice() {
        let (ledger, _) = Ledger::open(None, true).unwrap();
        ledger.record(bought(0));
        ledger.record(bought(0));
        ledger.record(Entry { written: false, ..bought(1) });
        ledger.record(bought(1));
        ledger.record(Entry { billed: false, cost: MicroUsd::ZERO, ..bought(2) });
        let summary = ledger.summary();
        assert_eq!((summary.calls, summary.requests, summary.billed, summary.bought), (5, 3, 4, 3));
        assert_eq!((summary.bought_again, summary.billed_again), (1, 2));
        assert_eq!((summary.cost, summary.usage.prompt_tokens), (MicroUsd(28), 20));
        assert_eq!(ledger.entries().iter().map(|entry| entry.number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_file_is_gone_on_with_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.jsonl");
        let (ledger, earlier) = Ledger::open(Some(&path), false).unwrap();
        assert!(earlier.is_empty());
        ledger.record(bought(0));
        drop(ledger);
        File::options().append(true).open(&path).unwrap().write_all(b"{\"number\":1,\"endp").unwrap();
        let (ledger, earlier) = Ledger::open(Some(&path), false).unwrap();
        assert_eq!(earlier.len(), 1);
        ledger.record(bought(0));
        assert_eq!(ledger.summary().bought_again, 1);
        assert!(ledger.entries().is_empty(), "not kept in memory");
        let text = std::fs::read_to_string(&path).unwrap();
        let whole = text.lines().filter(|line| serde_json::from_str::<Entry>(line).is_ok()).count();
        assert_eq!((whole, text.lines().count()), (2, 3));
    }

    #[tokio::test]
    async fn an_open_call_is_recorded_when_it_is_dropped() {
        let (ledger, _) = Ledger::open(None, true).unwrap();
        let call = ledger.begin(bought(0));
        assert_eq!((ledger.summary().open, ledger.summary().calls), (1, 0));
        assert!(!ledger.settled(Duration::from_millis(5)).await);
        drop(call);
        assert!(ledger.settled(Duration::ZERO).await);
        assert_eq!(ledger.summary().calls, 1);
    }
}
