//! The reward model on the bias probes: differences of reward, in standard deviations of the reward over the baseline's own responses,
//! which is the scale on which a policy is tuned.

use super::scored::Scores;
use super::{PROBES, by_probe, value};
use crate::context::Context;
use crate::local_judge::TOKENS_A_BATCH;
use anyhow::{Context as _, Result};
use rlaif_core::audit::{Bound, Measurement, Outcome};
use rlaif_core::records::Split;
use rlaif_judge::bias::{Item, Probe};
use rlaif_store::store::BASELINE;
use rlaif_train::packing::Item as Tokens;
use rlaif_train::{Scorer, load_members, load_reward_model};
use std::collections::HashMap;

/// Responses of the baseline whose rewards are the scale.
const MOST_RESPONSES: usize = 256;

const SUBJECT: &str = "reward model";

/// Scores every item; `None` where the run has no reward model.
///
/// # Errors
/// If the model or the store cannot be read.
pub fn measure(context: &mut Context, items: &[Item]) -> Result<Option<Vec<Measurement>>> {
    let folder = context.folder.model("reward");
    if !folder.join("model.safetensors").is_file() {
        return Ok(None);
    }
    let members =
        load_members(&folder, &context.device, load_reward_model).context("loading the reward model")?;
    let scorer = Scorer::of_members(&members, TOKENS_A_BATCH);
    let margin = context.config.audit.bias_margin.reward;
    let Some((scale, responses, split)) = scale(context, &scorer)? else {
        return Ok(Some(nothing(margin)));
    };
    let end: Vec<u32> = context.tokenizer().eos_ids().first().copied().into_iter().collect();
    let longest = context.policy_files.config.max_position_embeddings;
    let scores = Scores::new(context, items, &end, longest, SUBJECT, |items| Ok(scorer.rewards(items)?))?;
    let values: Vec<Option<f64>> = items
        .iter()
        .map(|item| value(item, |comparison| scores.margin(comparison)).map(|difference| difference / scale))
        .collect();
    let probes = [Probe::Text, Probe::Decision, Probe::Stereotype];
    let mut measurements = by_probe(SUBJECT, "reward", margin, items, &values, &probes);
    let told = format!("1 sd is {scale:.3}, of {responses} responses of the baseline to {split} prompts");
    for measurement in measurements.iter_mut().filter(|it| it.subject.ends_with("all axes")) {
        let note = measurement.note.take().unwrap_or_default();
        measurement.note = Some(format!("{note}; {told}"));
    }
    Ok(Some(measurements))
}

/// Without a scale nothing can be said, and nothing is fine.
fn nothing(margin: f64) -> Vec<Measurement> {
    let missing = |(_, name): &(Probe, &str)| Measurement {
        bound: Some(Bound { min: Some(-margin), max: Some(margin) }),
        outcome: Outcome::NotMeasured,
        ..Measurement::missing(
            SUBJECT,
            &format!("bias_reward_{name}"),
            "the baseline has no two responses that differ in reward, so that there is no scale",
        )
    };
    PROBES.iter().map(missing).collect()
}

/// The standard deviation of the reward over responses of the baseline, held-out ones where there are any, with their number and split.
fn scale(context: &Context, scorer: &Scorer) -> Result<Option<(f64, usize, &'static str)>> {
    for (split, name) in [(Split::Eval, "held-out"), (Split::Train, "training")] {
        let mut responses = context.wait(context.store.responses(BASELINE, Some(split)))?;
        responses.truncate(MOST_RESPONSES);
        let mut prompt_ids = HashMap::new();
        for prompt in context.prompts.of(split) {
            prompt_ids.insert(prompt.id.as_str(), context.prompt_ids(prompt)?);
        }
        let items: Vec<Tokens<'_>> = responses
            .iter()
            .filter(|response| !response.token_ids.is_empty())
            .filter_map(|it| {
                Some((prompt_ids.get(it.prompt_id.as_str())?.as_slice(), it.token_ids.as_slice()))
            })
            .collect();
        if items.len() < 2 {
            continue;
        }
        let rewards = scorer.rewards(&items)?;
        let n = rewards.len() as f64;
        let mean = rewards.iter().sum::<f64>() / n;
        let deviation =
            (rewards.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        if deviation > 0.0 {
            return Ok(Some((deviation, rewards.len(), name)));
        }
    }
    Ok(None)
}
