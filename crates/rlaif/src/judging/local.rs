//! Judges that this program loads itself.

use super::{Assignment, PARSER};
use crate::context::Context;
use crate::interrupt;
use crate::local_judge::LocalJudge;
use crate::progress::Progress;
use anyhow::{Context as _, Result};
use rlaif_core::config::JudgeConfig;
use rlaif_core::records::{NoVerdict, Order, Verdict};
use rlaif_judge::local::{Contrast, contrastive_scores, contrastive_verdict, pairwise_verdicts};
use rlaif_judge::template::nonce;
use rlaif_judge::{PairwiseView, ScoreItem, Templates, orders};
use rlaif_store::store::VerdictRow;
use std::collections::{BTreeMap, BTreeSet};

/// Responses that a contrastive judge scores between two commits.
const RESPONSES_A_UNIT: usize = 32;

/// Presentations that a pairwise judge reads between two commits.
const PRESENTATIONS_A_UNIT: usize = 16;

/// Scores every response once, however many pairs it is in; p follows from the difference of two scores.
pub fn contrastive(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    let contrast = Contrast::of(judge).context("`validate` asks for `principle` and `opposite`")?;
    let known = context.wait(context.store.scores(&judge.name))?;
    let mut wanted = BTreeMap::new(); // in one order, so that a resumed run scores the same batches
    for pair in work.asked() {
        for id in [&pair.a, &pair.b] {
            wanted.insert((&pair.prompt_id, id), pair);
        }
    }
    let wanted: Vec<_> = wanted.into_iter().collect();
    let mut too_long: BTreeMap<&str, String> = BTreeMap::new();
    let total = wanted.len() as u64;
    let mut done = wanted.iter().filter(|((_, id), _)| known.contains_key(*id)).count() as u64;
    let mut progress = Progress::new(work.stage, "responses", done, total);
    let mut model = None;
    for unit in wanted.chunks(RESPONSES_A_UNIT) {
        if unit.iter().all(|((_, id), _)| known.contains_key(*id)) {
            continue;
        }
        interrupt::check(work.stage)?;
        let model = match &mut model {
            Some(model) => model,
            None => model.insert(LocalJudge::open(context, judge)?),
        };
        let (mut ids, mut items) = (Vec::new(), Vec::new());
        for ((_, id), pair) in unit {
            let messages = work.conversation(work.prompt(pair)?);
            let response = work.response(id)?.text.clone();
            let longest = [contrast.principle, contrast.opposite].map(|system| {
                let mut told = vec![rlaif_core::records::Message::system(system)];
                told.extend(messages.iter().filter(|message| message.role != "system").cloned());
                model.too_long(&told, &response)
            });
            match longest.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().next() {
                Some(why) => drop(too_long.insert(id, why)),
                None => {
                    ids.push((*id).clone());
                    items.push(ScoreItem { messages, response });
                }
            }
        }
        let scores = contrastive_scores(model, &contrast, &items)
            .with_context(|| format!("judge `{}` scoring responses", judge.name))?;
        let scores: Vec<(String, f64)> = ids
            .into_iter()
            .zip(scores)
            .filter_map(|(id, score)| Some((id, score.filter(|score| score.is_finite())?)))
            .collect();
        context.wait(context.store.put_scores(&judge.name, &scores))?;
        done += unit.iter().filter(|((_, id), _)| !known.contains_key(*id)).count() as u64;
        progress.set(done, total, &judge.name);
    }
    progress.finish();

    let scores = context.wait(context.store.scores(&judge.name))?;
    let verdict_on = |a: &str, b: &str| match too_long.get(a).or_else(|| too_long.get(b)) {
        Some(why) => Verdict::none(NoVerdict::Failed(why.clone())),
        None => contrastive_verdict(scores.get(a).copied(), scores.get(b).copied(), contrast.temperature),
    };
    // A contrastive judge sees one response at a time: there is no order, and one verdict says it all.
    let verdicts: Vec<VerdictRow> = work
        .asked()
        .map(|pair| VerdictRow {
            pair_id: pair.id.clone(),
            judge: judge.name.clone(),
            template: "contrastive".into(),
            order: Order::Ab,
            vote: 0,
            verdict: verdict_on(&pair.a, &pair.b),
        })
        .collect();
    Ok(context.wait(context.store.put_verdicts(PARSER, &verdicts))?)
}

/// Reads the log-probabilities of the verdict tokens, in both orders.
pub fn pairwise(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    let stored = context.wait(context.store.verdicts(work.set))?;
    let have: BTreeSet<(&str, Order)> = stored
        .iter()
        .filter(|row| row.judge == judge.name)
        .map(|row| (row.pair_id.as_str(), row.order))
        .collect();
    let seed = context.config.run.seed;
    let mut wanted = Vec::new();
    for pair in work.asked() {
        for order in orders(seed, &pair.id, work.label.position_check_rate) {
            wanted.push((pair, order));
        }
    }
    let total = wanted.len() as u64;
    wanted.retain(|(pair, order)| !have.contains(&(pair.id.as_str(), *order)));
    let mut done = total - wanted.len() as u64;
    if wanted.is_empty() {
        return Ok(());
    }
    let templates = Templates::new(&work.label.criteria, &work.label.few_shot)?;
    let mut model = LocalJudge::open(context, judge)?;
    let mut progress = Progress::new(work.stage, "presentations", done, total);
    for unit in wanted.chunks(PRESENTATIONS_A_UNIT) {
        interrupt::check(work.stage)?;
        let mut rows = Vec::new();
        let (mut asked, mut presentations) = (Vec::new(), Vec::new());
        for (pair, order) in unit {
            let (first, second) = work.shown(pair, *order)?;
            let prompt = work.prompt(pair)?.prompt.display();
            let view = PairwiseView {
                prompt: &prompt,
                first: &first,
                second: &second,
                nonce: nonce(seed, &pair.id),
            };
            let messages = templates.verdict_only(&view)?;
            match model.too_long(&messages, "")? {
                None => {
                    asked.push((pair, *order));
                    presentations.push(messages);
                }
                Some(why) => rows.push(row(&pair.id, judge, *order, Verdict::none(NoVerdict::Failed(why)))),
            }
        }
        let verdicts = pairwise_verdicts(&mut model, &presentations)
            .with_context(|| format!("judge `{}` reading pairs", judge.name))?;
        rows.extend(asked.iter().zip(verdicts).map(|((pair, order), v)| row(&pair.id, judge, *order, v)));
        context.wait(context.store.put_verdicts(PARSER, &rows))?;
        done += unit.len() as u64;
        progress.set(done, total, &judge.name);
    }
    progress.finish();
    Ok(())
}

fn row(pair_id: &str, judge: &JudgeConfig, order: Order, verdict: Verdict) -> VerdictRow {
    VerdictRow {
        pair_id: pair_id.into(),
        judge: judge.name.clone(),
        template: "verdict_only".into(),
        order,
        vote: 0,
        verdict,
    }
}
