//! Judges that this program loads itself.

use super::asking::{Shown, shown};
use super::ratings::{Ratings, score_name};
use super::{Assignment, PARSER, templates};
use crate::context::Context;
use crate::interrupt;
use crate::local_judge::LocalJudge;
use crate::progress::Progress;
use anyhow::{Context as _, Result};
use rlaif_core::config::JudgeConfig;
use rlaif_core::records::{Message, NoVerdict, Order, Pair, Verdict};
use rlaif_judge::local::{Contrast, contrastive_scores, contrastive_verdict, ratings, token_verdicts};
use rlaif_judge::template::AnswerKind;
use rlaif_judge::{Answer, Asker, LogprobModel, NextTokenItem, ScoreItem, View, orders};
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

/// Asks a model through its templates: words greedily, verdict tokens by their log-probabilities, in both orders.
pub fn pairwise(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    let stored = context.wait(context.store.verdicts(work.set))?;
    let have: BTreeSet<(&str, &str, Order)> = stored
        .iter()
        .filter(|row| row.judge == judge.name)
        .map(|row| (row.pair_id.as_str(), row.template.as_str(), row.order))
        .collect();
    let askers = templates::of_asked(context, judge)?;
    let seed = context.config.run.seed;
    let mut wanted = Vec::new();
    for pair in work.asked() {
        for asker in &askers {
            for order in orders(seed, &pair.id, work.label.position_check_rate) {
                wanted.push((pair, asker, order));
            }
        }
    }
    let total = wanted.len() as u64;
    wanted.retain(|(pair, asker, order)| !have.contains(&(pair.id.as_str(), asker.name(), *order)));
    let mut done = total - wanted.len() as u64;
    if wanted.is_empty() {
        return Ok(());
    }
    let mut model = LocalJudge::open(context, judge)?;
    let mut progress = Progress::new(work.stage, "presentations", done, total);
    // The presentations of one template stand together, so that a unit asks one question many times.
    wanted.sort_by_key(|(_, asker, _)| askers.iter().position(|other| other.name() == asker.name()));
    for unit in
        wanted.chunk_by(|a, b| a.1.name() == b.1.name()).flat_map(|of| of.chunks(PRESENTATIONS_A_UNIT))
    {
        interrupt::check(work.stage)?;
        let asker = unit[0].1;
        let seen = unit
            .iter()
            .map(|(pair, _, order)| shown(work, seed, asker, pair, *order, 0, 0))
            .collect::<Result<Vec<_>>>()?;
        let views: Vec<View> = seen.iter().map(Shown::view).collect();
        let verdicts = verdicts(&mut model, judge, asker, &views)?;
        let rows: Vec<VerdictRow> = unit
            .iter()
            .zip(verdicts)
            .map(|((pair, _, order), verdict)| VerdictRow {
                pair_id: pair.id.clone(),
                judge: judge.name.clone(),
                template: asker.name().into(),
                order: *order,
                vote: 0,
                verdict,
            })
            .collect();
        context.wait(context.store.put_verdicts(PARSER, &rows))?;
        done += unit.len() as u64;
        progress.set(done, total, &judge.name);
    }
    progress.finish();
    Ok(())
}

/// One verdict a view: every step but the last in words, the last in words or by its token.
fn verdicts(
    model: &mut LocalJudge,
    judge: &JudgeConfig,
    asker: &Asker,
    views: &[View],
) -> Result<Vec<Verdict>> {
    let reading = || format!("judge `{}` reading pairs", judge.name);
    let mut verdicts: Vec<Option<Verdict>> = vec![None; views.len()];
    let mut said: Vec<Vec<String>> = vec![Vec::new(); views.len()];
    for (index, step) in asker.steps().iter().enumerate() {
        let mut open = Vec::new();
        for (at, view) in
            views.iter().enumerate().filter(|(at, _)| verdicts[*at].is_none()).collect::<Vec<_>>()
        {
            let messages = asker.messages(view, &said[at])?;
            match model.too_long(&messages, &step.prefix)? {
                None => open.push((at, messages)),
                Some(why) => verdicts[at] = Some(Verdict::none(NoVerdict::Failed(why))),
            }
        }
        let last = index + 1 == asker.steps().len();
        if last && step.answer == AnswerKind::Token {
            let items: Vec<NextTokenItem> = open
                .iter()
                .map(|(_, messages)| NextTokenItem {
                    messages: messages.clone(),
                    prefix: step.prefix.clone(),
                })
                .collect();
            let labels = &asker.template().front().labels;
            let read = token_verdicts(model, &items, labels).with_context(reading)?;
            for ((at, _), verdict) in open.iter().zip(read) {
                verdicts[*at] = Some(asker.explained(&views[*at], &said[*at], verdict));
            }
            continue;
        }
        let conversations: Vec<Vec<Message>> = open.iter().map(|(_, messages)| messages.clone()).collect();
        let max_tokens = step.max_tokens.unwrap_or(judge.max_tokens);
        let replies = model.greedy(&conversations, max_tokens).with_context(reading)?;
        for ((at, _), reply) in open.iter().zip(replies) {
            let answer = Answer::of_local(reply);
            verdicts[*at] = match (&answer.text, last) {
                // An explanation that was cut off is still one: a small model seldom ends its turn. A verdict that was, is not.
                (Ok(text), false) => {
                    said[*at].push(text.clone());
                    None
                }
                (Err(no_text), false) if no_text.reason == NoVerdict::Truncated => {
                    said[*at].push(no_text.said.clone().unwrap_or_default());
                    None
                }
                _ => Some(asker.read(&views[*at], &said[*at], &answer)),
            };
        }
    }
    Ok(verdicts
        .into_iter()
        .map(|verdict| verdict.unwrap_or_else(|| Verdict::none(NoVerdict::Empty)))
        .collect())
}

/// Rates every response once, by the probabilities of 1 to 10 as the next token; p follows from the difference of two ratings.
pub fn rating(context: &mut Context, work: &Assignment, judge: &JudgeConfig) -> Result<()> {
    let seed = context.config.run.seed;
    for asker in templates::of_asked(context, judge)? {
        let name = score_name(judge, asker.name());
        let known = context.wait(context.store.scores(&name))?;
        let mut wanted = BTreeMap::new(); // in one order, so that a resumed run rates the same batches
        for pair in work.asked() {
            for (step, id) in [(0, &pair.a), (1, &pair.b)] {
                wanted.entry((&pair.prompt_id, id)).or_insert((pair, step));
            }
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        let total = wanted.len() as u64;
        let mut done = wanted.iter().filter(|((_, id), _)| known.contains_key(*id)).count() as u64;
        let mut progress = Progress::new(work.stage, "responses", done, total);
        let mut ratings = Ratings::default();
        let mut model = None;
        for unit in wanted.chunks(RESPONSES_A_UNIT) {
            let open: Vec<_> = unit.iter().filter(|((_, id), _)| !known.contains_key(*id)).collect();
            for ((_, id), _) in unit {
                if let Some(rating) = known.get(*id) {
                    ratings.add(id, 0, || Ok(*rating));
                }
            }
            if open.is_empty() {
                continue;
            }
            interrupt::check(work.stage)?;
            let model = match &mut model {
                Some(model) => model,
                None => model.insert(LocalJudge::open(context, judge)?),
            };
            let rated = rate(model, work, judge, &asker, &open, seed)?;
            let mut scores = Vec::new();
            for (((_, id), _), rating) in open.iter().zip(rated) {
                if let Ok(rating) = rating {
                    scores.push(((*id).clone(), rating));
                }
                ratings.add(id, 0, || rating);
            }
            context.wait(context.store.put_scores(&name, &scores))?;
            done += open.len() as u64;
            progress.set(done, total, &judge.name);
        }
        progress.finish();
        ratings.store(context, work, judge, asker.name())?;
    }
    Ok(())
}

/// A response, by prompt and id, with a pair that it is in and its place there.
type Rated<'a> = ((&'a String, &'a String), (&'a Pair, u32));

fn rate(
    model: &mut LocalJudge,
    work: &Assignment,
    judge: &JudgeConfig,
    asker: &Asker,
    responses: &[&Rated],
    seed: u64,
) -> Result<Vec<Result<f64, NoVerdict>>> {
    let reading = || format!("judge `{}` rating responses", judge.name);
    let step = &asker.steps()[0];
    let mut rated: Vec<Option<Result<f64, NoVerdict>>> = vec![None; responses.len()];
    let (mut places, mut items) = (Vec::new(), Vec::new());
    for (at, (_, (pair, place))) in responses.iter().enumerate() {
        let messages = asker.messages(&shown(work, seed, asker, pair, Order::Ab, 0, *place)?.view(), &[])?;
        match model.too_long(&messages, &step.prefix)? {
            Some(why) => rated[at] = Some(Err(NoVerdict::Failed(why))),
            None => {
                places.push(at);
                items.push(NextTokenItem { messages, prefix: step.prefix.clone() });
            }
        }
    }
    let answers = match step.answer {
        AnswerKind::Token => ratings(model, &items).with_context(reading)?,
        _ => {
            let conversations: Vec<Vec<Message>> = items.into_iter().map(|item| item.messages).collect();
            let max_tokens = step.max_tokens.unwrap_or(judge.max_tokens);
            let replies = model.greedy(&conversations, max_tokens).with_context(reading)?;
            replies.into_iter().map(|reply| asker.read_rating(&Answer::of_local(reply))).collect()
        }
    };
    for (at, answer) in places.into_iter().zip(answers) {
        rated[at] = Some(answer);
    }
    Ok(rated.into_iter().map(|rating| rating.unwrap_or(Err(NoVerdict::Empty))).collect())
}
