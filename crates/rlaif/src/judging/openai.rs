//! Judges behind an endpoint of any provider: plan, send, store the raw reply, and only then read it.

use super::asking::{self, Asking};
use super::reuse::OtherRuns;
use super::{Assignment, batch_sending, forms, sending, templates};
use crate::context::Context;
use crate::error::UserError;
use crate::progress::say;
use anyhow::Result;
use rlaif_core::config::{Config, JudgeConfig};
use rlaif_core::money::Price;
use rlaif_judge::Provider;
use rlaif_judge::template::TemplateProtocol;

/// Calls before the tripwires among them are looked at for the first time; each round is twice as long as the one before.
const FIRST_ROUND: usize = 200;

/// Calls of the longest round, unless many are in flight: the end of a round waits for its slowest call, which must not show.
const MOST_OF_A_ROUND: usize = 2000;

/// Buys the verdicts that the ledger does not have yet: all first steps, then all second ones, and so on. Where there are tripwires it
/// does so in rounds, and stops after the first that shows that the judge is fooled; what goes in batches goes in one round.
pub fn judge(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    let askers = templates::of_asked(context, judge)?;
    let price = price(&context.config, judge);
    let model = forms::client(context, work, judge, client(judge)?, &askers, price)?;
    let asking = Asking { context, judge, askers: &askers, price };
    let others = OtherRuns::open(context)?;
    let works = with_tripwires(work);
    prepare(&asking, work, &works, &model)?;
    let in_files = context.wait(context.store.in_files(&judge.name, &sending::sets(work)))?;
    if in_files > 0 {
        return Err(UserError::new(format!(
            "judge `{}`: {in_files} of its requests are out in a file, and their results are not in yet",
            judge.name
        ))
        .hint("Store them with `rlaif batch import CONFIG FILE`, or ask again with `rlaif batch release CONFIG`")
        .into());
    }
    for step in 0..asking::steps(&askers) {
        begin_step(&asking, work, &works, &model, &others, step)?;
        let mut round = if work.tripwires.is_some() { FIRST_ROUND } else { usize::MAX };
        loop {
            let sent = send(&asking, work, &model, round);
            // Whatever stopped the sending, what arrived is read.
            read(&asking, work, &works)?;
            if !sent? && sending::ask_again(context, work, judge)? == 0 {
                break;
            }
            round = round.saturating_mul(2).min(MOST_OF_A_ROUND.max(20 * judge.max_concurrency));
        }
    }
    Ok(())
}

/// Plans all that a judge can be asked now, without asking it: what goes out as a file.
///
/// # Errors
/// If it cannot be planned, or a tripwire has shown that the judge is fooled.
pub fn plan_only(context: &Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    // What is asked does not hang on the key, which whoever plans need not have.
    let client = with_key(judge, |_| Some("none".into()))?;
    let askers = templates::of_asked(context, judge)?;
    let model = forms::client_without_asking(context, judge, client, &askers)?;
    let asking = Asking { context, judge, askers: &askers, price: price(&context.config, judge) };
    let others = OtherRuns::open(context)?;
    let works = with_tripwires(work);
    prepare(&asking, work, &works, &model)?;
    sending::ask_again(context, work, judge)?;
    for step in 0..asking::steps(&askers) {
        begin_step(&asking, work, &works, &model, &others, step)?;
        read(&asking, work, &works)?;
    }
    Ok(())
}

fn with_tripwires<'a>(work: &'a Assignment<'a>) -> Vec<&'a Assignment<'a>> {
    std::iter::once(work).chain(work.tripwires.map(|wires| wires.work())).collect()
}

/// Plans what was not planned before, and reads what has come since.
fn prepare(asking: &Asking, work: &Assignment, works: &[&Assignment], model: &Provider) -> Result<()> {
    let (context, judge) = (asking.context, asking.judge);
    let planned = sending::plan_once(context, work, judge, model.capabilities(), || {
        asking.plan_first(model, &work.traffic())
    })?;
    if let Some(summary) = planned
        && summary.answered > 0
        && summary.new > 0
    {
        let (all, _) = context.wait(context.store.open_requests(&judge.name, work.set))?;
        let answered = summary.answered;
        say(&format!("{}: {answered} of {all} answers of `{}` are in the ledger", work.stage, judge.name));
    }
    context.wait(context.store.retry_failed(&judge.name, judge.max_resends > 0))?;
    read(asking, work, works)
}

/// Plans a step of the templates, of which the first is planned already, and takes what other runs have bought of it.
fn begin_step(
    asking: &Asking,
    work: &Assignment,
    works: &[&Assignment],
    model: &Provider,
    others: &OtherRuns,
    step: u32,
) -> Result<()> {
    if step > 0 {
        works.iter().try_for_each(|work| asking.plan_step(model, work, step))?;
    }
    others.take(asking.context, work, asking.judge)
}

/// Reads every reply that was not read, and stops where a tripwire shows that the judge is fooled.
fn read(asking: &Asking, work: &Assignment, works: &[&Assignment]) -> Result<()> {
    let (context, judge) = (asking.context, asking.judge);
    for work in works {
        asking.read(work)?;
        for asker in asking.askers.iter().filter(|asker| asker.protocol() == TemplateProtocol::Rating) {
            asking.ratings(work, asker)?.store(context, work, judge, asker.name())?;
        }
    }
    work.tripwires.map_or(Ok(()), |wires| wires.check(context, &judge.name))
}

/// Sends what is planned, and says whether there may be more. Batches that are out are waited for first, also by a judge that asks for
/// none any more: what is in them is bought already.
fn send(asking: &Asking, work: &Assignment, model: &Provider, round: usize) -> Result<bool> {
    let Asking { context, judge, price, .. } = *asking;
    batch_sending::send(context, work, judge, model, price)?;
    match judge.batch {
        true => Ok(false),
        false => sending::send(context, work, judge, model, price, round),
    }
}

/// What the judge charges; `None` where neither the config nor the table that ships says so.
pub fn price(config: &Config, judge: &JudgeConfig) -> Option<Price> {
    config.price_of(judge).map(|(price, _)| price)
}

/// The client of a judge, with its key from the environment.
///
/// # Errors
/// If the key is not set, or must not be sent to the judge's URL.
pub fn client(judge: &JudgeConfig) -> Result<Provider> {
    with_key(judge, |name| std::env::var(name).ok())
}

fn with_key(judge: &JudgeConfig, env: impl Fn(&str) -> Option<String>) -> Result<Provider> {
    Provider::from_config(judge, env)
        .map_err(|error| UserError::new(format!("judge `{}`: {error}", judge.name)).into())
}
