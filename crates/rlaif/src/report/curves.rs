//! Which training curves are worth a picture, stage by stage.

use super::block::{Figure, Legend};
use super::chart::{self, Line};
use super::data::ReportData;
use anyhow::Result;
use rlaif_core::metrics::{self, MetricRow};

/// One picture: the first metric in the accent colour, the second in grey.
struct Panel {
    title: &'static str,
    metrics: &'static [&'static str],
    /// Where a policy or judge without knowledge would be, or the budget.
    reference: Reference,
}

#[derive(Clone, Copy)]
enum Reference {
    None,
    Half,
    Zero,
    KlBudget,
}

const fn panel(title: &'static str, metrics: &'static [&'static str], reference: Reference) -> Panel {
    Panel { title, metrics, reference }
}

const HELD_OUT: Panel = panel("Held-out score", &[metrics::OBJECTIVE_HELD_OUT_SCORES], Reference::None);

const SFT: &[Panel] = &[
    panel("Loss, nats a token", &[metrics::EVAL_LOSS, metrics::LOSS], Reference::None),
    panel(
        "Tokens that were the likeliest",
        &[metrics::EVAL_MEAN_TOKEN_ACCURACY, metrics::MEAN_TOKEN_ACCURACY],
        Reference::None,
    ),
    HELD_OUT,
];

const REWARD: &[Panel] = &[
    panel("Accuracy", &[metrics::EVAL_ACCURACY, metrics::ACCURACY], Reference::Half),
    panel("Loss", &[metrics::EVAL_LOSS, metrics::LOSS], Reference::None),
    panel("Margin, chosen over rejected", &[metrics::EVAL_MARGIN, metrics::MARGIN], Reference::Zero),
    panel("Agreement with the pairs of the watch", &[metrics::EVAL_WATCH_ACCURACY], Reference::Half),
];

const PPO: &[Panel] = &[
    panel("Score of a rollout", &[metrics::OBJECTIVE_SCORES], Reference::None),
    panel("KL to the reference, nats a response", &[metrics::OBJECTIVE_KL], Reference::KlBudget),
    panel("Reward with the KL penalty", &[metrics::OBJECTIVE_RLHF_REWARD], Reference::None),
    panel("Policy loss", &[metrics::LOSS_POLICY_AVG], Reference::Zero),
    panel("Value loss", &[metrics::LOSS_VALUE_AVG], Reference::None),
    panel("Entropy", &[metrics::OBJECTIVE_ENTROPY], Reference::None),
    panel(
        "Share of tokens that were clipped",
        &[metrics::POLICY_CLIPFRAC_AVG, metrics::VAL_CLIPFRAC_AVG],
        Reference::None,
    ),
    panel("Approximate KL of an update", &[metrics::POLICY_APPROXKL_AVG], Reference::None),
    HELD_OUT,
];

const DPO: &[Panel] = &[
    panel(
        "Preference accuracy",
        &[metrics::EVAL_REWARDS_ACCURACIES, metrics::REWARDS_ACCURACIES],
        Reference::Half,
    ),
    panel(
        "Margin of implicit rewards",
        &[metrics::EVAL_REWARDS_MARGINS, metrics::REWARDS_MARGINS],
        Reference::Zero,
    ),
    panel("Loss", &[metrics::EVAL_LOSS, metrics::LOSS], Reference::None),
    panel("Implicit rewards", &[metrics::REWARDS_CHOSEN, metrics::REWARDS_REJECTED], Reference::Zero),
    HELD_OUT,
];

/// Every panel of `stage` of which at least one metric was logged.
pub fn figures(stage: &str, data: &ReportData) -> Result<Vec<Figure>> {
    let panels = match stage {
        "sft" => SFT,
        "reward" => REWARD,
        "ppo" => PPO,
        "dpo" => DPO,
        _ => &[],
    };
    let rows = data.metrics.get(stage).map_or(&[][..], Vec::as_slice);
    panels.iter().filter_map(|panel| figure(panel, stage, rows, data).transpose()).collect()
}

fn figure(panel: &Panel, stage: &str, rows: &[MetricRow], data: &ReportData) -> Result<Option<Figure>> {
    let lines: Vec<Line> = panel.metrics.iter().filter_map(|metric| line(metric, rows)).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let reference = match panel.reference {
        Reference::None => None,
        Reference::Half => Some(0.5),
        Reference::Zero => Some(0.0),
        Reference::KlBudget => data.ppo.as_ref().and_then(|p| p.kl_budget),
    };
    let mut legend: Vec<Legend> = lines
        .iter()
        .enumerate()
        .map(|(index, line)| Legend {
            class: if index == 0 { "accent" } else { "second" },
            label: line.label.clone(),
        })
        .collect();
    let dashed = match panel.reference {
        Reference::Half => Some("chance"),
        Reference::KlBudget => reference.map(|_| "budget"),
        Reference::None | Reference::Zero => None,
    };
    legend.extend(dashed.map(|label| Legend { class: "dashed", label: label.into() }));
    let last_step = rows.iter().map(|row| row.step).max().unwrap_or(0);
    let names: Vec<&str> = lines.iter().map(|l| l.label.as_str()).collect();
    let title = format!("{} up to step {} of {stage}: {}", panel.title, last_step, names.join(", "));
    Ok(Some(Figure {
        title: panel.title.into(),
        svg: chart::lines(&title, &lines, reference)?,
        legend,
        source: format!("by step, metrics/{stage}.jsonl"),
    }))
}

/// The metric's points, if it was ever logged.
fn line(metric: &str, rows: &[MetricRow]) -> Option<Line> {
    let points: Vec<(f64, f64)> =
        rows.iter().filter_map(|row| Some((row.step as f64, row.get(metric)?))).collect();
    points.iter().any(|(_, value)| value.is_finite()).then(|| Line { label: metric.into(), points })
}
