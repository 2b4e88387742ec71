//! `rlaif export CONFIG`: preferences and responses as JSONL.

use crate::cli::{ExportArgs, ExportWhat};
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

/// Reads the ledger, also while another process writes it, and changes nothing.
pub fn run(args: &ExportArgs) -> Result<u8> {
    let config = load_config(&args.config)?.config;
    let folder = RunFolder::open_to_read(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lines: Vec<Value> = runtime.block_on(async {
        let store = Store::open_read_only(&folder.database()).await?;
        match args.what {
            ExportWhat::Preferences => {
                let rows = store.preference_rows(TRAIN_PAIRS).await?;
                Ok::<_, anyhow::Error>(preference_lines(&rows).collect())
            }
            ExportWhat::Responses => {
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
            }
        }
    })?;
    if lines.is_empty() {
        let what = if args.what == ExportWhat::Preferences { "preferences" } else { "responses" };
        let hint = format!("Run `rlaif run {} --until label` first", args.config.config.display());
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

/// Whole or not at all where the path is a file; straight through where it is a pipe or a device, which must not be replaced.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => {
            std::fs::write(path, bytes).with_context(|| format!("writing `{}`", path.display()))
        }
        _ => write_whole(path, bytes),
    }
}
