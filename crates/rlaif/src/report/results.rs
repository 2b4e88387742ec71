//! Policies compared: against the baseline, with each other, by tag, criterion and judge.

use super::block::{Block, Cell, Figure, How, Section, Table, Tone};
use super::chart;
use super::comparison::{Comparison, ENOUGH_LABELS, ENOUGH_OF_A_TAG, Finding as Shown, RankedPolicy};
use super::data::{Estimate, Evaluation, PolicyRow, ReportData};
use super::format::{Unit, count, number, plural};
use super::headline::policy_name;
use anyhow::Result;

/// The section.
pub fn section(data: &ReportData) -> Result<Section> {
    let arguments = &data.run.config_path;
    let Some(evaluation) = &data.evaluation else {
        let missing =
            Block::missing("", "No policy has been evaluated yet.", format!("rlaif evaluate {arguments}"));
        return Ok(Section { id: "evaluation", title: "Evaluation", blocks: vec![missing] });
    };
    let how = How::of("evaluate", arguments, "evaluation.json");
    let mut blocks = vec![Block {
        notes: notes(evaluation),
        tables: vec![policies(evaluation)],
        how: how.clone(),
        ..Block::default()
    }];
    blocks.push(Block {
        title: "Who beats whom".into(),
        tables: [comparisons(evaluation), counts(evaluation)].into_iter().flatten().collect(),
        how: how.clone(),
        ..Block::default()
    });
    blocks.push(ranking(&evaluation.ranking, how.clone())?);
    blocks.push(Block {
        title: "Where".into(),
        notes: too_few(evaluation),
        tables: [parts(evaluation), by_judge(evaluation)].into_iter().flatten().collect(),
        how,
        ..Block::default()
    });
    blocks.retain(|block| !block.is_empty());
    Ok(Section { id: "evaluation", title: "Evaluation", blocks })
}

fn notes(evaluation: &Evaluation) -> Vec<String> {
    let mut notes = vec![format!(
        "{}, {} each; judged blind by {}. Small print under a number is its 95\u{202f}% interval over prompts.",
        plural(evaluation.prompts, "held-out prompt"),
        plural(evaluation.samples_per_prompt, "response"),
        if evaluation.judges.is_empty() { "no judge".into() } else { evaluation.judges.join(", ") },
    )];
    if !evaluation.judges_unseen.is_empty() {
        notes.push(format!("Training never used {}.", evaluation.judges_unseen.join(", ")));
    }
    notes.extend(evaluation.sample_size.as_ref().map(|size| size.sentence.clone()));
    notes.retain(|note| !note.is_empty());
    notes
}

/// One row a measure, one column a policy: on a phone there is room for three policies, not for nine measures.
fn policies(evaluation: &Evaluation) -> Table {
    type Read = fn(&PolicyRow) -> Option<Estimate>;
    const ROWS: [(&str, &str, Read, Unit); 10] = [
        ("Win rate against baseline", "win_rate", |p| p.win_rate, Unit::Share),
        ("Win rate against the first baseline", "win_rate_origin", |p| p.win_rate_origin, Unit::Share),
        ("Reward", "reward", |p| p.reward, Unit::Plain),
        ("Reward, change", "reward_difference", |p| p.reward_difference, Unit::Difference),
        ("KL to reference, nats a response", "kl", |p| p.kl, Unit::Plain),
        ("KL to the first baseline", "kl_origin", |p| p.kl_origin, Unit::Plain),
        ("Length, tokens", "length", |p| p.length, Unit::Plain),
        ("Ended properly", "ended", |p| p.ended, Unit::Share),
        ("Sentiment (VADER)", "sentiment", |p| p.sentiment, Unit::Plain),
        ("Sentiment, change", "sentiment_difference", |p| p.sentiment_difference, Unit::Difference),
    ];
    let mut head = vec![String::new()];
    head.extend(evaluation.policies.iter().map(|p| policy_name(&p.policy)));
    let mut rows = Vec::new();
    for (label, field, read, unit) in ROWS {
        let cells: Vec<Option<Estimate>> = evaluation.policies.iter().map(read).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![Cell::with(label, field)];
        row.extend(cells.iter().map(|estimate| Cell::estimate(estimate.as_ref(), unit)));
        rows.push(row);
    }
    if evaluation.policies.iter().any(|p| p.outcomes.is_some()) {
        let mut row = vec![Cell::with("Wins / ties / losses", "outcomes")];
        row.extend(evaluation.policies.iter().map(|p| Cell::of(outcomes(p.outcomes))));
        rows.insert(1.min(rows.len()), row);
    }
    Table { label: "Policies".into(), head, numbers_from: 1, rows }
}

fn outcomes(outcomes: Option<(u64, u64, u64)>) -> String {
    outcomes.map_or("–".into(), |(wins, ties, losses)| format!("{wins} / {ties} / {losses}"))
}

fn comparisons(evaluation: &Evaluation) -> Option<Table> {
    let head = ["Policy", "Against", "Shown", "Win rate", "At equal length", "People would say"];
    let mut table = Table::new("Comparisons", &head, 3);
    table.rows = evaluation.comparisons.iter().map(comparison).collect();
    table.filled()
}

fn comparison(it: &Comparison) -> Vec<Cell> {
    let (tone, shown) = match it.conclusion.finding {
        Shown::Nothing => (Tone::Plain, "nothing compared"),
        Shown::Better => (Tone::Good, "better"),
        Shown::Worse => (Tone::Bad, "worse"),
        Shown::Same => (Tone::Plain, "the same"),
        Shown::Open => (Tone::Unclear, "not enough prompts to tell"),
    };
    let people = match &it.people {
        None => Cell::of("–"),
        Some(people) => match &people.win_rate {
            Some(rate) => Cell::estimate(Some(rate), Unit::Share),
            None => {
                Cell::with("–", format!("needs {ENOUGH_LABELS} prompts, {} more", count(people.more_needed)))
            }
        },
    };
    vec![
        Cell::of(policy_name(&it.policy)),
        Cell::of(policy_name(&it.other)),
        Cell::with(shown, &it.conclusion.sentence).toned(tone),
        Cell::estimate(it.win_rate.as_ref(), Unit::Share),
        Cell::estimate(it.length_controlled.as_ref(), Unit::Share),
        people,
    ]
}

/// What the comparisons rest on.
fn counts(evaluation: &Evaluation) -> Option<Table> {
    let head =
        ["Policy", "Against", "Wins / ties / losses", "No verdict", "Sign test p", "The longer one wins"];
    let mut table = Table::new("What they rest on", &head, 2);
    let row = |it: &Comparison| {
        vec![
            Cell::of(policy_name(&it.policy)),
            Cell::of(policy_name(&it.other)),
            Cell::of(outcomes(it.outcomes)),
            Cell::of(count(it.missing)),
            Cell::of(it.p_value.map_or("–".into(), number)),
            Cell::estimate(it.longer_wins.as_ref(), Unit::Share),
        ]
    };
    table.rows = evaluation.comparisons.iter().map(row).collect();
    table.filled()
}

fn ranking(ranking: &[RankedPolicy], how: How) -> Result<Block> {
    if ranking.is_empty() {
        return Ok(Block::default());
    }
    let rows: Vec<(String, Estimate)> =
        ranking.iter().map(|it| (policy_name(&it.policy), it.strength)).collect();
    let words: Vec<String> =
        rows.iter().map(|(name, it)| format!("{name} {}", Unit::Difference.with_interval(it))).collect();
    let title = "Strength";
    let mut table = Table::new("Ranking", &["Policy", "Rank", "Strength", "Beats another"], 1);
    table.rows = ranking
        .iter()
        .map(|it| {
            vec![
                Cell::of(policy_name(&it.policy)),
                // A rank is a whole number, and so are its ends.
                Cell::with(
                    count(it.rank.value.round() as u64),
                    it.rank.interval().map_or(String::new(), |(low, high)| {
                        format!("{} to {}", count(low.round() as u64), count(high.round() as u64))
                    }),
                ),
                Cell::estimate(Some(&it.strength), Unit::Difference),
                Cell::estimate(Some(&it.win_rate), Unit::Share),
            ]
        })
        .collect();
    Ok(Block {
        title: "Ranking".into(),
        notes: vec![
            "Bradley-Terry strengths, their mean 0; policies whose intervals overlap may change places."
                .into(),
        ],
        figures: vec![Figure {
            title: title.into(),
            svg: chart::intervals(&format!("{title}: {}", words.join("; ")), &rows, 0.0, Unit::Difference)?,
            legend: Vec::new(),
            source: "ranking, evaluation.json".into(),
        }],
        tables: vec![table],
        how,
        ..Block::default()
    })
}

fn parts(evaluation: &Evaluation) -> Option<Table> {
    let mut table = Table::new("By tag and criterion", &["On", "Policy", "Against", "Win rate", "n"], 3);
    for it in &evaluation.comparisons {
        for (kind, parts) in [("tag", &it.by_tag), ("criterion", &it.by_criterion)] {
            for part in parts {
                let rate = Cell::estimate(Some(&part.win_rate), Unit::Share);
                table.rows.push(vec![
                    Cell::with(&part.name, kind),
                    Cell::of(policy_name(&it.policy)),
                    Cell::of(policy_name(&it.other)),
                    if part.win_rate.is_below(0.5) { rate.toned(Tone::Bad) } else { rate },
                    Cell::of(part.win_rate.n.map_or("–".into(), count)),
                ]);
            }
        }
    }
    table.filled()
}

fn by_judge(evaluation: &Evaluation) -> Option<Table> {
    let head = ["Judge", "Used in training", "Policy", "Against", "Win rate", "Longer wins"];
    let mut table = Table::new("By each judge alone", &head, 4);
    for it in &evaluation.comparisons {
        for judge in &it.by_judge {
            table.rows.push(vec![
                Cell::of(&judge.judge),
                Cell::of(if judge.used_in_training { "yes" } else { "no" }),
                Cell::of(policy_name(&it.policy)),
                Cell::of(policy_name(&it.other)),
                Cell::estimate(judge.win_rate.as_ref(), Unit::Share),
                Cell::estimate(judge.longer_wins.as_ref(), Unit::Share),
            ]);
        }
    }
    table.filled()
}

fn too_few(evaluation: &Evaluation) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    for (tag, n) in evaluation.comparisons.iter().flat_map(|it| &it.tags_too_few) {
        let words = format!("“{tag}” ({})", count(*n));
        if !tags.contains(&words) {
            tags.push(words);
        }
    }
    match tags.is_empty() {
        true => Vec::new(),
        false => vec![format!(
            "Below {ENOUGH_OF_A_TAG} comparisons, and so without a rate of their own: {}.",
            tags.join(", ")
        )],
    }
}
