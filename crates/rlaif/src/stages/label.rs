//! `label`: unique random pairs of the baseline's responses, judged; verdicts add up to preferences.

use crate::context::Context;
use crate::judging::{self, Assignment, count_fates};
use crate::manifest::StageOutcome;
use crate::probe;
use crate::progress::say;
use crate::report::data::{Estimate, LabelNumbers};
use crate::robustness::{self, Tripwires};
use anyhow::Result;
use rand::seq::SliceRandom;
use rlaif_core::config::{JudgeConfig, Stage};
use rlaif_core::records::{Fate, Pair, Response, Split};
use rlaif_core::similarity::distance;
use rlaif_core::{MicroUsd, seed};
use rlaif_judge::defence::Tally;
use rlaif_judge::probe::Validity;
use rlaif_store::store::{BASELINE, DroppedPair, TRAIN_PAIRS};
use std::collections::{BTreeMap, HashMap};

/// Makes pairs, shows how far each judge can be trusted, and labels.
///
/// # Errors
/// If a judge cannot go on; what it has said so far is kept.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let config = context.config.label.clone();
    let responses = context.wait(context.store.responses(BASELINE, Some(Split::Train)))?;
    let (pairs, dropped) = pairs(context, &responses);
    context.wait(context.store.put_dropped(&dropped))?;
    context.wait(context.store.put_pairs(TRAIN_PAIRS, &pairs))?;
    let validity = probe::run(context, &config.judges)?;

    let wired = robustness::label_of(&config);
    let mut work = Assignment {
        stage: "label",
        set: TRAIN_PAIRS,
        pairs,
        prompts: context.prompts.train.iter().map(|prompt| (prompt.id.clone(), prompt.clone())).collect(),
        responses: responses.into_iter().map(|response| (response.id.clone(), response)).collect(),
        judges: &config.judges,
        label: &config,
        ruled: HashMap::new(),
        tripwires: None,
    };
    work.rule()?;
    let paid: Vec<JudgeConfig> =
        config.judges.iter().filter(|judge| judge.kind.is_remote()).cloned().collect();
    let set = robustness::set_name(context, robustness::TRIPWIRES, &paid, &wired)?;
    let tripwires = match paid.is_empty() {
        true => None,
        false => Tripwires::new(context, &set, work.pairs.len() - work.ruled.len(), &paid, &wired)?,
    };
    work.tripwires = tripwires.as_ref();
    let preferences = judging::judge(context, &work)?;
    let fates = count_fates(&preferences);
    let opinions = judging::opinions(context, &work)?;
    for judge in &opinions {
        if let Some(position) = judge.position() {
            say(&format!(
                "label: `{}` chose the same place in both orders on {:.0} % of {} pairs (95 % {:.0} to {:.0})",
                judge.judge,
                100.0 * position.same_position.estimate,
                position.pairs,
                100.0 * position.same_position.low,
                100.0 * position.same_position.high
            ));
        }
    }
    let mut wires = BTreeMap::new();
    if let Some(tripwires) = &tripwires {
        for judge in &paid {
            wires.insert(judge.name.clone(), tripwires.tallies(context, &judge.name)?);
        }
    }
    let cut = work.cut();
    if cut > 0 {
        let most = config.max_response_chars;
        say(&format!("label: pairwise judges saw {cut} pairs cut at {most} characters a response"));
    }
    let (spent, cost) = cost(context, Stage::Label)?;
    let kept = preferences.iter().filter(|preference| preference.fate == Fate::Kept).count();
    let failures = preferences.iter().filter(|preference| preference.fate == Fate::Failed).count();
    let rest: Vec<String> = fates
        .iter()
        .filter(|(fate, _)| *fate != "kept")
        .map(|(fate, count)| format!("{count} {}", fate.replace('_', " ")))
        .collect();
    let rest = if rest.is_empty() { String::new() } else { format!(" ({})", rest.join(", ")) };
    Ok(StageOutcome {
        summary: format!(
            "{kept} preferences of {} pairs{rest}, {} near-duplicates never paired{}, {spent}",
            preferences.len(),
            dropped.len(),
            describe(&wires)
        ),
        numbers: serde_json::to_value(LabelNumbers {
            probes: validity.iter().map(estimate).collect(),
            tripwires: wires.iter().map(|(judge, families)| (judge.clone(), total(families))).collect(),
        })?,
        failures,
        cost_micro_usd: cost,
    })
}

/// What the calls of a stage have cost, in words and in micro-dollars (`None` where a price is unknown): all that was spent, less
/// what the other judging stage has put down, so that the stages always add up to the bill.
///
/// # Errors
/// If the store cannot be read.
pub fn cost(context: &Context, stage: Stage) -> Result<(String, Option<i64>)> {
    let spend = context.wait(context.store.spend())?;
    let other = if stage == Stage::Label { Stage::Evaluate } else { Stage::Label };
    let elsewhere = context.manifest.stage(other).and_then(|record| record.cost_micro_usd).unwrap_or(0);
    let own = MicroUsd(spend.known.0 - elsewhere);
    if spend.calls + spend.possibly_billed == 0 {
        return Ok(("no calls, no cost".into(), Some(0)));
    }
    let mut words = format!("cost {own}");
    if spend.unknown_calls > 0 {
        words += &format!(" and {} calls of unknown price", spend.unknown_calls);
    }
    if spend.possibly_billed > 0 && stage == Stage::Label {
        words += &format!(", {} calls without an answer possibly billed", spend.possibly_billed);
    }
    Ok((words, (spend.unknown_calls == 0).then_some(own.0)))
}

/// The tripwires of a judge together; empty tallies are 0 of 0.
fn total(families: &BTreeMap<&'static str, Tally>) -> Tally {
    families.values().fold(Tally::default(), |sum, tally| Tally {
        wins: sum.wins + tally.wins,
        ties: sum.ties + tally.ties,
        losses: sum.losses + tally.losses,
        missing: sum.missing + tally.missing,
    })
}

fn describe(wires: &BTreeMap<String, BTreeMap<&'static str, Tally>>) -> String {
    let totals: Vec<Tally> = wires.values().map(total).collect();
    let (wins, n) =
        (totals.iter().map(|t| t.wins).sum::<usize>(), totals.iter().map(Tally::n).sum::<usize>());
    if totals.is_empty() { String::new() } else { format!(", {wins} of {n} known-bad responses won") }
}

fn estimate((judge, validity): (&String, &Validity)) -> (String, Estimate) {
    let share = validity.accuracy;
    (judge.clone(), Estimate::new(share.share, share.low, share.high, share.n as u64))
}

/// Unique random pairs of responses that differ enough to be worth a judge's time, and those that do not.
fn pairs(context: &Context, responses: &[Response]) -> (Vec<Pair>, Vec<DroppedPair>) {
    let (mut pairs, mut dropped) = (Vec::new(), Vec::new());
    let mut by_prompt: BTreeMap<&str, Vec<&Response>> = BTreeMap::new();
    for response in responses {
        by_prompt.entry(&response.prompt_id).or_default().push(response);
    }
    for prompt in &context.prompts.train {
        let Some(samples) = by_prompt.get(prompt.id.as_str()) else { continue };
        let mut candidates = Vec::new();
        for (i, a) in samples.iter().enumerate() {
            for b in &samples[i + 1..] {
                let distance = distance(&a.text, &b.text);
                match distance < context.config.generate.min_distance || a.text.trim() == b.text.trim() {
                    true => dropped.push(DroppedPair { a: a.id.clone(), b: b.id.clone(), distance }),
                    false => candidates.push((a, b)),
                }
            }
        }
        // The stream hangs on the prompt's id: a prompt more moves no other's pairs.
        candidates.shuffle(&mut seed::stream(context.config.run.seed, &format!("pairs/{}", prompt.id), 0));
        candidates.truncate(context.config.label.pairs_per_prompt);
        pairs.extend(candidates.into_iter().map(|(a, b)| Pair {
            id: format!("{}/{}-{}", prompt.id, a.index, b.index),
            prompt_id: prompt.id.clone(),
            a: a.id.clone(),
            b: b.id.clone(),
        }));
    }
    (pairs, dropped)
}

/// How much there is to judge, for `rlaif plan`; what it costs is told by `crate::estimate`.
pub fn size(context: &Context) -> String {
    let config = &context.config;
    let possible = config.generate.n * config.generate.n.saturating_sub(1) / 2;
    let pairs = context.prompts.train.len() * config.label.pairs_per_prompt.min(possible);
    format!("at most {pairs} pairs")
}
