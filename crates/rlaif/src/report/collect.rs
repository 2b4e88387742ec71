//! From the run folder and the store to [`ReportData`].

use super::data::*;
use crate::context::Context;
use crate::judging;
use crate::manifest::{Manifest, State};
use crate::run_folder::write_whole;
use anyhow::{Context as _, Result};
use rlaif_core::config::{Aggregation, Criterion, JudgeConfig, LabelConfig, Protocol, Stage};
use rlaif_core::metrics::MetricRow;
use rlaif_core::records::{Fate, FinishReason, Pair, Split};
use rlaif_judge::{JudgeVerdict, aggregate, voter_reports, voters};
use rlaif_store::store::{BASELINE, TRAIN_PAIRS};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
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
    let page = super::render(&collect(context)?)?;
    let path = context.folder.report();
    write_whole(&path, page.as_bytes())?;
    Ok(path)
}

/// Everything that is known of the run so far.
///
/// # Errors
/// If the run folder or the store cannot be read.
pub fn collect(context: &Context) -> Result<ReportData> {
    let manifest = &context.manifest;
    let ppo = numbers::<PpoSummary>(manifest, Stage::Ppo)?;
    Ok(ReportData {
        run: run_info(context)?,
        cost: cost(context)?,
        generate: generate(context)?,
        judges: judges(context)?,
        fates: fates(context)?,
        metrics: metrics(context)?,
        sft: numbers(manifest, Stage::Sft)?,
        reward: numbers(manifest, Stage::Reward)?,
        ppo: ppo.map(|ppo| PpoSummary { kl_budget: context.config.ppo.kl_budget, ..ppo }),
        dpo: numbers(manifest, Stage::Dpo)?,
        evaluation: evaluation(context)?,
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

fn run_info(context: &Context) -> Result<RunInfo> {
    let manifest = &context.manifest;
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
    let config = context.folder.config();
    Ok(RunInfo {
        name: context.config.run.name.clone(),
        folder: context.folder.root().display().to_string(),
        config_path: context.config_path.display().to_string(),
        config_toml: std::fs::read_to_string(&config)
            .with_context(|| format!("reading `{}`", config.display()))?,
        model: context.config.policy.model.clone(),
        seed: context.config.run.seed,
        device: manifest.device.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
        git_commit: manifest.git_commit.clone(),
        finished_at: (manifest.updated > 0).then(|| super::format::utc(manifest.updated)),
        // The report's own row would always be one behind.
        stages: Stage::ALL.iter().filter(|stage| **stage != Stage::Report).filter_map(row).collect(),
    })
}

fn cost(context: &Context) -> Result<Cost> {
    let spend = context.wait(context.store.spend())?;
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

fn generate(context: &Context) -> Result<Option<GenerateSummary>> {
    let responses = context.wait(context.store.responses(BASELINE, Some(Split::Train)))?;
    if responses.is_empty() {
        return Ok(None);
    }
    let counts = &context.manifest.prompts;
    Ok(Some(GenerateSummary {
        train_prompts: counts.train as u64,
        eval_prompts: counts.eval as u64,
        rejected_prompts: counts.rejected as u64,
        responses: responses.len() as u64,
        ended: responses.iter().filter(|r| r.finish_reason == FinishReason::Stop).count() as u64,
        pairs: context.wait(context.store.pairs(TRAIN_PAIRS))?.len() as u64,
        dropped_near_duplicates: context.wait(context.store.dropped_pairs())?.len() as u64,
        min_distance: context.config.generate.min_distance,
    }))
}

/// The fates of all pairs, every fate named even where none met it; empty before anything was labelled.
fn fates(context: &Context) -> Result<Vec<FateCount>> {
    let mut counts: BTreeMap<Fate, u64> = BTreeMap::new();
    for row in context.wait(context.store.label_counts(TRAIN_PAIRS))? {
        *counts.entry(row.fate).or_default() += row.count;
    }
    Ok(if counts.is_empty() { Vec::new() } else { named(&counts) })
}

fn named(counts: &BTreeMap<Fate, u64>) -> Vec<FateCount> {
    FATES
        .iter()
        .map(|(fate, name)| FateCount { fate: (*name).into(), count: counts.get(fate).copied().unwrap_or(0) })
        .collect()
}

fn judges(context: &Context) -> Result<Vec<JudgeSummary>> {
    let label = &context.config.label;
    let Some(record) = context.manifest.stage(Stage::Label) else { return Ok(Vec::new()) };
    let numbers = match record.state {
        State::Done => numbers::<LabelNumbers>(&context.manifest, Stage::Label)?.unwrap_or_default(),
        State::Started => LabelNumbers::default(),
    };
    let verdicts = context.wait(context.store.verdicts(TRAIN_PAIRS))?;
    let pairs = context.wait(context.store.pairs(TRAIN_PAIRS))?;
    let alone = LabelConfig {
        aggregation: Aggregation::Mean,
        keep_ties: false,
        keep_inconsistent: false,
        ..label.clone()
    };
    let spend = context.wait(context.store.spend_by_judge())?;
    let summary = |judge: &JudgeConfig| {
        let said = judging::said(&verdicts, std::slice::from_ref(judge));
        let of_pairs: Vec<_> = pairs
            .iter()
            .filter_map(|pair| Some(voters(said.get(pair.id.as_str())?, label.vote_smoothing)))
            .collect();
        let voters = voter_reports(&of_pairs);
        let spent = spend.get(&judge.name).copied().unwrap_or_default();
        JudgeSummary {
            name: judge.name.clone(),
            kind: judge.kind.name().into(),
            protocol: match judge.protocol {
                Protocol::Pairwise => "pairwise".into(),
                Protocol::Rating => "rating".into(),
                Protocol::Contrastive => "contrastive".into(),
            },
            model: judge.model.clone(),
            rubric: rubric(judge, &label.criteria),
            probe: numbers.probes.get(&judge.name).copied(),
            tripwires: numbers.tripwires.get(&judge.name).copied(),
            fates: named(&fates_of(&pairs, &said, &alone)),
            // Of several templates, the one that was read on most pairs; the others stand in `voters`.
            position: voters.iter().filter_map(|voter| voter.position).max_by_key(|position| position.pairs),
            voters,
            fitted: numbers.fitted.iter().filter(|voter| voter.judge == judge.name).cloned().collect(),
            micro_usd: (spent.unknown_calls == 0).then_some(spent.known.0),
        }
    };
    Ok(label.judges.iter().map(summary).collect())
}

fn rubric(judge: &JudgeConfig, criteria: &[Criterion]) -> String {
    match (&judge.principle, &judge.opposite, judge.protocol) {
        (Some(principle), Some(opposite), Protocol::Contrastive) => {
            format!("“{principle}” against “{opposite}”")
        }
        (_, _, Protocol::Contrastive) => String::new(),
        (_, _, Protocol::Pairwise | Protocol::Rating) => {
            let names: Vec<&str> = criteria.iter().map(|criterion| criterion.name.trim()).collect();
            format!("Criteria: {}", names.join(", "))
        }
    }
}

/// What would become of the pairs if this judge were the only one; those that it was not asked about are left out.
fn fates_of(
    pairs: &[Pair],
    said: &HashMap<&str, Vec<JudgeVerdict>>,
    label: &LabelConfig,
) -> BTreeMap<Fate, u64> {
    let mut counts = BTreeMap::new();
    for pair in pairs {
        let Some(said) = said.get(pair.id.as_str()) else { continue };
        *counts.entry(aggregate(pair, said, label, None).fate).or_default() += 1;
    }
    counts
}

/// The curves that are there. A last line that was cut off by a kill is left out; the stage writes it again.
fn metrics(context: &Context) -> Result<BTreeMap<String, Vec<MetricRow>>> {
    let mut all = BTreeMap::new();
    for stage in ["sft", "reward", "ppo", "dpo"] {
        let path = context.folder.metrics(stage);
        if let Some(text) = read_if_there(&path)? {
            all.insert(
                stage.to_string(),
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            );
        }
    }
    Ok(all)
}

fn evaluation(context: &Context) -> Result<Option<Evaluation>> {
    let path = context.folder.evaluation();
    let Some(text) = read_if_there(&path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).with_context(|| format!("reading `{}`", path.display()))
}

fn read_if_there(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading `{}`", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rlaif_core::records::{Choice, NoVerdict, Order, Verdict};
    use rlaif_store::store::VerdictRow;

    fn row(order: Order, verdict: Verdict) -> VerdictRow {
        let (judge, template) = ("judge".into(), "explain".into());
        VerdictRow { pair_id: "p/0-1".into(), judge, template, order, vote: 0, verdict }
    }

    #[test]
    fn a_pair_has_the_fate_that_its_verdicts_say() {
        let ab = |verdict| row(Order::Ab, verdict);
        let ba = |verdict| row(Order::Ba, verdict);
        let (first, second, tie) = (Choice::First, Choice::Second, Choice::Tie);
        let cases = [
            (vec![ab(Verdict::choice(first)), ba(Verdict::choice(second))], Fate::Kept),
            (vec![ab(Verdict::choice(first)), ba(Verdict::choice(first))], Fate::Inconsistent),
            (vec![ab(Verdict::choice(tie)), ba(Verdict::choice(tie))], Fate::Tie),
            (vec![ab(Verdict::none(NoVerdict::Empty)), ba(Verdict::choice(second))], Fate::NoVerdict),
            (vec![ab(Verdict::none(NoVerdict::Refused))], Fate::NoVerdict),
            (vec![ab(Verdict::none(NoVerdict::Failed("429".into())))], Fate::Failed),
        ];
        let judge = JudgeConfig { protocol: Protocol::Pairwise, ..JudgeConfig::default() };
        let pair = |id: &str| Pair { id: id.into(), prompt_id: "p".into(), a: "p/0".into(), b: "p/1".into() };
        for (rows, want) in &cases {
            let said = judging::said(rows, std::slice::from_ref(&judge));
            let fates = fates_of(&[pair("p/0-1"), pair("p/0-2")], &said, &LabelConfig::default());
            assert_eq!(fates, BTreeMap::from([(*want, 1)]), "{rows:?}");
        }
    }
}
