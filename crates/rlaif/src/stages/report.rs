//! `report`: `report.html`, and what `rlaif run` says at its end.

use crate::context::Context;
use crate::manifest::StageOutcome;
use crate::report;
use crate::report::data::{Evaluation, PolicyRow};
use crate::stages::evaluate::describe;
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Writes the page.
///
/// # Errors
/// If the run folder or the store cannot be read, or the page not be written.
pub fn run(context: &mut Context) -> Result<StageOutcome> {
    let path = report::write(context)?;
    Ok(StageOutcome {
        summary: format!("`{}`", path.display()),
        cost_micro_usd: Some(0),
        ..StageOutcome::default()
    })
}

/// What came out of a run, for people and for scripts.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The run folder.
    pub folder: PathBuf,
    /// The page, if it was written.
    pub report: Option<PathBuf>,
    /// Tuned policies, by name, that are finished.
    pub models: Vec<PathBuf>,
    /// Each tuned policy against the baseline.
    pub policies: Vec<PolicyRow>,
    /// Names of the judges of the comparison.
    pub judges: Vec<String>,
    /// What the run's judges have cost, known prices only.
    pub cost_micro_usd: i64,
    /// Calls whose price is unknown, and which are not in the sum.
    pub calls_of_unknown_price: u64,
    /// Units that failed and rows that were set aside.
    pub failures: usize,
    /// Preferences are there to export.
    pub labelled: bool,
    /// Seconds that all stages took, over all times they were resumed.
    pub wall_seconds: f64,
}

impl Outcome {
    /// Reads it from the run folder and the ledger.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn collect(context: &Context, failures: usize) -> Result<Self> {
        let folder = &context.folder;
        let spend = context.wait(context.store.spend())?;
        let evaluation = match std::fs::read(folder.evaluation()) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("reading `{}`", folder.evaluation().display()))?,
            Err(_) => Evaluation::default(),
        };
        let there = |path: PathBuf, file: &str| path.join(file).is_file().then_some(path);
        Ok(Self {
            folder: folder.root().to_path_buf(),
            report: Some(folder.report()).filter(|path| path.is_file()),
            models: ["sft", "ppo", "dpo"]
                .iter()
                .filter_map(|name| there(folder.model(name), "model.safetensors"))
                .collect(),
            policies: evaluation.policies.into_iter().skip(1).collect(),
            judges: evaluation.judges,
            cost_micro_usd: spend.known.0,
            calls_of_unknown_price: spend.unknown_calls,
            labelled: context
                .manifest
                .stage(Stage::Label)
                .is_some_and(|record| record.state == crate::manifest::State::Done),
            failures: failures + context.prompts.rejected,
            wall_seconds: context.manifest.stages.values().map(|record| record.wall_seconds).sum(),
        })
    }

    /// For a terminal: the result first, then where things are, then what to try next.
    pub fn text(&self, config: &Path) -> String {
        let config = config.display();
        let mut text = String::from("\n");
        for policy in &self.policies {
            text += &format!("{}\n", describe(policy));
        }
        if !self.policies.is_empty() {
            text += &format!(
                "  against the baseline on held-out prompts, judged by {}\n",
                self.judges.join(", ")
            );
        }
        let took = crate::progress::duration_text(std::time::Duration::from_secs_f64(self.wall_seconds));
        let cost = match (self.cost_micro_usd, self.calls_of_unknown_price) {
            (0, 0) => "nothing: no calls to any endpoint".to_string(),
            (known, 0) => rlaif_core::MicroUsd(known).to_string(),
            (known, calls) => format!("{} and {calls} calls of unknown price", rlaif_core::MicroUsd(known)),
        };
        text += &format!("cost    {cost}; {took} of work\n");
        for model in &self.models {
            text += &format!("model   {}\n", model.display());
        }
        if let Some(report) = &self.report {
            text += &format!("report  {}\n", report.display());
        }
        if self.failures > 0 {
            text += &format!(
                "{} rows or calls failed; their reasons are in `{}`\n",
                self.failures,
                self.folder.display()
            );
        }
        text += "\nnext:\n";
        let name = self.folder.file_name().map_or("other".into(), |name| name.to_string_lossy().into_owned());
        match (&self.report, self.labelled) {
            (None, false) => text += &format!("  rlaif run {config}    goes on from here\n"),
            (None, true) => {
                text += &format!(
                    "  rlaif export {config}    the preferences as JSONL, as TRL and `datasets` read them\n"
                );
                text += &format!("  rlaif run {config}    goes on from here\n");
            }
            (Some(report), _) => {
                text +=
                    &format!("  open {}    the result, curves, and samples side by side\n", report.display());
                text += &format!(
                    "  rlaif export {config}    the preferences as JSONL, as TRL and `datasets` read them\n"
                );
                text += &format!(
                    "  rlaif run {config} --set run.name={name}-1 --set run.seed=1    again with another seed\n"
                );
                text += &format!("  edit {config} and run it again: only what changed is computed\n");
            }
        }
        text
    }
}
