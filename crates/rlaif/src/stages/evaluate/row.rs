//! A policy's own row, and its samples beside the others'.

use super::compared::Compared;
use super::measured::{Measured, ended};
use super::rates::win_rate_of;
use crate::context::Context;
use crate::report::data::{Estimate, PolicyRow, Sample, SampleResponse};
use rlaif_core::records::{Prompt, Response};
use rlaif_core::stats::interval::cluster_mean;
use rlaif_core::stats::paired::paired_difference;
use rlaif_store::store::BASELINE;
use std::collections::BTreeMap;

/// What one policy's responses come to.
pub fn row(
    context: &Context,
    baseline: &Measured,
    policy: &Measured,
    over_baseline: Option<&Compared>,
    over_origin: Option<&Compared>,
) -> PolicyRow {
    let (resamples, run_seed) = (context.config.evaluate.bootstrap, context.config.run.seed);
    let mean = |value: &dyn Fn(&Response) -> f64| {
        let clusters: Vec<Vec<f64>> = by_prompt(&policy.responses, value).into_values().collect();
        let interval = cluster_mean(&clusters, resamples, run_seed)?;
        Some(Estimate::of(interval, policy.responses.len()))
    };
    let lookup = |values: &BTreeMap<String, f64>, response: &Response| {
        values.get(&response.id).copied().unwrap_or(f64::NAN)
    };
    let mean_of = |values: &Option<BTreeMap<String, f64>>| {
        let values = values.as_ref()?;
        mean(&|response| lookup(values, response))
    };
    let difference = |ours: &Option<BTreeMap<String, f64>>, theirs: &Option<BTreeMap<String, f64>>| {
        let (ours, theirs) = (ours.as_ref()?, theirs.as_ref()?);
        if policy.policy == BASELINE {
            return None;
        }
        let after = prompt_means(&policy.responses, &|response| lookup(ours, response));
        let before = prompt_means(&baseline.responses, &|response| lookup(theirs, response));
        let (before, after): (Vec<f64>, Vec<f64>) =
            after.iter().filter_map(|(prompt, after)| Some((*before.get(prompt)?, *after))).unzip();
        let paired = paired_difference(&before, &after)?;
        Some(Estimate::of(paired.difference, paired.n))
    };
    let rate_of = |compared: Option<&Compared>| {
        win_rate_of(compared?.met.iter().map(|met| (met, met.outcome)), resamples, run_seed)
    };
    let rate = rate_of(over_baseline);
    PolicyRow {
        policy: policy.policy.clone(),
        win_rate: rate.map(|(_, estimate)| estimate),
        win_rate_origin: rate_of(over_origin).map(|(_, estimate)| estimate),
        outcomes: rate.map(|(rate, _)| (rate.wins, rate.ties, rate.losses)),
        reward: mean_of(&policy.reward),
        reward_difference: difference(&policy.reward, &baseline.reward),
        kl: mean_of(&policy.kl),
        kl_origin: mean_of(&policy.kl_origin),
        length: mean(&|response| response.token_ids.len() as f64),
        ended: mean(&|response| f64::from(u8::from(ended(response)))),
        sentiment: mean_of(&policy.sentiment),
        sentiment_difference: difference(&policy.sentiment, &baseline.sentiment),
    }
}

fn by_prompt<'a>(responses: &'a [Response], value: &dyn Fn(&Response) -> f64) -> BTreeMap<&'a str, Vec<f64>> {
    let mut groups: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for response in responses {
        groups.entry(&response.prompt_id).or_default().push(value(response));
    }
    groups
}

fn prompt_means<'a>(responses: &'a [Response], value: &dyn Fn(&Response) -> f64) -> BTreeMap<&'a str, f64> {
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    by_prompt(responses, value).into_iter().map(|(prompt, values)| (prompt, mean(values))).collect()
}

/// The first sample of each policy to each held-out prompt, side by side.
pub fn samples(context: &Context, measured: &[Measured], compared: &[Compared]) -> Vec<Sample> {
    let over_baseline = |policy: &str| compared.iter().find(|it| it.policy == policy && it.other == BASELINE);
    let said = |policy: &Measured, prompt_id: &str| -> Option<SampleResponse> {
        let response = policy.responses.iter().find(|r| r.prompt_id == prompt_id && r.index == 0)?;
        let of = |values: &Option<BTreeMap<String, f64>>| values.as_ref()?.get(&response.id).copied();
        let preference = over_baseline(&policy.policy).and_then(|it| it.preferences.get(&response.id));
        Some(SampleResponse {
            policy: policy.policy.clone(),
            text: response.text.clone(),
            ended: ended(response),
            reward: of(&policy.reward),
            sentiment: of(&policy.sentiment),
            p_beats_baseline: preference.and_then(|preference| preference.p),
        })
    };
    let sample = |prompt: &Prompt| Sample {
        prompt_id: prompt.id.clone(),
        prompt: prompt.prompt.display(),
        responses: measured.iter().filter_map(|policy| said(policy, &prompt.id)).collect(),
    };
    context.prompts.eval.iter().map(sample).collect()
}
