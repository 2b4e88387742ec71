//! The comparison for a terminal.

use super::data::{Shown, SideBySide};
use super::page::{cell, headline, in_words};
use crate::report::format::{dollars, duration};
use crate::report::headline::policy_name;

/// A row a number, a column a run, and below it what is shown.
pub fn table(data: &SideBySide) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let row = |label: String, cells: Vec<String>| std::iter::once(label).chain(cells).collect();
    lines.push(row(String::new(), data.runs.iter().map(|run| run.name.clone()).collect()));
    lines.push(row("cost".into(), data.runs.iter().map(|run| dollars(run.cost.known_micro_usd)).collect()));
    lines.push(row("time".into(), data.runs.iter().map(|run| duration(run.wall_seconds)).collect()));
    for it in &data.measures {
        let policy =
            if it.policy.is_empty() { String::new() } else { format!("{}: ", policy_name(&it.policy)) };
        let cells = it.values.iter().map(|value| cell(value.as_ref(), it.unit)).collect();
        lines.push(row(format!("{policy}{}", it.measure), cells));
    }
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += &format!("{}\n", cells.join("  ").trim_end());
    }
    text += "\n";
    for it in &data.config {
        let values: Vec<&str> = it.values.iter().map(|value| value.as_deref().unwrap_or("–")).collect();
        text += &format!("config  {}: {}\n", it.key, values.join(" | "));
    }
    data.warnings.iter().for_each(|warning| text += &format!("beware  {warning}\n"));
    for it in data.contrasts.iter().filter(|it| it.shown != Shown::No) {
        text += &format!("shown   {}\n", in_words(it, &data.runs));
    }
    text += &format!("{}\n", headline(data));
    // Names and values are anybody's text; a terminal obeys some characters.
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}
