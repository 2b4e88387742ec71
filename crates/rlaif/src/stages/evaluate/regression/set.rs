//! The regression set: read whole before anything is computed, and refused where training has its prompts.

use super::rules::Rule;
use crate::context::Context;
use crate::data_files::named_rows;
use crate::error::UserError;
use crate::sampling::{Sampling, sample_missing};
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use rlaif_core::records::{Demonstration, Prompt, PromptText, Response, Split};
use rlaif_model::{Decoder, SamplingConfig, Tokenizer};
use rlaif_store::jsonl::{
    BadRow, Check, RegressionRow, TuningRow, prompt_id, read_demonstrations, read_preference_data,
    read_regression, read_tuning_rows,
};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// The regression set.
#[derive(Debug)]
pub struct Set {
    /// Its file as the user wrote it.
    pub file: String,
    /// Its prompts, each once, under ids of their own.
    pub prompts: Vec<Prompt>,
    /// Its checks, in the order of the file.
    pub cases: Vec<Case>,
}

/// One check.
#[derive(Debug)]
pub struct Case {
    /// The row's `id`, or its line.
    pub id: String,
    /// The place of its prompt.
    pub prompt: usize,
    /// What is checked.
    pub check: Check,
    /// The same ready to be used; `None` where judges decide.
    pub rule: Option<Rule>,
}

/// What a policy's answers to the set are stored under, and the set of its pairs with the baseline's.
pub fn name_of(policy: &str) -> String {
    format!("regression/{policy}")
}

/// Reads `evaluate.regression`; `None` where there is none.
///
/// # Errors
/// If the file cannot be read, a row is none, a prompt does not fit the model, or training has one of the prompts.
pub fn read(context: &Context) -> Result<Option<Set>> {
    let Some(file) = &context.config.evaluate.regression else { return Ok(None) };
    let path = context.resolve(file);
    if !path.is_file() {
        return Err(UserError::new(format!(
            "there is no file `{}`, which `evaluate.regression` names",
            path.display()
        ))
        .hint("The path is relative to the config file")
        .into());
    }
    let rows = read_regression(&path).context("reading the prompts of `evaluate.regression`")?;
    refuse_bad(&path, &rows.bad)?;
    let set = set_of(&file.display().to_string(), rows.good)?;
    refuse_long(context, &set)?;
    refuse_trained(&set, &trained_on(context)?)?;
    Ok(Some(set))
}

/// The hash of the file's checks; `None` where there is none.
///
/// # Errors
/// If the file cannot be read.
pub fn fingerprint(context: &Context) -> Result<Option<String>> {
    let Some(file) = &context.config.evaluate.regression else { return Ok(None) };
    let path = context.resolve(file);
    let bytes = std::fs::read(&path).map_err(|error| {
        UserError::new(format!(
            "`{}`, which `evaluate.regression` names, cannot be read: {error}",
            path.display()
        ))
        .hint("The path is relative to the config file")
    })?;
    Ok(Some(blake3::hash(&bytes).to_hex()[..32].to_string()))
}

fn set_of(file: &str, rows: Vec<RegressionRow>) -> Result<Set> {
    let mut set = Set { file: file.into(), prompts: Vec::new(), cases: Vec::new() };
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for RegressionRow { line, id, prompt, checks } in rows {
        let prompt_id = format!("regression-{}", prompt_id(&prompt));
        let place = *places.entry(prompt_id.clone()).or_insert_with(|| {
            set.prompts.push(Prompt { id: prompt_id, prompt, tags: Vec::new(), reference: None });
            set.prompts.len() - 1
        });
        for check in checks {
            let rule = Rule::of(&check).map_err(|error| {
                UserError::new(format!("{file}:{line}: `check.regex` cannot be used: {error}"))
                    .hint("See the syntax of Rust's regex crate")
            })?;
            set.cases.push(Case { id: id.clone(), prompt: place, check, rule });
        }
    }
    Ok(set)
}

fn refuse_bad(path: &Path, bad: &[BadRow]) -> Result<(), UserError> {
    if bad.is_empty() {
        return Ok(());
    }
    let named = named_rows(path, bad);
    Err(UserError::new(format!("{} rows of `evaluate.regression` check nothing:{named}", bad.len()))
        .hint("A row is {\"prompt\": \"…\", \"check\": {\"contains\": \"…\"}}, see docs/evaluate.md"))
}

fn refuse_long(context: &Context, set: &Set) -> Result<()> {
    let config = &context.config;
    let room = config.evaluate.max_new_tokens.unwrap_or(config.generate.max_new_tokens);
    let longest = context.policy_files.config.max_position_embeddings.min(config.policy.max_length);
    for case in &set.cases {
        let tokens = context.prompt_ids(&set.prompts[case.prompt])?.len();
        if tokens + room > longest {
            return Err(UserError::new(format!(
                "{}: `{}` has {tokens} tokens, which leave no room for {room} new ones in a context of {longest} (`policy.max_length`)",
                set.file, case.id
            ))
            .hint("Shorten the prompt, or raise `policy.max_length`")
            .into());
        }
    }
    Ok(())
}

fn refuse_trained(set: &Set, trained: &HashSet<String>) -> Result<(), UserError> {
    let known = |case: &&Case| trained.contains(set.prompts[case.prompt].prompt.display().trim());
    let leaked: Vec<&str> = set.cases.iter().filter(known).map(|case| case.id.as_str()).collect();
    let Some(first) = leaked.first() else { return Ok(()) };
    let others = match leaked.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(UserError::new(format!("{}: `{first}`{others} is also trained on, so that it would prove nothing", set.file))
        .hint("Take the prompt out of `prompts.train`, `sft.data`, `reward.data` and `dpo.data`, or out of the regression set"))
}

/// All that stages of this run ask or imitate.
fn trained_on(context: &Context) -> Result<HashSet<String>> {
    let config = &context.config;
    let mut asked: HashSet<String> =
        context.prompts.train.iter().map(|prompt| display(&prompt.prompt)).collect();
    for file in &config.sft.data {
        for (_, row) in read_demonstrations(&context.resolve(file))?.good {
            asked.extend(row.prompt().as_ref().map(display));
            if let Demonstration::Messages { messages } = row {
                let turns = messages.into_iter().filter(|turn| turn.role == "user");
                asked.extend(turns.map(|turn| turn.content.trim().to_string()));
            }
        }
    }
    let has = |stage: Stage| config.stages().contains(&stage);
    for file in config.reward.data.iter().filter(|_| has(Stage::Reward)) {
        let rows = read_preference_data(&context.resolve(file))?.good;
        asked.extend(rows.iter().map(|row| display(&row.row.prompt)));
    }
    for file in config.dpo.data.iter().filter(|_| has(Stage::Dpo)) {
        for row in read_tuning_rows(&context.resolve(file))?.good {
            asked.insert(match &row {
                TuningRow::Pair(pair) => display(&pair.row.prompt),
                TuningRow::Response(response) => display(&response.prompt),
            });
        }
    }
    Ok(asked)
}

fn display(prompt: &PromptText) -> String {
    prompt.display().trim().to_string()
}

impl Set {
    /// The prompts on which judges compare, each once.
    pub fn judged(&self) -> impl Iterator<Item = &Prompt> {
        let is_judged =
            |place: usize| self.cases.iter().any(|case| case.prompt == place && case.rule.is_none());
        self.prompts.iter().enumerate().filter(move |(place, _)| is_judged(*place)).map(|(_, prompt)| prompt)
    }

    /// A policy's answers: one a prompt, its most probable tokens.
    ///
    /// # Errors
    /// If a prompt cannot be answered, or the store not be used; what is finished is kept.
    pub fn answers(
        &self,
        context: &Context,
        decoder: &Decoder,
        tokenizer: &Tokenizer,
        policy: &str,
    ) -> Result<Vec<Response>> {
        let rows: Vec<(Prompt, Split)> =
            self.prompts.iter().map(|prompt| (prompt.clone(), Split::Eval)).collect();
        context.wait(context.store.put_prompts(&rows))?;
        let config = &context.config;
        let name = name_of(policy);
        let how = Sampling {
            stage: "evaluate",
            purpose: "regression",
            policy: &name,
            prompts: &self.prompts,
            split: Split::Eval,
            tokenizer,
            n: 1,
            systems: &[],
            config: SamplingConfig {
                temperature: 0.0,
                top_p: 1.0,
                top_k: 0,
                max_new_tokens: config.evaluate.max_new_tokens.unwrap_or(config.generate.max_new_tokens),
                stop_ids: tokenizer.eos_ids().to_vec(),
                batch_size: config.generate.batch_size,
            },
        };
        sample_missing(context, decoder, &how)?;
        let mut answers = context.wait(context.store.responses(&name, Some(Split::Eval)))?;
        let places: BTreeMap<&str, usize> =
            self.prompts.iter().enumerate().map(|(place, prompt)| (prompt.id.as_str(), place)).collect();
        answers.retain(|answer| places.contains_key(answer.prompt_id.as_str()));
        answers.sort_by_key(|answer| places[answer.prompt_id.as_str()]);
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: u64, prompt: &str, checks: Vec<Check>) -> RegressionRow {
        RegressionRow { line, id: format!("line {line}"), prompt: PromptText::Text(prompt.into()), checks }
    }

    #[test]
    fn a_prompt_that_stands_twice_is_asked_once_and_each_check_counts() {
        let rows = vec![
            row(1, "a", vec![Check::Json, Check::MaxWords(3)]),
            row(2, "b", vec![Check::Judge]),
            row(3, "a", vec![Check::Judge]),
        ];
        let set = set_of("r.jsonl", rows).unwrap();
        let places: Vec<usize> = set.cases.iter().map(|case| case.prompt).collect();
        assert_eq!((set.prompts.len(), places), (2, vec![0, 0, 1, 0]));
        let error = set_of("r.jsonl", vec![row(7, "a", vec![Check::Regex("(".into())])]).unwrap_err();
        assert!(error.to_string().contains("r.jsonl:7: `check.regex`"), "{error}");
    }

    #[test]
    fn a_prompt_that_is_trained_on_is_refused() {
        let set =
            set_of("r.jsonl", vec![row(1, "a ", vec![Check::Json]), row(2, "b", vec![Check::Json])]).unwrap();
        let trained = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<HashSet<_>>();
        assert!(refuse_trained(&set, &trained(&["c"])).is_ok());
        let error = refuse_trained(&set, &trained(&["a", "b"])).unwrap_err();
        assert!(error.to_string().starts_with("r.jsonl: `line 1` and 1 more is also trained on"), "{error}");
    }
}
