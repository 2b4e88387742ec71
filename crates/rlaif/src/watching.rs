//! Who chooses the best policy of `sft` and `dpo`: judges, or rules, that see what it says to prompts that the stage does not train on.
//!
//! Judges go the way of all judges: what they are asked and what they said is in the ledger, within the budget of the stage. A response
//! is named by its text, so that what the policy says again at a later look, or after a kill, is not bought again.

use crate::context::Context;
use crate::error::UserError;
use crate::judging::{self, Assignment, templates};
use crate::pipeline::{asking_recipe, judges_recipe};
use crate::report::data::{Estimate, WatchSummary};
use crate::rewards::{self, Source};
use crate::sampling::whole_distribution;
use anyhow::{Context as _, Result};
use rand::seq::SliceRandom;
use rlaif_core::config::{JudgeConfig, PolicyWatchConfig, Protocol, RewardKind, RewardSource, Stage};
use rlaif_core::records::{FinishReason, Pair, Prompt, Response};
use rlaif_core::seed;
use rlaif_core::stats::paired::paired_difference;
use rlaif_model::SamplingConfig;
use rlaif_train::packing::Item;
use rlaif_train::{HeldOut, HeldOutScore, PreferenceExample, PromptIds, TrainError, WatchReport};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the names of what judges saw begin with, by stage: the `policy` of its responses, and the set of its pairs.
pub fn set_of(stage: Stage) -> String {
    format!("{}-watch", stage.name())
}

/// What a look needs beside the trainer.
pub struct Watching<'run> {
    context: &'run mut Context,
    stage: Stage,
    sources: Vec<(f64, Source)>,
    prompts: Vec<PromptIds>,
    sampling: SamplingConfig,
    failure: Option<anyhow::Error>,
}

impl<'run> Watching<'run> {
    /// The watch of a stage, which trains on prompts of which `trains_on` says so; none where the config has none.
    ///
    /// # Errors
    /// If a rule cannot be used, or no prompt is left.
    pub fn of(
        context: &'run mut Context,
        stage: Stage,
        trains_on: impl Fn(&[u32]) -> bool,
    ) -> Result<Option<Self>> {
        let Some(watch) = context.config.policy_watch(stage).cloned() else { return Ok(None) };
        let mut sources = Vec::new();
        for (index, source) in parts(&watch).iter().enumerate() {
            sources.push((source.weight, part(context, stage, index, source)?));
        }
        let mut prompts = Vec::new();
        for prompt in &context.prompts.train {
            let ids = context.prompt_ids(prompt)?;
            if !trains_on(&ids) {
                prompts.push(PromptIds { id: prompt.id.clone(), ids });
            }
        }
        if prompts.is_empty() {
            let name = stage.name();
            let message = format!(
                "no prompt is left for `[{name}.watch]`: the stage trains on all {} of `prompts.train`",
                context.prompts.train.len()
            );
            return Err(UserError::new(message)
                .hint(format!("Raise `{name}.holdout_fraction`, or add prompts"))
                .into());
        }
        let mut drawn: Vec<usize> = (0..prompts.len()).collect();
        let purpose = format!("{}/watch/prompts", stage.name());
        drawn.shuffle(&mut seed::stream(context.config.run.seed, &purpose, 0));
        drawn.truncate(watch.prompts);
        drawn.sort_unstable();
        let sampling = whole_distribution(context, watch.temperature, watch.max_new_tokens);
        let prompts = drawn.into_iter().map(|place| prompts[place].clone()).collect();
        Ok(Some(Self { context, stage, sources, prompts, sampling, failure: None }))
    }

    /// Trains with it, or without; an error of a judge comes in its own words, which say what to do.
    ///
    /// # Errors
    /// Those of training.
    pub fn train<T>(
        watching: Option<Self>,
        train: impl FnOnce(Option<HeldOut<'_>>) -> Result<T, TrainError>,
    ) -> Result<T> {
        let Some(mut watching) = watching else { return Ok(train(None)?) };
        let (prompts, sampling) = (watching.prompts.clone(), watching.sampling.clone());
        let trained = train(Some(HeldOut { prompts: &prompts, sampling: &sampling, score: &mut watching }));
        match watching.failure {
            Some(failure) => Err(failure),
            None => Ok(trained?),
        }
    }

    fn sum(&mut self, said: &[Item<'_>], first: &[Item<'_>]) -> Result<Vec<Option<f64>>> {
        let set = set_of(self.stage);
        let (said, first) = (self.responses(&set, said)?, self.responses(&set, first)?);
        let prompts: HashMap<String, Prompt> =
            self.context.prompts.train.iter().map(|prompt| (prompt.id.clone(), prompt.clone())).collect();
        let mut sum = vec![Some(0.0); said.len()];
        for (weight, source) in &self.sources {
            let scores = match source {
                Source::Judges(judges) => judged(self.context, self.stage, judges, &prompts, &said, &first)?,
                rule => rule.by_rule(&said, &prompts),
            };
            rewards::add(&mut sum, *weight, scores);
        }
        Ok(sum)
    }

    fn responses(&self, set: &str, items: &[Item<'_>]) -> Result<Vec<Response>> {
        let ids: HashMap<&[u32], &str> =
            self.prompts.iter().map(|prompt| (prompt.ids.as_slice(), prompt.id.as_str())).collect();
        let tokenizer = self.context.tokenizer();
        let response = |(prompt_ids, response_ids): &Item<'_>| {
            let prompt_id = ids.get(prompt_ids).context("a response is to a prompt that is looked at")?;
            let ended = response_ids.last().is_some_and(|id| tokenizer.eos_ids().contains(id));
            Ok(Response {
                token_ids: response_ids.to_vec(),
                logprobs: vec![f32::NAN; response_ids.len()], // not known here
                finish_reason: if ended { FinishReason::Stop } else { FinishReason::Length },
                ..named(set, prompt_id, tokenizer.decode(response_ids, true))
            })
        };
        items.iter().map(response).collect()
    }
}

impl HeldOutScore for Watching<'_> {
    fn score(&mut self, said: &[Item<'_>], first: &[Item<'_>]) -> Result<Vec<Option<f64>>, TrainError> {
        self.sum(said, first).map_err(|error| {
            let reason = format!("{error:#}");
            self.failure = Some(error);
            TrainError::Reward { reason }
        })
    }
}

/// A response whose id and index follow from the prompt and the text.
fn named(set: &str, prompt_id: &str, text: String) -> Response {
    let hash = blake3::hash(text.as_bytes());
    let index = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes"));
    Response {
        id: format!("{set}/{prompt_id}/{}", &hash.to_hex()[..16]),
        prompt_id: prompt_id.into(),
        index: usize::try_from(index >> 1).unwrap_or(usize::MAX), // 63 bits, as the ledger's integers
        text,
        token_ids: Vec::new(),
        logprobs: Vec::new(),
        finish_reason: FinishReason::Stop,
    }
}

/// Asks judges about what was said. Ratings and contrastive scores are taken as they are; with a pairwise judge among them a response has
/// its probability to beat what the policy said first, ½ where that is the same text.
fn judged(
    context: &mut Context,
    stage: Stage,
    judges: &[JudgeConfig],
    prompts: &HashMap<String, Prompt>,
    said: &[Response],
    first: &[Response],
) -> Result<Vec<Option<f64>>> {
    let label = rewards::as_said(&context.config.label);
    let set = set_of(stage);
    let compares = judges.iter().any(|judge| judge.protocol == Protocol::Pairwise);
    let mut responses: BTreeMap<String, Response> =
        said.iter().chain(first).map(|response| (response.id.clone(), response.clone())).collect();
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for (one, before) in said.iter().zip(first) {
        let differs = |other: &&Response| other.prompt_id == one.prompt_id && other.id != one.id;
        let other = match compares {
            true if one.id == before.id => continue,
            true => before.clone(),
            // Who is scored alone still comes as one of two; where all are the same, the other one says nothing.
            false => match said.iter().chain(first).find(differs) {
                Some(other) => other.clone(),
                None => named(&set, &one.prompt_id, String::new()),
            },
        };
        if one.id == other.id {
            continue; // it says nothing itself, and has no score
        }
        let pair = pair(&set, one, &other);
        responses.entry(other.id.clone()).or_insert(other);
        pairs.insert(pair.id.clone(), pair);
    }
    let stored: Vec<Response> = responses.values().cloned().collect();
    let pairs: Vec<Pair> = pairs.into_values().collect();
    rewards::keep(context, &set, &stored, &pairs)?;
    let work = Assignment {
        pairs,
        prompts: Cow::Borrowed(prompts),
        responses: Cow::Owned(responses.into_iter().collect()),
        ..Assignment::empty(stage.name(), &set, judges, &label)
    };
    if compares {
        let preferences = judging::judge(context, &work)?.preferences;
        let won: HashMap<&str, Option<f64>> =
            work.pairs.iter().zip(preferences).map(|(pair, said)| (pair.id.as_str(), said.p)).collect();
        let p = |(one, before): (&Response, &Response)| match one.id == before.id {
            true => Some(0.5),
            false => won.get(pair(&set, one, before).id.as_str()).copied().flatten(),
        };
        return Ok(said.iter().zip(first).map(p).collect());
    }
    judging::ask(context, &work)?;
    let scores = rewards::mean_scores(context, judges)?;
    Ok(said.iter().map(|response| scores.get(&response.id).copied()).collect())
}

fn pair(set: &str, a: &Response, b: &Response) -> Pair {
    let hash = |response: &Response| response.id.rsplit('/').next().unwrap_or_default().to_owned();
    Pair {
        id: format!("{set}/{}/{}-{}", a.prompt_id, hash(a), hash(b)),
        prompt_id: a.prompt_id.clone(),
        a: a.id.clone(),
        b: b.id.clone(),
    }
}

/// What the score is a sum of.
fn parts(watch: &PolicyWatchConfig) -> Vec<RewardSource> {
    match watch.rewards.is_empty() {
        true => vec![RewardSource { kind: RewardKind::Judges, ..RewardSource::default() }],
        false => watch.rewards.clone(),
    }
}

fn section(stage: Stage) -> String {
    format!("{}.watch.rewards", stage.name())
}

fn part(context: &Context, stage: Stage, index: usize, source: &RewardSource) -> Result<Source> {
    match source.kind {
        RewardKind::Judges => Ok(Source::Judges(context.config.choosing_judges(stage).to_vec())),
        _ => rewards::rule(context, &format!("{}[{index}]", section(stage)), source),
    }
}

/// Refuses what would stop the first look, before anything is computed.
///
/// # Errors
/// With the key, and what is wrong.
pub fn check(context: &Context, stage: Stage) -> Result<()> {
    match context.config.policy_watch(stage) {
        Some(watch) => rewards::check_rules(context, &section(stage), &watch.rewards),
        None => Ok(()),
    }
}

/// Refuses to choose by judges that made the labels of files.
///
/// # Errors
/// With the judge's name.
pub fn refuse_labellers(context: &Context, stage: Stage, examples: &[PreferenceExample]) -> Result<()> {
    let labellers: BTreeSet<&str> = examples.iter().flat_map(|example| example.source.split('+')).collect();
    match context.config.choosing_judges(stage).iter().find(|judge| labellers.contains(judge.name.as_str())) {
        None => Ok(()),
        Some(judge) => {
            let name = stage.name();
            let message = format!(
                "`{name}.watch.judges` must be others than those that made the labels, got {:?}, which is the `source` of preferences that `{name}` trains on",
                judge.name
            );
            Err(UserError::new(message).hint("Name a judge that has labelled none of them").into())
        }
    }
}

/// What a choice depends on beside the stage's own recipe.
pub struct Recipe {
    /// Its config and judges.
    pub settings: Value,
    /// The fingerprints of what they read, by name.
    pub inputs: Vec<(String, String)>,
}

/// What the choice of a stage depends on; none where the config has none.
///
/// # Errors
/// If a file cannot be read.
pub fn recipe(context: &Context, stage: Stage) -> Result<Option<Recipe>> {
    let config = &context.config;
    let Some(watch) = config.policy_watch(stage) else { return Ok(None) };
    let judges = config.choosing_judges(stage);
    let mut settings = json!({
        "watch": serde_json::to_value(PolicyWatchConfig { judges: None, ..watch.clone() })?,
        "judges": judges_recipe(judges)?,
        "generate.max_new_tokens": config.generate.max_new_tokens,
    });
    if !judges.is_empty() {
        let label = &config.label;
        settings["label"] = json!({
            "asking": asking_recipe(label)?, "max_response_chars": label.max_response_chars,
            "too_long": serde_json::to_value(label.too_long)?, "vote_smoothing": label.vote_smoothing,
        });
    }
    let mut inputs = vec![("prompts".to_string(), context.prompts.fingerprint.clone())];
    inputs.extend(rewards::schemas(context, &section(stage), &watch.rewards)?);
    for (judge, fingerprint) in context.local_judge_fingerprints(judges)? {
        inputs.push((format!("model of judge `{judge}`"), fingerprint));
    }
    inputs.extend(templates::fingerprints(context, judges)?);
    Ok(Some(Recipe { settings, inputs }))
}

/// What a choice came to, for the manifest.
pub fn summary(report: &WatchReport) -> WatchSummary {
    let known = |scores: &[f64]| {
        let known: Vec<f64> = scores.iter().copied().filter(|score| !score.is_nan()).collect();
        known.iter().sum::<f64>() / known.len() as f64
    };
    let gain = |before: &[f64]| {
        let both = before.iter().zip(&report.kept).filter(|(a, b)| !a.is_nan() && !b.is_nan());
        let (before, kept): (Vec<f64>, Vec<f64>) = both.unzip();
        paired_difference(&before, &kept).map(|paired| Estimate::of(paired.difference, paired.n))
    };
    WatchSummary {
        kept_step: report.kept_step,
        looks: report.looks,
        stopped: report.stopped,
        score: known(&report.kept),
        first_score: known(&report.first),
        last_score: known(&report.last),
        over_first: gain(&report.first),
        over_last: gain(&report.last),
    }
}

/// What its judges have cost, in words behind a summary and in micro-dollars; nothing without a watch.
///
/// # Errors
/// If the store cannot be read.
pub fn cost(context: &Context, stage: Stage) -> Result<(String, Option<i64>)> {
    if context.config.choosing_judges(stage).is_empty() {
        return Ok((String::new(), Some(0)));
    }
    let (spent, cost) = crate::stages::label::cost(context, stage)?;
    Ok((format!("; {spent}"), cost))
}

/// "; step 20 of 24 is kept: its held-out score of 0.612 is the highest of 5 looks, 0.105 above the last (95 % 0.02 to 0.19)".
pub fn describe(watch: Option<&WatchSummary>, steps: u64) -> String {
    let Some(watch) = watch else { return String::new() };
    let interval = |gain: &Option<Estimate>| match gain.and_then(|gain| gain.interval()) {
        Some((low, high)) => format!(" (95 % {low:.3} to {high:.3})"),
        None => String::new(),
    };
    let (than, by, gain) = match watch.kept_step == steps {
        false => ("the last", watch.score - watch.last_score, &watch.over_last),
        true => ("before training", watch.score - watch.first_score, &watch.over_first),
    };
    let early = if watch.stopped { ", where training ended since it had fallen," } else { "" };
    format!(
        "; step {} of {steps}{early} is kept: its held-out score of {:.3} is the highest of {} looks, {by:.3} above {than}{}",
        watch.kept_step,
        watch.score,
        watch.looks,
        interval(gain)
    )
}
