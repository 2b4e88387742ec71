//! How far the judges can be trusted here: what people say, the probe set, position, known-bad responses, the audit.

use super::block::{Block, Cell, Fact, Finding, How, Section, Table, Tone};
use super::data::{Estimate, JudgeSummary, ReportData};
use super::format::{Unit, count, dollars, number, percent, plural};
use super::{audit, labels};
use crate::agreement::TOGETHER;
use crate::review::agreement::{Agreement, Row};
use anyhow::Result;

/// The section.
pub fn section(data: &ReportData) -> Result<Section> {
    let mut blocks = vec![people(data)];
    blocks.extend(audit::blocks(data));
    for judge in &data.judges {
        blocks.push(of_judge(judge, data)?);
    }
    blocks.push(labels::block(data)?);
    Ok(Section { id: "trust", title: "How far the judges can be trusted", blocks })
}

/// The best single piece of evidence, in a sentence.
pub fn sentence(data: &ReportData) -> Finding {
    let unclear = |words: String| Finding::new(Tone::Unclear, "look", words);
    if let Some((row, random)) = data.agreement.as_ref().and_then(best_row) {
        let estimate = row.agreement.map(|agreement| Estimate::of(agreement, row.decisive));
        let Some(estimate) = estimate else {
            return unclear(format!(
                "People judged {}: too few prompts to say how far judges agree with them.",
                plural(row.n as u64, "pair")
            ));
        };
        let with_people = data
            .agreement
            .as_ref()
            .and_then(|found| found.people.first())
            .and_then(|row| Some((row, row.agreement?)))
            .map(|(row, agreement)| {
                let estimate = Estimate::of(agreement, row.decisive);
                format!(
                    "; {} and {} agree with each other on {}",
                    row.who,
                    row.with,
                    Unit::Share.value(&estimate)
                )
            })
            .unwrap_or_default();
        let sample = if random { "drawn at random" } else { "not drawn at random, many for being hard" };
        let better = estimate.is_above(0.5);
        let words = format!(
            "Judges and people chose the same on {} of {} ({sample}){}{with_people}.",
            Unit::Share.with_interval(&estimate),
            plural(row.decisive as u64, "pair"),
            if better { "" } else { ", which is not shown to be better than chance" },
        );
        return if better { Finding::new(Tone::Plain, "", words) } else { unclear(words) };
    }
    let probe = data.judges.iter().filter_map(|judge| Some((judge, judge.probe?))).next();
    match probe {
        Some((judge, probe)) => {
            let words = format!(
                "No person has checked the judges here. {} was right on {} of the probe set.",
                judge.name,
                Unit::Share.with_interval(&probe)
            );
            unclear(if probe.is_above(0.5) {
                words
            } else {
                format!("{words} That is not shown to be better than chance.")
            })
        }
        None => {
            unclear("Nobody has checked the judges: there are no labels of people and no probe set.".into())
        }
    }
}

/// All judges together against people: on the random audit, else on everything, and which it is; with an interval where one has it.
fn best_row(found: &Agreement) -> Option<(&Row, bool)> {
    let rows = found.audit.iter().map(|row| (row, true)).chain(found.all.iter().map(|row| (row, false)));
    let together: Vec<(&Row, bool)> = rows.filter(|(row, _)| row.who == TOGETHER).collect();
    let told = together.iter().find(|(row, _)| row.agreement.is_some());
    told.or(together.first()).copied()
}

fn people(data: &ReportData) -> Block {
    let arguments = &data.run.config_path;
    let Some(found) = &data.agreement else {
        return Block::missing(
            "Judges and people",
            "No person has judged any pair of this run, so nothing here says what people would have preferred.",
            format!("rlaif review {arguments}"),
        );
    };
    let tables = [
        ("Judges and people, pairs drawn at random", &found.audit),
        ("Judges and people, all pairs that people judged", &found.all),
        ("People with each other", &found.people),
    ];
    let mut block = Block {
        title: "Judges and people".into(),
        notes: vec![
            "Shares are of pairs on which both decide; Cohen’s kappa counts ties as a third choice; intervals resample prompts. \
             Pairs drawn at random speak for all pairs; of the others many were shown to people for being hard."
                .into(),
        ],
        tables: tables.into_iter().filter_map(|(label, rows)| agreement_table(label, rows)).collect(),
        how: How::of("review", arguments, "human_verdicts and verdicts in rlaif.db"),
        ..Block::default()
    };
    if found.audit.is_empty() {
        block.notes.push(
            "None of the pairs that were drawn at random has been judged yet, so there is no figure for the pairs as a whole: \
             judge the queue “Random audit” first."
                .into(),
        );
    }
    if let Some((share, n)) = found.known_bad {
        let estimate = Estimate::of(share, n as usize);
        block.facts.push(Fact::estimate(
            "People preferred the known-bad response",
            &estimate,
            Unit::Share,
            "pair",
        ));
    }
    block
}

fn agreement_table(label: &str, rows: &[Row]) -> Option<Table> {
    let mut table =
        Table::new(label, &["Who", "With", "Pairs", "Both decide", "Choose the same", "Kappa"], 2);
    let too_few = || Cell::with("too few", "");
    table.rows = rows
        .iter()
        .map(|row| {
            let estimate = |interval: Option<rlaif_core::stats::Interval>, unit| match interval {
                Some(interval) => Cell::estimate(Some(&Estimate::of(interval, row.n)), unit),
                None => too_few(),
            };
            vec![
                Cell::of(&row.who),
                Cell::of(&row.with),
                Cell::of(count(row.n as u64)),
                Cell::of(count(row.decisive as u64)),
                estimate(row.agreement, Unit::Share),
                estimate(row.kappa, Unit::Plain),
            ]
        })
        .collect();
    table.filled()
}

fn of_judge(judge: &JudgeSummary, data: &ReportData) -> Result<Block> {
    let mut facts = vec![probe(judge)];
    if let Some(tally) = &judge.tripwires {
        let share = tally.win_rate();
        let estimate = Estimate::new(share.share, share.low, share.high, tally.n() as u64);
        let interval = Unit::Share.interval(&estimate).unwrap_or_default();
        facts.push(Fact::new(
            "Known-bad responses that won",
            format!("{} of {}", tally.wins, tally.n()),
            format!("95\u{202f}% CI {interval}; they went among the pairs and became no preferences"),
        ));
    }
    match &judge.position {
        Some(position) => {
            let fact = |label, estimate: Estimate, note: String| {
                let interval = Unit::Share.interval(&estimate).unwrap_or_default();
                Fact::new(label, percent(estimate.value), format!("95\u{202f}% CI {interval}{note}"))
            };
            let pairs = position.pairs as usize;
            let note = format!(", {}; 0\u{202f}% without bias", plural(position.pairs, "pair"));
            facts.push(fact(
                "Same position picked in both orders",
                Estimate::of(position.same_position, pairs),
                note,
            ));
            if let Some(first) = position.first_picked {
                let note = format!(", McNemar p = {}; 50\u{202f}% without bias", number(position.p_value));
                facts.push(fact("First one picked", Estimate::of(first, pairs), note));
            }
        }
        None if judge.protocol == "contrastive" => facts.push(Fact::new(
            "Position bias",
            "none possible".into(),
            "each response is scored alone, so there is no order".into(),
        )),
        None => {}
    }
    facts.push(Fact::new("Cost", judge.micro_usd.map_or_else(|| "unknown".into(), dollars), String::new()));
    // With one judge its fates are the run's fates, which stand below.
    let several = data.judges.len() > 1;
    let figures = if several { labels::fates("By this judge alone", &judge.fates)? } else { None };
    let mut notes =
        vec![format!("{} judge, {} protocol, model {}.", judge.kind, judge.protocol, judge.model)];
    notes.extend((!judge.rubric.is_empty()).then(|| judge.rubric.clone()));
    Ok(Block {
        title: format!("Judge {}", judge.name),
        notes,
        facts,
        figures: figures.into_iter().collect(),
        how: How::of(
            "label",
            &data.run.config_path,
            "stages.label.numbers, manifest.json; verdicts and replies in rlaif.db",
        ),
        ..Block::default()
    })
}

fn probe(judge: &JudgeSummary) -> Fact {
    let label = "Right on the probe set";
    match &judge.probe {
        Some(probe) => {
            let fact = Fact::estimate(label, probe, Unit::Share, "labelled pair");
            let verdict = if probe.is_above(0.5) { "" } else { "; not shown to be better than chance" };
            Fact { note: fact.note + verdict, ..fact }
        }
        None => Fact::new(
            label,
            "not measured".into(),
            "set `label.probe` to a file of pairs whose better side you know".into(),
        ),
    }
}
