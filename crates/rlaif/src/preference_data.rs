//! `reward.data` and `dpo.data`: preferences from files of the user's, checked before any stage runs.

use crate::context::Context;
use crate::error::UserError;
use anyhow::{Context as _, Result};
use rlaif_core::config::{Config, Stage};
use rlaif_core::records::Prompt;
use rlaif_store::jsonl::{Rows, read_preference_data};
use rlaif_train::PreferenceExample;
use std::path::{Path, PathBuf};

/// Bad rows that are told; the rest are counted.
const TOLD: usize = 5;

/// Examples of files.
pub struct FileExamples {
    /// In the order of the files.
    pub examples: Vec<PreferenceExample>,
    /// Pairs left out because a side does not fit into the context.
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

/// Whether a stage trains on the run's own preferences: always, unless it has files and the run no stage `label`.
pub fn reads_labels(config: &Config, stage: Stage) -> bool {
    files(config, stage).is_empty() || config.run.stages.contains(&Stage::Label)
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

/// Reads the files of a stage. A pair of which a side does not fit into `policy.max_length` or the model's context is left out
/// (as TRL does), since a response that is cut off is another response.
///
/// # Errors
/// If a file cannot be read, or any row of it is no preference: nothing is trained on what may be only half meant.
pub fn read(context: &Context, stage: Stage) -> Result<FileExamples> {
    let tokenizer = context.tokenizer();
    let longest = context.policy_files.config.max_position_embeddings.min(context.config.policy.max_length);
    let mut found = FileExamples { examples: Vec::new(), too_long: 0 };
    for file in files(&context.config, stage) {
        let path = context.resolve(file);
        if !path.is_file() {
            return Err(missing(&path, stage).into());
        }
        let rows = read_preference_data(&path)
            .with_context(|| format!("reading the preferences of `{}.data`", stage.name()))?;
        refuse_bad(&path, &rows)?;
        for data in rows.good {
            let row = data.row;
            let response = |text: &str| -> Result<Vec<u32>> {
                let mut ids = tokenizer.encode(text)?;
                ids.extend(tokenizer.eos_ids().first());
                Ok(ids)
            };
            let (chosen_ids, rejected_ids) = (response(&row.chosen)?, response(&row.rejected)?);
            let prompt = Prompt { id: row.prompt_id, prompt: row.prompt, tags: Vec::new(), reference: None };
            let prompt_ids =
                context.prompt_ids(&prompt).with_context(|| format!("{}:{}", path.display(), data.line))?;
            if prompt_ids.len() + chosen_ids.len().max(rejected_ids.len()) > longest {
                found.too_long += 1;
                continue;
            }
            found.examples.push(PreferenceExample {
                prompt_id: prompt.id,
                prompt_ids,
                chosen_ids,
                rejected_ids,
                p: row.p,
                margin: data.margin,
                weight: data.weight,
                source: data.source,
            });
        }
    }
    Ok(found)
}

fn missing(path: &Path, stage: Stage) -> UserError {
    UserError::new(format!("there is no file `{}`, which `{}.data` names", path.display(), stage.name()))
        .hint("Paths in the config are relative to the config file")
}

/// "`prefs.jsonl`: 3 rows cannot be trained on" and the first of them as file:line.
fn refuse_bad<T>(path: &Path, rows: &Rows<T>) -> Result<()> {
    if rows.bad.is_empty() {
        return Ok(());
    }
    let told: String = rows
        .bad
        .iter()
        .take(TOLD)
        .map(|bad| format!("\n  {}:{}: {}", path.display(), bad.line, bad.reason))
        .collect();
    let more = match rows.bad.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    let count = rows.bad.len();
    let rows = if count == 1 { "row" } else { "rows" };
    let message = format!("{count} {rows} of `{}` cannot be trained on:{told}{more}", path.display());
    Err(UserError::new(message)
        .hint("Mend or delete these lines; nothing has been computed or paid for")
        .into())
}
