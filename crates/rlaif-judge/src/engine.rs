//! Many calls at once. What happens is told to a journal, in this order for each call: the claim before it is sent, the raw reply
//! as soon as its last byte is here, and its end. Events queue up while the journal commits others, so that thousands of calls a
//! second share a few hundred commits; a call is sent only after the commit of its claim, and a task counts as done only after the
//! commit of its reply.
//!
//! ```text
//! source ─page─▶ fresh ─claim─▶ commit ─▶ in flight ─reply─▶ journal.arrived ─▶ commit ─▶ done
//!                  ▲                          │ failure: waits here (short) or in the ledger (long), then claims again
//!                  └──────────────────────────┘
//! ```
//!
//! Memory holds two pages of tasks, the calls in flight, and a bounded number of tasks that wait for a retry.

use crate::budget::{Budget, Reservation};
use crate::chat::{CallError, CallErrorKind, CallFate, ChatModel, RawReply};
use crate::completion::Completion;
use crate::limits::{LimitOptions, Limits};
use crate::reply::is_same_model;
use crate::retry::RetryPolicy;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rand::Rng;
use rlaif_core::clock::now_ms;
use rlaif_core::failpoint;
use rlaif_core::money::{MicroUsd, Price, Usage};
use rlaif_core::records::NoVerdict;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Tasks drawn from the source at once.
const PAGE: usize = 256;

/// Most events in one commit, and most replies that wait for one.
const BATCH: usize = 256;

/// With this many calls in flight, commits begin this far apart: each then holds dozens of events, and no call waits longer for it than
/// the network takes.
const BUSY: (usize, Duration) = (64, Duration::from_millis(3));

/// Most tasks that wait for a retry in memory; others are parked in the ledger.
const MOST_PARKED: usize = 1024;

/// While fresh tasks are left, at most this share of sends are retries, beyond the first ten.
const RETRY_SHARE: f64 = 0.1;

/// One request to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The ledger's number of this request.
    pub id: i64,
    /// What is sent, see [`ChatModel::body`].
    pub body: String,
    /// Bound on the prompt's tokens, for the budget.
    pub prompt_tokens_at_most: u64,
    /// Most tokens of the reply.
    pub max_tokens: u64,
    /// How often it was sent before, in whatever run.
    pub attempts: u32,
    /// Sends beyond the first of this run.
    pub retries: usize,
    /// Sends that were possibly billed.
    pub resends: usize,
    /// When it was first sent, in milliseconds since 1970.
    pub first_sent_ms: Option<i64>,
}

/// Where tasks come from, page by page.
pub trait TaskSource {
    /// What can go wrong.
    type Error;

    /// The next tasks that are not parked; none when there are no more.
    ///
    /// # Errors
    /// If they cannot be read.
    fn fresh(&mut self, at_most: usize) -> impl Future<Output = Result<Vec<Task>, Self::Error>>;

    /// Tasks that were parked and whose time has come, and how long it is until the next one's.
    ///
    /// # Errors
    /// If they cannot be read.
    fn due(
        &mut self,
        at_most: usize,
    ) -> impl Future<Output = Result<(Vec<Task>, Option<Duration>), Self::Error>>;
}

/// A list of tasks as a source; it parks none, so use it with an infinite [`EngineOptions::park_after`].
#[derive(Debug)]
pub struct Listed<I, E>(I, std::marker::PhantomData<E>);

impl<I: Iterator<Item = Task>, E> Listed<I, E> {
    /// A source of these tasks.
    pub fn new(tasks: impl IntoIterator<IntoIter = I>) -> Self {
        Self(tasks.into_iter(), std::marker::PhantomData)
    }
}

impl<I: Iterator<Item = Task>, E> TaskSource for Listed<I, E> {
    type Error = E;

    async fn fresh(&mut self, at_most: usize) -> Result<Vec<Task>, E> {
        Ok(self.0.by_ref().take(at_most).collect())
    }

    async fn due(&mut self, _: usize) -> Result<(Vec<Task>, Option<Duration>), E> {
        Ok((Vec::new(), None))
    }
}

/// What happened to a call. `K` is what the journal gave for a reply that arrived.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<K> {
    /// About to be sent; a call that ends here (a crash) was possibly billed, at most `reserved`.
    Claimed {
        /// The task.
        task: i64,
        /// Which attempt at it, from 1.
        attempt: u32,
        /// What was set aside for it; `None` if the price is unknown.
        reserved: Option<MicroUsd>,
    },
    /// A reply came. Store it; then read it with [`crate::read_reply`].
    Replied {
        /// The task.
        task: i64,
        /// Which attempt at it, from 1.
        attempt: u32,
        /// The raw reply.
        reply: RawReply,
        /// Where the journal keeps it until now; `None` if it could not.
        kept: Option<K>,
        /// Tokens, where the provider counted them.
        usage: Option<Usage>,
        /// What it cost; `None` if price or usage is unknown.
        cost: Option<MicroUsd>,
        /// What the budget counts for it: the cost, or the worst case where usage is unknown; `None` if the price is unknown.
        charged: Option<MicroUsd>,
    },
    /// No reply came.
    Failed {
        /// The task.
        task: i64,
        /// Which attempt at it, from 1.
        attempt: u32,
        /// Why.
        error: CallError,
        /// What the budget counts for it: the worst case if it was possibly billed, else 0; `None` if the price is unknown.
        charged: Option<MicroUsd>,
        /// What becomes of the task.
        then: Then,
    },
    /// Not sent again, since it was possibly billed as often as the policy allows: the last process ended before its reply came.
    Held {
        /// The task.
        task: i64,
        /// How often it was possibly billed.
        resends: usize,
    },
}

/// What becomes of a task whose call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Tried again after this wait.
    Retry(Duration),
    /// Drawn again from [`TaskSource::due`] after this wait.
    Park(Duration),
    /// Given up: [`CallError::no_verdict`] is its verdict.
    GivenUp,
    /// The run stops; the task stays open.
    StopsTheRun,
}

/// Where events are stored.
pub trait Journal {
    /// What can go wrong inside, such as a full disk.
    type Error;

    /// Proof that a reply is kept until it is recorded.
    type Kept;

    /// Keeps a reply whose last byte has just come, so that it survives this process. Must be quick: one write, no wait for the disk.
    ///
    /// # Errors
    /// If it could not be kept. It is then recorded all the same.
    fn arrived(&self, task: i64, attempt: u32, reply: &RawReply) -> Result<Self::Kept, Self::Error>;

    /// Stores events in order, all or none; they are durable when this returns.
    ///
    /// # Errors
    /// If they could not be stored. The engine then stops at once, since it must not send what it cannot record.
    fn record(&self, events: Vec<Event<Self::Kept>>) -> impl Future<Output = Result<(), Self::Error>>;
}

/// How the engine works.
#[derive(Debug, Clone)]
pub struct EngineOptions<'a> {
    /// Most calls in flight.
    pub concurrency: usize,
    /// What is tried again, and when.
    pub retry: RetryPolicy,
    /// What the endpoint allows, by the user's word.
    pub limits: LimitOptions,
    /// Tasks that wait longer than this for their next attempt are parked in the ledger.
    pub park_after: Duration,
    /// What the judge charges; `None` only where the user allowed an unknown price.
    pub price: Option<Price>,
    /// The purse, shared by all judges.
    pub budget: &'a Budget,
    /// Stop if a model answers that is not this one.
    pub strict_model: Option<String>,
    /// Set to true to finish what is in flight and return.
    pub stop: watch::Receiver<bool>,
    /// How long calls in flight may take to end after that; they are then abandoned as possibly billed.
    pub drain: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

impl<'a> EngineOptions<'a> {
    /// Eight calls in flight, five retries, no limits, no price.
    pub fn new(budget: &'a Budget, stop: watch::Receiver<bool>) -> Self {
        Self {
            concurrency: 8,
            retry: RetryPolicy::new(5),
            limits: LimitOptions::default(),
            park_after: Duration::MAX,
            price: None,
            budget,
            strict_model: None,
            stop,
            drain: Duration::from_secs(30),
            seed: 0,
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Tasks with a reply.
    pub replied: usize,
    /// Tasks given up.
    pub given_up: usize,
    /// Attempts beyond the first.
    pub retries: usize,
    /// Calls that had no reply when the time to drain was over: possibly billed.
    pub abandoned: usize,
    /// True if `stop` was set; the rest of the tasks stays open.
    pub interrupted: bool,
}

/// Why the run cannot go on. Everything that came is in the journal, and every other task stays open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop<E> {
    /// No other call can succeed either: wrong key, no quota, no such model, endpoint down.
    #[error("{0}")]
    Fatal(CallError),
    /// The next call could exceed a limit.
    #[error("the next call may cost {worst_case}, and of the {max} of `{key}` {left} are left")]
    Budget {
        /// The key of the config that sets the limit.
        key: &'static str,
        /// The most that the next call can cost.
        worst_case: MicroUsd,
        /// What is left of the limit.
        left: MicroUsd,
        /// The limit.
        max: MicroUsd,
    },
    /// A limit is set and the price is unknown, so that nothing can be promised.
    #[error("the limit of {max} of `{key}` cannot be kept for a judge whose price is unknown")]
    UnknownPrice {
        /// The key of the config that sets the limit.
        key: &'static str,
        /// The limit.
        max: MicroUsd,
    },
    /// Another model answered than the one that was asked.
    #[error("`{asked}` was asked and `{served}` answered")]
    WrongModel {
        /// The model that was asked.
        asked: String,
        /// The model that answered.
        served: String,
    },
    /// Tasks could not be drawn, or an event could not be stored.
    #[error("a judge's call could not be recorded")]
    Journal(E),
}

impl CallError {
    /// The verdict of a task that was given up for this error.
    pub fn no_verdict(&self) -> NoVerdict {
        match self.kind {
            CallErrorKind::Filtered => NoVerdict::Filtered,
            _ => NoVerdict::Failed(self.message.clone()),
        }
    }
}

/// A call that was claimed: what it is, when it was sent, what is set aside for it.
struct Call {
    task: Task,
    sent_at: Instant,
    reservation: Reservation,
}

/// A task that waits in memory for its next attempt; the earliest is the greatest.
struct Parked {
    at: Instant,
    order: u64,
    task: Task,
}

impl PartialEq for Parked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Parked {}

impl PartialOrd for Parked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Parked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        Reverse((self.at, self.order)).cmp(&Reverse((other.at, other.order)))
    }
}

/// What is known of tasks that are not in flight.
struct Queue {
    /// Never sent in this run.
    fresh: VecDeque<Task>,
    /// Whether the source has more of them.
    more: bool,
    /// To be sent again, now.
    due: VecDeque<Task>,
    /// To be sent again, later.
    parked: BinaryHeap<Parked>,
    /// When to look for parked tasks in the ledger; `None` if there are none.
    look_at: Option<Instant>,
    /// Sends and, among them, retries.
    sends: u64,
    retries: u64,
    order: u64,
}

impl Queue {
    fn new() -> Self {
        let (fresh, due, parked) = (VecDeque::new(), VecDeque::new(), BinaryHeap::new());
        // An earlier run may have parked some.
        let look_at = Some(Instant::now());
        Self { fresh, more: true, due, parked, look_at, sends: 0, retries: 0, order: 0 }
    }

    fn is_empty(&self) -> bool {
        !self.has_fresh() && self.due.is_empty() && self.parked.is_empty() && self.look_at.is_none()
    }

    fn has_fresh(&self) -> bool {
        self.more || !self.fresh.is_empty()
    }

    /// The next task. Retries come first, unless they are too large a share of what is sent: then an endpoint in trouble sees one of them
    /// for ten fresh ones at most.
    fn next(&mut self) -> Option<Task> {
        let allowed = RETRY_SHARE * self.sends as f64 + 10.0;
        let retry = (self.retries as f64) < allowed || !self.has_fresh();
        let task = match retry {
            true => self.due.pop_front().or_else(|| self.fresh.pop_front()),
            false => self.fresh.pop_front(),
        }?;
        self.sends += 1;
        self.retries += u64::from(task.retries > 0);
        Some(task)
    }

    fn put_back(&mut self, task: Task) {
        self.sends -= 1;
        self.retries -= u64::from(task.retries > 0);
        if task.retries > 0 { self.due.push_front(task) } else { self.fresh.push_front(task) }
    }

    fn park(&mut self, task: Task, wait: Duration) {
        self.order += 1;
        self.parked.push(Parked { at: Instant::now() + wait, order: self.order, task });
    }

    /// Moves what waited long enough to where it is sent from.
    fn wake(&mut self, now: Instant) {
        while self.parked.peek().is_some_and(|parked| parked.at <= now) {
            self.due.extend(self.parked.pop().map(|parked| parked.task));
        }
    }

    fn is_full(&self) -> bool {
        self.parked.len() + self.due.len() >= MOST_PARKED
    }

    fn wants_fresh(&self) -> bool {
        self.more && self.fresh.len() < PAGE
    }

    fn wants_due(&self, now: Instant) -> bool {
        self.look_at.is_some_and(|at| at <= now) && self.due.len() < PAGE
    }
}

/// A page that was asked for, with the source given back.
enum Page<S> {
    Fresh(S, Vec<Task>),
    Due(S, Vec<Task>, Option<Duration>),
}

/// Asks for every task of a source, at most `concurrency` at a time. Failed tasks wait without a place in flight; a Retry-After holds
/// all of them back.
///
/// Dropping the future abandons the calls in flight, which the journal then knows as possibly billed; set `stop` instead.
///
/// # Errors
/// See [`Stop`]. What is in flight is finished and recorded first, unless the journal itself failed.
pub async fn judge_all<M, S, J>(
    model: &M,
    source: &mut S,
    options: EngineOptions<'_>,
    journal: &J,
) -> Result<Summary, Stop<J::Error>>
where
    M: ChatModel,
    J: Journal,
    S: TaskSource<Error = J::Error>,
{
    if let (Some((limit, _)), None) = (options.budget.tightest(), options.price) {
        return Err(Stop::UnknownPrice { key: limit.key, max: limit.max });
    }
    let (abandon, abandoned) = watch::channel(false);
    let mut engine = Engine {
        limits: Limits::new(options.limits, options.concurrency),
        rng: rlaif_core::seed::stream(options.seed, "judge/retry", 0),
        options: &options,
        queue: Queue::new(),
        events: Vec::new(),
        claimed: Vec::new(),
        parking: None,
        summary: Summary::default(),
        left_open: false,
        stopping: None,
    };
    let mut source = Some(source);
    let mut page: Option<LocalBoxFuture<'_, Result<Page<&mut S>, J::Error>>> = None;
    let mut commit: Option<LocalBoxFuture<'_, Result<(), J::Error>>> = None;
    let mut committing: Vec<Call> = Vec::new();
    let mut committing_parked: Option<Instant> = None;
    let mut committed_at = Instant::now();
    let mut in_flight = FuturesUnordered::new();
    let mut drained_at: Option<Instant> = None;

    let asked_to_stop = async {
        let mut stop = options.stop.clone();
        if stop.wait_for(|&stop| stop).await.is_err() {
            std::future::pending::<()>().await; // nobody is left who could ask
        }
    };
    tokio::pin!(asked_to_stop);

    loop {
        let now = Instant::now();
        let busy = in_flight.len() + committing.len();
        let idle = busy == 0 && commit.is_none() && engine.events.is_empty() && page.is_none();
        let wake_at = if engine.halted() { None } else { engine.admit(busy, idle, now) };

        if commit.is_none() && !engine.events.is_empty() {
            let pause = if in_flight.len() >= BUSY.0 && engine.events.len() < BATCH {
                BUSY.1
            } else {
                Duration::ZERO
            };
            if now >= committed_at + pause {
                committed_at = now;
                committing = std::mem::take(&mut engine.claimed);
                committing_parked = engine.parking.take();
                let events = std::mem::take(&mut engine.events);
                commit = Some(journal.record(events).boxed_local());
            }
        }
        if !engine.halted()
            && page.is_none()
            && let Some(taken) = source.take()
        {
            if engine.queue.wants_due(now) {
                engine.queue.look_at = None;
                page = Some(
                    async move {
                        let (tasks, next) = taken.due(PAGE).await?;
                        Ok(Page::Due(taken, tasks, next))
                    }
                    .boxed_local(),
                );
            } else if engine.queue.wants_fresh() {
                page = Some(
                    async move {
                        let tasks = taken.fresh(PAGE).await?;
                        Ok(Page::Fresh(taken, tasks))
                    }
                    .boxed_local(),
                );
            } else {
                source = Some(taken);
            }
        }

        let idle = in_flight.is_empty() && commit.is_none() && engine.events.is_empty() && page.is_none();
        if idle && (engine.halted() || engine.queue.is_empty()) {
            break;
        }
        let commit_at = (commit.is_none() && !engine.events.is_empty()).then(|| committed_at + BUSY.1);
        let look_at = engine.queue.look_at.filter(|_| !engine.halted() && page.is_none());
        let look_at = look_at.filter(|_| engine.queue.due.len() < PAGE);
        let parked_at = engine.queue.parked.peek().map(|parked| parked.at).filter(|_| !engine.halted());
        let timer = [wake_at, commit_at, look_at, parked_at, drained_at].into_iter().flatten().min();

        tokio::select! {
            biased;
            result = wait_for(&mut commit), if commit.is_some() => {
                commit = None;
                result.map_err(Stop::Journal)?;
                failpoint::hit("engine/claimed");
                // Only now would the source find them.
                engine.queue.look_at = earliest(engine.queue.look_at, committing_parked.take());
                for mut call in committing.drain(..) {
                    if engine.halted() {
                        engine.unsent(call);
                        continue;
                    }
                    call.sent_at = Instant::now();
                    in_flight.push(send(model, journal, call, abandoned.clone()));
                }
            }
            Some((call, kept, outcome)) = in_flight.next(), if !in_flight.is_empty() => {
                engine.ended(call, kept, outcome, in_flight.len());
            }
            result = wait_for(&mut page), if page.is_some() => {
                page = None;
                source = Some(match result.map_err(Stop::Journal)? {
                    Page::Fresh(source, tasks) => {
                        engine.queue.more = !tasks.is_empty();
                        engine.queue.fresh.extend(tasks);
                        source
                    }
                    Page::Due(source, tasks, next) => {
                        let next = if tasks.is_empty() { next } else { Some(Duration::ZERO) };
                        let next = next.map(|wait| Instant::now() + wait);
                        engine.queue.look_at = earliest(engine.queue.look_at, next);
                        engine.queue.due.extend(tasks);
                        source
                    }
                });
            }
            () = tokio::time::sleep_until(timer.unwrap_or(now)), if timer.is_some() => {
                if drained_at.is_some_and(|at| at <= Instant::now()) {
                    engine.summary.abandoned = in_flight.len();
                    drained_at = None;
                    // Every call in flight ends now, as possibly billed.
                    abandon.send_replace(true);
                }
            }
            () = &mut asked_to_stop, if !engine.summary.interrupted => {
                engine.summary.interrupted = true;
                drained_at = Some(Instant::now() + options.drain);
            }
        }
    }
    match engine.stopping {
        Some(stop) => Err(stop),
        None => {
            // A stop that arrived with the last reply interrupted nothing.
            engine.summary.interrupted &= !engine.queue.is_empty() || engine.left_open;
            Ok(engine.summary)
        }
    }
}

/// Waits for a future that is there.
async fn wait_for<T>(future: &mut Option<LocalBoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Sends a call; its reply is kept by the journal before anything else happens.
async fn send<M: ChatModel, J: Journal>(
    model: &M,
    journal: &J,
    call: Call,
    mut abandoned: watch::Receiver<bool>,
) -> (Call, Option<J::Kept>, Result<RawReply, CallError>) {
    let outcome = tokio::select! {
        biased;
        outcome = model.send(&call.task.body) => outcome,
        _ = abandoned.wait_for(|abandoned| *abandoned) => Err(CallError::new(
            CallErrorKind::Disconnected, CallFate::MaybeBilled, "the run was stopped before a reply came",
        )),
    };
    let mut kept = None;
    if let Ok(reply) = &outcome {
        failpoint::hit("engine/arrived");
        kept = journal.arrived(call.task.id, call.task.attempts, reply).ok();
        failpoint::hit("engine/kept");
    }
    (call, kept, outcome)
}

struct Engine<'a, K, E, R> {
    options: &'a EngineOptions<'a>,
    limits: Limits,
    rng: R,
    queue: Queue,
    /// To be committed.
    events: Vec<Event<K>>,
    /// The calls whose claims are among `events`.
    claimed: Vec<Call>,
    /// The earliest time to which a task among `events` is parked.
    parking: Option<Instant>,
    summary: Summary,
    /// Whether a task that failed stays open for another run.
    left_open: bool,
    stopping: Option<Stop<E>>,
}

impl<K, E, R: Rng> Engine<'_, K, E, R> {
    fn halted(&self) -> bool {
        self.stopping.is_some() || self.summary.interrupted
    }

    /// Claims tasks for which there is room, time and money. Returns when to look again, if time is what is missing.
    fn admit(&mut self, busy: usize, idle: bool, now: Instant) -> Option<Instant> {
        self.queue.wake(now);
        while busy + self.claimed.len() < self.limits.in_flight() && self.events.len() < BATCH {
            let free_at = self.limits.free_at();
            if free_at > now {
                return (!self.queue.is_empty()).then_some(free_at);
            }
            let mut task = self.queue.next()?;
            if task.resends > self.options.retry.max_resends {
                self.summary.given_up += 1;
                self.events.push(Event::Held { task: task.id, resends: task.resends });
                continue;
            }
            let price = self.options.price;
            let worst_case = price.map(|price| price.worst_case(task.prompt_tokens_at_most, task.max_tokens));
            let Some(reservation) = self.options.budget.reserve(worst_case.unwrap_or_default()) else {
                self.queue.put_back(task);
                // Calls in flight will settle below their worst case; only without any is there no money left.
                if idle && self.claimed.is_empty() && self.events.is_empty() {
                    let worst_case = worst_case.unwrap_or_default();
                    let (key, max, left) = match self.options.budget.tightest() {
                        Some((limit, left)) => (limit.key, limit.max, left),
                        None => ("", MicroUsd(i64::MAX), MicroUsd::ZERO),
                    };
                    self.stopping = Some(Stop::Budget { key, worst_case, left, max });
                }
                return None;
            };
            self.limits.take(task.prompt_tokens_at_most, task.max_tokens, now);
            self.summary.retries += usize::from(task.retries > 0);
            task.attempts += 1;
            task.first_sent_ms = task.first_sent_ms.or_else(|| Some(now_ms()));
            self.events.push(Event::Claimed { task: task.id, attempt: task.attempts, reserved: worst_case });
            self.claimed.push(Call { task, sent_at: now, reservation });
        }
        None
    }

    /// A call that was claimed and will not be sent, since the run stops.
    fn unsent(&mut self, call: Call) {
        self.options.budget.settle(call.reservation, MicroUsd::ZERO);
        let message = "the run stopped before it was sent";
        self.events.push(Event::Failed {
            task: call.task.id,
            attempt: call.task.attempts,
            error: CallError::new(CallErrorKind::Connect, CallFate::NotSent, message),
            charged: self.options.price.map(|_| MicroUsd::ZERO),
            then: Then::StopsTheRun,
        });
        self.queue.put_back(call.task);
    }

    fn ended(&mut self, call: Call, kept: Option<K>, outcome: Result<RawReply, CallError>, in_flight: usize) {
        match outcome {
            Ok(reply) => self.replied(call, kept, reply),
            Err(error) => self.failed(call, error, in_flight),
        }
    }

    fn replied(&mut self, call: Call, kept: Option<K>, reply: RawReply) {
        let Call { task, reservation, .. } = call;
        let (usage, model) = Completion::read(&reply.body).map_or((None, None), |c| (c.usage, c.model));
        let price = self.options.price;
        let cost = price.zip(usage).and_then(|(price, usage)| price.cost(&usage));
        let charged = price.map(|_| cost.unwrap_or(reservation.amount()));
        self.options.budget.settle(reservation, charged.unwrap_or_default());
        self.limits.succeeded(usage.map(|usage| usage.prompt_tokens), task.prompt_tokens_at_most);
        if let Some(hints) = &reply.limits {
            self.limits.told(hints, task.prompt_tokens_at_most, task.max_tokens, Instant::now());
        }
        if let (Some(asked), Some(served)) = (&self.options.strict_model, model)
            && !is_same_model(asked, &served)
        {
            self.stopping.get_or_insert(Stop::WrongModel { asked: asked.clone(), served });
        }
        self.summary.replied += 1;
        let (id, attempt) = (task.id, task.attempts);
        self.events.push(Event::Replied { task: id, attempt, reply, kept, usage, cost, charged });
    }

    fn failed(&mut self, call: Call, error: CallError, in_flight: usize) {
        let Call { mut task, sent_at, reservation } = call;
        let now = Instant::now();
        let maybe_billed = error.fate == CallFate::MaybeBilled;
        let worst_case = if maybe_billed { reservation.amount() } else { MicroUsd::ZERO };
        let charged = self.options.price.map(|_| worst_case);
        self.options.budget.settle(reservation, charged.unwrap_or_default());
        if error.kind.is_congestion() {
            self.limits.congested(sent_at, in_flight, now);
        }
        if let Some(hints) = &error.limits {
            self.limits.told(hints, task.prompt_tokens_at_most, task.max_tokens, now);
        }
        if let Some(wait) = error.retry_after.filter(|_| error.kind.is_transient()) {
            self.limits.hold(now + wait);
        }
        let then = self.what_then(&task, &error);
        let (id, attempt) = (task.id, task.attempts);
        match then {
            Then::Retry(wait) | Then::Park(wait) => {
                task.retries += 1;
                task.resends += usize::from(maybe_billed);
                match then {
                    Then::Retry(_) => self.queue.park(task, wait),
                    _ => self.parking = earliest(self.parking, Some(now + wait)),
                }
            }
            Then::GivenUp => self.summary.given_up += 1,
            Then::StopsTheRun => {
                self.left_open = true;
                if !self.halted() {
                    tracing::debug!(kind = %error.kind, attempts = attempt, "the run stops");
                    self.stopping = Some(Stop::Fatal(error.clone()));
                }
            }
        }
        self.events.push(Event::Failed { task: id, attempt, error, charged, then });
    }

    fn what_then(&mut self, task: &Task, error: &CallError) -> Then {
        if self.summary.interrupted && error.kind.is_transient() {
            return Then::StopsTheRun;
        }
        let age = task.first_sent_ms.map_or(0, |first| now_ms().saturating_sub(first).max(0));
        let age = Duration::from_millis(age.unsigned_abs());
        let retry = &self.options.retry;
        match retry.wait(error, task.retries, task.resends, age, &mut self.rng) {
            Some(wait) if wait > self.options.park_after => Then::Park(wait),
            Some(wait) if self.queue.is_full() && self.options.park_after < Duration::MAX => Then::Park(wait),
            Some(wait) => Then::Retry(wait),
            // Retries that never reached the endpoint say that it is down, for the others too.
            None if error.kind.is_fatal() || error.kind == CallErrorKind::Connect => Then::StopsTheRun,
            None => Then::GivenUp,
        }
    }
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}
