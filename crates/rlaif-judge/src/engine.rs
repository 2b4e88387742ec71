//! Many calls at once. What happens is told to a journal, in this order for each call: the intent before it is sent, the raw
//! reply before anyone has read it. The journal commits before the engine goes on, so that a reply that reached us is never
//! bought again, and what was in flight at a crash is known: every `Sending` without an end.

use crate::budget::{Budget, Reservation};
use crate::chat::{CallError, CallErrorKind, CallFate, ChatModel, RawReply};
use crate::reply::read_usage;
use crate::retry::RetryPolicy;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rlaif_core::money::{MicroUsd, Price, Usage};
use rlaif_core::records::NoVerdict;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// One request to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The ledger's key of this request.
    pub key: String,
    /// What is sent, see [`ChatModel::body`].
    pub body: String,
    /// Bound on the prompt's tokens, for the budget.
    pub prompt_tokens_at_most: u64,
    /// Most tokens of the reply.
    pub max_tokens: u64,
}

/// What happened to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// About to be sent; a call that ends here (a crash) was possibly billed, at most `reserved`.
    Sending {
        /// The task.
        key: &'a str,
        /// 0 for the first.
        attempt: usize,
        /// What was set aside for it; `None` if the price is unknown.
        reserved: Option<MicroUsd>,
    },
    /// A reply came. Store it; then read it with [`crate::read_reply`].
    Replied {
        /// The task.
        key: &'a str,
        /// 0 for the first.
        attempt: usize,
        /// The raw reply.
        reply: &'a RawReply,
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
        key: &'a str,
        /// 0 for the first.
        attempt: usize,
        /// Why.
        error: &'a CallError,
        /// What the budget counts for it: the worst case if it was possibly billed, else 0; `None` if the price is unknown.
        charged: Option<MicroUsd>,
        /// What becomes of the task.
        then: Then,
    },
}

/// What becomes of a task whose call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Tried again after this wait.
    Retry(Duration),
    /// Given up: [`CallError::no_verdict`] is its verdict.
    GivenUp,
    /// The run stops; the task stays open.
    StopsTheRun,
}

/// Where events are stored.
pub trait Journal {
    /// What can go wrong inside, such as a full disk.
    type Error;

    /// Stores an event; it is durable when this returns.
    ///
    /// # Errors
    /// If it could not be stored. The engine then stops at once, since it must not send what it cannot record.
    fn record(&mut self, event: Event<'_>) -> impl Future<Output = Result<(), Self::Error>>;
}

/// How the engine works.
#[derive(Debug, Clone)]
pub struct EngineOptions<'a> {
    /// Most calls in flight.
    pub concurrency: usize,
    /// What is tried again, and when.
    pub retry: RetryPolicy,
    /// What the judge charges; `None` only where the user allowed an unknown price.
    pub price: Option<Price>,
    /// The purse of the run, shared by all judges.
    pub budget: &'a Budget,
    /// Set to true to finish what is in flight and return.
    pub stop: watch::Receiver<bool>,
    /// Seed of the jitter.
    pub seed: u64,
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
    /// True if `stop` was set; the rest of the tasks stays open.
    pub interrupted: bool,
}

/// Why the run cannot go on. Everything that came is in the journal, and every other task stays open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop<E> {
    /// No other call can succeed either: wrong key, no quota, no such model, endpoint down.
    #[error("{0}")]
    Fatal(CallError),
    /// The next call could exceed the limit.
    #[error("the next call may cost {worst_case}, and {spent} of {max} are spent")]
    Budget {
        /// The most that the next call can cost.
        worst_case: MicroUsd,
        /// What was spent so far.
        spent: MicroUsd,
        /// The limit.
        max: MicroUsd,
    },
    /// A limit is set and the price is unknown, so that nothing can be promised.
    #[error("a limit of {max} cannot be kept for a judge whose price is unknown")]
    UnknownPrice {
        /// The limit.
        max: MicroUsd,
    },
    /// An event could not be stored.
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

struct Attempt {
    task: Task,
    retries: usize,
    resends: usize,
}

/// Asks for every task, at most `concurrency` at a time. Tasks are drawn when there is room for them; failed ones wait parked,
/// without a place in flight; a Retry-After holds all of them back.
///
/// Dropping the future abandons the calls in flight, which the journal then knows as possibly billed; set `stop` instead.
///
/// # Errors
/// See [`Stop`]. What is in flight is finished and recorded first, unless the journal itself failed.
pub async fn judge_all<M: ChatModel, J: Journal>(
    model: &M,
    tasks: impl IntoIterator<Item = Task>,
    options: EngineOptions<'_>,
    journal: &mut J,
) -> Result<Summary, Stop<J::Error>> {
    let EngineOptions { concurrency, retry, price, budget, stop, seed } = options;
    if let (Some(max), None) = (budget.max(), price) {
        return Err(Stop::UnknownPrice { max });
    }
    let mut tasks = tasks.into_iter().peekable();
    let mut ready: VecDeque<Attempt> = VecDeque::new();
    let mut parked = FuturesUnordered::new();
    let mut in_flight = FuturesUnordered::new();
    let mut rng = rlaif_core::seed::stream(seed, "judge/retry", 0);
    let mut not_before = Instant::now();
    let mut summary = Summary::default();
    let mut stopping: Option<Stop<J::Error>> = None;

    let asked_to_stop = async {
        let mut stop = stop;
        if stop.wait_for(|&stop| stop).await.is_err() {
            std::future::pending::<()>().await; // nobody is left who could ask
        }
    };
    tokio::pin!(asked_to_stop);

    loop {
        while stopping.is_none()
            && !summary.interrupted
            && in_flight.len() < concurrency.max(1)
            && Instant::now() >= not_before
        {
            let next = ready
                .pop_front()
                .or_else(|| tasks.next().map(|task| Attempt { task, retries: 0, resends: 0 }));
            let Some(attempt) = next else { break };
            let Task { prompt_tokens_at_most, max_tokens, .. } = attempt.task;
            let worst_case = price.map(|price| price.worst_case(prompt_tokens_at_most, max_tokens));
            let Some(reservation) = budget.reserve(worst_case.unwrap_or_default()) else {
                ready.push_front(attempt);
                // Calls in flight will settle below their worst case; only without any is there no money left.
                if in_flight.is_empty() {
                    let max = budget.max().unwrap_or(MicroUsd(i64::MAX));
                    let worst_case = worst_case.unwrap_or_default();
                    stopping = Some(Stop::Budget { worst_case, spent: budget.spent(), max });
                }
                break;
            };
            let key = &attempt.task.key;
            let sending = Event::Sending { key, attempt: attempt.retries, reserved: worst_case };
            if let Err(error) = journal.record(sending).await {
                budget.settle(reservation, MicroUsd::ZERO);
                return Err(Stop::Journal(error));
            }
            in_flight.push(call(model, attempt, reservation));
        }

        let halted = stopping.is_some() || summary.interrupted;
        let left = !ready.is_empty() || !parked.is_empty() || tasks.peek().is_some();
        if in_flight.is_empty() && (halted || !left) {
            break;
        }
        let held_back = Instant::now() < not_before;

        tokio::select! {
            Some((attempt, reservation, outcome)) = in_flight.next(), if !in_flight.is_empty() => match outcome {
                Ok(reply) => {
                    let usage = read_usage(&reply.body);
                    let cost = price.zip(usage).and_then(|(price, usage)| price.cost(&usage));
                    let charged = price.map(|_| cost.unwrap_or(reservation.amount()));
                    budget.settle(reservation, charged.unwrap_or_default());
                    summary.replied += 1;
                    let event = Event::Replied {
                        key: &attempt.task.key, attempt: attempt.retries, reply: &reply, usage, cost, charged,
                    };
                    journal.record(event).await.map_err(Stop::Journal)?;
                }
                Err(error) => {
                    let maybe_billed = error.fate == CallFate::MaybeBilled;
                    let charged =
                        price.map(|_| if maybe_billed { reservation.amount() } else { MicroUsd::ZERO });
                    budget.settle(reservation, charged.unwrap_or_default());
                    let wait = retry.wait(&error, attempt.retries, attempt.resends, &mut rng);
                    let then = match wait {
                        Some(wait) => Then::Retry(wait),
                        // Retries that never reached the endpoint say that it is down, for the others too.
                        None if error.kind.is_fatal() || error.kind == CallErrorKind::Connect => Then::StopsTheRun,
                        None => Then::GivenUp,
                    };
                    let event = Event::Failed {
                        key: &attempt.task.key, attempt: attempt.retries, error: &error, charged, then,
                    };
                    journal.record(event).await.map_err(Stop::Journal)?;
                    match then {
                        Then::Retry(wait) => {
                            summary.retries += 1;
                            if error.retry_after.is_some() {
                                not_before = not_before.max(Instant::now() + wait);
                            }
                            let again = Attempt {
                                retries: attempt.retries + 1,
                                resends: attempt.resends + usize::from(maybe_billed),
                                ..attempt
                            };
                            parked.push(async move {
                                tokio::time::sleep(wait).await;
                                again
                            });
                        }
                        Then::GivenUp => summary.given_up += 1,
                        Then::StopsTheRun => {
                            tracing::debug!(kind = %error.kind, attempts = attempt.retries + 1, "the run stops");
                            stopping.get_or_insert(Stop::Fatal(error));
                        }
                    }
                }
            },
            Some(attempt) = parked.next(), if !parked.is_empty() && !halted => ready.push_back(attempt),
            () = tokio::time::sleep_until(not_before), if held_back && !halted => {}
            () = &mut asked_to_stop, if !summary.interrupted => summary.interrupted = true,
        }
    }
    match stopping {
        Some(stop) => Err(stop),
        None => {
            // A stop that arrived with the last reply interrupted nothing.
            summary.interrupted &= !ready.is_empty() || !parked.is_empty() || tasks.peek().is_some();
            Ok(summary)
        }
    }
}

async fn call<M: ChatModel>(
    model: &M,
    attempt: Attempt,
    reservation: Reservation,
) -> (Attempt, Reservation, Result<RawReply, CallError>) {
    let outcome = model.send(&attempt.task.body).await;
    (attempt, reservation, outcome)
}
