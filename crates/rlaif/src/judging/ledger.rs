//! The engine's tasks and events, on the ledger.
//!
//! This is the one place that knows both a judge's calls and the database, and it knows nothing else of this program: neither
//! tensors, nor bars, nor the config. The load and kill tests of `rlaif-mock-judge` include this very file, so that what they prove is
//! proven of what runs.

use rlaif_core::clock::now_ms;
use rlaif_core::money::MicroUsd;
use rlaif_judge::chat::RawReply;
use rlaif_judge::engine::{Event, Journal, Task, TaskSource, Then};
use rlaif_judge::reply::again_body;
use rlaif_store::StoreError;
use rlaif_store::store::{AskAgain, CallEvent, Next, Request, RequestFailure, Spooled, Store};
use std::cell::Cell;
use std::time::Duration;

/// Useless replies that are looked at in one transaction.
const REPLIES_A_PAGE: usize = 256;

/// A parked task is drawn again no sooner than this, so that the ledger has it by then.
const SHORTEST_PARK: Duration = Duration::from_millis(50);

/// The planned requests of a judge, page by page.
pub struct Planned<'a> {
    store: &'a Store,
    judge: &'a str,
    sets: &'a [&'a str],
    /// How many may still be drawn that are not parked.
    left: usize,
    /// The place of the last one that was drawn.
    after: i64,
    /// Time and place of the last parked one that was drawn.
    due_after: (i64, i64),
}

impl<'a> Planned<'a> {
    /// The first `at_most` that are planned for some sets, in the order of planning, and all that are parked.
    pub fn new(store: &'a Store, judge: &'a str, sets: &'a [&'a str], at_most: usize) -> Self {
        Self { store, judge, sets, left: at_most, after: 0, due_after: (0, 0) }
    }

    /// Whether there may be more than were drawn.
    pub fn has_more(&self) -> bool {
        self.left == 0
    }
}

impl TaskSource for Planned<'_> {
    type Error = StoreError;

    async fn fresh(&mut self, at_most: usize) -> Result<Vec<Task>, StoreError> {
        let at_most = at_most.min(self.left);
        if at_most == 0 {
            return Ok(Vec::new());
        }
        let page = self.store.planned_in(self.judge, self.sets, self.after, at_most).await?;
        self.left -= page.len();
        self.after = page.last().map_or(self.after, |request| request.seq);
        // Retries of an earlier run do not count in this one.
        Ok(page.into_iter().map(|request| Task { retries: 0, ..task(request) }).collect())
    }

    async fn due(&mut self, at_most: usize) -> Result<(Vec<Task>, Option<Duration>), StoreError> {
        let now = now_ms();
        let page = self.store.due(self.judge, self.sets, self.due_after, now, at_most).await?;
        self.due_after = page.last().map_or(self.due_after, |(time, request)| (*time, request.seq));
        let next = match page.is_empty() {
            true => self.store.next_due(self.judge, self.sets, self.due_after).await?,
            false => None,
        };
        let wait = next.map(|time| Duration::from_millis((time - now).max(1).unsigned_abs()));
        Ok((page.into_iter().map(|(_, request)| task(request)).collect(), wait))
    }
}

/// A request as the engine takes it.
pub fn task(request: Request) -> Task {
    Task {
        id: request.seq,
        body: request.body,
        prompt_tokens_at_most: request.prompt_tokens_at_most,
        max_tokens: request.max_tokens,
        attempts: request.attempts,
        retries: request.retries as usize,
        resends: request.resends as usize,
        first_sent_ms: request.first_sent_ms,
    }
}

/// What was recorded so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that have their reply or were given up.
    pub ended: u64,
    /// Those that were given up.
    pub given_up: u64,
    /// What the budget counts.
    pub charged: MicroUsd,
    /// When the last call that has to wait for long may be sent, in milliseconds since 1970.
    pub parked_until_ms: Option<i64>,
}

/// Writes what the engine tells into the ledger.
pub struct Ledger<'a, F: Fn(Tally)> {
    store: &'a Store,
    stage: &'a str,
    judge: &'a str,
    tally: Cell<Tally>,
    told: F,
}

impl<'a, F: Fn(Tally)> Ledger<'a, F> {
    /// Calls of a judge on the account of a stage; `told` hears of every commit.
    pub fn new(store: &'a Store, stage: &'a str, judge: &'a str, told: F) -> Self {
        Self { store, stage, judge, tally: Cell::default(), told }
    }

    /// What was recorded so far.
    pub fn tally(&self) -> Tally {
        self.tally.get()
    }
}

impl<F: Fn(Tally)> Journal for Ledger<'_, F> {
    type Error = StoreError;
    type Kept = Spooled;

    fn arrived(&self, task: i64, attempt: u32, reply: &RawReply) -> Result<Spooled, StoreError> {
        self.store.spool(task, attempt, reply.status, &reply.body)
    }

    async fn record(&self, events: Vec<Event<Spooled>>) -> Result<(), StoreError> {
        let now = now_ms();
        let stored: Vec<CallEvent<'_>> = events.iter().map(|event| call_event(event, now)).collect();
        self.store.commit_calls(self.stage, self.judge, &stored).await?;
        let mut tally = self.tally.get();
        for event in &events {
            let (charged, ended, given_up) = match event {
                Event::Claimed { .. } => (None, 0, 0),
                Event::Replied { charged, .. } => (*charged, 1, 0),
                Event::Failed { charged, then: Then::GivenUp, .. } => (*charged, 1, 1),
                Event::Failed { charged, then, .. } => {
                    if let Then::Park(wait) = then {
                        tally.parked_until_ms = tally.parked_until_ms.max(Some(later(now, *wait)));
                    }
                    (*charged, 0, 0)
                }
                Event::Held { .. } => (None, 1, 1),
            };
            tally.charged = [tally.charged, charged.unwrap_or_default()].iter().sum();
            tally.ended += ended;
            tally.given_up += given_up;
        }
        self.tally.set(tally);
        (self.told)(tally);
        Ok(())
    }
}

/// Plans one more request for each reply to a judge's requests for these sets that is no use. Returns how many.
///
/// # Errors
/// If the ledger cannot be read or written.
pub async fn ask_again(store: &Store, judge: &str, sets: &[&str]) -> Result<usize, StoreError> {
    let (mut after, mut count) = (0, 0);
    loop {
        let page = store.useless_replies(judge, sets, after, REPLIES_A_PAGE).await?;
        let Some(last) = page.last() else { return Ok(count) };
        after = last.seq;
        let again: Vec<AskAgain> = page
            .iter()
            .map(|useless| {
                let (body, max_tokens) = again_body(&useless.body, &useless.fault, useless.max_tokens);
                let key = format!("{}\nagain\n{body}", useless.request_key);
                let request_key = blake3::hash(key.as_bytes()).to_hex().to_string();
                AskAgain { seq: useless.seq, request_key, body, max_tokens }
            })
            .collect();
        count += again.len();
        store.ask_again(&again).await?;
    }
}

fn call_event(event: &Event<Spooled>, now: i64) -> CallEvent<'_> {
    match event {
        Event::Claimed { task, attempt, reserved } => {
            CallEvent::Claimed { request: *task, attempt: *attempt, reserved: *reserved }
        }
        Event::Replied { task, attempt, reply, kept, usage, cost, charged } => CallEvent::Replied {
            request: *task,
            attempt: *attempt,
            http_status: reply.status,
            raw: &reply.body,
            usage: *usage,
            cost: *cost,
            charged: *charged,
            spooled: *kept,
        },
        Event::Failed { task, attempt, error, charged, then } => CallEvent::Failed {
            request: *task,
            attempt: *attempt,
            class: error.fate.as_str(),
            kind: error.kind.as_str(),
            message: &error.message,
            http_status: error.status,
            charged: *charged,
            next: match then {
                Then::Retry(_) => Next::Retry,
                Then::Park(wait) => Next::Park(later(now, *wait)),
                Then::GivenUp => Next::GiveUp,
                Then::StopsTheRun => Next::Open,
            },
        },
        Event::Held { task, .. } => {
            CallEvent::GivenUp { request: *task, failure: RequestFailure::RESENT_OFTEN }
        }
    }
}

fn later(now: i64, wait: Duration) -> i64 {
    now.saturating_add(i64::try_from(wait.max(SHORTEST_PARK).as_millis()).unwrap_or(i64::MAX))
}
