//! The page: what stands on top, then its sections.

use super::block::{Figure, Finding, How, Section, Tone};
use super::data::{Estimate, PolicyRow, ReportData};
use super::format::Unit;
use super::headline::{Headline, compared, headline, policy_name};
use super::samples::{self, Disagreed, Samples};
use super::{SCRIPT, STYLE, audit, chart, cost, results, training, trust, worse};
use anyhow::Result;
use askama::Template;

/// The template's input.
#[derive(Template)]
#[template(path = "report/page.html")]
pub struct Page<'a> {
    nonce: String,
    data: &'a ReportData,
    headline: Headline,
    glance: Vec<Glance>,
    hero: Vec<Figure>,
    hero_how: How,
    sections: Vec<Section>,
    samples: Samples,
    disagreed: Option<Disagreed>,
}

/// A section in one sentence, on top.
struct Glance {
    id: &'static str,
    label: &'static str,
    finding: Finding,
}

impl<'a> Page<'a> {
    /// Prepares every string and picture.
    pub fn new(data: &'a ReportData) -> Result<Self> {
        Ok(Self {
            nonce: super::nonce(data)?,
            data,
            headline: headline(data),
            glance: glance(data),
            hero: hero(data)?,
            hero_how: How::of("evaluate", &data.run.config_path, "evaluation.json"),
            sections: vec![
                cost::section(data),
                trust::section(data)?,
                worse::section(data),
                results::section(data)?,
                training::section(data)?,
            ],
            samples: samples::samples(data),
            disagreed: samples::disagreed(data),
        })
    }
}

fn glance(data: &ReportData) -> Vec<Glance> {
    let line = |id, label, finding| Glance { id, label, finding };
    let mut lines = vec![
        line("cost", "Cost", Finding::new(Tone::Plain, "", cost::sentence(data))),
        line("trust", "Judges", trust::sentence(data)),
    ];
    lines.extend(audit::sentence(data).map(|finding| line("trust", "Audit", finding)));
    lines.push(line("worse", "What got worse", worse::sentence(data)));
    lines
}

/// The result as a picture: the judge, the reward model and the lexicon, each with intervals about "no difference".
fn hero(data: &ReportData) -> Result<Vec<Figure>> {
    type Read = fn(&PolicyRow) -> Option<Estimate>;
    let panels: [(&str, &str, Read, f64, Unit); 3] = [
        ("Preferred by the judges", "win_rate", |p| p.win_rate, 0.5, Unit::Share),
        ("Reward, change", "reward_difference", |p| p.reward_difference, 0.0, Unit::Difference),
        (
            "Sentiment (VADER), change",
            "sentiment_difference",
            |p| p.sentiment_difference,
            0.0,
            Unit::Difference,
        ),
    ];
    let policies = compared(data);
    let mut figures = Vec::new();
    for (title, field, read, reference, unit) in panels {
        let rows: Vec<(String, Estimate)> =
            policies.iter().filter_map(|(row, _)| Some((policy_name(&row.policy), read(row)?))).collect();
        if rows.is_empty() {
            continue;
        }
        let words: Vec<String> =
            rows.iter().map(|(name, estimate)| format!("{name} {}", unit.with_interval(estimate))).collect();
        figures.push(Figure {
            title: title.into(),
            svg: chart::intervals(&format!("{title}: {}", words.join("; ")), &rows, reference, unit)?,
            legend: Vec::new(),
            source: field.into(),
        });
    }
    Ok(figures)
}
