//! `label`: unique pairs of the baseline's responses, chosen and judged; verdicts add up to preferences.

use crate::context::Context;
use crate::human_data;
use crate::judging::{self, Assignment, Judged, count_fates};
use crate::manifest::StageOutcome;
use crate::probe;
use crate::progress::say;
use crate::report::data::{Estimate, LabelNumbers};
use crate::robustness::{self, Tripwires};
use crate::routing::{self, Gate};
use anyhow::Result;
use rand::seq::SliceRandom;
use rlaif_core::config::{JudgeConfig, LabelConfig, PairChoice, Protocol, Stage};
use rlaif_core::pair_choice;
use rlaif_core::records::{Fate, Pair, Response, Split};
use rlaif_core::routing::Look;
use rlaif_core::similarity::distance;
use rlaif_core::{MicroUsd, seed};
use rlaif_judge::defence::Tally;
use rlaif_judge::probe::Validity;
use rlaif_store::store::{BASELINE, DroppedPair, TRAIN_PAIRS};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Makes pairs, shows how far each judge can be trusted, and labels; what goes to people waits for them.
///
/// # Errors
/// If a judge cannot go on; what it has said so far is kept.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let config = context.config.label.clone();
    let validity = probe::run(context, &config.judges)?;
    let imported = human_data::measure(context)?;
    let gate = Gate::new(&context.config, imported.is_some_and(|look| look.below));
    with_work(context, &config, gate.as_ref(), |context, work, dropped| {
        label(context, work, &validity, imported, dropped)
    })
}

/// Plans what a judge of the config is to be asked by this stage, without asking it, and returns the sets of pairs that it is about:
/// those to be labelled with the tripwires among them, and those on which judges are measured.
///
/// # Errors
/// If it cannot be planned.
pub fn plan_only(context: &mut Context, place: usize) -> Result<Vec<String>> {
    let config = context.config.label.clone();
    let judges = probe::without_cascade(&config.judges);
    let calibration = config.calibration.as_ref().filter(|_| config.aggregation.is_fitted());
    let mut sets = Vec::new();
    if context.config.route.measures() {
        let asked = judging::calibration_label(&config);
        let work = human_data::sample(context, &judges, &asked)?;
        judging::plan_only(context, &work, place)?;
        sets.push(human_data::IMPORTED.to_owned());
    }
    for (path, set, asked) in [
        (config.probe.as_ref(), probe::PROBE, probe::probe_label(&config)),
        (calibration, probe::CALIBRATION, judging::calibration_label(&config)),
    ] {
        let Some(path) = path else { continue };
        let work = probe::labelled(context, path, set, &judges, &asked)?;
        judging::plan_only(context, &work, place)?;
        sets.push(set.to_owned());
    }
    let gate = Gate::new(&context.config, false);
    with_work(context, &config, gate.as_ref(), |context, work, _| {
        judging::plan_only(context, work, place)?;
        sets.extend(judging::sending::sets(work).into_iter().map(str::to_owned));
        Ok(())
    })?;
    Ok(sets)
}

/// Makes the pairs of the stage, with the tripwires among them, and hands them on with the number of near-duplicates that are no pairs.
fn with_work<T>(
    context: &mut Context,
    config: &LabelConfig,
    gate: Option<&Gate>,
    then: impl FnOnce(&mut Context, &Assignment, usize) -> Result<T>,
) -> Result<T> {
    let responses = context.wait(context.store.responses(BASELINE, Some(Split::Train)))?;
    let (candidates, dropped) = candidates(context, &responses);
    context.wait(context.store.put_dropped(&dropped))?;
    let wired = robustness::label_of(config);
    let mut work = Assignment {
        prompts: Cow::Owned(context.prompts.train.iter().map(|p| (p.id.clone(), p.clone())).collect()),
        responses: Cow::Owned(responses.into_iter().map(|r| (r.id.clone(), r)).collect()),
        gate,
        ..Assignment::empty("label", TRAIN_PAIRS, &config.judges, config)
    };
    work.pairs = choose_pairs(context, &mut work, candidates)?;
    context.wait(context.store.put_pairs(TRAIN_PAIRS, &work.pairs))?;
    work.rule()?;
    let paid: Vec<JudgeConfig> =
        config.judges.iter().filter(|judge| judge.kind.is_remote()).cloned().collect();
    let set = robustness::set_name(context, robustness::TRIPWIRES, &paid, &wired)?;
    let tripwires = match paid.is_empty() {
        true => None,
        false => Tripwires::new(context, &set, work.pairs.len() - work.ruled.len(), &paid, &wired)?,
    };
    work.tripwires = tripwires.as_ref();
    then(context, &work, dropped.len())
}

/// Labels the pairs.
fn label(
    context: &mut Context,
    work: &Assignment,
    validity: &BTreeMap<String, Validity>,
    imported: Option<Look>,
    dropped: usize,
) -> Result<StageOutcome> {
    let Judged { preferences, voters, fitted, asked } = judging::judge(context, work)?;
    let fates = count_fates(&preferences);
    for voter in &voters {
        if let Some(position) = voter.position {
            say(&format!(
                "label: `{}` ({}) chose the same place in both orders on {:.0} % of {} pairs (95 % {:.0} to {:.0})",
                voter.judge,
                voter.template,
                100.0 * position.same_position.estimate,
                position.pairs,
                100.0 * position.same_position.low,
                100.0 * position.same_position.high
            ));
        }
    }
    let mut wires = BTreeMap::new();
    if let Some(tripwires) = work.tripwires {
        for judge in work.judges.iter().filter(|judge| judge.kind.is_remote()) {
            wires.insert(judge.name.clone(), tripwires.tallies(context, &judge.name)?);
        }
    }
    let cut = work.cut();
    if cut > 0 {
        let most = work.label.max_response_chars;
        say(&format!("label: pairwise judges saw {cut} pairs cut at {most} characters a response"));
    }
    for voter in &fitted {
        let interval = voter.accuracy_interval.map_or(String::new(), |accuracy| {
            format!(" (95 % {:.0} to {:.0})", 100.0 * accuracy.low, 100.0 * accuracy.high)
        });
        say(&format!(
            "label: fitted: `{}` ({}) is right on {:.0} % of verdicts{interval}",
            voter.judge,
            voter.template,
            100.0 * voter.accuracy
        ));
    }
    let routing = routing::tell(context, imported)?;
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
            dropped,
            describe(&wires)
        ),
        numbers: serde_json::to_value(LabelNumbers {
            probes: validity.iter().map(estimate).collect(),
            tripwires: wires.iter().map(|(judge, families)| (judge.clone(), total(families))).collect(),
            voters,
            fitted,
            asked,
            routing,
        })?,
        failures,
        cost_micro_usd: cost,
    })
}

/// What the calls of a stage have cost, in words and in micro-dollars (`None` where a price is unknown): all that was spent, less
/// what the other judging stages have put down, so that the stages always add up to the bill.
///
/// # Errors
/// If the store cannot be read.
pub fn cost(context: &Context, stage: Stage) -> Result<(String, Option<i64>)> {
    let spend = context.wait(context.store.spend())?;
    let others = Stage::JUDGING.into_iter().filter(|other| *other != stage);
    let elsewhere: i64 = others.filter_map(|other| context.manifest.stage(other)?.cost_micro_usd).sum();
    let own = MicroUsd(spend.known.0 - elsewhere);
    let reused = match spend.reused {
        0 => String::new(),
        replies => format!(", {replies} replies reused from other runs"),
    };
    if spend.calls + spend.possibly_billed == 0 {
        return Ok((format!("no calls, no cost{reused}"), Some(0)));
    }
    let mut words = format!("cost {own}{reused}");
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

/// The set of pairs from which a judge's word decides which ones are worth the others' time.
pub const POOL: &str = "pool";

/// A pair that could be judged, and how far apart its responses are.
struct Candidate {
    pair: Pair,
    distance: f64,
}

/// All pairs of responses that differ enough to be worth a judge's time, each prompt's in an order drawn at random, and those that
/// do not.
fn candidates(context: &Context, responses: &[Response]) -> (Vec<Candidate>, Vec<DroppedPair>) {
    let (mut all, mut dropped) = (Vec::new(), Vec::new());
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
                if distance < context.config.generate.min_distance || a.text.trim() == b.text.trim() {
                    dropped.push(DroppedPair { a: a.id.clone(), b: b.id.clone(), distance });
                } else {
                    let pair = Pair {
                        id: format!("{}/{}-{}", prompt.id, a.index, b.index),
                        prompt_id: prompt.id.clone(),
                        a: a.id.clone(),
                        b: b.id.clone(),
                    };
                    candidates.push(Candidate { pair, distance });
                }
            }
        }
        // The stream hangs on the prompt's id: a prompt more moves no other's pairs.
        candidates.shuffle(&mut seed::stream(context.config.run.seed, &format!("pairs/{}", prompt.id), 0));
        all.extend(candidates);
    }
    (all, dropped)
}

/// The pairs of the run, by `label.pair_choice`, within `label.pairs_per_prompt` and `label.max_pairs`.
fn choose_pairs(
    context: &mut Context,
    work: &mut Assignment,
    candidates: Vec<Candidate>,
) -> Result<Vec<Pair>> {
    let label = work.label;
    let budget = label.max_pairs.unwrap_or(usize::MAX);
    let pool = match label.pair_choice {
        PairChoice::MostDifferent => candidates,
        // The first of each prompt's random order.
        PairChoice::Random | PairChoice::LeastSure => {
            first_of_each_prompt(candidates, label.pairs_per_prompt)
        }
    };
    let scores_tell = label.judges.first().is_some_and(|judge| judge.protocol == Protocol::Contrastive);
    let ranks: Vec<f64> = match label.pair_choice {
        PairChoice::Random => vec![0.0; pool.len()],
        PairChoice::MostDifferent if scores_tell => {
            // p = σ(difference of scores / temperature): the surest pairs are the ones furthest apart.
            judge_pool(context, work, &pool)?.into_iter().map(|sure| -sure).collect()
        }
        PairChoice::MostDifferent => pool.iter().map(|candidate| -candidate.distance).collect(),
        PairChoice::LeastSure => judge_pool(context, work, &pool)?,
    };
    let ranked: Vec<pair_choice::Candidate> = pool
        .iter()
        .zip(ranks)
        .map(|(Candidate { pair, .. }, rank)| pair_choice::Candidate {
            prompt: &pair.prompt_id,
            pair: &pair.id,
            rank,
        })
        .collect();
    let chosen = pair_choice::choose(&ranked, label.pairs_per_prompt, budget, context.config.run.seed);
    let (possible, taken) = (pool.len(), chosen.len());
    let pairs: Vec<Pair> = chosen.into_iter().map(|place| pool[place].pair.clone()).collect();
    if taken < possible {
        let how = match label.pair_choice {
            PairChoice::Random => "drawn at random",
            PairChoice::MostDifferent => "whose responses differ most",
            PairChoice::LeastSure => "of which the first judge is least sure",
        };
        say(&format!("label: {taken} of {possible} pairs, {how}"));
    }
    // Those that were in the pool take with them what was said of them.
    context.wait(context.store.move_pairs(TRAIN_PAIRS, &pairs))?;
    Ok(pairs)
}

fn first_of_each_prompt(candidates: Vec<Candidate>, most: usize) -> Vec<Candidate> {
    let mut taken: HashMap<String, usize> = HashMap::new();
    let mut keep = |candidate: &Candidate| {
        let taken = taken.entry(candidate.pair.prompt_id.clone()).or_default();
        *taken += 1;
        *taken <= most
    };
    candidates.into_iter().filter(|candidate| keep(candidate)).collect()
}

/// How sure the first judge is of each pair of the pool. What it says is kept, and not asked for again.
fn judge_pool(context: &mut Context, work: &mut Assignment, pool: &[Candidate]) -> Result<Vec<f64>> {
    let store = &context.store;
    let there: HashSet<String> = [POOL, TRAIN_PAIRS]
        .into_iter()
        .map(|set| context.wait(store.pairs(set)))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .map(|pair| pair.id)
        .collect();
    let pairs: Vec<Pair> = pool.iter().map(|candidate| candidate.pair.clone()).collect();
    let new: Vec<Pair> = pairs.iter().filter(|pair| !there.contains(&pair.id)).cloned().collect();
    context.wait(store.put_pairs(POOL, &new))?;
    // A run that was stopped later on had moved the chosen ones out already.
    context.wait(store.move_pairs(POOL, &pairs))?;
    (work.set, work.pairs) = (POOL, pairs);
    work.rule()?;
    let mut sure = judging::sureness_of_first(context, work)?;
    if let Some(gate) = work.gate {
        let mut spared = Vec::new();
        for (place, pair) in work.pairs.iter().enumerate() {
            let key = work.key(pair)?;
            if gate.spares(work.prompt(pair)?, &key).is_some() {
                spared.push((place, gate.place_among_judged(&key)));
            }
        }
        // A pair that no judge is asked about is as sure as any other, so that the choice is neither for people nor against them.
        let places: HashSet<usize> = spared.iter().map(|(place, _)| *place).collect();
        let mut judged: Vec<f64> = (0..sure.len()).filter(|i| !places.contains(i)).map(|i| sure[i]).collect();
        judged.sort_by(f64::total_cmp);
        for (place, draw) in spared {
            sure[place] = judged.get((draw * judged.len() as f64) as usize).copied().unwrap_or(0.0);
        }
    }
    work.set = TRAIN_PAIRS;
    Ok(sure)
}

/// How much there is to judge, for `rlaif plan`; what it costs is told by `crate::estimate`.
pub fn size(context: &Context) -> String {
    let config = &context.config;
    let possible = config.generate.n * config.generate.n.saturating_sub(1) / 2;
    let pairs = context.prompts.train.len() * config.label.pairs_per_prompt.min(possible);
    let pairs = pairs.min(config.label.max_pairs.unwrap_or(usize::MAX));
    format!("at most {pairs} pairs")
}
