//! Sending what is planned: limits, budgets, retries, and asking again for what was no use.

use super::batches::Cap;
use super::ledger::{self, Ledger, Planned, Tally};
use super::{Assignment, templates};
use crate::context::Context;
use crate::error::{Interrupted, UserError};
use crate::interrupt;
use crate::progress::{Progress, duration_text, say};
use anyhow::{Context as _, Result};
use rlaif_core::config::{JudgeConfig, Stage};
use rlaif_core::money::{MicroUsd, Price};
use rlaif_core::records::Order;
use rlaif_judge::budget::Limit;
use rlaif_judge::engine::{EngineOptions, Stop, Summary, judge_all};
use rlaif_judge::retry::RetryPolicy;
use rlaif_judge::{Budget, Capabilities, ChatModel, LimitOptions};
use rlaif_store::StoreError;
use std::cell::RefCell;
use std::time::{Duration, SystemTime};
use tokio::sync::watch::{Receiver, Sender};

/// A task that waits longer than this for its next attempt waits in the ledger.
const PARK_AFTER: Duration = Duration::from_secs(60);

/// Files that a run has open besides its connections.
const OTHER_FILES: u64 = 256;

/// Sends at most `round` of a judge's planned requests, those of the tripwires in their places, and says whether there may be more.
///
/// # Errors
/// If the judge cannot go on or the user asked to stop; every reply that arrived is kept.
pub fn send<M: ChatModel>(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
    model: &M,
    price: Option<Price>,
    round: usize,
) -> Result<bool> {
    let sets = sets(work);
    let (mut total, mut open) = (0, 0);
    for set in &sets {
        let (all, left) = context.wait(context.store.open_requests(&judge.name, set))?;
        (total, open) = (total + all, open + left);
    }
    let open = open.min(total);
    if open == 0 {
        return Ok(false);
    }
    allow_connections(judge)?;
    let done = total - open;
    let (budget, charged_before) = budget(context, work)?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let progress = RefCell::new(Progress::new(work.stage, "calls", done, total));
    let ledger = Ledger::new(&context.store, work.stage, &judge.name, |tally: Tally| {
        progress.borrow_mut().set(done + tally.ended, total, &note(charged_before, &tally));
    });
    let mut planned = Planned::new(&context.store, &judge.name, &sets, round);
    let options =
        EngineOptions { park_after: PARK_AFTER, ..options(context, judge, price, &budget, stopped) };
    let ended = until_interrupted(context, &stop, judge_all(model, &mut planned, options, &ledger));
    let given_up = ledger.tally().given_up;
    progress.into_inner().finish();
    if given_up > 0 {
        say(&format!(
            "{}: {given_up} calls to `{}` were given up; they are counted as failed",
            work.stage, judge.name
        ));
    }
    explain(ended, work, judge)?;
    Ok(planned.has_more())
}

/// Waits for work that ends when it is told to stop, and tells it when the user asks for it.
pub fn until_interrupted<T>(context: &Context, stop: &Sender<bool>, work: impl Future<Output = T>) -> T {
    context.wait(async {
        let listen = async {
            while !interrupt::requested() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            stop.send(true).ok();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = work => ended,
            () = listen => unreachable!("it listens until the work ends"),
        }
    })
}

/// How the engine asks a judge: what its config says, and nothing parked.
pub fn options<'a>(
    context: &Context,
    judge: &JudgeConfig,
    price: Option<Price>,
    budget: &'a Budget,
    stopped: Receiver<bool>,
) -> EngineOptions<'a> {
    EngineOptions {
        concurrency: judge.max_concurrency,
        retry: RetryPolicy { max_resends: judge.max_resends, ..RetryPolicy::new(judge.max_retries) },
        limits: LimitOptions {
            requests_per_minute: judge.requests_per_minute,
            tokens_per_minute: judge.tokens_per_minute,
        },
        price,
        strict_model: judge.strict_model.then(|| judge.model.clone()),
        drain: Duration::try_from_secs_f64(context.config.run.drain_seconds).unwrap_or_default(),
        seed: context.config.run.seed,
        ..EngineOptions::new(budget, stopped)
    }
}

/// The set that is judged, and that of the tripwires among it.
pub fn sets<'a>(work: &Assignment<'a>) -> Vec<&'a str> {
    std::iter::once(work.set).chain(work.tripwires.map(|wires| wires.work().set)).collect()
}

/// What the user is told of how the sending ended; an error where it cannot go on.
///
/// # Errors
/// If it was stopped.
pub fn explain(
    ended: Result<Summary, Stop<StoreError>>,
    work: &Assignment,
    judge: &JudgeConfig,
) -> Result<()> {
    let stop = match ended {
        Ok(summary) => {
            if summary.abandoned > 0 {
                say(&format!(
                    "{}: {} calls to `{}` had no reply when it was time to leave; they are counted as possibly billed",
                    work.stage, summary.abandoned, judge.name
                ));
            }
            return match summary.interrupted {
                true => Err(Interrupted { stage: work.stage.into() }.into()),
                false => Ok(()),
            };
        }
        Err(stop) => stop,
    };
    Err(stopped(stop, judge))
}

/// Why a judge cannot go on, in the user's words.
pub fn stopped(stop: Stop<StoreError>, judge: &JudgeConfig) -> anyhow::Error {
    let hint = match &stop {
        Stop::Journal(_) => String::new(),
        Stop::Budget { key, .. } => format!("Raise `{key}` and run the same command again"),
        Stop::UnknownPrice { key, .. } => format!(
            "Give the judge its prices (`usd_per_million_input`, `usd_per_million_output`) or remove `{key}`"
        ),
        Stop::WrongModel { .. } => {
            "Ask for a model that the endpoint has, or set the judge's `strict_model = false`".into()
        }
        _ => "Mend it and run the same command again".into(),
    };
    match stop {
        Stop::Journal(error) => anyhow::Error::from(error).context("a judge's call could not be recorded"),
        stop => UserError::new(format!("judge `{}`: {stop}", judge.name))
            .hint(format!("{hint}; every answer that arrived is kept"))
            .into(),
    }
}

/// The purse of a stage (its own limit and that of the whole run, less what the ledger counts already), and what the stage has been
/// charged.
pub fn budget(context: &Context, work: &Assignment) -> Result<(Budget, MicroUsd)> {
    let (all, of_stage) = context.wait(context.store.charged(work.stage))?;
    let limit = |cap: Cap| {
        let spent = if cap.of_stage { of_stage } else { all };
        Limit { key: cap.key, max: cap.max, spent }
    };
    let limits = caps(context, work.stage)?.into_iter().map(limit).collect();
    Ok((Budget::within(limits), of_stage))
}

/// What a stage may spend: its own limit and that of the whole run.
///
/// # Errors
/// If a limit is no amount of money.
pub fn caps(context: &Context, stage: &str) -> Result<Vec<Cap>> {
    let of_stage = Stage::ALL.into_iter().find(|known| known.name() == stage);
    let of_stage = of_stage.and_then(|stage| context.config.run.max_usd_per_stage.of(stage));
    let limits =
        [("label.max_usd", context.config.label.max_usd, false), ("run.max_usd_per_stage", of_stage, true)];
    let given = limits.into_iter().filter_map(|(key, max, of_stage)| Some((key, max?, of_stage)));
    given.map(|(key, max, of_stage)| Ok(Cap { key, max: MicroUsd::from_dollars(max)?, of_stage })).collect()
}

/// What the stage has been charged, this sending included, and what it waits for.
fn note(before: MicroUsd, tally: &Tally) -> String {
    let charged = format!("{} so far", [before, tally.charged].into_iter().sum::<MicroUsd>());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wait = tally.parked_until_ms.and_then(|until| u64::try_from(until).ok());
    match wait.map(|until| Duration::from_millis(until).saturating_sub(now)) {
        Some(wait) if !wait.is_zero() => {
            format!("{charged}, the endpoint wants some to wait for {}", duration_text(wait))
        }
        _ => charged,
    }
}

/// Plans one more request for each reply that is no use. Returns how many.
///
/// # Errors
/// If the ledger cannot be read or written.
pub fn ask_again(context: &Context, work: &Assignment, judge: &JudgeConfig) -> Result<usize> {
    let count = context.wait(ledger::ask_again(&context.store, &judge.name, &sets(work)))?;
    if count > 0 {
        say(&format!(
            "{}: {count} replies of `{}` are no use and are asked for once more",
            work.stage, judge.name
        ));
    }
    Ok(count)
}

/// The hash of all that the plan of a judge's requests depends on.
fn fingerprint(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
    capabilities: Capabilities,
) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let mut put = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    put(env!("CARGO_PKG_VERSION"));
    put(&context.config.run.seed.to_string());
    put(&serde_json::to_string(work.label)?);
    put(&serde_json::to_string(judge)?);
    put(&serde_json::to_string(&capabilities)?);
    for (name, fingerprint) in templates::fingerprints(context, std::slice::from_ref(judge))? {
        put(&name);
        put(&fingerprint);
    }
    for (work, pair) in work.traffic() {
        put(work.set);
        put(&pair.id);
        put(&serde_json::to_string(work.prompt(pair)?)?);
        let (a, b) = work.shown(pair, Order::Ab)?;
        put(&a);
        put(&b);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Plans what was not planned before, once for a given question: a run that goes on does not plan a million requests again.
///
/// # Errors
/// If it cannot be planned.
pub fn plan_once<T>(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
    capabilities: Capabilities,
    plan: impl FnOnce() -> Result<T>,
) -> Result<Option<T>> {
    let fingerprint = fingerprint(context, work, judge, capabilities)?;
    let (store, sets) = (&context.store, sets(work));
    let mut known = true;
    for set in &sets {
        known &= context.wait(store.is_planned(&judge.name, set, &fingerprint))?;
    }
    if known {
        return Ok(None);
    }
    let planned = plan()?;
    for set in &sets {
        context.wait(store.put_planned(&judge.name, set, &fingerprint))?;
    }
    Ok(Some(planned))
}

/// Raises the limit of open files to what the judge's connections need.
fn allow_connections(judge: &JudgeConfig) -> Result<()> {
    let needed = judge.max_concurrency as u64 + OTHER_FILES;
    let allowed = rlimit::increase_nofile_limit(needed).context("asking how many files may be open")?;
    if allowed >= needed {
        return Ok(());
    }
    Err(UserError::new(format!(
        "judge `{}`: {} calls in flight need {needed} open files, and the system allows {allowed}",
        judge.name, judge.max_concurrency
    ))
    .hint(format!("Raise it with `ulimit -n {needed}`, or lower the judge's `max_concurrency`"))
    .into())
}
