//! From the run folder and the store to [`ReportData`].

mod changes;
mod judges;
mod people;

use super::data::*;
use super::view::View;
use crate::context::Context;
use crate::manifest::{Manifest, State};
use crate::people as standing;
use crate::run_folder::write_whole;
use anyhow::{Context as _, Result};
use rlaif_core::config::Stage;
use rlaif_core::metrics::MetricRow;
use rlaif_core::records::{Fate, FinishReason, Split};
use rlaif_store::store::{BASELINE, TRAIN_PAIRS};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every fate, in the order of the page.
const FATES: [(Fate, &str); 6] = [
    (Fate::Kept, "kept"),
    (Fate::Inconsistent, "inconsistent"),
    (Fate::Tie, "tie"),
    (Fate::NoVerdict, "no_verdict"),
    (Fate::Failed, "failed"),
    (Fate::SetAside, "set_aside"),
];

/// Writes `report.html` of the run as it is now; says where.
///
/// # Errors
/// If the run folder or the store cannot be read, or the page not be written.
pub fn write(context: &Context) -> Result<PathBuf> {
    let data = context.wait(collect(&View::of(context)))?;
    let path = context.folder.report();
    write_whole(&path, super::render(&data)?.as_bytes())?;
    Ok(path)
}

/// Everything that is known of the run so far.
///
/// # Errors
/// If the run folder or the store cannot be read.
pub async fn collect(run: &View<'_>) -> Result<ReportData> {
    let manifest = run.manifest;
    let ppo = numbers::<PpoSummary>(manifest, Stage::Ppo)?;
    let people = people::people(run).await?;
    Ok(ReportData {
        run: run_info(run)?,
        cost: cost(run).await?,
        generate: generate(run).await?,
        judges: judges::judges(run).await?,
        fates: fates(run).await?,
        labels: people.labels,
        agreement: people.agreement,
        disagreements: people.disagreements,
        audit: read_json(&run.folder.audit())?,
        metrics: metrics(run)?,
        sft: numbers(manifest, Stage::Sft)?,
        reward: numbers(manifest, Stage::Reward)?,
        ppo: ppo.map(|ppo| PpoSummary { kl_budget: run.config.ppo.kl_budget, ..ppo }),
        dpo: numbers(manifest, Stage::Dpo)?,
        evaluation: read_json(&run.folder.evaluation())?,
        changes: changes::changes(run).await?,
        drift_alarms: drift_alarms(run)?,
        tags: tags(run).await?,
    })
}

/// What a finished stage left in the manifest.
fn numbers<T: DeserializeOwned + Default>(manifest: &Manifest, stage: Stage) -> Result<Option<T>> {
    let Some(record) = manifest.stage(stage).filter(|record| record.state == State::Done) else {
        return Ok(None);
    };
    if record.numbers.is_null() {
        return Ok(Some(T::default()));
    }
    let read = T::deserialize(&record.numbers);
    read.map(Some).with_context(|| format!("reading the numbers of `{}` in `manifest.json`", stage.name()))
}

fn run_info(run: &View<'_>) -> Result<RunInfo> {
    let manifest = run.manifest;
    let row = |stage: &Stage| {
        let record = manifest.stage(*stage)?;
        Some(StageRow {
            name: stage.name().into(),
            state: if record.state == State::Done { "done" } else { "started" }.into(),
            seconds: record.wall_seconds,
            micro_usd: record.cost_micro_usd,
            summary: Some(record.summary.clone()),
            fingerprint: Some(record.fingerprint.clone()),
        })
    };
    let config = run.folder.config();
    Ok(RunInfo {
        name: run.config.run.name.clone(),
        folder: run.folder.root().display().to_string(),
        config_path: run.arguments.into(),
        config_toml: std::fs::read_to_string(&config)
            .with_context(|| format!("reading `{}`", config.display()))?,
        model: run.config.policy.model.clone(),
        seed: run.config.run.seed,
        device: manifest.device.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        git_commit: manifest.git_commit.clone(),
        finished_at: (manifest.updated > 0).then(|| super::format::utc(manifest.updated)),
        // The report's own row would always be one behind.
        stages: Stage::ALL.iter().filter(|stage| **stage != Stage::Report).filter_map(row).collect(),
    })
}

async fn cost(run: &View<'_>) -> Result<Cost> {
    let spend = run.store.spend().await?;
    Ok(Cost {
        known_micro_usd: spend.known.0,
        unknown_calls: spend.unknown_calls,
        possibly_billed: spend.possibly_billed,
        requests: spend.calls,
        reused: spend.reused,
        prompt_tokens: spend.usage.prompt_tokens,
        completion_tokens: spend.usage.completion_tokens,
    })
}

async fn generate(run: &View<'_>) -> Result<Option<GenerateSummary>> {
    let responses = run.store.responses(BASELINE, Some(Split::Train)).await?;
    if responses.is_empty() {
        return Ok(None);
    }
    let counts = &run.manifest.prompts;
    Ok(Some(GenerateSummary {
        train_prompts: counts.train as u64,
        eval_prompts: counts.eval as u64,
        rejected_prompts: counts.rejected as u64,
        responses: responses.len() as u64,
        ended: responses.iter().filter(|r| r.finish_reason == FinishReason::Stop).count() as u64,
        pairs: run.store.pairs(TRAIN_PAIRS).await?.len() as u64,
        dropped_near_duplicates: run.store.dropped_pairs().await?.len() as u64,
        min_distance: run.config.generate.min_distance,
    }))
}

/// The fates of all pairs as they are trained on, people's labels over judges'; every fate named even where none met it, and empty before
/// anything was labelled.
async fn fates(run: &View<'_>) -> Result<Vec<FateCount>> {
    let mut counts: BTreeMap<Fate, u64> = BTreeMap::new();
    for preference in standing::standing(run.store, run.config).await? {
        *counts.entry(preference.fate).or_default() += 1;
    }
    Ok(if counts.is_empty() { Vec::new() } else { named(&counts) })
}

fn named(counts: &BTreeMap<Fate, u64>) -> Vec<FateCount> {
    FATES
        .iter()
        .map(|(fate, name)| FateCount { fate: (*name).into(), count: counts.get(fate).copied().unwrap_or(0) })
        .collect()
}

/// The curves that are there. A last line that was cut off by a kill is left out; the stage writes it again.
fn metrics(run: &View<'_>) -> Result<BTreeMap<String, Vec<MetricRow>>> {
    let mut all = BTreeMap::new();
    for stage in ["sft", "reward", "ppo", "dpo"] {
        if let Some(text) = read_if_there(&run.folder.metrics(stage))? {
            let rows = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            all.insert(stage.to_string(), rows);
        }
    }
    Ok(all)
}

/// What `rlaif iterate` warned of, where this is the folder of its first round.
fn drift_alarms(run: &View<'_>) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Alarms {
        alarms: Vec<String>,
    }
    Ok(read_json::<Alarms>(&run.folder.drift())?.map_or_else(Vec::new, |drift| drift.alarms))
}

/// The tags of held-out prompts that have some.
async fn tags(run: &View<'_>) -> Result<BTreeMap<String, Vec<String>>> {
    let prompts = run.store.prompts(Split::Eval).await?.into_iter();
    Ok(prompts.filter(|prompt| !prompt.tags.is_empty()).map(|prompt| (prompt.id, prompt.tags)).collect())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let Some(text) = read_if_there(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).with_context(|| format!("reading `{}`", path.display()))
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading `{}`", path.display())),
    }
}
