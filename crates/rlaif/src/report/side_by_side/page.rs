//! `compare.html`.

use super::data::{Contrast, MeasureRow, MeasureUnit, RunColumn, Shown, SideBySide};
use crate::report::block::{Block, Cell, Finding, How, Section, Table, Tone};
use crate::report::data::Estimate;
use crate::report::format::{Unit, count, dollars, duration, plural};
use crate::report::headline::policy_name;
use crate::report::{SCRIPT, STYLE, nonce};
use anyhow::Result;
use askama::Template;

/// The template's input.
#[derive(Template)]
#[template(path = "report/compare.html")]
pub struct Page<'a> {
    nonce: String,
    data: &'a SideBySide,
    headline: String,
    sections: Vec<Section>,
    command: String,
}

impl<'a> Page<'a> {
    /// Prepares every string.
    pub fn new(data: &'a SideBySide) -> Result<Self> {
        let command = command(data);
        let how = How {
            command: command.clone(),
            place: "manifest.json, evaluation.json and rlaif.db of each run".into(),
        };
        let section = |id, title, blocks| Section { id, title, blocks };
        Ok(Self {
            nonce: nonce(data)?,
            data,
            headline: headline(data),
            sections: vec![
                section("differences", "Which differences are shown", vec![differences(data, how.clone())]),
                section("numbers", "The numbers", vec![numbers(data, how.clone())]),
                section("cost", "What they took", vec![took(data, how.clone())]),
                section("config", "What differs in their configs", vec![config(data, how)]),
            ],
            command,
        })
    }
}

fn command(data: &SideBySide) -> String {
    let names: Vec<&str> = data.runs.iter().map(|run| run.arguments.as_str()).collect();
    match names.split_first() {
        Some((first, others)) => format!("rlaif report {first} --compare {}", others.join(" ")),
        None => String::new(),
    }
}

/// How many differences are shown, and of what.
pub fn headline(data: &SideBySide) -> String {
    let tested: Vec<&Contrast> =
        data.contrasts.iter().filter(|it| it.difference.interval().is_some()).collect();
    let shown = tested.iter().filter(|it| it.shown != Shown::No).count() as u64;
    let names: Vec<&str> = data.runs.iter().map(|run| run.name.as_str()).collect();
    let names = match names.split_first() {
        Some((first, others)) => format!("{} against {first}", others.join(", ")),
        None => String::new(),
    };
    match (tested.len(), shown) {
        (0, _) => format!("{names}: nothing can be compared."),
        (n, 0) => format!("{names}: no difference is shown among {}.", plural(n as u64, "comparison")),
        (n, shown) => {
            format!("{names}: {} of {} show a difference.", count(shown), plural(n as u64, "comparison"))
        }
    }
}

/// A contrast in words.
pub fn in_words(it: &Contrast, runs: &[RunColumn]) -> String {
    let run = runs.get(it.run).map_or("", |run| run.name.as_str());
    let policy =
        if it.policy.is_empty() { String::new() } else { format!(" of {}", policy_name(&it.policy)) };
    let size = difference_unit(it.unit).with_interval(&it.difference);
    format!("{run}: {}{policy} {size}", it.measure)
}

fn difference_unit(unit: MeasureUnit) -> Unit {
    match unit {
        MeasureUnit::Share => Unit::Points,
        MeasureUnit::Number => Unit::Difference,
    }
}

/// How a number is written.
pub fn unit_of(unit: MeasureUnit) -> Unit {
    match unit {
        MeasureUnit::Share => Unit::Share,
        MeasureUnit::Number => Unit::Plain,
    }
}

fn differences(data: &SideBySide, how: How) -> Block {
    let mut findings: Vec<Finding> =
        data.warnings.iter().map(|warning| Finding::new(Tone::Bad, "beware", warning.clone())).collect();
    let (shown, open): (Vec<&Contrast>, Vec<&Contrast>) =
        data.contrasts.iter().partition(|it| it.shown != Shown::No);
    findings.extend(shown.into_iter().map(|it| {
        let mark = if it.shown == Shown::Higher { "higher" } else { "lower" };
        Finding::new(Tone::Told, mark, in_words(it, &data.runs))
    }));
    findings.extend(open.into_iter().map(|it| {
        let mark = if it.difference.interval().is_some() { "not shown" } else { "no interval" };
        Finding::new(Tone::Plain, mark, in_words(it, &data.runs))
    }));
    let tested = data.contrasts.iter().filter(|it| it.difference.interval().is_some()).count() as u64;
    Block {
        notes: vec![format!(
            "Differences are this run’s less the first run’s, each with a 95\u{202f}% interval from the two intervals (Zou and \
             Donner 2008), as if the runs had nothing in common: on the same prompts results rise and fall together, and a \
             smaller difference may be real. Of {} at 95\u{202f}%, one in twenty shows a difference by chance alone.",
            plural(tested, "comparison")
        )],
        findings,
        how,
        ..Block::default()
    }
}

fn head<'a>(first: &'a str, second: Option<&'a str>, data: &'a SideBySide) -> Vec<&'a str> {
    let names = data.runs.iter().map(|run| run.name.as_str());
    std::iter::once(first).chain(second).chain(names).collect()
}

fn numbers(data: &SideBySide, how: How) -> Block {
    let mut table = Table::new("Side by side", &head("Measure", Some("Policy"), data), 2);
    let row = |row: &MeasureRow| {
        let values = row.values.iter().map(|it| Cell::estimate(it.as_ref(), unit_of(row.unit)));
        let policy = if row.policy.is_empty() { String::new() } else { policy_name(&row.policy) };
        [Cell::of(&row.measure), Cell::of(policy)].into_iter().chain(values).collect()
    };
    table.rows = data.measures.iter().map(row).collect();
    Block {
        notes: vec!["Win rates are against each run’s own baseline. Rewards are not here: every run has its own reward model.".into()],
        tables: table.filled().into_iter().collect(),
        how,
        ..Block::default()
    }
}

fn took(data: &SideBySide, how: How) -> Block {
    let mut table = Table::new("Cost, labels and judges", &head("", None, data), usize::MAX);
    let mut row = |label: &str, of: &dyn Fn(&RunColumn) -> Cell| {
        let cells = data.runs.iter().map(of);
        table.rows.push(std::iter::once(Cell::of(label)).chain(cells).collect());
    };
    let or_dash = |value: Option<u64>| value.map_or("–".into(), count);
    row("Cost", &|run| {
        let unknown = match run.cost.unknown_calls {
            0 => String::new(),
            calls => format!("plus {} at an unknown price", plural(calls, "call")),
        };
        Cell::with(dollars(run.cost.known_micro_usd), unknown)
    });
    row("Requests to endpoints", &|run| Cell::of(count(run.cost.requests)));
    row("Wall time", &|run| Cell::of(duration(run.wall_seconds)));
    row("Preferences trained on", &|run| Cell::of(or_dash(run.preferences)));
    row("Of these, made by people", &|run| Cell::of(count(run.preferences_of_people)));
    row("Held-out prompts", &|run| Cell::of(or_dash(run.prompts)));
    row("Judges of the evaluation", &|run| {
        let same = if run.judges_made_labels { "also made the labels" } else { "" };
        Cell::with(if run.judges.is_empty() { "–".into() } else { run.judges.join(", ") }, same)
    });
    row("Model", &|run| Cell::of(&run.model));
    row("Folder", &|run| Cell::of(&run.folder));
    row("Finished", &|run| Cell::of(run.finished_at.clone().unwrap_or_else(|| "–".into())));
    Block { tables: vec![table], how, ..Block::default() }
}

fn config(data: &SideBySide, how: How) -> Block {
    let mut table = Table::new("Keys that differ", &head("Key", None, data), usize::MAX);
    table.rows = data
        .config
        .iter()
        .map(|it| {
            let values = it.values.iter().map(|value| Cell::of(value.clone().unwrap_or_else(|| "–".into())));
            std::iter::once(Cell::of(&it.key)).chain(values).collect()
        })
        .collect();
    let notes = match data.config.is_empty() {
        true => vec!["Their configs are the same but for the name.".into()],
        false => vec!["A file that a config names may have changed without its name.".into()],
    };
    Block { notes, tables: table.filled().into_iter().collect(), how, ..Block::default() }
}

/// For a terminal: an estimate in a cell.
pub fn cell(estimate: Option<&Estimate>, unit: MeasureUnit) -> String {
    estimate.map_or("–".into(), |it| {
        let unit = unit_of(unit);
        match unit.interval(it) {
            Some(interval) => format!("{} [{interval}]", unit.value(it)),
            None => unit.value(it),
        }
    })
}
