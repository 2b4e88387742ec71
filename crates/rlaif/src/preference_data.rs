//! What `reward` and `dpo` learn from besides the run's own preferences: files of the user's, checked before any stage runs, and
//! revised over original answers.

use crate::context::Context;
use crate::data_files::{missing, refuse_bad};
use crate::revisions;
use anyhow::{Context as _, Result};
use rlaif_core::config::{Config, Stage};
use rlaif_core::records::{PreferenceRow, Prompt};
use rlaif_store::jsonl::{PreferenceData, read_preference_data};
use rlaif_train::PreferenceExample;
use std::path::PathBuf;

/// What a row is, in words.
const SHAPE: &str = r#"{"prompt", "chosen", "rejected"}"#;

/// Preferences in token ids.
#[derive(Debug, Default)]
pub struct Examples {
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
    let has_others = !files(config, stage).is_empty() || reads_revisions(config, stage);
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
/// If a file cannot be read, or any row of it is no preference: nothing is trained on what may be only half meant.
pub fn read(context: &Context, stage: Stage) -> Result<Examples> {
    let mut found = Examples::default();
    for file in files(&context.config, stage) {
        let path = context.resolve(file);
        if !path.is_file() {
            return Err(missing(&path, stage).into());
        }
        let rows = read_preference_data(&path)
            .with_context(|| format!("reading the preferences of `{}.data`", stage.name()))?;
        refuse_bad(&path, stage, &rows.bad, SHAPE)?;
        for data in rows.good {
            let line = data.line;
            found.add(context, data).with_context(|| format!("{}:{line}", path.display()))?;
        }
    }
    Ok(found)
}

/// Revised over original answers, of the prompts that have them.
///
/// # Errors
/// If they cannot be read.
pub fn revised(context: &Context) -> Result<Examples> {
    let mut found = Examples::default();
    for revision in revisions::read(&context.folder.revisions())? {
        if let Some(row) = revision.pair() {
            let source = row.judges.join("+");
            found.add(context, PreferenceData { line: 0, row, margin: 0.0, weight: 1.0, source })?;
        }
    }
    Ok(found)
}

impl Examples {
    /// Adds a pair in token ids. One of which a side does not fit into `policy.max_length` or the model's context is left out (as TRL
    /// does), since a response that is cut off is another response.
    fn add(&mut self, context: &Context, data: PreferenceData) -> Result<()> {
        let PreferenceRow { prompt, chosen, rejected, p, prompt_id, .. } = data.row;
        let longest =
            context.policy_files.config.max_position_embeddings.min(context.config.policy.max_length);
        let tokenizer = context.tokenizer();
        let response = |text: &str| -> Result<Vec<u32>> {
            let mut ids = tokenizer.encode(text)?;
            ids.extend(tokenizer.eos_ids().first());
            Ok(ids)
        };
        let (chosen_ids, rejected_ids) = (response(&chosen)?, response(&rejected)?);
        let prompt = Prompt { id: prompt_id, prompt, tags: Vec::new(), reference: None };
        let prompt_ids = context.prompt_ids(&prompt)?;
        if prompt_ids.len() + chosen_ids.len().max(rejected_ids.len()) > longest {
            self.too_long += 1;
            return Ok(());
        }
        let PreferenceData { margin, weight, source, .. } = data;
        self.examples.push(PreferenceExample {
            prompt_id: prompt.id,
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
}
