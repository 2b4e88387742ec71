//! Judges behind an OpenAI-compatible endpoint: plan, send, store the raw reply, and only then read it.

use super::{Assignment, PARSER};
use crate::context::Context;
use crate::error::{Interrupted, UserError};
use crate::interrupt;
use crate::progress::{Progress, say};
use anyhow::{Context as _, Result};
use rlaif_core::config::JudgeConfig;
use rlaif_core::money::{MicroUsd, Price};
use rlaif_judge::engine::{EngineOptions, Event, Journal, Stop, Task, Then, judge_all};
use rlaif_judge::openai::OpenAi;
use rlaif_judge::retry::RetryPolicy;
use rlaif_judge::template::nonce;
use rlaif_judge::{
    Budget, CallFate, ChatModel, ChatRequest, PairwiseView, Style, Templates, orders, read_reply,
};
use rlaif_store::StoreError;
use rlaif_store::store::{PlanSummary, PlannedRequest, Presentation, RequestFailure, Store};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Replies that are read between two looks at the ledger.
const REPLIES_A_PAGE: usize = 256;

/// Pairs whose requests are planned in one transaction.
const PAIRS_A_PAGE: usize = 256;

/// The template of pairwise judges: explanation, then verdict.
const TEMPLATE: &str = "explain";

/// Calls before the tripwires among them are looked at for the first time; each round is twice as long as the one before.
const FIRST_ROUND: usize = 200;

/// Calls of the longest round, unless many are in flight: the end of a round waits for its slowest call, which must not show.
const MOST_OF_A_ROUND: usize = 2000;

/// Buys the verdicts that the ledger does not have yet. Where there are tripwires it does so in rounds, and stops after the first
/// that shows that the judge is fooled.
pub fn judge(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    let model = client(judge)?;
    let summary = plan(context, work, judge, &model)?;
    let (all, _) = context.wait(context.store.open_requests(&judge.name, work.set))?;
    if summary.answered > 0 && summary.new > 0 {
        let answered = summary.answered;
        say(&format!("{}: {answered} of {all} answers of `{}` are in the ledger", work.stage, judge.name));
    }
    context.wait(context.store.retry_failed(&judge.name))?;
    read(context)?;
    let check = |context: &Context| work.tripwires.map_or(Ok(()), |wires| wires.check(context, &judge.name));
    check(context)?;
    let mut round = if work.tripwires.is_some() { FIRST_ROUND } else { usize::MAX };
    loop {
        let sent = send(context, work, judge, &model, round);
        // Whatever stopped the sending, what arrived is read.
        read(context)?;
        check(context)?;
        if sent? == 0 {
            return Ok(());
        }
        round = round.saturating_mul(2).min(MOST_OF_A_ROUND.max(20 * judge.max_concurrency));
    }
}

/// Puts the request of every presentation into the ledger.
fn plan(context: &Context, work: &Assignment, judge: &JudgeConfig, model: &OpenAi) -> Result<PlanSummary> {
    let templates = Templates::new(&work.label.criteria, &work.label.few_shot)?;
    let seed = context.config.run.seed;
    let mut summary = PlanSummary::default();
    for pairs in work.traffic().chunks(PAIRS_A_PAGE) {
        let mut page = Vec::new();
        for (work, pair) in pairs {
            let prompt = work.prompt(pair)?.prompt.display();
            for order in orders(seed, &pair.id, work.label.position_check_rate) {
                let (first, second) = work.shown(pair, order)?;
                let view = PairwiseView {
                    prompt: &prompt,
                    first: &first,
                    second: &second,
                    nonce: nonce(seed, &pair.id),
                };
                let request = ChatRequest {
                    model: judge.model.clone(),
                    messages: templates.explain(&view)?,
                    max_tokens: judge.max_tokens,
                    temperature: judge.sampling_temperature,
                    seed: None,
                    top_logprobs: None,
                };
                let body = model.body(&request);
                let presentation = Presentation {
                    pair_id: pair.id.clone(),
                    judge: judge.name.clone(),
                    template: TEMPLATE.into(),
                    order,
                    vote: 0,
                };
                page.push(PlannedRequest {
                    step: 0,
                    last_step: true,
                    request_key: request_key(judge.base_url(), presentation.vote, &body),
                    body,
                    prompt_tokens_at_most: request.prompt_tokens_at_most(),
                    max_tokens: request.max_tokens as u64,
                    presentation,
                });
            }
        }
        let planned = context.wait(context.store.plan_requests(&page))?;
        summary.new += planned.new;
        summary.answered += planned.answered;
    }
    Ok(summary)
}

/// The hash of all that decides a reply.
fn request_key(base_url: &str, vote: u32, body: &str) -> String {
    blake3::hash(format!("{base_url}\n{vote}\n{body}").as_bytes()).to_hex().to_string()
}

/// Sends at most `round` of the open requests, those of the tripwires in their places, and returns how many stay open.
fn send(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
    model: &OpenAi,
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
        price: price(judge)?,
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

/// Reads every raw reply that this version has not read.
fn read(context: &Context) -> Result<()> {
    let config = &context.config;
    let judges: HashMap<&str, &JudgeConfig> = config
        .label
        .judges
        .iter()
        .chain(config.evaluate.judges.iter().flatten())
        .map(|judge| (judge.name.as_str(), judge))
        .collect();
    let mut seen = HashSet::new();
    loop {
        let page = context.wait(context.store.unread_replies(PARSER, REPLIES_A_PAGE))?;
        let before = seen.len();
        for reply in page {
            // Replies to judges that the config no longer names stay unread; they were paid for, and keep their price.
            let Some(judge) = judges.get(reply.presentation.judge.as_str()) else { continue };
            if !seen.insert((reply.reply_id, reply.presentation.clone())) {
                continue;
            }
            let reading = read_reply(&reply.raw, Style::BetterResponse, judge.max_tokens);
            let cost = price(judge)?.zip(reading.usage).map(|(price, usage)| price.cost(&usage));
            let store = &context.store;
            context.wait(store.put_verdict(&reply, PARSER, &reading.verdict, reading.usage, cost))?;
        }
        if seen.len() == before {
            return Ok(());
        }
    }
}

/// What the judge charges; `None` where the config does not say.
fn price(judge: &JudgeConfig) -> Result<Option<Price>> {
    match (judge.usd_per_million_input, judge.usd_per_million_output) {
        (Some(input), Some(output)) => {
            Ok(Some(Price::from_dollars(input, output, judge.usd_per_million_cached_input)?))
        }
        _ => Ok(None),
    }
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
pub fn client(judge: &JudgeConfig) -> Result<OpenAi> {
    OpenAi::from_config(judge, |name| std::env::var(name).ok())
        .map_err(|error| UserError::new(format!("judge `{}`: {error}", judge.name)).into())
}
