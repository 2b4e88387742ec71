//! `manifest.json`: what ran in this folder, from what, with what, how long and at what price.
//!
//! A stage's *recipe* is everything that its result depends on: its config section, the seed, and the fingerprints of what it
//! reads. The fingerprint of the stage is the BLAKE3 hash of the recipe, so fingerprints chain: a changed prompt file changes
//! every stage behind it. Recipes are kept beside the fingerprints, which lets `rlaif run` say *what* changed.

use crate::run_folder::{RunFolder, write_whole};
use anyhow::{Context, Result};
use rlaif_core::config::Stage;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program that wrote it last.
    pub version: String,
    /// Commit of the folder in which the program ran, where that is a git checkout.
    #[serde(default)]
    pub git_commit: Option<String>,
    /// Where tensors were.
    pub device: String,
    /// Processor cores that the machine offered.
    pub cores: usize,
    /// Operating system and processor.
    pub platform: String,
    /// The run's seed.
    pub seed: u64,
    /// The baseline, as the config names it.
    pub policy: String,
    /// BLAKE3 of the baseline's files.
    pub policy_fingerprint: String,
    /// The command that ran last.
    pub command: String,
    /// When that was, in seconds since 1970.
    pub updated: u64,
    /// How the prompts were split and what was set aside.
    #[serde(default)]
    pub prompts: PromptCounts,
    /// One record a stage that was started.
    pub stages: BTreeMap<String, StageRecord>,
}

/// What became of the prompt files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptCounts {
    /// Prompts that are trained on.
    pub train: usize,
    /// Prompts that are evaluated on.
    pub eval: usize,
    /// Rows that could not be used, kept aside with their reasons.
    pub rejected: usize,
}

/// Whether a stage has finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Started; some of its units may be there.
    Started,
    /// Finished.
    Done,
}

/// One stage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageRecord {
    /// Hash of `recipe`.
    pub fingerprint: String,
    /// How far it is.
    pub state: State,
    /// Seconds it took, over all the times it was resumed.
    pub wall_seconds: f64,
    /// What its judges cost, in micro-dollars; `None` where a price was unknown.
    #[serde(default)]
    pub cost_micro_usd: Option<i64>,
    /// The stage in one line.
    #[serde(default)]
    pub summary: String,
    /// Units that failed and stayed out; they make the exit code 1.
    #[serde(default)]
    pub failures: usize,
    /// Numbers for the report.
    #[serde(default)]
    pub numbers: Value,
    /// Everything the result depends on.
    pub recipe: Value,
}

/// What a finished stage says of itself.
#[derive(Debug, Clone, Default)]
pub struct StageOutcome {
    /// One line.
    pub summary: String,
    /// Numbers for the report.
    pub numbers: Value,
    /// Units that failed.
    pub failures: usize,
    /// Micro-dollars; `None` if a price was unknown.
    pub cost_micro_usd: Option<i64>,
}

impl Manifest {
    /// Reads the manifest of a run, or starts one.
    ///
    /// # Errors
    /// If the file is there and cannot be understood.
    pub fn load(folder: &RunFolder) -> Result<Self> {
        let path = folder.manifest();
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("reading `{}`", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("reading `{}`", path.display())),
        }
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn save(&mut self, folder: &RunFolder) -> Result<()> {
        self.version = env!("CARGO_PKG_VERSION").into();
        self.updated = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let text = serde_json::to_string_pretty(self).context("writing the manifest")?;
        write_whole(&folder.manifest(), text.as_bytes())
    }

    /// The record of a stage.
    pub fn stage(&self, stage: Stage) -> Option<&StageRecord> {
        self.stages.get(stage.name())
    }

    /// Whether the stage is finished for this fingerprint.
    pub fn is_done(&self, stage: Stage, fingerprint: &str) -> bool {
        self.stage(stage).is_some_and(|r| r.state == State::Done && r.fingerprint == fingerprint)
    }
}

/// Hash of a recipe.
pub fn fingerprint(recipe: &Value) -> String {
    // serde_json keeps the order in which fields were written, and recipes are written in one order.
    blake3::hash(recipe.to_string().as_bytes()).to_hex()[..32].to_string()
}

/// What differs between two recipes, in the words of the config file: ``["`label.tie_margin` was 0.02, is 0.1"]``.
pub fn differences(before: &Value, now: &Value) -> Vec<String> {
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    flatten("", before, &mut old);
    flatten("", now, &mut new);
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let absent = "not set".to_string();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| match key.strip_prefix("inputs.") {
            Some(input) => format!("{input} changed"),
            None => {
                let (was, is) = (old.get(key).unwrap_or(&absent), new.get(key).unwrap_or(&absent));
                format!("`{key}` was {was}, is {is}")
            }
        })
        .collect()
}

/// Every value that is not null by its path, such as `label.judges.1.name`.
pub fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let join = |key: &str| if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&join(key), value, into)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(i, value)| flatten(&join(&(i + 1).to_string()), value, into));
        }
        Value::Null => {}
        other => {
            into.insert(prefix.to_string(), other.to_string());
        }
    }
}

/// The commit checked out in the working folder, without asking git.
pub fn git_commit() -> Option<String> {
    let here = std::env::current_dir().ok()?;
    let git = here.ancestors().map(|folder| folder.join(".git")).find(|git| git.is_dir())?;
    let head = std::fs::read_to_string(git.join("HEAD")).ok()?;
    match head.trim().strip_prefix("ref: ") {
        None => Some(head.trim().to_string()),
        Some(reference) => {
            let loose = std::fs::read_to_string(git.join(reference)).ok();
            loose.map(|hash| hash.trim().to_string()).or_else(|| {
                let packed = std::fs::read_to_string(git.join("packed-refs")).ok()?;
                let line = packed.lines().find(|line| line.ends_with(reference))?;
                line.split(' ').next().map(String::from)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_told_in_the_words_of_the_file() {
        let before =
            json!({"label": {"tie_margin": 0.02, "judges": [{"name": "a"}]}, "inputs": {"prompts": "x"}});
        let now =
            json!({"label": {"tie_margin": 0.1, "judges": [{"name": "a"}]}, "inputs": {"prompts": "y"}});
        assert_eq!(differences(&before, &now), ["prompts changed", "`label.tie_margin` was 0.02, is 0.1"]);
        assert!(differences(&now, &now).is_empty());
        assert_ne!(fingerprint(&before), fingerprint(&now));
    }
}
