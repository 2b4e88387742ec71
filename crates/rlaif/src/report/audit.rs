//! What `rlaif audit` measured, fails first.

use super::block::{Block, Cell, Finding, How, Table, Tone};
use super::data::{Estimate, ReportData};
use super::format::{Unit, count, number, percent, plural, utc};
use rlaif_core::audit::{self, Audit, AuditPart, Bound, Measurement, Outcome};

/// One block a part.
pub fn blocks(data: &ReportData) -> Vec<Block> {
    let Some(found) = data.audit.as_ref().filter(|audit| !audit.parts.is_empty()) else {
        return vec![Block::missing(
            "Audit",
            "No audit of this run has been made.",
            format!("rlaif audit {} --robustness", data.run.config_path),
        )];
    };
    // Parts with failures before those without.
    let mut parts: Vec<(&String, &AuditPart)> = found.parts.iter().collect();
    parts.sort_by_key(|(_, part)| part.measurements.iter().map(|it| rank(it.outcome)).min());
    parts.into_iter().map(|(name, part)| block(name, part)).collect()
}

/// How many bounds are kept; `None` without an audit.
pub fn sentence(data: &ReportData) -> Option<Finding> {
    let audit = data.audit.as_ref().filter(|audit| !audit.parts.is_empty())?;
    let all: Vec<&Measurement> = measurements(audit).collect();
    let held = all.iter().filter(|it| it.outcome != Outcome::Told).count() as u64;
    let with = |outcome| all.iter().filter(move |it| it.outcome == outcome).count() as u64;
    let (fails, open, missing) = (with(Outcome::Fail), with(Outcome::Unclear), with(Outcome::NotMeasured));
    if held == 0 {
        let words = format!(
            "{} made, none of which has a bound to be held against.",
            plural(all.len() as u64, "measurement")
        );
        return Some(Finding::new(Tone::Plain, "", words));
    }
    let mut rest = Vec::new();
    rest.extend((open > 0).then(|| format!("{} with too few observations to tell", count(open))));
    rest.extend((missing > 0).then(|| format!("{} not measured", count(missing))));
    let rest = if rest.is_empty() { String::new() } else { format!("; {}", rest.join(", ")) };
    let (tone, mark) = match (fails + missing, open) {
        (1.., _) => (Tone::Bad, "fails"),
        (0, 1..) => (Tone::Unclear, "look"),
        (0, 0) => (Tone::Good, "passes"),
    };
    let first = all.iter().find(|it| it.outcome == Outcome::Fail);
    let first = first.map_or(String::new(), |it| {
        let size = estimate(it).map_or(String::new(), |size| format!(": {}", unit(it).with_interval(&size)));
        format!(" The first is {}, {}{size}.", it.subject, in_words(it))
    });
    Some(Finding::new(
        tone,
        mark,
        format!("{} of {} fail{rest}.{first}", count(fails), plural(held, "bound")),
    ))
}

fn estimate(it: &Measurement) -> Option<Estimate> {
    it.value.map(|value| Estimate { value, low: it.low, high: it.high, n: Some(it.n) })
}

fn unit(it: &Measurement) -> Unit {
    match audit::measure(&it.measure).map(|(.., unit)| unit) {
        Some(audit::Unit::Share) => Unit::Share,
        Some(audit::Unit::Number | audit::Unit::Count) | None => Unit::Plain,
    }
}

fn measurements(audit: &Audit) -> impl Iterator<Item = &Measurement> {
    audit.parts.values().flat_map(|part| &part.measurements)
}

/// What needs looking at comes first.
fn rank(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Fail => 0,
        Outcome::NotMeasured => 1,
        Outcome::Unclear => 2,
        Outcome::Pass => 3,
        Outcome::Told => 4,
    }
}

fn block(name: &str, part: &AuditPart) -> Block {
    // What could not be measured and has no bound is for the terminal, which says why.
    let told = |it: &&Measurement| it.value.is_some() || it.outcome != Outcome::Told;
    let mut rows: Vec<&Measurement> = part.measurements.iter().filter(told).collect();
    rows.sort_by_key(|it| rank(it.outcome));
    let left_out = rows.len() < part.measurements.len();
    let label = format!("Audit: {name}");
    let mut table = Table::new(&label, &["Of", "Measured", "Outcome", "Value", "Allowed", "n"], 3);
    table.rows = rows.into_iter().map(row).collect();
    let made = (part.made_ms > 0).then(|| format!("measured {}", utc(part.made_ms / 1000)));
    Block {
        title: label,
        notes: left_out
            .then(|| "What could not be measured is left out here; the command says why.".to_string())
            .into_iter()
            .collect(),
        tables: table.filled().into_iter().collect(),
        how: How {
            command: part.command.clone(),
            place: [Some("audit.json".to_string()), made]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(", "),
        },
        ..Block::default()
    }
}

fn row(it: &Measurement) -> Vec<Cell> {
    let (unit, value) = (unit(it), estimate(it));
    let (tone, outcome) = match it.outcome {
        Outcome::Told => (Tone::Plain, ""),
        Outcome::Pass => (Tone::Good, "pass"),
        Outcome::Unclear => (Tone::Unclear, "too few to tell"),
        Outcome::Fail => (Tone::Bad, "fail"),
        Outcome::NotMeasured => (Tone::Bad, "not measured"),
    };
    vec![
        Cell::of(&it.subject),
        Cell::with(in_words(it), it.note.clone().unwrap_or_default()),
        Cell::of(outcome).toned(tone),
        Cell::estimate(value.as_ref(), unit),
        Cell::of(it.bound.map_or(String::new(), |bound| allowed(bound, unit))),
        Cell::of(count(it.n)),
    ]
}

fn in_words(it: &Measurement) -> String {
    audit::measure(&it.measure)
        .map_or_else(|| it.measure.replace('_', " "), |(_, words, _)| (*words).to_string())
}

fn allowed(bound: Bound, unit: Unit) -> String {
    let say = |value: f64| if unit == Unit::Share { percent(value) } else { number(value) };
    match (bound.min, bound.max) {
        (Some(min), Some(max)) => format!("{} to {}", say(min), say(max)),
        (Some(min), None) => format!("at least {}", say(min)),
        (None, Some(max)) => format!("at most {}", say(max)),
        (None, None) => String::new(),
    }
}
