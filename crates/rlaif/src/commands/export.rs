//! `rlaif export CONFIG`: preferences and responses as JSONL; trained models for others (see [`super::export_model`]).

use super::export_model;
use crate::cli::{ConfigArgs, ExportArgs, ExportWhat};
use crate::context::load_config;
use crate::error::{DONE, UserError};
use crate::run_folder::{RunFolder, write_whole};
use anyhow::{Context, Result};
use rlaif_store::Store;
use rlaif_store::jsonl::preference_lines;
use rlaif_store::store::{BASELINE, DPO, PPO, TRAIN_PAIRS};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// Reads a run, also while another process writes it, and changes nothing in it.
pub fn run(args: &ExportArgs) -> Result<u8> {
    let Some(path) = &args.config else {
        return export_model::run(args, None);
    };
    let config = load_config(&ConfigArgs { config: path.clone(), set: args.set.clone() })?.config;
    let folder = RunFolder::open_to_read(&config)?;
    let what = args.what.unwrap_or(match args.stage {
        Some(_) => ExportWhat::Model,
        None => ExportWhat::Preferences,
    });
    if what == ExportWhat::Model {
        return export_model::run(args, Some(&folder));
    }
    let lines = lines(&folder, what)?;
    if lines.is_empty() {
        let what = if what == ExportWhat::Preferences { "preferences" } else { "responses" };
        let hint = format!("Run `rlaif run {} --until label` first", path.display());
        return Err(UserError::new(format!("the run in `{}` has no {what}", folder.root().display()))
            .hint(hint)
            .into());
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    match &args.output {
        None => match std::io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            written => written.context("writing stdout")?,
        },
        Some(path) => write(path, text.as_bytes())?,
    }
    Ok(DONE)
}

fn lines(folder: &RunFolder, what: ExportWhat) -> Result<Vec<Value>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open_read_only(&folder.database()).await?;
        if what == ExportWhat::Preferences {
            let rows = store.preference_rows(TRAIN_PAIRS).await?;
            return Ok(preference_lines(&rows).collect());
        }
        let mut lines = Vec::new();
        for policy in [BASELINE, PPO, DPO] {
            for response in store.responses(policy, None).await? {
                let mut line = json!({ "policy": policy });
                if let (Some(line), Value::Object(fields)) =
                    (line.as_object_mut(), serde_json::to_value(&response)?)
                {
                    line.extend(fields);
                }
                lines.push(line);
            }
        }
        Ok(lines)
    })
}

/// Whole or not at all where the path is a file; straight through where it is a pipe or a device, which must not be replaced.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => {
            std::fs::write(path, bytes).with_context(|| format!("writing `{}`", path.display()))
        }
        _ => write_whole(path, bytes),
    }
}
