//! From numbers to what the template shows: every string is ready, and every number carries where it comes from.

use super::data::{
    Estimate, FateCount, PolicyRow, ReportData, RewardSummary, Sample, SftSummary, WatchSummary,
};
use super::format::{Unit, count, dollars, duration, number, percent, plural};
use super::headline::{Headline, compared, headline, policy_name};
use super::{chart, curves};
use anyhow::Result;
use askama::Template;

/// Samples shown on the page; `evaluation.json` has them all.
const SHOWN_SAMPLES: usize = 12;

/// The template's input.
#[derive(Template)]
#[template(path = "report.html")]
pub struct Page<'a> {
    data: &'a ReportData,
    headline: Headline,
    hero: Vec<Figure>,
    facts: Vec<Fact>,
    stages: Vec<StageLine>,
    judges: Vec<JudgeLine>,
    fates: Option<Figure>,
    dropped: Option<String>,
    sections: Vec<CurveSection>,
    table: Option<EvaluationTable>,
    samples: Vec<SampleView>,
    samples_note: String,
}

/// A picture with its title, legend and source.
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// Our own SVG, the only thing on the page that is not escaped.
    pub svg: String,
    /// Which ink is which.
    pub legend: Vec<Legend>,
    /// The metric and file behind it.
    pub source: String,
}

/// One entry of a legend.
pub struct Legend {
    /// `accent`, `second` or `dashed`.
    pub class: &'static str,
    /// What is drawn so.
    pub label: String,
}

/// A number with a name.
pub struct Fact {
    label: String,
    value: String,
    note: String,
    source: String,
}

impl Fact {
    fn new(label: &str, value: String, note: String, source: &str) -> Self {
        Self { label: label.into(), value, note, source: source.into() }
    }

    /// The value is words, which are set smaller than a number.
    fn is_words(&self) -> bool {
        !self.value.contains(|c: char| c.is_ascii_digit())
    }
}

struct StageLine {
    name: String,
    state: String,
    time: String,
    cost: String,
    summary: String,
}

struct JudgeLine {
    name: String,
    kind: String,
    rubric: String,
    facts: Vec<Fact>,
    fates: Option<Figure>,
}

struct CurveSection {
    stage: &'static str,
    title: &'static str,
    facts: Vec<Fact>,
    figures: Vec<Figure>,
    rows: Vec<PartLine>,
    ran: bool,
}

/// A row of the table of what a reward model is right about.
struct PartLine {
    by: String,
    name: String,
    value: String,
    interval: String,
    n: String,
}

struct EvaluationTable {
    columns: Vec<String>,
    rows: Vec<EvaluationRow>,
    note: String,
}

struct EvaluationRow {
    label: &'static str,
    field: &'static str,
    cells: Vec<(String, String)>,
}

struct SampleView {
    prompt: String,
    responses: Vec<ResponseView>,
}

struct ResponseView {
    policy: String,
    text: String,
    facts: String,
}

impl<'a> Page<'a> {
    /// Prepares every string and picture.
    pub fn new(data: &'a ReportData) -> Result<Self> {
        Ok(Self {
            data,
            headline: headline(data),
            hero: hero(data)?,
            facts: facts(data),
            stages: stages(data),
            judges: judges(data)?,
            fates: fate_figure("What became of the pairs", &data.fates, "rlaif label · preferences by fate")?,
            dropped: dropped(data),
            sections: sections(data)?,
            table: table(data),
            samples: samples(data),
            samples_note: samples_note(data),
        })
    }
}

/// The result as a picture: the judge, the reward model and the lexicon, each with intervals about "no difference".
fn hero(data: &ReportData) -> Result<Vec<Figure>> {
    type Read = fn(&PolicyRow) -> Option<Estimate>;
    let panels: [(&str, &str, Read, f64, Unit); 3] = [
        ("Preferred by the judge", "win_rate", |p| p.win_rate, 0.5, Unit::Share),
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
            source: format!("{field}, evaluation.json"),
        });
    }
    Ok(figures)
}

/// What it took, in one strip.
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
    let mut facts =
        vec![Fact::new("Cost", dollars(cost.known_micro_usd), notes.join("; "), "replies in rlaif.db")];

    let seconds: f64 = data.run.stages.iter().map(|s| s.seconds).sum();
    let device = if data.run.device.is_empty() { String::new() } else { format!("on {}", data.run.device) };
    facts.push(Fact::new("Wall time", duration(seconds), device, "wall_seconds, manifest.json"));
    if let Some(generate) = &data.generate {
        let prompts = plural(generate.train_prompts, "prompt");
        facts.push(Fact::new(
            "Responses sampled",
            count(generate.responses),
            format!("for {prompts}"),
            "rlaif generate",
        ));
        facts.push(Fact::new("Pairs judged", count(generate.pairs), kept_note(data), "rlaif label"));
    }
    facts
}

fn kept_note(data: &ReportData) -> String {
    let kept: u64 = data.fates.iter().filter(|f| f.fate == "kept").map(|f| f.count).sum();
    if data.fates.is_empty() { String::new() } else { format!("{} became preferences", count(kept)) }
}

fn stages(data: &ReportData) -> Vec<StageLine> {
    let line = |stage: &super::data::StageRow| StageLine {
        name: stage.name.clone(),
        state: stage.state.clone(),
        time: duration(stage.seconds),
        // Only these two ask judges that could send a bill.
        cost: match (stage.name.as_str(), stage.micro_usd) {
            (_, Some(cost)) => dollars(cost),
            ("label" | "evaluate", None) if stage.state == "done" => "unknown".into(),
            (_, None) => "–".into(),
        },
        summary: stage.summary.clone().unwrap_or_default(),
    };
    data.run.stages.iter().map(line).collect()
}

fn judges(data: &ReportData) -> Result<Vec<JudgeLine>> {
    let mut lines = Vec::new();
    for judge in &data.judges {
        let mut facts = Vec::new();
        match &judge.probe {
            Some(probe) => {
                let interval =
                    Unit::Share.interval(probe).map_or_else(String::new, |i| format!("95\u{202f}% CI {i}, "));
                let note = format!("{interval}of {}", plural(probe.n.unwrap_or(0), "labelled pair"));
                let verdict = if probe.is_above(0.5) { "" } else { "; not shown to be better than chance" };
                let value = percent(probe.value);
                facts.push(Fact::new(
                    "Right on the probe set",
                    value,
                    format!("{note}{verdict}"),
                    "stages.label.numbers, manifest.json",
                ));
            }
            None => facts.push(Fact::new(
                "Right on the probe set",
                "not measured".into(),
                "set `label.probe` to a file of pairs whose better side you know".into(),
                "label.probe",
            )),
        }
        if let Some(tally) = &judge.tripwires {
            let share = tally.win_rate();
            let estimate = Estimate::new(share.share, share.low, share.high, tally.n() as u64);
            let interval = Unit::Share.interval(&estimate).unwrap_or_default();
            facts.push(Fact::new(
                "Known-bad responses that won",
                format!("{} of {}", tally.wins, tally.n()),
                format!("95\u{202f}% CI {interval}; they went among the pairs and became no preferences"),
                "stages.label.numbers, manifest.json",
            ));
        }
        match &judge.position {
            Some(position) => {
                let mut fact = |label, estimate: Estimate, note: String| {
                    let interval = Unit::Share.interval(&estimate).unwrap_or_default();
                    let note = format!("95\u{202f}% CI {interval}{note}");
                    facts.push(Fact::new(label, percent(estimate.value), note, "verdicts in rlaif.db"));
                };
                let pairs = position.pairs as usize;
                let note = format!(", {}; 0\u{202f}% without bias", plural(position.pairs, "pair"));
                fact(
                    "Same position picked in both orders",
                    Estimate::of(position.same_position, pairs),
                    note,
                );
                if let Some(first) = position.first_picked {
                    let note =
                        format!(", McNemar p = {}; 50\u{202f}% without bias", number(position.p_value));
                    fact("First one picked", Estimate::of(first, pairs), note);
                }
            }
            None if judge.protocol == "contrastive" => facts.push(Fact::new(
                "Position bias",
                "none possible".into(),
                "each response is scored alone, so there is no order".into(),
                "label.judges[].protocol",
            )),
            None => {}
        }
        let cost = judge.micro_usd.map_or_else(|| "unknown".into(), dollars);
        facts.push(Fact::new("Cost", cost, String::new(), "replies in rlaif.db"));
        // With one judge its fates are the run's fates, which stand below.
        let fates = if data.judges.len() > 1 {
            fate_figure("By this judge alone", &judge.fates, "verdicts in rlaif.db")?
        } else {
            None
        };
        lines.push(JudgeLine {
            name: judge.name.clone(),
            kind: format!("{} judge, {} protocol, model {}", judge.kind, judge.protocol, judge.model),
            rubric: judge.rubric.clone(),
            facts,
            fates,
        });
    }
    Ok(lines)
}

fn fate_figure(title: &str, fates: &[FateCount], source: &str) -> Result<Option<Figure>> {
    if fates.iter().all(|f| f.count == 0) {
        return Ok(None);
    }
    let rows: Vec<(String, u64)> = fates.iter().map(|f| (f.fate.replace('_', " "), f.count)).collect();
    let words: Vec<String> = rows.iter().map(|(fate, n)| format!("{fate} {n}")).collect();
    let svg = chart::bars(&format!("{title}: {}", words.join(", ")), &rows)?;
    Ok(Some(Figure { title: title.into(), svg, legend: Vec::new(), source: source.into() }))
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

fn sections(data: &ReportData) -> Result<Vec<CurveSection>> {
    let mut reward = CurveSection {
        stage: "reward",
        title: "Reward model",
        facts: Vec::new(),
        figures: curves::figures("reward", data)?,
        rows: data.reward.as_ref().map(parts).unwrap_or_default(),
        ran: data.reward.is_some(),
    };
    if let Some(summary) = &data.reward {
        reward.facts.extend(held_out(
            "Right on held-out pairs",
            summary.accuracy,
            Unit::Share,
            "stages.reward.numbers, manifest.json",
        ));
        reward.facts.extend(held_out(
            "Margin on held-out pairs",
            summary.margin,
            Unit::Plain,
            "stages.reward.numbers, manifest.json",
        ));
        let error = |label, value: Option<f64>, note: &str| {
            value.map(|v| Fact::new(label, number(v), note.into(), "stages.reward.numbers, manifest.json"))
        };
        reward.facts.extend(held_out(
            "The longer one is preferred",
            summary.longer_wins,
            Unit::Share,
            "stages.reward.numbers, manifest.json",
        ));
        let calibrated = match (summary.temperature, summary.ece_calibrated) {
            (Some(t), Some(ece)) => format!("0 is perfect; {} at temperature {}", number(ece), number(t)),
            _ => "0 is perfect".into(),
        };
        let chosen = summary.watch.as_ref();
        reward.facts.extend(chosen.map(|watch| chosen_fact(watch, "stages.reward.numbers, manifest.json")));
        reward.facts.extend(error("Expected calibration error", summary.ece, &calibrated));
        reward.facts.extend(error("Brier score", summary.brier, "0 is perfect, 0.25 is a coin"));
        if !summary.bins.is_empty() {
            reward.figures.push(Figure {
                title: "Calibration".into(),
                svg: chart::calibration("Calibration of the reward model on held-out pairs", &summary.bins)?,
                legend: vec![
                    Legend { class: "accent", label: "observed, with 95\u{202f}% CI".into() },
                    Legend { class: "dashed", label: "perfect".into() },
                ],
                source: "held-out pairs, equal-mass bins · rlaif reward".into(),
            });
        }
    }
    let mut ppo = CurveSection {
        stage: "ppo",
        title: "PPO",
        facts: Vec::new(),
        figures: curves::figures("ppo", data)?,
        rows: Vec::new(),
        ran: data.ppo.is_some(),
    };
    if let Some(summary) = &data.ppo {
        let note = if summary.stopped_at_budget {
            "stopped where the KL budget was reached"
        } else {
            "ran to the end"
        };
        ppo.facts.push(Fact::new(
            "Iterations",
            count(summary.steps),
            note.into(),
            "stages.ppo.numbers, manifest.json",
        ));
        if let Some(budget) = summary.kl_budget {
            ppo.facts.push(Fact::new(
                "KL budget",
                budget.to_string(),
                "nats a response".into(),
                "ppo.kl_budget",
            ));
        }
    }
    let mut dpo = CurveSection {
        stage: "dpo",
        title: "DPO",
        facts: Vec::new(),
        figures: curves::figures("dpo", data)?,
        rows: Vec::new(),
        ran: data.dpo.is_some(),
    };
    if let Some(summary) = &data.dpo {
        let source = "stages.dpo.numbers, manifest.json";
        let [right, margin] = match summary.train_responses {
            None => ["Right on held-out pairs", "Margin on held-out pairs"],
            Some(_) => ["Right on held-out responses", "Margin on held-out responses"],
        };
        dpo.facts.extend(held_out(right, summary.accuracy, Unit::Share, source));
        dpo.facts.extend(held_out(margin, summary.margin, Unit::Plain, source));
        dpo.facts.extend(summary.watch.as_ref().map(|watch| chosen_fact(watch, source)));
    }
    let mut sections = vec![reward, ppo, dpo];
    // Most runs have no such stage, and nothing is missing from them.
    if data.sft.is_some() || data.metrics.contains_key("sft") {
        let mut sft = CurveSection {
            stage: "sft",
            title: "Fine-tuning",
            facts: Vec::new(),
            figures: curves::figures("sft", data)?,
            rows: Vec::new(),
            ran: data.sft.is_some(),
        };
        sft.facts.extend(data.sft.as_ref().and_then(loss_fact));
        let chosen = data.sft.as_ref().and_then(|summary| summary.watch.as_ref());
        sft.facts.extend(chosen.map(|watch| chosen_fact(watch, "stages.sft.numbers, manifest.json")));
        sections.insert(0, sft);
    }
    Ok(sections)
}

/// Which checkpoint is kept, and what it has over the last one.
fn chosen_fact(watch: &WatchSummary, source: &'static str) -> Fact {
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
    Fact::new("Step that is kept", count(watch.kept_step), note, source)
}

fn loss_fact(summary: &SftSummary) -> Option<Fact> {
    let (before, after) = (summary.loss_before?, summary.loss?);
    let interval = summary.change.and_then(|change| Unit::Difference.interval(&change));
    let interval = interval.map(|i| format!("change 95\u{202f}% CI {i}"));
    let note =
        [Some(format!("{} before", number(before))), interval, Some(plural(summary.held_out_rows, "row"))];
    let note = note.into_iter().flatten().collect::<Vec<_>>().join(", ");
    Some(Fact::new(
        "Loss on held-out rows, nats a token",
        number(after),
        note,
        "stages.sft.numbers, manifest.json",
    ))
}

/// Accuracy by part of the held-out pairs, then how often each trick wins.
fn parts(summary: &RewardSummary) -> Vec<PartLine> {
    let line = |by: &str, name: &str, share: &Estimate| PartLine {
        by: by.into(),
        name: name.into(),
        value: Unit::Share.value(share),
        interval: Unit::Share.interval(share).unwrap_or_default(),
        n: share.n.map(count).unwrap_or_default(),
    };
    let parts = summary.parts.iter().map(|p| line(&format!("right, by {}", p.by), &p.name, &p.accuracy));
    let tricks =
        summary.resistance.iter().map(|r| line("beats the preferred response", &r.response, &r.wins));
    parts.chain(tricks).collect()
}

fn held_out(label: &str, estimate: Option<Estimate>, unit: Unit, source: &str) -> Option<Fact> {
    let estimate = estimate?;
    let interval = unit.interval(&estimate).map(|i| format!("95\u{202f}% CI {i}"));
    let rests_on = estimate.n.map(|n| plural(n, "pair"));
    let note = [interval, rests_on].into_iter().flatten().collect::<Vec<_>>().join(", ");
    Some(Fact::new(label, unit.value(&estimate), note, source))
}

/// One row a measure, one column a policy: on a phone there is room for three policies, not for nine measures.
fn table(data: &ReportData) -> Option<EvaluationTable> {
    type Read = fn(&PolicyRow) -> Option<Estimate>;
    const ROWS: [(&str, &str, Read, Unit); 8] = [
        ("Win rate against baseline", "win_rate", |p| p.win_rate, Unit::Share),
        ("Reward", "reward", |p| p.reward, Unit::Plain),
        ("Reward, change", "reward_difference", |p| p.reward_difference, Unit::Difference),
        ("KL to reference, nats a response", "kl", |p| p.kl, Unit::Plain),
        ("Length, tokens", "length", |p| p.length, Unit::Plain),
        ("Ended properly", "ended", |p| p.ended, Unit::Share),
        ("Sentiment (VADER)", "sentiment", |p| p.sentiment, Unit::Plain),
        ("Sentiment, change", "sentiment_difference", |p| p.sentiment_difference, Unit::Difference),
    ];
    let evaluation = data.evaluation.as_ref()?;
    let mut rows = Vec::new();
    for (label, field, read, unit) in ROWS {
        let cells: Vec<Option<Estimate>> = evaluation.policies.iter().map(read).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cell = |estimate: Option<Estimate>| match estimate {
            Some(e) => (unit.value(&e), unit.interval(&e).unwrap_or_default()),
            None => ("–".into(), String::new()),
        };
        rows.push(EvaluationRow { label, field, cells: cells.into_iter().map(cell).collect() });
    }
    if evaluation.policies.iter().any(|p| p.outcomes.is_some()) {
        let cell = |p: &PolicyRow| match p.outcomes {
            Some((wins, ties, losses)) => (format!("{wins} / {ties} / {losses}"), String::new()),
            None => ("–".into(), String::new()),
        };
        let cells = evaluation.policies.iter().map(cell).collect();
        rows.insert(
            1.min(rows.len()),
            EvaluationRow { label: "Wins / ties / losses", field: "outcomes", cells },
        );
    }
    let note = format!(
        "{}, {} each; judged blind by {}. Small print under a number is its 95\u{202f}% interval over prompts.",
        plural(evaluation.prompts, "held-out prompt"),
        plural(evaluation.samples_per_prompt, "response"),
        if evaluation.judges.is_empty() { "no judge".into() } else { evaluation.judges.join(", ") },
    );
    Some(EvaluationTable {
        columns: evaluation.policies.iter().map(|p| policy_name(&p.policy)).collect(),
        rows,
        note,
    })
}

fn samples(data: &ReportData) -> Vec<SampleView> {
    let Some(evaluation) = &data.evaluation else { return Vec::new() };
    evaluation.samples.iter().take(SHOWN_SAMPLES).map(sample).collect()
}

fn sample(sample: &Sample) -> SampleView {
    let response = |response: &super::data::SampleResponse| {
        let mut facts = Vec::new();
        facts.extend(response.p_beats_baseline.map(|p| format!("beats the baseline: {}", percent(p))));
        facts.extend(response.reward.map(|r| format!("reward {}", number(r))));
        facts.extend(response.sentiment.map(|s| format!("sentiment {}", number(s))));
        if !response.ended {
            facts.push("cut off".into());
        }
        ResponseView {
            policy: policy_name(&response.policy),
            text: response.text.clone(),
            facts: facts.join(" · "),
        }
    };
    SampleView { prompt: sample.prompt.clone(), responses: sample.responses.iter().map(response).collect() }
}

fn samples_note(data: &ReportData) -> String {
    let all = data.evaluation.as_ref().map_or(0, |e| e.samples.len());
    if all <= SHOWN_SAMPLES {
        return "Every held-out prompt in the order of the file; none was picked.".into();
    }
    format!(
        "The first {SHOWN_SAMPLES} of {all} held-out prompts in the order of the file; none was picked. All are in evaluation.json."
    )
}
