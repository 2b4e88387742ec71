//! Judges behind an endpoint of any provider: plan, send, store the raw reply, and only then read it.

use super::asking::{self, Asking};
use super::{Assignment, templates};
use crate::context::Context;
use crate::error::{Interrupted, UserError};
use crate::interrupt;
use crate::progress::{Progress, say};
use anyhow::{Context as _, Result};
use rlaif_core::config::{Config, JudgeConfig};
use rlaif_core::money::{MicroUsd, Price};
use rlaif_judge::engine::{EngineOptions, Event, Journal, Stop, Task, Then, judge_all};
use rlaif_judge::retry::RetryPolicy;
use rlaif_judge::template::TemplateProtocol;
use rlaif_judge::{Budget, CallFate, Provider};
use rlaif_store::StoreError;
use rlaif_store::store::{RequestFailure, Store};
use std::time::Duration;

/// Calls before the tripwires among them are looked at for the first time; each round is twice as long as the one before.
const FIRST_ROUND: usize = 200;

/// Calls of the longest round, unless many are in flight: the end of a round waits for its slowest call, which must not show.
const MOST_OF_A_ROUND: usize = 2000;

/// Buys the verdicts that the ledger does not have yet: all first steps, then all second ones, and so on. Where there are tripwires it
/// does so in rounds, and stops after the first that shows that the judge is fooled.
pub fn judge(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    let model = client(judge)?;
    let askers = templates::of_asked(context, judge)?;
    let asking = Asking { context, judge, askers: &askers, price: price(&context.config, judge) };
    let works: Vec<&Assignment> =
        std::iter::once(work).chain(work.tripwires.map(|wires| wires.work())).collect();
    let summary = asking.plan_first(&model, &work.traffic())?;
    let (all, _) = context.wait(context.store.open_requests(&judge.name, work.set))?;
    if summary.answered > 0 && summary.new > 0 {
        let answered = summary.answered;
        say(&format!("{}: {answered} of {all} answers of `{}` are in the ledger", work.stage, judge.name));
    }
    context.wait(context.store.retry_failed(&judge.name))?;
    let read = || -> Result<()> {
        for work in &works {
            asking.read(work)?;
            for asker in askers.iter().filter(|asker| asker.protocol() == TemplateProtocol::Rating) {
                asking.ratings(work, asker)?.store(context, work, judge, asker.name())?;
            }
        }
        work.tripwires.map_or(Ok(()), |wires| wires.check(context, &judge.name))
    };
    read()?;
    for step in 0..asking::steps(&askers) {
        if step > 0 {
            works.iter().try_for_each(|work| asking.plan_step(&model, work, step))?;
        }
        let mut round = if work.tripwires.is_some() { FIRST_ROUND } else { usize::MAX };
        loop {
            let sent = send(context, work, judge, &model, round);
            // Whatever stopped the sending, what arrived is read.
            read()?;
            if sent? == 0 {
                break;
            }
            round = round.saturating_mul(2).min(MOST_OF_A_ROUND.max(20 * judge.max_concurrency));
        }
    }
    Ok(())
}

/// Sends at most `round` of the open requests, those of the tripwires in their places, and returns how many stay open.
fn send(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
    model: &Provider,
    round: usize,
) -> Result<usize> {
    let (mut total, mut open) = (0, Vec::new());
    for set in std::iter::once(work.set).chain(work.tripwires.map(|wires| wires.work().set)) {
        total += context.wait(context.store.open_requests(&judge.name, set))?.0;
        open.extend(context.wait(context.store.planned(&judge.name, set, 0, usize::MAX))?);
    }
    open.sort_by_key(|request| request.seq);
    if open.is_empty() {
        return Ok(0);
    }
    let done = total - open.len() as u64;
    let later = open.len().saturating_sub(round);
    open.truncate(round);
    let tasks = open.into_iter().map(|request| Task {
        key: request.request_key,
        body: request.body,
        prompt_tokens_at_most: request.prompt_tokens_at_most,
        max_tokens: request.max_tokens,
    });
    let max = context.config.label.max_usd.map(MicroUsd::from_dollars).transpose()?;
    let budget = Budget::new(max, context.wait(context.store.spend())?.known);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut ledger = Ledger {
        store: &context.store,
        progress: Progress::new(work.stage, "calls", done, total),
        done,
        total,
        charged: MicroUsd::ZERO,
        given_up: 0,
    };
    let options = EngineOptions {
        concurrency: judge.max_concurrency,
        retry: RetryPolicy::new(judge.max_retries),
        price: price(&context.config, judge),
        budget: &budget,
        stop: stopped,
        seed: context.config.run.seed,
    };
    let ended = context.wait(async {
        let listen = async {
            while !interrupt::requested() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop.send(true).ok();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = judge_all(model, tasks, options, &mut ledger) => ended,
            () = listen => unreachable!("it listens until the engine ends"),
        }
    });
    let Ledger { progress, given_up, .. } = ledger;
    progress.finish();
    if given_up > 0 {
        say(&format!(
            "{}: {given_up} calls to `{}` were given up; they are counted as failed",
            work.stage, judge.name
        ));
    }
    match ended {
        Ok(summary) if summary.interrupted => Err(Interrupted { stage: work.stage.into() }.into()),
        Ok(_) => Ok(later),
        Err(Stop::Journal(error)) => Err(error).context("a judge's call could not be recorded"),
        Err(stop) => {
            let hint = match &stop {
                Stop::Budget { .. } => "Raise `label.max_usd` and run the same command again",
                Stop::UnknownPrice { .. } => {
                    "Give the judge its prices (`usd_per_million_input`, `usd_per_million_output`) or remove `label.max_usd`"
                }
                _ => "Mend it and run the same command again",
            };
            Err(UserError::new(format!("judge `{}`: {stop}", judge.name))
                .hint(format!("{hint}; every answer that arrived is kept"))
                .into())
        }
    }
}

/// What the judge charges; `None` where neither the config nor the table that ships says so.
pub fn price(config: &Config, judge: &JudgeConfig) -> Option<Price> {
    config.price_of(judge).map(|(price, _)| price)
}

/// Writes what the engine tells into the store: the intent before a call, the raw reply after it.
struct Ledger<'a> {
    store: &'a Store,
    progress: Progress,
    done: u64,
    total: u64,
    charged: MicroUsd,
    given_up: usize,
}

impl Journal for Ledger<'_> {
    type Error = StoreError;

    async fn record(&mut self, event: Event<'_>) -> Result<(), StoreError> {
        match event {
            Event::Sending { key, .. } => self.store.mark_sent(key).await?,
            Event::Replied { key, reply, charged, .. } => {
                self.store.put_reply(key, reply.status, &reply.body).await?;
                self.charged = [self.charged, charged.unwrap_or_default()].iter().sum();
                self.done += 1;
            }
            Event::Failed { key, error, then, .. } => {
                let maybe_billed = error.fate == CallFate::MaybeBilled;
                let failure =
                    RequestFailure { class: error.kind.as_str(), message: &error.message, maybe_billed };
                match then {
                    Then::GivenUp => {
                        self.store.fail_request(key, &failure).await?;
                        self.given_up += 1;
                        self.done += 1;
                    }
                    // Sent and not heard of again: it stays counted as possibly billed while it is tried again.
                    Then::Retry(_) if maybe_billed => self.store.fail_request(key, &failure).await?,
                    Then::Retry(_) | Then::StopsTheRun => self.store.release_request(key).await?,
                }
            }
        }
        self.progress.set(self.done, self.total, &format!("{} so far", self.charged));
        Ok(())
    }
}

/// The client of a judge, with its key from the environment.
///
/// # Errors
/// If the key is not set, or must not be sent to the judge's URL.
pub fn client(judge: &JudgeConfig) -> Result<Provider> {
    Provider::from_config(judge, |name| std::env::var(name).ok())
        .map_err(|error| UserError::new(format!("judge `{}`: {error}", judge.name)).into())
}
