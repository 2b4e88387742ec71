//! Runs side by side: what differs in their configs, what they cost, and which differences between their results are shown.
//!
//! | file | is |
//! |---|---|
//! | [`data`] | what is compared |
//! | `measures` | which numbers of a run can be held against another's |
//! | `page`, `text` | `compare.html`, and the table for a terminal |

pub mod data;
mod measures;
mod page;
mod text;

pub use data::SideBySide;
pub use text::table;

use super::collect::collect;
use super::data::ReportData;
use super::view::ReadRun;
use anyhow::{Context, Result};
use askama::Template;
use data::{ConfigDifference, RunColumn};
use rlaif_core::Config;
use std::collections::{BTreeMap, BTreeSet};

/// A run's name and folder always differ.
const OWN: [&str; 2] = ["run.name", "run.dir"];

/// Reads the runs and compares each with the first.
///
/// # Errors
/// If a run cannot be read.
pub fn of(runs: &[ReadRun]) -> Result<SideBySide> {
    let mut read: Vec<ReportData> = Vec::new();
    for run in runs {
        let data = run.wait(collect(&run.view()));
        read.push(data.with_context(|| format!("reading the run in `{}`", run.path().display()))?);
    }
    let configs: Vec<&Config> = runs.iter().map(|run| run.view().config).collect();
    Ok(compared(&read, config_differences(&configs)?))
}

/// Compares what was read.
fn compared(read: &[ReportData], config: Vec<ConfigDifference>) -> SideBySide {
    SideBySide {
        runs: read.iter().map(RunColumn::of).collect(),
        config,
        measures: measures::rows(read),
        contrasts: measures::contrasts(read),
        warnings: warnings(read),
    }
}

/// The page as one string of HTML.
///
/// # Errors
/// If the template cannot be filled in.
pub fn render(data: &SideBySide) -> Result<String> {
    page::Page::new(data)?.render().context("filling in the template of `compare.html`")
}

/// The keys that do not have the same value in every run.
fn config_differences(configs: &[&Config]) -> Result<Vec<ConfigDifference>> {
    let mut flat = Vec::new();
    for config in configs {
        let mut values = BTreeMap::new();
        let value = serde_json::to_value(config).context("reading the config")?;
        crate::manifest::flatten("", &value, &mut values);
        flat.push(values);
    }
    let keys: BTreeSet<&String> = flat.iter().flat_map(BTreeMap::keys).collect();
    let values = |key: &String| flat.iter().map(|of| of.get(key).cloned()).collect::<Vec<_>>();
    Ok(keys
        .into_iter()
        .filter(|key| !OWN.contains(&key.as_str()))
        .map(|key| ConfigDifference { key: key.clone(), values: values(key) })
        .filter(|it| it.values.iter().any(|value| *value != it.values[0]))
        .collect())
}

/// What makes numbers of two runs differ without either being better.
fn warnings(read: &[ReportData]) -> Vec<String> {
    let Some((first, others)) = read.split_first() else { return Vec::new() };
    let mut warnings = Vec::new();
    for other in others {
        let (Some(ours), Some(theirs)) = (&first.evaluation, &other.evaluation) else { continue };
        let names = format!("{} and {}", first.run.name, other.run.name);
        let prompts = |of: &super::data::Evaluation| -> BTreeSet<String> {
            of.samples.iter().map(|sample| sample.prompt.clone()).collect()
        };
        if prompts(ours) != prompts(theirs) {
            warnings.push(format!("{names} were not evaluated on the same held-out prompts."));
        }
        if ours.judges != theirs.judges {
            warnings.push(format!("{names} were not evaluated by the same judges."));
        }
        if first.run.model != other.run.model {
            warnings.push(format!(
                "{names} started from different models, so that their win rates are against different baselines."
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests;
