//! Judges behind an endpoint of any provider: plan, send, store the raw reply, and only then read it.

use super::asking::{self, Asking};
use super::reuse::OtherRuns;
use super::{Assignment, forms, sending, templates};
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
/// does so in rounds, and stops after the first that shows that the judge is fooled.
pub fn judge(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    let askers = templates::of_asked(context, judge)?;
    let price = price(&context.config, judge);
    let model = forms::client(context, work, judge, client(judge)?, &askers, price)?;
    let asking = Asking { context, judge, askers: &askers, price };
    let others = OtherRuns::open(context)?;
    let works: Vec<&Assignment> =
        std::iter::once(work).chain(work.tripwires.map(|wires| wires.work())).collect();
    let planned = sending::plan_once(context, work, judge, model.capabilities(), || {
        asking.plan_first(&model, &work.traffic())
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
        others.take(context, work, judge)?;
        let mut round = if work.tripwires.is_some() { FIRST_ROUND } else { usize::MAX };
        loop {
            let sent = sending::send(context, work, judge, &model, asking.price, round);
            // Whatever stopped the sending, what arrived is read.
            read()?;
            if !sent? && sending::ask_again(context, work, judge)? == 0 {
                break;
            }
            round = round.saturating_mul(2).min(MOST_OF_A_ROUND.max(20 * judge.max_concurrency));
        }
    }
    Ok(())
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
    Provider::from_config(judge, |name| std::env::var(name).ok())
        .map_err(|error| UserError::new(format!("judge `{}`: {error}", judge.name)).into())
}
