//! What `reward` and `dpo` learn from besides the run's own preferences: files of the user's, checked before any stage runs, and
//! revised over original answers.

use crate::context::Context;
use crate::data_files::{missing, refuse_bad};
use crate::error::UserError;
use crate::human_data;
use crate::revisions;
use anyhow::{Context as _, Result};
use rlaif_core::config::{Config, DpoLossKind, Stage};
use rlaif_core::records::{PreferenceRow, Prompt, PromptText};
use rlaif_store::jsonl::{
    PreferenceData, ResponseData, Rows, TuningRow, read_preference_data, read_tuning_rows,
};
use rlaif_train::{PreferenceExample, ResponseExample};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What a row is, in words.
const PAIR: &str = r#"{"prompt", "chosen", "rejected"}"#;
const PAIR_OR_RESPONSE: &str =
    r#"{"prompt", "chosen", "rejected"} or, in a file of their own, {"prompt", "completion", "label"}"#;

/// What is learnt, in token ids.
#[derive(Debug, Default)]
pub struct Examples {
    /// Pairs, in the order of the files.
    pub pairs: Vec<PreferenceExample>,
    /// Responses by themselves, likewise.
    pub responses: Vec<ResponseExample>,
    /// Rows left out because a response does not fit into the context.
    pub too_long: usize,
}

/// The files of a stage, in the order of the config.
pub fn files(config: &Config, stage: Stage) -> &[PathBuf] {
    match stage {
        Stage::Reward => &config.reward.data,
        Stage::Dpo => &config.dpo.data,
        _ => &[],
    }
}

/// Whether a stage trains on revised over original answers.
pub fn reads_revisions(config: &Config, stage: Stage) -> bool {
    match stage {
        Stage::Reward => config.reward.revisions,
        Stage::Dpo => config.dpo.revisions,
        _ => false,
    }
}

/// Whether a stage trains on the run's own preferences: always, unless it has files or revisions and the run no stage `label`.
pub fn reads_labels(config: &Config, stage: Stage) -> bool {
    let of_people = matches!(stage, Stage::Reward | Stage::Dpo) && !config.route.human_data.is_empty();
    let has_others = of_people || !files(config, stage).is_empty() || reads_revisions(config, stage);
    !has_others || config.run.stages.contains(&Stage::Label)
}

/// BLAKE3 of each file, by name.
///
/// # Errors
/// If one cannot be read.
pub fn fingerprints(context: &Context, stage: Stage) -> Result<Vec<(String, String)>> {
    let hash = |file: &PathBuf| {
        let path = context.resolve(file);
        let bytes = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => missing(&path, stage).into(),
            _ => anyhow::Error::from(error).context(format!("reading `{}`", path.display())),
        })?;
        Ok((format!("data `{}`", file.display()), blake3::hash(&bytes).to_hex()[..32].to_string()))
    };
    files(&context.config, stage).iter().map(hash).collect()
}

/// Reads the files of a stage.
///
/// # Errors
/// If a file cannot be read, any row of it is not what it should be (nothing is trained on what may be only half meant), or single
/// responses meet a loss or a watch that needs pairs.
pub fn read(context: &Context, stage: Stage) -> Result<Examples> {
    let mut found = Examples::default();
    for file in files(&context.config, stage) {
        let path = context.resolve(file);
        let place = |line: u64| format!("{}:{line}", path.display());
        for row in rows_of(&path, stage)? {
            match row {
                TuningRow::Pair(data) => {
                    let line = data.line;
                    found.add_pair(context, data).with_context(|| place(line))?;
                }
                TuningRow::Response(data) => {
                    let line = data.line;
                    refuse_for_pairs(context.config.dpo.loss, &place(line))?;
                    refuse_watched(&context.config, &place(line))?;
                    found.add_response(context, data).with_context(|| place(line))?;
                }
            }
        }
    }
    Ok(found)
}

/// The rows of a file; a reward model learns from pairs only.
///
/// # Errors
/// If it cannot be read, or any row of it is not what it should be.
pub fn rows_of(path: &Path, stage: Stage) -> Result<Vec<TuningRow>> {
    if !path.is_file() {
        return Err(missing(path, stage).into());
    }
    let reading = || format!("reading the rows of `{}.data`", stage.name());
    if stage == Stage::Dpo {
        let Rows { good, bad } = read_tuning_rows(path).with_context(reading)?;
        refuse_bad(path, stage, &bad, PAIR_OR_RESPONSE)?;
        return Ok(good);
    }
    let Rows { good, bad } = read_preference_data(path).with_context(reading)?;
    refuse_bad(path, stage, &bad, PAIR)?;
    Ok(good.into_iter().map(TuningRow::Pair).collect())
}

/// Single responses have nothing to be compared with.
fn refuse_for_pairs(loss: DpoLossKind, place: &str) -> Result<(), UserError> {
    if loss.takes_responses() {
        return Ok(());
    }
    let takes = DpoLossKind::ALL.into_iter().filter(|loss| loss.takes_responses());
    let names: Vec<String> = takes.map(|loss| format!("`{}`", loss.name())).collect();
    let message = format!(
        "{place} is a single response, and `dpo.loss` = {:?} compares the two of a pair",
        loss.name()
    );
    let hint = format!(
        "Set `dpo.loss` to {}, or give rows of `prompt`, `chosen` and `rejected`",
        names.join(" or ")
    );
    Err(UserError::new(message).hint(hint))
}

/// The trainer of single responses takes no looks at held-out prompts.
fn refuse_watched(config: &Config, place: &str) -> Result<(), UserError> {
    if config.dpo.watch.is_none() {
        return Ok(());
    }
    let message =
        format!("{place} is a single response, and `[dpo.watch]` chooses among policies tuned on pairs");
    Err(UserError::new(message)
        .hint("Take `[dpo.watch]` out, or give rows of `prompt`, `chosen` and `rejected`"))
}

/// What people said elsewhere.
///
/// # Errors
/// If a file cannot be read, or any row of it is not what it should be.
pub fn of_people(context: &Context) -> Result<Examples> {
    let mut found = Examples::default();
    for data in human_data::read(context)? {
        found.add_pair(context, data)?;
    }
    Ok(found)
}

/// Revised over original answers, of the prompts that have them; none of prompts that are for people, since nobody but the policy says
/// that they are better.
///
/// # Errors
/// If they cannot be read.
pub fn revised(context: &Context) -> Result<Examples> {
    let mut found = Examples::default();
    let expert_tags = &context.config.route.expert_tags;
    let for_experts =
        context.prompts.train.iter().filter(|it| it.tags.iter().any(|tag| expert_tags.contains(tag)));
    let for_experts: HashSet<&str> = for_experts.map(|prompt| prompt.id.as_str()).collect();
    for revision in revisions::read(&context.folder.revisions())? {
        if for_experts.contains(revision.prompt_id.as_str()) {
            continue;
        }
        if let Some(row) = revision.pair() {
            let source = row.judges.join("+");
            found.add_pair(context, PreferenceData { line: 0, row, margin: 0.0, weight: 1.0, source })?;
        }
    }
    Ok(found)
}

impl Examples {
    /// Adds a pair. One of which a side does not fit into `policy.max_length` or the model's context is left out (as TRL does), since a
    /// response that is cut off is another response.
    fn add_pair(&mut self, context: &Context, data: PreferenceData) -> Result<()> {
        let PreferenceData { row, margin, weight, source, .. } = data;
        let PreferenceRow { prompt, chosen, rejected, p, prompt_id, .. } = row;
        let (prompt_id, prompt_ids) = prompt_ids(context, prompt_id, prompt)?;
        let [chosen_ids, rejected_ids] = [response_ids(context, &chosen)?, response_ids(context, &rejected)?];
        if prompt_ids.len() + chosen_ids.len().max(rejected_ids.len()) > longest(context) {
            self.too_long += 1;
            return Ok(());
        }
        self.pairs.push(PreferenceExample {
            prompt_id,
            prompt_ids,
            chosen_ids,
            rejected_ids,
            p,
            margin,
            weight,
            source,
        });
        Ok(())
    }

    /// Adds a single response, likewise.
    fn add_response(&mut self, context: &Context, data: ResponseData) -> Result<()> {
        let ResponseData { prompt, prompt_id, completion, label, source, .. } = data;
        let (prompt_id, prompt_ids) = prompt_ids(context, prompt_id, prompt)?;
        let response_ids = response_ids(context, &completion)?;
        if prompt_ids.len() + response_ids.len() > longest(context) {
            self.too_long += 1;
            return Ok(());
        }
        let p = if label { 1.0 } else { 0.0 };
        self.responses.push(ResponseExample { prompt_id, prompt_ids, response_ids, p, weight: 1.0, source });
        Ok(())
    }
}

fn longest(context: &Context) -> usize {
    context.policy_files.config.max_position_embeddings.min(context.config.policy.max_length)
}

fn prompt_ids(context: &Context, id: String, prompt: PromptText) -> Result<(String, Vec<u32>)> {
    let prompt = Prompt { id, prompt, tags: Vec::new(), reference: None };
    let ids = context.prompt_ids(&prompt)?;
    Ok((prompt.id, ids))
}

/// A response that ends its turn.
fn response_ids(context: &Context, text: &str) -> Result<Vec<u32>> {
    let tokenizer = context.tokenizer();
    let mut ids = tokenizer.encode(text)?;
    ids.extend(tokenizer.eos_ids().first());
    Ok(ids)
}
