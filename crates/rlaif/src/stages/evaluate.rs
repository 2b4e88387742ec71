//! `evaluate`: tuned policies against the baseline, on prompts that no stage trained on.
//!
//! Every policy answers the same prompts with the same seeds. Judges see two responses and not whose they are: which one is
//! called a is drawn at random, and order-sensitive judges see both orders. Intervals resample prompts, since the samples of one
//! prompt are alike. Sentiment and length are measured without any model.
//! Where `policy.origin` is given, tuned policies are compared with it in the same way.

use crate::context::Context;
use crate::interrupt;
use crate::judging::{self, Assignment};
use crate::local_judge::TOKENS_A_BATCH;
use crate::manifest::StageOutcome;
use crate::progress::say;
use crate::report::data::{Estimate, Evaluation, PolicyRow, Sample, SampleResponse};
use crate::run_folder::write_whole;
use crate::sampling::{Sampling, sample_missing};
use anyhow::{Context as _, Result};
use rand::RngExt;
use rlaif_core::config::{Aggregation, JudgeConfig, LabelConfig, Stage};
use rlaif_core::records::{Fate, FinishReason, Pair, Preference, Response, Split};
use rlaif_core::seed;
use rlaif_core::stats::interval::{Interval, cluster_mean};
use rlaif_core::stats::paired::paired_difference;
use rlaif_core::stats::winrate::{Outcome, WinRate, win_rate};
use rlaif_model::{Decoder, SamplingConfig};
use rlaif_store::store::{BASELINE, ORIGIN};
use rlaif_train::{Scorer, load_members, load_reward_model, sequence_logprobs};
use serde_json::json;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// Name under which the reward model's scores stand in the store.
const REWARD_MODEL: &str = "reward-model";

/// One policy's responses to the held-out prompts, with what was measured on them, by response id.
struct Measured {
    policy: String,
    responses: Vec<Response>,
    reward: Option<BTreeMap<String, f64>>,
    kl: BTreeMap<String, f64>,
    kl_origin: Option<BTreeMap<String, f64>>,
    sentiment: Option<BTreeMap<String, f64>>,
}

/// Samples, judges and measures.
///
/// # Errors
/// If a model, a judge or the store cannot be used; what is finished is kept.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let reads = |stage: Stage| {
        let record = context.manifest.stage(Stage::Evaluate);
        record.is_some_and(|record| record.recipe["inputs"].get(stage.name()).is_some())
    };
    let (has_reward, tuned): (bool, Vec<&str>) = (
        reads(Stage::Reward),
        [Stage::Ppo, Stage::Dpo].into_iter().filter(|stage| reads(*stage)).map(Stage::name).collect(),
    );
    let mut measured = Vec::new();
    for policy in std::iter::once(BASELINE).chain(tuned.iter().copied()) {
        measured.push(measure(context, policy, has_reward)?);
    }
    // Their mean: a panel fitted to labels would measure the policy by what it was tuned on.
    let label = LabelConfig {
        keep_ties: false,
        keep_inconsistent: false,
        aggregation: Aggregation::Mean,
        ..context.config.label.clone()
    };
    let judges = context.config.evaluation_judges().to_vec();
    let origin = match context.config.policy.origin {
        Some(_) => Some(measure(context, ORIGIN, false)?),
        None => None,
    };
    let (mut preferences, mut over_origin) = (BTreeMap::new(), BTreeMap::new());
    for policy in &measured[1..] {
        let name = &policy.policy;
        let over = compare(context, name, &measured[0], policy, &judges, &label)?;
        preferences.insert(name.clone(), over);
        if let Some(origin) = &origin {
            let set = format!("{ORIGIN}/{name}");
            over_origin.insert(name.clone(), compare(context, &set, origin, policy, &judges, &label)?);
        }
    }

    let evaluation = Evaluation {
        prompts: context.prompts.eval.len() as u64,
        samples_per_prompt: context.config.evaluate.samples_per_prompt as u64,
        judges: judges.iter().map(|judge| judge.name.clone()).collect(),
        judges_made_labels: judges.iter().any(|judge| label.judges.contains(judge)),
        policies: measured
            .iter()
            .map(|policy| {
                let name = &policy.policy;
                row(context, &measured[0], policy, preferences.get(name), over_origin.get(name))
            })
            .collect(),
        samples: samples(context, &measured, &preferences),
        ..Evaluation::default()
    };
    let text = serde_json::to_string_pretty(&evaluation).context("writing the evaluation")?;
    write_whole(&context.folder.evaluation(), text.as_bytes())?;

    for policy in &evaluation.policies[1..] {
        say(&format!("evaluate: {}", describe(policy)));
    }
    let compared = preferences.values().chain(over_origin.values()).flatten();
    let failures = compared.filter(|(_, preference)| preference.fate == Fate::Failed).count();
    let (spent, cost) = super::label::cost(context, Stage::Evaluate)?;
    let rates: Vec<String> = evaluation.policies[1..]
        .iter()
        .filter_map(|policy| Some(format!("{} wins {:.0} %", policy.policy, 100.0 * policy.win_rate?.value)))
        .collect();
    let rates = if rates.is_empty() { "no policy was tuned".to_string() } else { rates.join(", ") };
    Ok(StageOutcome {
        summary: format!(
            "{rates} of comparisons with the baseline on {} held-out prompts, {spent}",
            evaluation.prompts
        ),
        numbers: json!({ "policies": evaluation.policies }),
        failures,
        cost_micro_usd: cost,
    })
}

/// Samples a policy on the held-out prompts and measures its responses.
fn measure(context: &mut Context, policy: &str, has_reward: bool) -> Result<Measured> {
    let baseline = context.policy()?;
    let origin = context.origin()?;
    let decoder = match policy {
        BASELINE => baseline.clone(),
        ORIGIN => origin.clone().context("it is measured only where there is one")?,
        tuned => context.tuned_policy(tuned)?,
    };
    let config = &context.config.evaluate;
    let how = Sampling {
        stage: "evaluate",
        purpose: "evaluate",
        policy,
        split: Split::Eval,
        n: config.samples_per_prompt,
        systems: &[], // evaluation is of what users get
        config: SamplingConfig {
            temperature: config.temperature,
            top_p: 1.0,
            top_k: 0,
            max_new_tokens: config.max_new_tokens.unwrap_or(context.config.generate.max_new_tokens),
            stop_ids: context.tokenizer().eos_ids().to_vec(),
            batch_size: context.config.generate.batch_size,
        },
    };
    sample_missing(context, &decoder, &how)?;
    let responses = context.wait(context.store.responses(policy, Some(Split::Eval)))?;

    let mut prompt_ids = HashMap::new();
    for prompt in &context.prompts.eval {
        prompt_ids.insert(prompt.id.as_str(), context.prompt_ids(prompt)?);
    }
    let items: Vec<(&[u32], &[u32])> = responses
        .iter()
        .map(|response| {
            let prompt = prompt_ids
                .get(response.prompt_id.as_str())
                .context("a response is to a prompt of the run")?;
            Ok((prompt.as_slice(), response.token_ids.as_slice()))
        })
        .collect::<Result<_>>()?;
    let temperature = if config.temperature > 0.0 { config.temperature } else { 1.0 };
    let (kl, kl_origin) = match (policy, &origin) {
        (BASELINE | ORIGIN, _) => (vec![0.0; items.len()], None),
        (_, None) => (kl(&decoder, &baseline, &items, temperature)?, None),
        (_, Some(origin)) => {
            (kl(&decoder, &baseline, &items, temperature)?, Some(kl(&decoder, origin, &items, temperature)?))
        }
    };
    let by_id = |values: Vec<f64>| -> BTreeMap<String, f64> {
        responses.iter().map(|response| response.id.clone()).zip(values).collect()
    };
    let reward = match has_reward {
        false => None,
        true => {
            let folder = context.folder.model("reward");
            let members = load_members(&folder, &context.device, load_reward_model)
                .context("loading the reward model")?;
            let scores = by_id(Scorer::of_members(&members, TOKENS_A_BATCH).rewards(&items)?);
            let rows: Vec<(String, f64)> = scores.clone().into_iter().collect();
            context.wait(context.store.put_scores(REWARD_MODEL, &rows))?;
            Some(scores)
        }
    };
    let sentiment = config.sentiment.then(|| {
        let lexicon = vader_sentimental::SentimentIntensityAnalyzer::new();
        by_id(responses.iter().map(|response| lexicon.polarity_scores(&response.text).compound).collect())
    });
    let (kl, kl_origin) = (by_id(kl), kl_origin.map(by_id));
    Ok(Measured { policy: policy.into(), reward, kl, kl_origin, sentiment, responses })
}

/// Sampled KL(policy ‖ baseline) of each response in nats: Σ_t log p(y_t) − log p_ref(y_t), at the sampling temperature.
fn kl(
    policy: &Decoder,
    baseline: &Decoder,
    items: &[(&[u32], &[u32])],
    temperature: f64,
) -> Result<Vec<f64>> {
    let of_policy = sequence_logprobs(policy, items, temperature, TOKENS_A_BATCH)?;
    let of_baseline = sequence_logprobs(baseline, items, temperature, TOKENS_A_BATCH)?;
    let sum = |a: &Vec<f32>, b: &Vec<f32>| a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)).sum();
    Ok(of_policy.iter().zip(&of_baseline).map(|(a, b)| sum(a, b)).collect())
}

/// Lets the judges compare a tuned policy with another one; the preferences by the tuned policy's response, seen from it.
fn compare(
    context: &mut Context,
    set: &str,
    theirs: &Measured,
    tuned: &Measured,
    judges: &[JudgeConfig],
    label: &LabelConfig,
) -> Result<BTreeMap<String, Preference>> {
    interrupt::check("evaluate")?;
    let responses = theirs.responses.iter().chain(&tuned.responses);
    let mut work = Assignment {
        pairs: comparisons(context, set, theirs, tuned),
        prompts: Cow::Owned(context.prompts.eval.iter().map(|p| (p.id.clone(), p.clone())).collect()),
        responses: Cow::Owned(responses.map(|response| (response.id.clone(), response.clone())).collect()),
        ..Assignment::empty("evaluate", set, judges, label)
    };
    work.rule()?;
    context.wait(context.store.put_pairs(set, &work.pairs))?;
    let judged = judging::judge(context, &work)?.preferences;
    Ok(turned(&work.pairs, judged, &tuned.policy))
}

/// One pair a sample: the tuned policy's against the other's of the same seed. Which is called a is drawn, so that nothing
/// about a pair says whose response is whose. Equal texts make no pair: they are ties that no judge needs to see.
fn comparisons(context: &Context, set: &str, theirs: &Measured, tuned: &Measured) -> Vec<Pair> {
    let theirs: HashMap<(&str, usize), &Response> =
        theirs.responses.iter().map(|r| ((r.prompt_id.as_str(), r.index), r)).collect();
    let mut pairs = Vec::new();
    for ours in &tuned.responses {
        let Some(theirs) = theirs.get(&(ours.prompt_id.as_str(), ours.index)) else { continue };
        if ours.text.trim() == theirs.text.trim() {
            continue;
        }
        let id = format!("{set}/{}/{}", ours.prompt_id, ours.index);
        let swap = seed::stream(context.config.run.seed, &format!("blind/{id}"), 0).random::<bool>();
        let (a, b) = if swap { (&theirs.id, &ours.id) } else { (&ours.id, &theirs.id) };
        pairs.push(Pair { id, prompt_id: ours.prompt_id.clone(), a: a.clone(), b: b.clone() });
    }
    pairs
}

/// Preferences seen from the tuned policy: p is P(the tuned response beats the baseline's).
fn turned(pairs: &[Pair], preferences: Vec<Preference>, policy: &str) -> BTreeMap<String, Preference> {
    let own = format!("{policy}/");
    pairs
        .iter()
        .zip(preferences)
        .map(|(pair, mut preference)| {
            let tuned_is_a = pair.a.starts_with(&own);
            preference.p = preference.p.map(|p| if tuned_is_a { p } else { 1.0 - p });
            (if tuned_is_a { pair.a.clone() } else { pair.b.clone() }, preference)
        })
        .collect()
}

/// What a comparison came to. A verdict that changed with the order is a tie; a missing one is missing.
fn outcome(preference: Option<&Preference>) -> Option<Outcome> {
    let Some(preference) = preference else { return Some(Outcome::Tie) }; // the same text twice
    match (preference.fate, preference.p) {
        (Fate::Kept, Some(p)) if p > 0.5 => Some(Outcome::Win),
        (Fate::Kept, Some(p)) if p < 0.5 => Some(Outcome::Loss),
        (Fate::Kept | Fate::Tie | Fate::Inconsistent, _) => Some(Outcome::Tie),
        (Fate::NoVerdict | Fate::Failed | Fate::SetAside, _) => None,
    }
}

fn row(
    context: &Context,
    baseline: &Measured,
    policy: &Measured,
    preferences: Option<&BTreeMap<String, Preference>>,
    over_origin: Option<&BTreeMap<String, Preference>>,
) -> PolicyRow {
    let (resamples, run_seed) = (context.config.evaluate.bootstrap, context.config.run.seed);
    let mean = |value: &dyn Fn(&Response) -> f64| {
        let clusters: Vec<Vec<f64>> = by_prompt(&policy.responses, value).into_values().collect();
        estimate(cluster_mean(&clusters, resamples, run_seed), policy.responses.len())
    };
    let lookup = |values: &BTreeMap<String, f64>, response: &Response| {
        values.get(&response.id).copied().unwrap_or(f64::NAN)
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
        Some(estimate_of(paired.difference, paired.n))
    };
    let rate_of = |preferences: Option<&BTreeMap<String, Preference>>| {
        let outcomes = policy.responses.iter().filter_map(|response| {
            Some((response.prompt_id.as_str(), outcome(preferences?.get(&response.id))?))
        });
        win_rate(outcomes, resamples, run_seed)
    };
    let estimate_of_rate =
        |rate: WinRate| estimate_of(rate.rate, (rate.wins + rate.ties + rate.losses) as usize);
    let rate = rate_of(preferences);
    PolicyRow {
        policy: policy.policy.clone(),
        win_rate: rate.map(estimate_of_rate),
        win_rate_origin: rate_of(over_origin).map(estimate_of_rate),
        outcomes: rate.map(|rate| (rate.wins, rate.ties, rate.losses)),
        reward: policy.reward.as_ref().and_then(|values| mean(&|response| lookup(values, response))),
        reward_difference: difference(&policy.reward, &baseline.reward),
        kl: mean(&|response| lookup(&policy.kl, response)),
        kl_origin: policy.kl_origin.as_ref().and_then(|values| mean(&|response| lookup(values, response))),
        length: mean(&|response| response.token_ids.len() as f64),
        ended: mean(&|response| f64::from(u8::from(response.finish_reason == FinishReason::Stop))),
        sentiment: policy.sentiment.as_ref().and_then(|values| mean(&|response| lookup(values, response))),
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

fn estimate(interval: Option<Interval>, n: usize) -> Option<Estimate> {
    interval.map(|interval| estimate_of(interval, n))
}

fn estimate_of(interval: Interval, n: usize) -> Estimate {
    Estimate::new(interval.estimate, interval.low, interval.high, n as u64)
}

/// The first sample of each policy to each held-out prompt, side by side.
fn samples(
    context: &Context,
    measured: &[Measured],
    preferences: &BTreeMap<String, BTreeMap<String, Preference>>,
) -> Vec<Sample> {
    let said = |policy: &Measured, prompt_id: &str| -> Option<SampleResponse> {
        let response = policy.responses.iter().find(|r| r.prompt_id == prompt_id && r.index == 0)?;
        let of = |values: &Option<BTreeMap<String, f64>>| values.as_ref()?.get(&response.id).copied();
        Some(SampleResponse {
            policy: policy.policy.clone(),
            text: response.text.clone(),
            ended: response.finish_reason == FinishReason::Stop,
            reward: of(&policy.reward),
            sentiment: of(&policy.sentiment),
            p_beats_baseline: preferences.get(&policy.policy).and_then(|p| p.get(&response.id)?.p),
        })
    };
    let sample = |prompt: &rlaif_core::records::Prompt| Sample {
        prompt_id: prompt.id.clone(),
        prompt: prompt.prompt.display(),
        responses: measured.iter().filter_map(|policy| said(policy, &prompt.id)).collect(),
    };
    context.prompts.eval.iter().map(sample).collect()
}

/// A policy in one line.
pub fn describe(policy: &PolicyRow) -> String {
    let mut parts = Vec::new();
    let with = |e: &Estimate, digits: usize| match e.interval() {
        Some((low, high)) => format!("{:.digits$} (95 % {low:.digits$} to {high:.digits$})", e.value),
        None => format!("{:.digits$}", e.value),
    };
    let percent = |rate: &Estimate| Estimate {
        value: 100.0 * rate.value,
        low: rate.low.map(|low| 100.0 * low),
        high: rate.high.map(|high| 100.0 * high),
        n: rate.n,
    };
    if let Some(rate) = &policy.win_rate {
        parts.push(format!("win rate {} %", with(&percent(rate), 0)));
    }
    if let Some(rate) = &policy.win_rate_origin {
        parts.push(format!("over the first baseline {} %", with(&percent(rate), 0)));
    }
    if let Some(reward) = &policy.reward_difference {
        parts.push(format!("reward {}{}", if reward.value >= 0.0 { "+" } else { "" }, with(reward, 3)));
    }
    if let Some(kl) = &policy.kl {
        parts.push(format!("KL {:.2} nats a response", kl.value));
    }
    if let Some(sentiment) = &policy.sentiment_difference {
        parts.push(format!(
            "sentiment {}{}",
            if sentiment.value >= 0.0 { "+" } else { "" },
            with(sentiment, 3)
        ));
    }
    format!("{}: {}", policy.policy, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preference(fate: Fate, p: Option<f64>) -> Preference {
        Preference {
            pair_id: "ppo/q/0".into(),
            prompt_id: "q".into(),
            p,
            spread: None,
            fate,
            judges: vec![],
            explanation: None,
        }
    }

    #[test]
    fn a_win_is_the_tuned_policys_whichever_response_was_called_a() {
        let pair =
            |a: &str, b: &str| Pair { id: "ppo/q/0".into(), prompt_id: "q".into(), a: a.into(), b: b.into() };
        for (pair, p) in [(pair("ppo/q/0", "baseline/q/0"), 0.9), (pair("baseline/q/0", "ppo/q/0"), 0.1)] {
            let turned = turned(&[pair], vec![preference(Fate::Kept, Some(p))], "ppo");
            assert!((turned["ppo/q/0"].p.unwrap() - 0.9).abs() < 1e-12);
            assert_eq!(outcome(turned.get("ppo/q/0")), Some(Outcome::Win));
        }
    }

    #[test]
    fn a_missing_verdict_is_missing_and_never_a_tie() {
        assert_eq!(outcome(Some(&preference(Fate::Failed, None))), None);
        assert_eq!(outcome(Some(&preference(Fate::NoVerdict, None))), None);
        assert_eq!(outcome(Some(&preference(Fate::Inconsistent, Some(0.7)))), Some(Outcome::Tie));
        assert_eq!(outcome(None), Some(Outcome::Tie), "equal texts");
    }
}
