//! What tuning maximises, and what watches it: the reward model, rules, and judges that are asked while the policy samples.
//!
//! Judges go the way of all judges: what they are asked and what they said is in the ledger, within the budget of stage `ppo`. A rollout
//! that is sampled again after a kill is the same rollout, and nothing in it is bought twice.

use crate::context::Context;
use crate::error::UserError;
use crate::judging::{self, Assignment};
use anyhow::{Context as _, Result, anyhow};
use boon::{Compiler, SchemaIndex, Schemas};
use regex::Regex;
use rlaif_core::config::{Aggregation, Config, JudgeConfig, LabelConfig, Protocol, RewardKind, RewardSource};
use rlaif_core::records::{FinishReason, Pair, Prompt, Response};
use rlaif_store::store::LIVE;
use rlaif_train::packing::Item;
use rlaif_train::{PromptIds, RewardFn, Scorer, TrainError};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The run, for as many rewards as there are.
pub type Shared<'run> = RefCell<&'run mut Context>;

/// One part of the sum.
pub enum Source {
    Model(Box<Scorer>),
    Judges(Vec<JudgeConfig>),
    Regex(Regex),
    JsonSchema(Box<Schemas>, SchemaIndex),
    Length { min: usize, max: Option<usize> },
    Reference(Option<Regex>),
}

/// A weighted sum of parts; a response that one of them cannot score has no score.
pub struct Rewards<'a, 'run> {
    context: &'a Shared<'run>,
    sources: Vec<(f64, Source)>,
    /// The id of a prompt by its tokens.
    ids: HashMap<Vec<u32>, String>,
    prompts: HashMap<String, Prompt>,
    /// Why a judge could not go on, whole, for the user.
    failure: Option<anyhow::Error>,
}

impl<'a, 'run> Rewards<'a, 'run> {
    /// What `[ppo]` maximises; `model` is the reward model, where it is a part of it.
    ///
    /// # Errors
    /// If a pattern or a schema cannot be used, or the reward model is missing.
    pub fn maximised(
        context: &'a Shared<'run>,
        model: Option<Scorer>,
        prompts: &[PromptIds],
    ) -> Result<Self> {
        let config = context.borrow().config.clone();
        let mut model = model.map(Box::new);
        let given = match config.ppo.rewards.is_empty() {
            true => vec![RewardSource::default()],
            false => config.ppo.rewards.clone(),
        };
        let mut sources = Vec::new();
        for (index, source) in given.iter().enumerate() {
            let part = match source.kind {
                RewardKind::RewardModel => {
                    Source::Model(model.take().context("the reward model is one part of the reward, once")?)
                }
                RewardKind::Judges => Source::Judges(config.tuning_judges().to_vec()),
                _ => rule(&context.borrow(), &format!("ppo.rewards[{index}]"), source)?,
            };
            sources.push((source.weight, part));
        }
        Ok(Self::of(context, sources, prompts))
    }

    /// What `[ppo.watch]` sees.
    pub fn watching(context: &'a Shared<'run>, prompts: &[PromptIds]) -> Self {
        let judges = context.borrow().config.watching_judges().to_vec();
        Self::of(context, vec![(1.0, Source::Judges(judges))], prompts)
    }

    fn of(context: &'a Shared<'run>, sources: Vec<(f64, Source)>, prompts: &[PromptIds]) -> Self {
        let ids = prompts.iter().map(|prompt| (prompt.ids.clone(), prompt.id.clone())).collect();
        let train = &context.borrow().prompts.train;
        let prompts = train.iter().map(|prompt| (prompt.id.clone(), prompt.clone())).collect();
        Self { context, sources, ids, prompts, failure: None }
    }

    /// What stopped a judge, if one was.
    pub fn failure(self) -> Option<anyhow::Error> {
        self.failure
    }

    fn responses(&self, items: &[Item<'_>], policy: &str) -> Result<Vec<Response>> {
        let run = self.context.borrow();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        items
            .iter()
            .map(|(prompt_ids, response_ids)| {
                let prompt_id = self.ids.get(*prompt_ids).context("a response is to a prompt of the run")?;
                let index = counts.entry(prompt_id).and_modify(|count| *count += 1).or_insert(0);
                let ended = response_ids.last().is_some_and(|id| run.tokenizer().eos_ids().contains(id));
                Ok(Response {
                    id: format!("{policy}/{prompt_id}/{index}"),
                    prompt_id: prompt_id.clone(),
                    index: *index,
                    text: run.tokenizer().decode(response_ids, true),
                    token_ids: response_ids.to_vec(),
                    logprobs: vec![f32::NAN; response_ids.len()], // not known here
                    finish_reason: if ended { FinishReason::Stop } else { FinishReason::Length },
                })
            })
            .collect()
    }

    fn sum(&self, items: &[Item<'_>]) -> Result<Vec<Option<f64>>> {
        let set = name_of(items);
        let responses = self.responses(items, &set)?;
        let mut sum = vec![Some(0.0); items.len()];
        for (weight, source) in &self.sources {
            let scores = match source {
                Source::Model(scorer) => scorer.rewards(items)?.into_iter().map(Some).collect(),
                Source::Judges(judges) => {
                    judged(&mut self.context.borrow_mut(), judges, &set, &self.prompts, &responses)?
                }
                rule => rule.by_rule(&responses, &self.prompts),
            };
            add(&mut sum, *weight, scores);
        }
        Ok(sum)
    }
}

/// Adds a part with its weight; what one part cannot score has no score.
pub fn add(sum: &mut [Option<f64>], weight: f64, scores: Vec<Option<f64>>) {
    for (sum, score) in sum.iter_mut().zip(scores) {
        *sum = sum.zip(score).map(|(sum, score)| sum + weight * score);
    }
}

impl Source {
    /// What a rule gives responses to these prompts, which are by id.
    pub fn by_rule(&self, responses: &[Response], prompts: &HashMap<String, Prompt>) -> Vec<Option<f64>> {
        let reference = |response: &Response| prompts.get(&response.prompt_id)?.reference.as_deref();
        responses.iter().map(|response| Some(self.of_response(response, reference(response)))).collect()
    }

    fn of_response(&self, response: &Response, reference: Option<&str>) -> f64 {
        let text = response.text.as_str();
        match self {
            Self::Regex(pattern) => f64::from(pattern.is_match(text)),
            Self::JsonSchema(schemas, schema) => {
                let value = serde_json::from_str(text.trim());
                f64::from(value.is_ok_and(|value| schemas.validate(&value, *schema).is_ok()))
            }
            Self::Length { min, max } => length_reward(response.token_ids.len(), *min, *max),
            Self::Reference(pattern) => {
                f64::from(reference.is_some_and(|reference| same_answer(pattern.as_ref(), text, reference)))
            }
            Self::Model(_) | Self::Judges(_) => 0.0, // scored where all responses are at hand
        }
    }
}

impl RewardFn for Rewards<'_, '_> {
    fn score(&mut self, items: &[Item<'_>]) -> Result<Vec<Option<f64>>, TrainError> {
        self.sum(items).map_err(|error| {
            let reason = format!("{error:#}");
            self.failure = Some(error);
            TrainError::Reward { reason }
        })
    }
}

/// Refuses patterns and schemas that cannot be used, and references that are missing, before anything is computed.
///
/// # Errors
/// With the key, and what is wrong.
pub fn check(context: &Context) -> Result<()> {
    check_rules(context, "ppo.rewards", &context.config.ppo.rewards)
}

/// [`check`] of the rules of another section.
///
/// # Errors
/// With the key, and what is wrong.
pub fn check_rules(context: &Context, section: &str, sources: &[RewardSource]) -> Result<()> {
    for (index, source) in sources.iter().enumerate() {
        if !matches!(source.kind, RewardKind::RewardModel | RewardKind::Judges) {
            rule(context, &format!("{section}[{index}]"), source)?;
        }
        let lacks = |prompt: &&Prompt| prompt.reference.is_none();
        if source.kind == RewardKind::Reference
            && let Some(prompt) = context.prompts.train.iter().find(lacks)
        {
            let message = format!(
                "`{section}[{index}]` needs a `reference` with each prompt, and prompt `{}` has none",
                prompt.id
            );
            return Err(UserError::new(message)
                .hint("Add it to the prompt file, or take the prompt out")
                .into());
        }
    }
    Ok(())
}

/// Everything outside the config that the rewards depend on: the schemas.
///
/// # Errors
/// If one cannot be read.
pub fn fingerprints(context: &Context) -> Result<Vec<(String, String)>> {
    schemas(context, "ppo.rewards", &context.config.ppo.rewards)
}

/// The schemas of a section's rules, with their hashes.
///
/// # Errors
/// If one cannot be read.
pub fn schemas(context: &Context, section: &str, sources: &[RewardSource]) -> Result<Vec<(String, String)>> {
    let sources = sources.iter().enumerate();
    let schemas = sources.filter_map(|(index, source)| Some((index, source.schema.as_ref()?)));
    schemas
        .map(|(index, schema)| {
            let text = read_schema(context, &format!("{section}[{index}]"), schema)?;
            let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
            Ok((format!("schema `{}`", schema.display()), hash))
        })
        .collect()
}

/// Whether tuning reads the run's reward model.
pub fn reads_reward_model(config: &Config) -> bool {
    config.ppo.maximises(RewardKind::RewardModel)
}

fn refused(part: &str, key: &str, error: &dyn std::fmt::Display, hint: &str) -> anyhow::Error {
    UserError::new(format!("`{part}.{key}` cannot be used: {error}")).hint(hint).into()
}

fn read_schema(context: &Context, part: &str, schema: &Path) -> Result<String> {
    let path = context.resolve(schema);
    let hint = "Give the path of a JSON Schema, relative to the config file";
    let told = |error| refused(part, "schema", &format!("`{}`: {error}", path.display()), hint);
    std::fs::read_to_string(&path).map_err(told)
}

/// The rule of a part, which stands at this key.
///
/// # Errors
/// If a pattern or a schema cannot be used.
pub fn rule(context: &Context, part: &str, source: &RewardSource) -> Result<Source> {
    let refused = |key: &str, error: &dyn std::fmt::Display, hint: &str| refused(part, key, error, hint);
    let compiled = |pattern: &str| {
        Regex::new(pattern).map_err(|error| {
            refused(
                "pattern",
                &error,
                "See the syntax of Rust's regex crate; in TOML, 'single quotes' keep backslashes",
            )
        })
    };
    match source.kind {
        RewardKind::Regex => Ok(Source::Regex(compiled(source.pattern.as_deref().unwrap_or_default())?)),
        RewardKind::Reference => {
            let pattern = source.pattern.as_deref().map(compiled).transpose()?;
            if pattern.as_ref().is_some_and(|pattern| pattern.captures_len() < 2) {
                let hint = "Put the answer in brackets, as in '#### *(.+)'";
                return Err(refused("pattern", &"it has no group", hint));
            }
            Ok(Source::Reference(pattern))
        }
        RewardKind::Length => {
            Ok(Source::Length { min: source.min_tokens.unwrap_or(0), max: source.max_tokens })
        }
        RewardKind::JsonSchema => {
            let text = read_schema(context, part, &source.schema.clone().unwrap_or_default())?;
            let mend = "It must be a JSON Schema that needs no other file";
            let value = serde_json::from_str(&text).map_err(|error| refused("schema", &error, mend))?;
            let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
            const NAME: &str = "schema.json";
            compiler.add_resource(NAME, value).map_err(|error| refused("schema", &error, mend))?;
            let compiled =
                compiler.compile(NAME, &mut schemas).map_err(|error| refused("schema", &error, mend))?;
            Ok(Source::JsonSchema(Box::new(schemas), compiled))
        }
        RewardKind::RewardModel | RewardKind::Judges => Err(anyhow!("no rule")),
    }
}

/// Between `min` and `max` 1; 0 at no tokens and at twice `max`.
fn length_reward(tokens: usize, min: usize, max: Option<usize>) -> f64 {
    if tokens < min {
        return tokens as f64 / min as f64;
    }
    match max {
        Some(max) if tokens > max => (2.0 - tokens as f64 / max.max(1) as f64).max(0.0),
        _ => 1.0,
    }
}

/// Whether the answer in a text is the reference: as a number where both are one, in words without case otherwise.
fn same_answer(pattern: Option<&Regex>, text: &str, reference: &str) -> bool {
    let answer = match pattern {
        None => text,
        Some(pattern) => match pattern.captures_iter(text).last().and_then(|found| found.get(1)) {
            Some(found) => found.as_str(),
            None => return false,
        },
    };
    let number = |text: &str| text.trim().trim_start_matches('$').replace(',', "").parse::<f64>().ok();
    match (number(answer), number(reference)) {
        (Some(answer), Some(reference)) => answer == reference,
        _ => answer.trim().to_lowercase() == reference.trim().to_lowercase(),
    }
}

/// A name for a rollout that hangs on what was said only.
fn name_of(items: &[Item<'_>]) -> String {
    let mut hasher = blake3::Hasher::new();
    for ids in items.iter().flat_map(|(prompt, response)| [prompt, response]) {
        hasher.update(&(ids.len() as u64).to_le_bytes());
        for id in *ids {
            hasher.update(&id.to_le_bytes());
        }
    }
    format!("{LIVE}{}", &hasher.finalize().to_hex()[..16])
}

/// Asks judges about a rollout. Ratings and contrastive scores are taken as they are; pairwise judges give each response its mean
/// probability to beat the next and the previous one of its prompt.
fn judged(
    context: &mut Context,
    judges: &[JudgeConfig],
    set: &str,
    prompts: &HashMap<String, Prompt>,
    responses: &[Response],
) -> Result<Vec<Option<f64>>> {
    let label = as_said(&context.config.label);
    let pairs = ring(set, responses);
    keep(context, set, responses, &pairs)?;
    let work = Assignment {
        pairs,
        prompts: Cow::Borrowed(prompts),
        responses: Cow::Owned(responses.iter().map(|r| (r.id.clone(), r.clone())).collect()),
        ..Assignment::empty("ppo", set, judges, &label)
    };
    if judges.iter().any(|judge| judge.protocol == Protocol::Pairwise) {
        let preferences = judging::judge(context, &work)?.preferences;
        let mut won: HashMap<&str, Vec<f64>> = HashMap::new();
        for (pair, preference) in work.pairs.iter().zip(preferences) {
            let Some(p) = preference.p else { continue };
            won.entry(&pair.a).or_default().push(p);
            won.entry(&pair.b).or_default().push(1.0 - p);
        }
        let mean = |of: &Vec<f64>| of.iter().sum::<f64>() / of.len() as f64;
        return Ok(responses.iter().map(|response| won.get(response.id.as_str()).map(mean)).collect());
    }
    judging::ask(context, &work)?;
    let scores = mean_scores(context, judges)?;
    Ok(responses.iter().map(|response| scores.get(&response.id).copied()).collect())
}

/// Labels in which every verdict counts as it was given, the mean over all.
pub fn as_said(label: &LabelConfig) -> LabelConfig {
    LabelConfig { keep_ties: true, keep_inconsistent: true, aggregation: Aggregation::Mean, ..label.clone() }
}

/// Puts what judges are to see in the ledger, under the name of a set.
pub fn keep(context: &Context, set: &str, responses: &[Response], pairs: &[Pair]) -> Result<()> {
    context.wait(context.store.put_prompts(&context.prompts.with_splits()))?;
    context.wait(context.store.put_responses(set, responses))?;
    context.wait(context.store.put_pairs(set, pairs))?;
    Ok(())
}

/// The mean of what judges gave a response, by their weights; by its id.
pub fn mean_scores(context: &Context, judges: &[JudgeConfig]) -> Result<HashMap<String, f64>> {
    let mut weighted: HashMap<String, (f64, f64)> = HashMap::new();
    for judge in judges {
        for (response, score) in judging::scores(context, judge)? {
            let (sum, weights) = weighted.entry(response).or_default();
            *sum += judge.weight * score;
            *weights += judge.weight;
        }
    }
    Ok(weighted.into_iter().map(|(response, (sum, weights))| (response, sum / weights)).collect())
}

/// Each response with the next one of its prompt, the last with the first; two make one pair, and one alone none.
fn ring(set: &str, responses: &[Response]) -> Vec<Pair> {
    let mut by_prompt: BTreeMap<&str, Vec<&Response>> = BTreeMap::new();
    for response in responses {
        by_prompt.entry(&response.prompt_id).or_default().push(response);
    }
    let mut pairs = Vec::new();
    for (prompt_id, samples) in by_prompt {
        let count = match samples.len() {
            0 | 1 => 0,
            2 => 1,
            more => more,
        };
        for at in 0..count {
            let (a, b) = (samples[at], samples[(at + 1) % samples.len()]);
            pairs.push(Pair {
                id: format!("{set}/{prompt_id}/{}-{}", a.index, b.index),
                prompt_id: prompt_id.into(),
                a: a.id.clone(),
                b: b.id.clone(),
            });
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_as_numbers_or_words() {
        let last = Regex::new(r"####\s*(.+)").unwrap();
        let same = |text, reference| same_answer(Some(&last), text, reference);
        assert!(same("3 + 4\n#### 6\nno:\n#### 1,007", "1007.0"));
        assert!(same("#### $7", "7") && same("#### Paris ", "paris"));
        assert!(!same("7", "7"), "the answer is not where it belongs");
        assert!(!same("#### 8", "7") && !same("#### seven", "7"));
        assert!(same_answer(None, " yes\n", "Yes"));
    }

    #[test]
    fn lengths_are_best_within_their_bounds() {
        let at = |tokens| length_reward(tokens, 10, Some(20));
        assert_eq!([0, 5, 10, 20, 30, 40, 90].map(at), [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]);
        assert_eq!((length_reward(3, 0, None), length_reward(0, 4, None)), (1.0, 0.0));
    }

    #[test]
    fn every_response_meets_two_others_where_there_are_two() {
        let response = |prompt: &str, index| Response {
            id: format!("{prompt}/{index}"),
            prompt_id: prompt.into(),
            index,
            text: String::new(),
            token_ids: vec![],
            logprobs: vec![],
            finish_reason: FinishReason::Stop,
        };
        let responses: Vec<Response> = [("p", 3), ("q", 2), ("r", 1)]
            .iter()
            .flat_map(|(prompt, n)| (0..*n).map(|index| response(prompt, index)))
            .collect();
        let pairs: Vec<_> = ring("live", &responses).into_iter().map(|pair| (pair.a, pair.b)).collect();
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(pairs, [pair("p/0", "p/1"), pair("p/1", "p/2"), pair("p/2", "p/0"), pair("q/0", "q/1")]);
    }

    #[test]
    fn a_rollout_is_named_by_what_was_said() {
        let items: Vec<Item<'_>> = vec![(&[1, 2], &[3])];
        assert_eq!(name_of(&items), name_of(&items.clone()));
        let (moved, other): (Vec<Item<'_>>, Vec<Item<'_>>) = (vec![(&[1], &[2, 3])], vec![(&[1, 2], &[4])]);
        assert!(name_of(&items) != name_of(&moved) && name_of(&items) != name_of(&other));
        assert!(name_of(&items).starts_with(LIVE));
    }
}
