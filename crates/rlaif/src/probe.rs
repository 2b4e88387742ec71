//! How far each judge can be trusted: what it says of labelled pairs, before its labels are used.
//!
//! The probe is judged as everything is: a set of pairs in the ledger, so that it is resumed and never paid for twice.

use crate::context::Context;
use crate::judging::{self, Assignment};
use crate::progress::say;
use anyhow::{Context as _, Result};
use rlaif_core::config::{Aggregation, JudgeConfig, LabelConfig};
use rlaif_core::records::{FinishReason, Pair, Prompt, Response, Split};
use rlaif_judge::probe::{ProbeOutcome, Validity};
use rlaif_store::jsonl::{ProbePair, read_probe};
use std::collections::BTreeMap;
use std::path::Path;

/// Name of the probe's pairs, and of the "policy" that its responses come from.
pub const PROBE: &str = "probe";

/// The same for the pairs that fitted panels are calibrated on.
pub const CALIBRATION: &str = "calibration";

/// Validity of each judge by name; empty without `label.probe`.
///
/// # Errors
/// If the probe cannot be read, or a judge cannot go on.
pub fn run(context: &mut Context, judges: &[JudgeConfig]) -> Result<BTreeMap<String, Validity>> {
    let Some(path) = context.config.label.probe.clone() else { return Ok(BTreeMap::new()) };
    let label = probe_label(&context.config.label);
    let judges = without_cascade(judges);
    let work = labelled(context, &path, PROBE, &judges, &label)?;
    judging::judge(context, &work)?;
    let opinions = judging::opinions(context, &work)?;

    let mut validity = BTreeMap::new();
    for (judge, opinion) in judges.iter().zip(opinions) {
        let outcomes: Vec<ProbeOutcome> = work
            .pairs
            .iter()
            .zip(&opinion.preferences)
            .map(|(pair, preference)| {
                let seen = opinion.choices.get(&pair.id).cloned().unwrap_or_default();
                ProbeOutcome { p: preference.p, choices: if opinion.has_order { seen } else { Vec::new() } }
            })
            .collect();
        let of_judge = Validity::of(&outcomes);
        let share = of_judge.accuracy;
        say(&format!(
            "label: judge `{}` ranks {} of {} probe pairs right ({:.0} %, 95 % {:.0} to {:.0})",
            judge.name,
            share.hits,
            share.n,
            100.0 * share.share,
            100.0 * share.low,
            100.0 * share.high
        ));
        if !of_judge.above_chance() {
            say(&format!("warning: on this probe judge `{}` is not better than a coin", judge.name));
        }
        validity.insert(judge.name.clone(), of_judge);
    }
    Ok(validity)
}

/// How the probe is asked: in both orders and without ties. What is measured is the judge, not how its labels are used.
pub fn probe_label(label: &LabelConfig) -> LabelConfig {
    LabelConfig {
        position_check_rate: 1.0,
        tie_margin: 0.0,
        keep_inconsistent: true,
        aggregation: Aggregation::Mean,
        ..label.clone()
    }
}

/// The judges, each asked about every pair: a judge is measured on all of them, not on those that another found hard.
pub fn without_cascade(judges: &[JudgeConfig]) -> Vec<JudgeConfig> {
    judges.iter().map(|judge| JudgeConfig { only_if_unsure_below: None, ..judge.clone() }).collect()
}

/// The labelled pairs of a file as a set of pairs in the ledger, with the better response as a.
///
/// # Errors
/// If the file cannot be read, or the store not be written.
pub fn labelled<'a>(
    context: &Context,
    path: &Path,
    set: &'a str,
    judges: &'a [JudgeConfig],
    label: &'a LabelConfig,
) -> Result<Assignment<'a>> {
    let rows = read_probe(&context.resolve(path))
        .with_context(|| format!("reading the labelled pairs of `label.{set}`"))?;
    if let Some(bad) = rows.bad.first() {
        say(&format!(
            "warning: {} rows of `{}` are left out (line {}: {})",
            rows.bad.len(),
            path.display(),
            bad.line,
            bad.reason
        ));
    }
    labelled_pairs(context, rows.good.into_iter(), set, judges, label)
}

/// Labelled pairs as a set of pairs in the ledger, with the better response as a.
///
/// # Errors
/// If the store cannot be written.
pub fn labelled_pairs<'a>(
    context: &Context,
    pairs: impl Iterator<Item = ProbePair>,
    set: &'a str,
    judges: &'a [JudgeConfig],
    label: &'a LabelConfig,
) -> Result<Assignment<'a>> {
    let mut work = Assignment::empty("label", set, judges, label);
    for pair in pairs {
        add(&mut work, pair);
    }
    store(context, &work)?;
    Ok(work)
}

/// Adds a labelled pair; the better response is a, and judges with an order see both.
fn add(work: &mut Assignment, pair: ProbePair) {
    let text = format!("{}\n{}\n{}", pair.prompt.display(), pair.better, pair.worse);
    let prompt_id = format!("{}/{}", work.set, &blake3::hash(text.as_bytes()).to_hex()[..16]);
    if work.prompts.contains_key(&prompt_id) {
        return; // the same pair twice
    }
    let ids: Vec<String> = [pair.better, pair.worse]
        .into_iter()
        .enumerate()
        .map(|(index, text)| {
            let id = format!("{prompt_id}/{index}");
            let response = Response {
                id: id.clone(),
                prompt_id: prompt_id.clone(),
                index,
                text,
                token_ids: Vec::new(), // written by people, not sampled
                logprobs: Vec::new(),
                finish_reason: FinishReason::Stop,
            };
            work.responses.to_mut().insert(id.clone(), response);
            id
        })
        .collect();
    work.pairs.push(Pair {
        id: format!("{prompt_id}/0-1"),
        prompt_id: prompt_id.clone(),
        a: ids[0].clone(),
        b: ids[1].clone(),
    });
    let prompt = Prompt { id: prompt_id.clone(), prompt: pair.prompt, tags: Vec::new(), reference: None };
    work.prompts.to_mut().insert(prompt_id, prompt);
}

fn store(context: &Context, work: &Assignment) -> Result<()> {
    let store = &context.store;
    let prompts: Vec<(Prompt, Split)> = work
        .pairs
        .iter()
        .filter_map(|pair| Some((work.prompts.get(&pair.prompt_id)?.clone(), Split::Train)))
        .collect();
    context.wait(store.put_prompts(&prompts))?;
    for (prompt, _) in &prompts {
        context.wait(store.set_aside_prompt(&prompt.id, "it is a labelled pair, to measure judges by"))?;
    }
    let responses: Vec<Response> = work.responses.values().cloned().collect();
    context.wait(store.put_responses(work.set, &responses))?;
    Ok(context.wait(store.put_pairs(work.set, &work.pairs))?)
}
