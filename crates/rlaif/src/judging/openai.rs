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
use rlaif_judge::openai::{DEFAULT_BASE_URL, OpenAi};
use rlaif_judge::retry::RetryPolicy;
use rlaif_judge::template::nonce;
use rlaif_judge::{Budget, CallFate, ChatRequest, PairwiseView, Style, Templates, orders, read_reply};
use rlaif_store::StoreError;
use rlaif_store::store::{PlannedRequest, RequestFailure, Store};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Replies that are read between two looks at the ledger.
const REPLIES_A_PAGE: usize = 256;

/// Buys the verdicts that the ledger does not have yet.
pub fn judge(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    let requests = requests(context, work, judge)?;
    let plan: Vec<PlannedRequest> = requests.iter().map(|(plan, _)| plan.clone()).collect();
    let by_key: HashMap<&str, &ChatRequest> =
        requests.iter().map(|(plan, request)| (plan.request_key.as_str(), request)).collect();
    let summary = context.wait(context.store.plan_requests(&plan))?;
    if summary.answered > 0 && summary.new > 0 {
        say(&format!(
            "{}: {} of {} answers of `{}` are in the ledger",
            work.stage,
            summary.answered,
            plan.len(),
            judge.name
        ));
    }
    context.wait(context.store.retry_failed(&judge.name))?;
    let open = context.wait(context.store.planned(&judge.name))?;
    let tasks: Vec<Task> = open
        .iter()
        .filter_map(|request| {
            let asked = by_key.get(request.request_key.as_str())?;
            Some(Task { key: request.request_key.clone(), request: (*asked).clone() })
        })
        .collect();
    let sent = if tasks.is_empty() { Ok(()) } else { send(context, work, judge, tasks, by_key.len()) };
    // Whatever stopped the sending, what arrived is read.
    read(context)?;
    sent
}

/// Every presentation with its request.
fn requests(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
) -> Result<Vec<(PlannedRequest, ChatRequest)>> {
    let templates = Templates::new(&work.label.criteria, &work.label.few_shot)?;
    let seed = context.config.run.seed;
    let base_url = judge.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL).trim_end_matches('/');
    let mut requests = Vec::new();
    for pair in &work.pairs {
        let prompt = work.prompt(pair)?.prompt.display();
        for order in orders(seed, &pair.id, work.label.position_check_rate) {
            let (first, second) = work.shown(pair, order)?;
            let view = PairwiseView { prompt: &prompt, first, second, nonce: nonce(seed, &pair.id) };
            let request = ChatRequest {
                model: judge.model.clone(),
                messages: templates.explain(&view)?,
                max_tokens: judge.max_tokens,
                temperature: judge.sampling_temperature,
                seed: None,
                top_logprobs: None,
            };
            let body = request.canonical_body();
            let vote = 0;
            let request_key =
                blake3::hash(format!("{base_url}\n{vote}\n{body}").as_bytes()).to_hex().to_string();
            let (pair_id, judge) = (pair.id.clone(), judge.name.clone());
            requests.push((PlannedRequest { pair_id, judge, order, vote, request_key, body }, request));
        }
    }
    Ok(requests)
}

fn send(
    context: &Context,
    work: &Assignment,
    judge: &JudgeConfig,
    tasks: Vec<Task>,
    total: usize,
) -> Result<()> {
    let model = client(judge)?;
    let max = context.config.label.max_usd.map(MicroUsd::from_dollars).transpose()?;
    let budget = Budget::new(max, context.wait(context.store.spend())?.known);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let done = total - tasks.len();
    let mut ledger = Ledger {
        store: &context.store,
        progress: Progress::new(work.stage, "calls", done as u64, total as u64),
        done: done as u64,
        total: total as u64,
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
            ended = judge_all(&model, tasks, options, &mut ledger) => ended,
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
        Ok(_) => Ok(()),
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
    let mut seen = BTreeSet::new();
    loop {
        let page = context.wait(context.store.unread_replies(PARSER, REPLIES_A_PAGE))?;
        let before = seen.len();
        for reply in page {
            // Replies to judges that the config no longer names stay unread; they were paid for, and keep their price.
            let Some(judge) = judges.get(reply.judge.as_str()) else { continue };
            if !seen.insert(reply.reply_id) {
                continue;
            }
            let reading = read_reply(&reply.raw, Style::BetterResponse, judge.max_tokens);
            let cost = price(judge)?.zip(reading.usage).map(|(price, usage)| price.cost(&usage));
            let store = &context.store;
            context.wait(store.put_verdict(reply.reply_id, PARSER, &reading.verdict, reading.usage, cost))?;
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
