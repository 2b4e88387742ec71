//! The judges of a run on the bias probes: every comparison in both orders, as a set of pairs of its own in the ledger, so that it is
//! resumed and never paid for twice. None becomes a preference.

use super::{by_probe, value};
use crate::context::Context;
use crate::estimate::{self, Estimate};
use crate::judging::{self, Assignment};
use crate::progress::say;
use crate::robustness::{audit::judges, label_of, set_name};
use anyhow::Result;
use rlaif_core::MicroUsd;
use rlaif_core::audit::Measurement;
use rlaif_core::config::{JudgeConfig, LabelConfig};
use rlaif_core::records::{FinishReason, Order, Pair, Prompt, PromptText, Response};
use rlaif_judge::bias::{Comparison, Item, Probe};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The sets of these pairs begin so.
const SET: &str = "audit/bias";

/// Asks every judge of the config about every item.
///
/// # Errors
/// If a judge or the store cannot be used; what was said so far is kept.
pub fn measure(context: &mut Context, items: &[Item]) -> Result<Vec<Measurement>> {
    let judges = judges(context);
    let label = label_of(&context.config.label);
    let set = set_name(context, SET, &judges, &label)?;
    let trial = Trial::new(context, &set, items, &judges, &label)?;
    for estimate in estimate::of_work(context, &trial.work)? {
        say(&format!("audit: {}", told(&estimate)));
    }
    judging::ask(context, &trial.work)?;
    let margin = context.config.audit.bias_margin.judge;
    let mut measurements = Vec::new();
    for judge in &judges {
        let margins = trial.margins(context, &judge.name)?;
        let values: Vec<Option<f64>> =
            items.iter().map(|item| value(item, |comparison| margins.get(comparison).copied())).collect();
        let subject = format!("judge `{}`", judge.name);
        let probes = [Probe::Text, Probe::Decision, Probe::Stereotype];
        measurements.extend(by_probe(&subject, "judge", margin, items, &values, &probes));
    }
    Ok(measurements)
}

/// What it takes at most.
fn told(estimate: &Estimate) -> String {
    let Estimate { judge, template, calls, answered, micro_usd_at_most, minutes, .. } = estimate;
    let asked = match minutes {
        None => format!("{calls} questions, no calls"),
        Some(_) => match micro_usd_at_most {
            Some(most) => format!("{calls} calls, {} at most", MicroUsd(*most)),
            None => format!("{calls} calls, price unknown"),
        },
    };
    let bought =
        if *answered > 0 { format!(", {answered} of its answers are in the ledger") } else { String::new() };
    format!("`{judge}` by `{template}` on bias probes: {asked}{bought}")
}

/// The different comparisons of all items, as pairs.
struct Trial<'a> {
    work: Assignment<'a>,
    comparisons: Vec<Comparison>,
}

impl<'a> Trial<'a> {
    fn new(
        context: &Context,
        set: &'a str,
        items: &[Item],
        judges: &'a [JudgeConfig],
        label: &'a LabelConfig,
    ) -> Result<Self> {
        let mut work = Assignment::empty("audit", set, judges, label);
        let comparisons: BTreeSet<&Comparison> = items.iter().flat_map(|item| &item.comparisons).collect();
        for comparison in &comparisons {
            let prompt_id = format!("bias/{}", hash(&[&comparison.prompt]));
            let [a, b] = [&comparison.a, &comparison.b].map(|text| {
                let id = format!("{set}/{}", hash(&[&comparison.prompt, text]));
                work.responses.to_mut().entry(id.clone()).or_insert_with(|| Response {
                    id: id.clone(),
                    prompt_id: prompt_id.clone(),
                    index: place(&comparison.prompt, text),
                    text: text.clone(),
                    token_ids: Vec::new(), // written by people, not sampled
                    logprobs: Vec::new(),
                    finish_reason: FinishReason::Stop,
                });
                id
            });
            let id = format!("{set}/{}", hash(&[&comparison.prompt, &comparison.a, &comparison.b]));
            work.pairs.push(Pair { id, prompt_id: prompt_id.clone(), a, b });
            work.prompts.to_mut().entry(prompt_id.clone()).or_insert_with(|| Prompt {
                id: prompt_id,
                prompt: PromptText::Text(comparison.prompt.clone()),
                tags: Vec::new(),
                reference: None,
            });
        }
        let trial = Self { work, comparisons: comparisons.into_iter().cloned().collect() };
        trial.work.put_probes(context, "it is one of the program's bias probes")?;
        Ok(trial)
    }

    /// p(a beats b) − ½ of every comparison on which the judge has decided, in both orders where it has one: what it said in one order
    /// alone would tell the place as much as the group.
    fn margins(&self, context: &Context, judge: &str) -> Result<BTreeMap<&Comparison, f64>> {
        let opinions = judging::opinions(context, &self.work)?;
        let mut margins = BTreeMap::new();
        for opinion in opinions.iter().filter(|opinion| opinion.judge == judge) {
            let orders: HashMap<&str, BTreeSet<Order>> = opinion
                .choices
                .iter()
                .map(|(pair, choices)| (pair.as_str(), choices.iter().map(|(order, _)| *order).collect()))
                .collect();
            let whole = if opinion.has_order { 2 } else { 1 };
            for ((comparison, pair), preference) in
                self.comparisons.iter().zip(&self.work.pairs).zip(&opinion.preferences)
            {
                let decided = orders.get(pair.id.as_str()).is_some_and(|orders| orders.len() >= whole);
                if let Some(p) = preference.p.filter(|_| decided) {
                    margins.insert(comparison, p - 0.5);
                }
            }
        }
        Ok(margins)
    }
}

fn hash(texts: &[&str]) -> String {
    blake3::hash(texts.join("\n").as_bytes()).to_hex()[..24].to_owned()
}

/// Where a response stands among those of its prompt: by its text, so that another choice of items moves none.
fn place(prompt: &str, text: &str) -> usize {
    let [a, b, c, d, e, f, ..] = *blake3::hash(format!("{prompt}\n{text}").as_bytes()).as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0]) as usize
}
