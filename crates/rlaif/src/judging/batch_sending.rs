//! Sending in batches: half the price, and an answer within a day. What is out when the run ends stays with the provider, and the next run
//! fetches it, whether its judge still asks for batches or not.

use super::batches::{BatchTally, BatchTerms, Batches};
use super::{Assignment, sending};
use crate::context::Context;
use crate::error::{Interrupted, UserError};
use crate::progress::{Progress, say};
use anyhow::Result;
use rlaif_core::config::JudgeConfig;
use rlaif_core::money::Price;
use rlaif_judge::batch::{BatchLimits, BatchOptions, BatchStop, BatchSummary, drive};
use rlaif_judge::engine::Stop;
use rlaif_judge::{CallErrorKind, Provider};
use rlaif_store::StoreError;
use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime};

/// Batches that are at the provider at once.
const MOST_OPEN: usize = 8;

/// First wait between two looks at the open batches.
const FIRST_POLL: Duration = Duration::from_secs(10);

/// A batch that is in no list of the provider's this long after it was intended was never made.
const SETTLE: Duration = Duration::from_secs(120);

/// The terms on which a stage's requests to a judge go in batches.
///
/// # Errors
/// If a limit is no amount of money.
pub fn terms<'a>(
    context: &Context,
    stage: &'a str,
    judge: &'a JudgeConfig,
    sets: &'a [&'a str],
    price: Option<Price>,
) -> Result<BatchTerms<'a>> {
    Ok(BatchTerms {
        stage,
        judge: &judge.name,
        sets,
        price,
        caps: sending::caps(context, stage)?,
        max_resends: u32::try_from(judge.max_resends).unwrap_or(u32::MAX),
        strict_model: judge.strict_model.then(|| judge.model.clone()),
        sends: judge.batch,
    })
}

/// Sends a judge's planned requests in batches and waits until every batch has ended; of a judge that does not ask for batches, it
/// fetches those that are out.
///
/// # Errors
/// If the provider refuses, the money does not reach or the user asked to stop; batches that are out stay with the provider.
pub fn send(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
    model: &Provider,
    price: Option<Price>,
) -> Result<()> {
    let (sets, store) = (sending::sets(work), &context.store);
    let batches = context.wait(store.open_batches(Some(&judge.name)))?;
    let out: Vec<_> = batches.iter().filter(|batch| batch.account.is_some()).collect();
    // Counting a million requests takes a while, and most judges have no batches.
    if out.is_empty() && !judge.batch {
        return Ok(());
    }
    let (mut total, mut planned) = (0, 0);
    for set in &sets {
        let (all, open) = context.wait(store.open_requests(&judge.name, set))?;
        (total, planned) = (total + all, planned + open);
    }
    let planned = if judge.batch { planned.min(total) } else { 0 };
    if out.is_empty() && planned == 0 {
        return Ok(());
    }
    let waiting: u64 = out.iter().map(|batch| batch.waiting).sum();
    let Some(client) = model.batches() else {
        let id = out.first().map_or_else(String::new, |batch| batch.name.clone());
        return Err(explain(BatchStop::OtherAccount { id }, judge));
    };
    let done = total.saturating_sub(planned + waiting);
    let progress = RefCell::new(Progress::new(work.stage, "requests", done, total));
    let told = Cell::new(false);
    let tell = |tally: &BatchTally| {
        if tally.open > 0 && !told.replace(true) {
            say(&format!(
                "{}: {} requests of `{}` are out in {}; Ctrl-C leaves them with the provider, and the same command fetches them",
                work.stage,
                tally.waiting,
                judge.name,
                batches_text(tally.open)
            ));
        }
        progress.borrow_mut().set(done + tally.replies + tally.refused, total, &note(tally));
    };
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let poll_at_most = Duration::try_from_secs_f64(judge.batch_poll_seconds).unwrap_or(FIRST_POLL);
    let options = BatchOptions {
        // What the provider allows.
        limits: BatchLimits { requests: usize::MAX, bytes: usize::MAX },
        most_open: MOST_OPEN,
        poll: FIRST_POLL.min(poll_at_most),
        poll_at_most,
        settle: SETTLE,
        stop: stopped,
    };
    let mut batches =
        context.wait(Batches::new(store, terms(context, work.stage, judge, &sets, price)?, tell))?;
    let ended = sending::until_interrupted(context, &stop, drive(&client, &mut batches, &options));
    let tally = batches.tally();
    drop(batches);
    progress.into_inner().finish();
    let summary = ended.map_err(|stop| explain(stop, judge))?;
    say_end(work.stage, judge, &tally, &summary);
    match summary.interrupted {
        true => Err(Interrupted { stage: work.stage.into() }.into()),
        false => Ok(()),
    }
}

fn batches_text(count: usize) -> String {
    if count == 1 { "1 batch".into() } else { format!("{count} batches") }
}

/// How they stand, behind a bar or in a line.
fn note(tally: &BatchTally) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    format!(
        "{} open, looked at {:02}:{:02} UTC, {} spent or set aside",
        batches_text(tally.open),
        now / 3600 % 24,
        now / 60 % 60,
        tally.charged
    )
}

fn say_end(stage: &str, judge: &JudgeConfig, tally: &BatchTally, summary: &BatchSummary) {
    let mut words = format!("{stage}: {} replies of `{}` out of batches", tally.replies, judge.name);
    for (count, what) in [
        (tally.not_done, "not done"),
        (tally.refused, "refused and given up"),
        (tally.strangers, "of requests that are not this run's"),
    ] {
        if count > 0 {
            words += &format!(", {count} {what}");
        }
    }
    if summary.interrupted && tally.open > 0 {
        words += &format!(
            "; left with the provider: {} with {} requests, which the same command fetches",
            batches_text(tally.open),
            tally.waiting
        );
    }
    say(&words);
}

fn explain(stop: BatchStop<Stop<StoreError>>, judge: &JudgeConfig) -> anyhow::Error {
    let hint = match &stop {
        BatchStop::Call(error) if error.kind == CallErrorKind::NotFound => {
            "An endpoint without batches wants `batch = false`, or a file: `rlaif batch export`; results that are gone for ever are asked again \
             after `rlaif batch release CONFIG NAME`"
        }
        BatchStop::Call(_) => "Mend it and run the same command again",
        BatchStop::OtherAccount { .. } => {
            "`rlaif batch list` shows it; if that key is gone for ever, `rlaif batch release CONFIG NAME` asks its requests again"
        }
        BatchStop::Failed { .. } => {
            "Run the same command again when the provider has room, or mend what it says"
        }
        BatchStop::Ledger(_) => "",
    };
    match stop {
        BatchStop::Ledger(stop) => sending::stopped(stop, judge),
        stop => UserError::new(format!("judge `{}`: {stop}", judge.name))
            .hint(format!(
                "{hint}; every answer that arrived is kept, and open batches go on at the provider"
            ))
            .into(),
    }
}
