//! What the run took: money, time, calls.

use super::block::{Block, Cell, Fact, How, Section, Table};
use super::data::{ReportData, StageRow};
use super::format::{count, dollars, duration, plural};

/// The section.
pub fn section(data: &ReportData) -> Section {
    let mut table = Table::new("Stages", &["Stage", "State", "Summary", "Wall time", "Cost"], 3);
    table.rows = data.run.stages.iter().map(row).collect();
    let block = Block {
        facts: facts(data),
        tables: table.filled().into_iter().collect(),
        how: How::of("run", &data.run.config_path, "manifest.json; replies in rlaif.db"),
        ..Block::default()
    };
    Section { id: "cost", title: "What it took", blocks: vec![block] }
}

/// The run's cost and time in a sentence.
pub fn sentence(data: &ReportData) -> String {
    let seconds: f64 = data.run.stages.iter().map(|s| s.seconds).sum();
    let cost = &data.cost;
    let money = match (cost.known_micro_usd, cost.requests) {
        (0, 0) => "No money: all judging was done on this machine".to_string(),
        (known, requests) => format!("{} for {}", dollars(known), plural(requests, "request")),
    };
    let unknown = match cost.unknown_calls {
        0 => String::new(),
        calls => format!(", and {} at an unknown price", plural(calls, "call")),
    };
    format!("{money}{unknown}; {} of work.", duration(seconds))
}

fn facts(data: &ReportData) -> Vec<Fact> {
    let cost = &data.cost;
    let mut notes = Vec::new();
    if cost.unknown_calls > 0 {
        notes.push(format!("plus {} at an unknown price", plural(cost.unknown_calls, "call")));
    }
    if cost.possibly_billed > 0 {
        notes.push(format!(
            "{} sent and never answered, possibly billed",
            plural(cost.possibly_billed, "request")
        ));
    }
    if cost.requests > 0 {
        let tokens = format!("{} in, {} out", count(cost.prompt_tokens), count(cost.completion_tokens));
        notes.push(format!("{}, tokens {tokens}", plural(cost.requests, "request")));
    }
    if cost.reused > 0 {
        notes.push(format!("{} reused from other runs", plural(cost.reused, "answer")));
    }
    if notes.is_empty() {
        notes.push("all judging was done on this machine".into());
    }
    let mut facts = vec![Fact::new("Cost", dollars(cost.known_micro_usd), notes.join("; "))];

    let seconds: f64 = data.run.stages.iter().map(|s| s.seconds).sum();
    let device = if data.run.device.is_empty() { String::new() } else { format!("on {}", data.run.device) };
    facts.push(Fact::new("Wall time", duration(seconds), device));
    if let Some(generate) = &data.generate {
        let prompts = plural(generate.train_prompts, "prompt");
        facts.push(Fact::new("Responses sampled", count(generate.responses), format!("for {prompts}")));
        facts.push(Fact::new("Pairs", count(generate.pairs), kept_note(data)));
    }
    facts
}

fn kept_note(data: &ReportData) -> String {
    let kept: u64 = data.fates.iter().filter(|f| f.fate == "kept").map(|f| f.count).sum();
    if data.fates.is_empty() { String::new() } else { format!("{} became preferences", count(kept)) }
}

fn row(stage: &StageRow) -> Vec<Cell> {
    // Only these two ask judges that could send a bill.
    let cost = match (stage.name.as_str(), stage.micro_usd) {
        (_, Some(cost)) => dollars(cost),
        ("label" | "evaluate", None) if stage.state == "done" => "unknown".into(),
        (_, None) => "–".into(),
    };
    vec![
        Cell::of(&stage.name),
        Cell::of(&stage.state),
        Cell::of(stage.summary.clone().unwrap_or_default()),
        Cell::of(duration(stage.seconds)),
        Cell::of(cost),
    ]
}
