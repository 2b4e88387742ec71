//! What a card is written from: the manifest, the ledger and what was measured; nothing is assumed.

use super::markdown::{Card, code, shell, text};
use crate::audit;
use crate::manifest::{Manifest, StageRecord, State};
use crate::run_folder::RunFolder;
use anyhow::Result;
use rlaif_core::audit::{Audit, Outcome, Unit, measure};
use rlaif_core::config::Stage;
use serde_json::Value;
use std::path::Path;

/// Of a run.
pub struct Facts {
    /// What ran.
    pub manifest: Manifest,
    /// What `rlaif audit` measured, where it did.
    pub audit: Option<Audit>,
    /// The run's name.
    pub name: String,
    /// BLAKE3 of the resolved config, where it is there.
    config_hash: Option<String>,
}

impl Facts {
    /// Reads them.
    ///
    /// # Errors
    /// If a file of the run is there and cannot be understood.
    pub fn read(folder: &RunFolder, name: &str) -> Result<Self> {
        Ok(Self {
            manifest: Manifest::load(folder)?,
            audit: audit::read(folder)?,
            name: name.into(),
            config_hash: hash_of(&folder.config()),
        })
    }

    /// The record of a stage.
    pub fn stage(&self, stage: Stage) -> Option<&StageRecord> {
        self.manifest.stage(stage)
    }

    /// What a stage was told, such as `generate` → `temperature`.
    pub fn setting(&self, stage: Stage, section: &str, key: &str) -> Option<&Value> {
        self.stage(stage)?.recipe.get(section)?.get(key).filter(|value| !value.is_null())
    }

    /// The fingerprint of what a stage read.
    pub fn input(&self, stage: Stage, name: &str) -> Option<&str> {
        self.stage(stage)?.recipe["inputs"].get(name)?.as_str()
    }

    /// The baseline, with the hash of its files.
    pub fn policy(&self) -> String {
        match self.manifest.policy_fingerprint.as_str() {
            "" => "not recorded".into(),
            hash => format!("{} (BLAKE3 of its files {})", code(&self.manifest.policy), code(hash)),
        }
    }

    /// A stage that has not finished makes what it made a part.
    pub fn warn_unfinished(&self, card: &mut Card, stage: Stage) {
        if self.stage(stage).is_some_and(|record| record.state == State::Started) {
            card.say(&format!(
                "**The stage `{}` had not finished when this was written: it is a part.**",
                stage.name()
            ));
        }
    }

    /// Which program, code, seed and machine.
    pub fn made_with(&self, card: &mut Card, commands: &[String]) {
        card.section("How to make it again");
        for command in commands {
            card.0.push_str(&shell(command));
        }
        card.0.push('\n');
        let manifest = &self.manifest;
        card.item(&format!("Program: rlaif {}", text(&manifest.version)));
        match &manifest.git_commit {
            Some(commit) => card.item(&format!("Git commit of the folder in which it ran: {}", code(commit))),
            None => card.item("It did not run in a git checkout."),
        }
        card.item(&format!("Seed: {}", manifest.seed));
        card.item(&format!("Device: {}, {}", code(&manifest.device), text(&manifest.platform)));
        if let Some(hash) = &self.config_hash {
            card.item(&format!(
                "Config as resolved: `rlaif.toml` of the run's folder, BLAKE3 {}",
                code(hash)
            ));
        }
        for stage in Stage::ALL {
            if let Some(record) = self.stage(stage) {
                card.item(&format!("Stage `{}`: fingerprint {}", stage.name(), code(&record.fingerprint)));
            }
        }
    }

    /// What audits measured, part by part.
    pub fn audited(&self, card: &mut Card, config: &str, parts: &[&str]) {
        card.section("Audit");
        let measured: Vec<_> = self
            .audit
            .iter()
            .flat_map(|audit| &audit.parts)
            .filter(|(name, _)| parts.contains(&name.as_str()))
            .collect();
        if measured.is_empty() {
            card.say(&format!("It was not audited. {} does that.", code(&format!("rlaif audit {config}"))));
        }
        for (_, part) in measured {
            card.say(&format!("Measured by {}:", code(&part.command)));
            for it in &part.measurements {
                let (words, unit) = measure(&it.measure)
                    .map_or((it.measure.as_str(), Unit::Number), |(_, words, unit)| (*words, *unit));
                let written = |value: f64| match unit {
                    Unit::Share => format!("{:.1} %", 100.0 * value),
                    Unit::Number => format!("{value:.3}"),
                    Unit::Count => format!("{value:.0}"),
                };
                let value = match (it.value, it.low.zip(it.high)) {
                    (None, _) => {
                        format!("not measured ({})", text(it.note.as_deref().unwrap_or("no reason is given")))
                    }
                    (Some(value), None) => written(value),
                    (Some(value), Some((low, high))) => {
                        format!("{} (95 % interval {} to {})", written(value), written(low), written(high))
                    }
                };
                let outcome = match it.outcome {
                    Outcome::Told => String::new(),
                    other => format!("; bound: {}", other.word()),
                };
                card.item(&format!("{}, {}: {value}, n {}{outcome}", text(&it.subject), text(words), it.n));
            }
            card.0.push('\n');
        }
    }
}

/// BLAKE3 of a file, as 32 hex digits; `None` if it cannot be read.
pub fn hash_of(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    Some(blake3::hash(&bytes).to_hex()[..32].to_string())
}

/// `0.61 (95 % interval 0.55 to 0.67), n 96` of an estimate in a JSON file of the run.
pub fn estimate(value: &Value) -> Option<String> {
    let at = |key: &str| value.get(key).and_then(Value::as_f64);
    let number = |value: f64| format!("{value:.3}").replace("-0.000", "0.000");
    let mut written = number(at("value")?);
    if let (Some(low), Some(high)) = (at("low"), at("high")) {
        written += &format!(" (95 % interval {} to {})", number(low), number(high));
    }
    if let Some(n) = value.get("n").and_then(Value::as_u64) {
        written += &format!(", n {n}");
    }
    Some(written)
}

/// A setting as it stands in the config.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => code(text),
        other => code(&other.to_string()),
    }
}
