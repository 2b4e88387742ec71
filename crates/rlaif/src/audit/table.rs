//! An audit on the terminal.

use rlaif_core::audit::{Audit, Bound, Measurement, Outcome, Unit, measure};
use std::fmt::Write;

/// Everything that was measured, a block for each subject, and what it comes to. What could not be measured and has no bound stands at the end
/// of its block, by reason.
pub fn table(audit: &Audit) -> String {
    let mut text = String::new();
    let all: Vec<&Measurement> = audit.parts.values().flat_map(|part| &part.measurements).collect();
    for block in all.chunk_by(|one, next| one.subject == next.subject) {
        let _ = writeln!(text, "{}", block[0].subject);
        rows(&mut text, block);
    }
    let count = |outcome| all.iter().filter(|it| it.outcome == outcome).count();
    let _ = writeln!(
        text,
        "{} pass, {} fail, {} with n too small, {} not measured, {} without a bound (`audit.bounds`)",
        count(Outcome::Pass),
        count(Outcome::Fail),
        count(Outcome::Unclear),
        count(Outcome::NotMeasured),
        count(Outcome::Told)
    );
    text
}

fn rows(text: &mut String, block: &[&Measurement]) {
    let unknown = |it: &&&Measurement| it.value.is_none() && it.outcome == Outcome::Told;
    for it in block.iter().filter(|it| !unknown(it)) {
        let words = words(it);
        let allowed = it.bound.map(|bound| allowed(bound, unit(it))).unwrap_or_default();
        let line =
            format!("  {words:<46} {:<26} n {:<6} {allowed:<16} {}", value(it), it.n, it.outcome.word());
        let _ = writeln!(text, "{}", line.trim_end());
        if let Some(note) = &it.note {
            let _ = writeln!(text, "      {note}");
        }
        for example in &it.examples {
            let _ = writeln!(text, "      - {example}");
        }
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for it in block.iter().filter(unknown) {
        let why = it.note.as_deref().unwrap_or("there is nothing to measure");
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, measures)) => measures.push(words(it)),
            None => reasons.push((why, vec![words(it)])),
        }
    }
    for (why, measures) in reasons {
        let _ = writeln!(text, "  not measured, since {why}:");
        let _ = writeln!(text, "      {}", measures.join("; "));
    }
}

fn words(it: &Measurement) -> &str {
    measure(&it.measure).map_or(it.measure.as_str(), |(_, words, _)| words)
}

fn unit(it: &Measurement) -> Unit {
    measure(&it.measure).map_or(Unit::Number, |(.., unit)| *unit)
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Share => format!("{:.1}", 100.0 * value),
        Unit::Number => format!("{value:.3}"),
        Unit::Count => format!("{value:.0}"),
    }
}

/// As `61.2 % [55.0, 67.1]`.
fn value(it: &Measurement) -> String {
    let unit = unit(it);
    let percent = if unit == Unit::Share { " %" } else { "" };
    match (it.value, it.low.zip(it.high)) {
        (None, _) => "not measured".into(),
        (Some(value), None) => format!("{}{percent}", number(value, unit)),
        (Some(value), Some((low, high))) => {
            format!("{}{percent} [{}, {}]", number(value, unit), number(low, unit), number(high, unit))
        }
    }
}

fn allowed(bound: Bound, unit: Unit) -> String {
    let percent = if unit == Unit::Share { " %" } else { "" };
    let end = |value: f64| format!("{}{percent}", number(value, unit));
    match (bound.min, bound.max) {
        (Some(min), Some(max)) => format!("{} to {}", end(min), end(max)),
        (Some(min), None) => format!("at least {}", end(min)),
        (None, Some(max)) => format!("at most {}", end(max)),
        (None, None) => String::new(),
    }
}
