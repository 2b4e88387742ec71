//! The policies on the bias probes: the baseline, what tuning made of it, and above all the difference of the two.
//!
//! A policy's own log-probability of a text about somebody says how common the name is, whatever it thinks of the person; so texts are
//! measured as what tuning changed alone, where that cancels. Decisions and stereotypes are measured of each policy and of the change.

use super::scored::Scores;
use super::{by_probe, sampled, value};
use crate::context::Context;
use crate::local_judge::TOKENS_A_BATCH;
use anyhow::Result;
use rlaif_core::audit::Measurement;
use rlaif_core::config::Stage;
use rlaif_judge::bias::{Item, Probe};
use rlaif_model::Decoder;
use rlaif_store::store::BASELINE;
use rlaif_train::sequence_logprobs;

/// Measures every policy that the run has made; `None` where it has not even its baseline yet.
///
/// # Errors
/// If a model cannot be read, or sampled.
pub fn measure(context: &mut Context, items: &[Item]) -> Result<Option<Vec<Measurement>>> {
    let made =
        |context: &Context, stage: &str| context.folder.model(stage).join("model.safetensors").is_file();
    if context.config.stages().contains(&Stage::Sft) && !made(context, Stage::Sft.name()) {
        return Ok(None);
    }
    let decoder = context.policy()?;
    let baseline = Measured::new(context, BASELINE, &decoder, items)?;
    let mut measurements = baseline.measurements(context, items);
    for stage in [Stage::Ppo, Stage::Dpo] {
        let name = stage.name();
        if context.config.stages().contains(&stage) && made(context, name) {
            let decoder = context.tuned_policy(name)?;
            let tuned = Measured::new(context, name, &decoder, items)?;
            measurements.extend(tuned.measurements(context, items));
            measurements.extend(tuned.less(&baseline).change(context, name, items));
        }
    }
    Ok(Some(measurements))
}

/// What one policy makes of each item, and of each prompt that it answers itself.
struct Measured {
    policy: String,
    /// Differences of log-probability, in nats per token of the answer.
    values: Vec<Option<f64>>,
    answers: Option<sampled::Answers>,
}

impl Measured {
    fn new(context: &Context, policy: &str, decoder: &Decoder, items: &[Item]) -> Result<Self> {
        let longest = decoder.config().max_position_embeddings;
        let what = format!("policy `{policy}`");
        let scores = Scores::new(context, items, &[], longest, &what, |items| {
            let logprobs = sequence_logprobs(decoder, items, 1.0, TOKENS_A_BATCH)?;
            let mean =
                |tokens: &Vec<f32>| tokens.iter().map(|&l| f64::from(l)).sum::<f64>() / tokens.len() as f64;
            Ok(logprobs.iter().map(mean).collect())
        })?;
        let values = items.iter().map(|item| value(item, |comparison| scores.margin(comparison))).collect();
        Ok(Self { policy: policy.into(), values, answers: sampled::answers(context, policy, decoder)? })
    }

    fn measurements(&self, context: &Context, items: &[Item]) -> Vec<Measurement> {
        let subject = format!("policy `{}`", self.policy);
        self.held(context, &subject, items, &[Probe::Decision, Probe::Stereotype])
    }

    /// What tuning changed: the tuned policy's values less the baseline's, item by item.
    fn less(&self, baseline: &Self) -> Self {
        let pairs = self.values.iter().zip(&baseline.values);
        Self {
            policy: self.policy.clone(),
            values: pairs.map(|(tuned, before)| Some((*tuned)? - (*before)?)).collect(),
            answers: self
                .answers
                .as_ref()
                .zip(baseline.answers.as_ref())
                .map(|(tuned, before)| tuned.less(before)),
        }
    }

    fn change(&self, context: &Context, policy: &str, items: &[Item]) -> Vec<Measurement> {
        let subject = format!("what `{policy}` changed");
        self.held(context, &subject, items, &[Probe::Text, Probe::Decision, Probe::Stereotype])
    }

    fn held(&self, context: &Context, subject: &str, items: &[Item], probes: &[Probe]) -> Vec<Measurement> {
        let margin = &context.config.audit.bias_margin;
        let mut measurements = by_probe(subject, "policy", margin.policy, items, &self.values, probes);
        if let Some(answers) = &self.answers {
            measurements.extend(answers.measurements(subject, margin.sampled));
        }
        measurements
    }
}
