//! Training, stage by stage: what it left on held-out data, and its curves.

use super::block::{Block, Cell, Fact, Figure, How, Legend, Section, Table};
use super::data::{ReportData, RewardSummary, SftSummary, WatchSummary};
use super::format::{Unit, count, number, plural};
use super::{chart, curves};
use anyhow::Result;
use rlaif_core::config::Stage;

/// The section.
pub fn section(data: &ReportData) -> Result<Section> {
    let mut blocks = vec![reward(data)?, ppo(data)?, dpo(data)?];
    // Most runs have no such stage, and nothing is missing from them.
    if data.sft.is_some() || data.metrics.contains_key("sft") {
        blocks.insert(0, sft(data)?);
    }
    Ok(Section { id: "training", title: "Training", blocks })
}

/// A block of a stage with its curves; one that says how to run it if there is nothing.
fn stage(stage: Stage, title: &str, ran: bool, data: &ReportData) -> Result<Block> {
    let (name, arguments) = (stage.name(), &data.run.config_path);
    let figures = curves::figures(name, data)?;
    if !ran && figures.is_empty() {
        return Ok(Block::missing(
            title,
            &format!("{title} has not run."),
            format!("rlaif {name} {arguments}"),
        ));
    }
    let place = format!("stages.{name}.numbers, manifest.json; metrics/{name}.jsonl");
    Ok(Block { title: title.into(), figures, how: How::of(name, arguments, &place), ..Block::default() })
}

fn reward(data: &ReportData) -> Result<Block> {
    let mut block = stage(Stage::Reward, "Reward model", data.reward.is_some(), data)?;
    let Some(summary) = &data.reward else { return Ok(block) };
    let estimates = [
        ("Right on held-out pairs", summary.accuracy, Unit::Share),
        ("Margin on held-out pairs", summary.margin, Unit::Plain),
        ("The longer one is preferred", summary.longer_wins, Unit::Share),
    ];
    block.facts = estimates
        .into_iter()
        .filter_map(|(label, estimate, unit)| Some(Fact::estimate(label, &estimate?, unit, "pair")))
        .collect();
    block.facts.extend(summary.watch.as_ref().map(chosen));
    let calibrated = match (summary.temperature, summary.ece_calibrated) {
        (Some(t), Some(ece)) => format!("0 is perfect; {} at temperature {}", number(ece), number(t)),
        _ => "0 is perfect".into(),
    };
    let error = |label, value: Option<f64>, note: String| value.map(|v| Fact::new(label, number(v), note));
    block.facts.extend(error("Expected calibration error", summary.ece, calibrated));
    block.facts.extend(error("Brier score", summary.brier, "0 is perfect, 0.25 is a coin".into()));
    if !summary.bins.is_empty() {
        block.figures.push(Figure {
            title: "Calibration".into(),
            svg: chart::calibration("Calibration of the reward model on held-out pairs", &summary.bins)?,
            legend: vec![
                Legend { class: "accent", label: "observed, with 95\u{202f}% CI".into() },
                Legend { class: "dashed", label: "perfect".into() },
            ],
            source: "held-out pairs, equal-mass bins".into(),
        });
    }
    block.tables.extend(parts(summary));
    Ok(block)
}

/// Accuracy by part of the held-out pairs, then how often each trick wins.
fn parts(summary: &RewardSummary) -> Option<Table> {
    let mut table = Table::new("The reward model by part", &["On held-out pairs", "Which", "Share", "n"], 2);
    let row = |by: String, name: &str, share: &super::data::Estimate| {
        vec![
            Cell::of(by),
            Cell::of(name),
            Cell::estimate(Some(share), Unit::Share),
            Cell::of(share.n.map(count).unwrap_or_default()),
        ]
    };
    let parts = summary.parts.iter().map(|it| row(format!("right, by {}", it.by), &it.name, &it.accuracy));
    let tricks = summary
        .resistance
        .iter()
        .map(|it| row("beats the preferred response".into(), &it.response, &it.wins));
    table.rows = parts.chain(tricks).collect();
    table.filled()
}

fn ppo(data: &ReportData) -> Result<Block> {
    let mut block = stage(Stage::Ppo, "PPO", data.ppo.is_some(), data)?;
    let Some(summary) = &data.ppo else { return Ok(block) };
    let end =
        if summary.stopped_at_budget { "stopped where the KL budget was reached" } else { "ran to the end" };
    block.facts.push(Fact::new("Iterations", count(summary.steps), end.into()));
    if let Some(budget) = summary.kl_budget {
        block.facts.push(Fact::new("KL budget", budget.to_string(), "nats a response".into()));
    }
    Ok(block)
}

fn dpo(data: &ReportData) -> Result<Block> {
    let mut block = stage(Stage::Dpo, "DPO", data.dpo.is_some(), data)?;
    let Some(summary) = &data.dpo else { return Ok(block) };
    let ([right, margin], of) = match summary.train_responses {
        None => (["Right on held-out pairs", "Margin on held-out pairs"], "pair"),
        Some(_) => (["Right on held-out responses", "Margin on held-out responses"], "response"),
    };
    let estimates = [(right, summary.accuracy, Unit::Share), (margin, summary.margin, Unit::Plain)];
    block.facts = estimates
        .into_iter()
        .filter_map(|(label, estimate, unit)| Some(Fact::estimate(label, &estimate?, unit, of)))
        .collect();
    block.facts.extend(summary.watch.as_ref().map(chosen));
    Ok(block)
}

fn sft(data: &ReportData) -> Result<Block> {
    let mut block = stage(Stage::Sft, "Fine-tuning", data.sft.is_some(), data)?;
    block.facts.extend(data.sft.as_ref().and_then(loss));
    block.facts.extend(data.sft.as_ref().and_then(|it| it.watch.as_ref()).map(chosen));
    Ok(block)
}

/// Which checkpoint is kept, and what it has over the last one.
fn chosen(watch: &WatchSummary) -> Fact {
    let interval = watch.over_last.and_then(|gain| Unit::Difference.interval(&gain));
    let interval = interval.map_or(String::new(), |i| format!(", 95\u{202f}% CI {i}"));
    let note = format!(
        "highest of {} looks: {} held out, {} before training, {} after the last step (difference {}{interval})",
        watch.looks,
        number(watch.score),
        number(watch.first_score),
        number(watch.last_score),
        number(watch.score - watch.last_score)
    );
    Fact::new("Step that is kept", count(watch.kept_step), note)
}

fn loss(summary: &SftSummary) -> Option<Fact> {
    let (before, after) = (summary.loss_before?, summary.loss?);
    let interval = summary.change.and_then(|change| Unit::Difference.interval(&change));
    let interval = interval.map(|i| format!("change 95\u{202f}% CI {i}"));
    let note =
        [Some(format!("{} before", number(before))), interval, Some(plural(summary.held_out_rows, "row"))];
    let note = note.into_iter().flatten().collect::<Vec<_>>().join(", ");
    Some(Fact::new("Loss on held-out rows, nats a token", number(after), note))
}
