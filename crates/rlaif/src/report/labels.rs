//! What was labelled, by whom, and what of it is trained on.

use super::block::{Block, Cell, Figure, How, Table};
use super::chart;
use super::data::{FateCount, ReportData};
use super::evidence::{Count, LabelSources};
use super::format::{count, number, percent, plural};
use anyhow::Result;

/// The block about labels.
pub fn block(data: &ReportData) -> Result<Block> {
    let arguments = &data.run.config_path;
    let mut block = Block {
        title: "Labels that are trained on".into(),
        figures: fates("What became of the pairs", &data.fates)?.into_iter().collect(),
        how: How::of("label", arguments, "preferences in rlaif.db, people's labels over judges'"),
        ..Block::default()
    };
    if data.fates.is_empty() {
        block.missing = ("Nothing has been labelled yet.".into(), format!("rlaif label {arguments}"));
        block.how = How::default();
    } else {
        block.notes.push(
            "Only pairs that were kept are trained on. A verdict that is missing, tied or turned by the order of the two \
             answers is counted and never becomes a preference by default."
                .into(),
        );
    }
    block.notes.extend(dropped(data));
    if let Some(labels) = &data.labels {
        block.notes.extend(people(labels, arguments));
        let table = |label: &str, head: &[&str], counts: &[Count]| {
            let total: u64 = counts.iter().map(|it| it.count).sum();
            let mut table = Table::new(label, head, 1);
            table.rows = counts
                .iter()
                .map(|it| {
                    let share = percent(it.count as f64 / total.max(1) as f64);
                    vec![Cell::of(&it.name), Cell::of(count(it.count)), Cell::of(share)]
                })
                .collect();
            table.filled()
        };
        block.tables.extend(table(
            "Whose preferences are trained on",
            &["Made by", "Pairs", "Share"],
            &labels.trained,
        ));
        block.tables.extend(table("Where pairs went", &["Labelled by", "Pairs", "Share"], &labels.routes));
        block.tables.extend(table("Labels of people", &["Reviewer", "Labels", "Share"], &labels.reviewers));
    }
    Ok(block)
}

fn people(labels: &LabelSources, arguments: &str) -> Vec<String> {
    if labels.reviewers.is_empty() {
        return vec![format!(
            "No person has labelled anything: `rlaif review {arguments}` opens the page for it."
        )];
    }
    let mut notes = Vec::new();
    if labels.over_judges > 0 {
        notes.push(format!(
            "People’s labels took the place of the judges’ on {}, and turned the preference round on {}.",
            plural(labels.over_judges, "pair"),
            count(labels.turned)
        ));
    }
    notes.push(format!(
        "In training a pair that people labelled counts {}, others count 1.",
        number(labels.weight)
    ));
    notes
}

/// Pairs by fate as bars.
pub fn fates(title: &str, fates: &[FateCount]) -> Result<Option<Figure>> {
    if fates.iter().all(|f| f.count == 0) {
        return Ok(None);
    }
    let rows: Vec<(String, u64)> = fates.iter().map(|f| (f.fate.replace('_', " "), f.count)).collect();
    let words: Vec<String> = rows.iter().map(|(fate, n)| format!("{fate} {n}")).collect();
    let svg = chart::bars(&format!("{title}: {}", words.join(", ")), &rows)?;
    Ok(Some(Figure { title: title.into(), svg, legend: Vec::new(), source: String::new() }))
}

fn dropped(data: &ReportData) -> Option<String> {
    let generate = data.generate.as_ref()?;
    let mut text = format!(
        "{} dropped before judging: both responses were the same text, or nearer than {} (normalised edit distance).",
        if generate.dropped_near_duplicates == 1 {
            "1 candidate pair was".into()
        } else {
            format!("{} were", plural(generate.dropped_near_duplicates, "candidate pair"))
        },
        generate.min_distance,
    );
    if generate.responses > 0 {
        let share = generate.ended as f64 / generate.responses as f64;
        text.push_str(&format!(
            " {} of the baseline’s responses ended properly; the others were cut off.",
            percent(share)
        ));
    }
    if generate.rejected_prompts > 0 {
        text.push_str(&format!(
            " {} set aside as bad or too long.",
            plural(generate.rejected_prompts, "prompt row")
        ));
    }
    Some(text)
}
