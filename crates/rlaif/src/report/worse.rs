//! What got worse, what cannot be told, and what was looked at and is as before. The limits are ours, of no source, where none is named.

use super::block::{Block, Cell, Finding, How, Section, Table, Tone};
use super::comparison::{Finding as Shown, Regression};
use super::data::{Estimate, PolicyRow, ReportData, WatchSummary};
use super::evidence::{Change, Measure};
use super::format::{Unit, count, number, percent, plural};
use super::headline::policy_name;

/// Responses above this many times the baseline's length are an alarm, as in `rlaif iterate`.
const LENGTH_ALARM: f64 = 1.5;

/// distinct-2 below this share of the baseline's is an alarm, as in `rlaif iterate`.
const DISTINCT_ALARM: f64 = 2.0 / 3.0;

/// A response that answers nothing may beat the preferred one this often.
const TRICK_ALARM: f64 = 0.05;

/// The section.
pub fn section(data: &ReportData) -> Section {
    let arguments = &data.run.config_path;
    let found = findings(data);
    let mut blocks = Vec::new();
    if data.evaluation.is_none() {
        blocks.push(Block::missing(
            "",
            "No policy has been measured on held-out prompts yet, so nothing says whether anything got worse there.",
            format!("rlaif evaluate {arguments}"),
        ));
    }
    blocks.push(Block {
        how: How::of("evaluate", arguments, "evaluation.json, manifest.json and the responses in rlaif.db"),
        findings: found,
        tables: changes(data).into_iter().collect(),
        notes: if data.changes.is_empty() {
            Vec::new()
        } else {
            vec![
                "Changes are of the same held-out prompts, with 95\u{202f}% intervals over prompts. Longer is not worse by itself; \
                 it is what judges fall for."
                    .into(),
            ]
        },
        ..Block::default()
    });
    let regression = data.evaluation.as_ref().and_then(|evaluation| evaluation.regression.as_ref());
    blocks.extend(regression.map(|regression| regressions(regression, arguments)));
    Section {
        id: "worse",
        title: "What got worse",
        blocks: blocks.into_iter().filter(|it| !it.is_empty()).collect(),
    }
}

/// The section in a sentence.
pub fn sentence(data: &ReportData) -> Finding {
    let found = findings(data);
    let bad: Vec<&Finding> = found.iter().filter(|it| it.tone == Tone::Bad).collect();
    let unclear = found.iter().filter(|it| it.tone == Tone::Unclear).count();
    match (bad.as_slice(), unclear) {
        ([], _) if data.evaluation.is_none() => {
            Finding::new(Tone::Unclear, "look", "No policy has been measured on held-out prompts yet.".into())
        }
        ([], 0) => Finding::new(
            Tone::Good,
            "none found",
            "Nothing that was looked at is shown to have got worse.".into(),
        ),
        ([], n) => Finding::new(
            Tone::Unclear,
            "look",
            format!("Nothing is shown to have got worse; {} to look at.", plural(n as u64, "thing")),
        ),
        ([only], _) => Finding::new(Tone::Bad, "worse", only.words.clone()),
        ([first, rest @ ..], _) => {
            Finding::new(Tone::Bad, "worse", format!("{} And {} more.", first.words, rest.len()))
        }
    }
}

/// Everything that was looked at, the worst first.
pub fn findings(data: &ReportData) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(evaluation) = &data.evaluation {
        for policy in evaluation.policies.iter().filter(|row| row.policy != "baseline") {
            preferred(policy, data, &mut found);
            kl(policy, data, &mut found);
        }
        for comparison in &evaluation.comparisons {
            let name = policy_name(&comparison.policy);
            let other = policy_name(&comparison.other);
            for (what, parts) in
                [("prompts tagged", &comparison.by_tag), ("the criterion", &comparison.by_criterion)]
            {
                for part in parts.iter().filter(|part| part.win_rate.is_below(0.5)) {
                    let rate = Unit::Share.with_interval(&part.win_rate);
                    found.push(bad(format!("{name} loses to {other} on {what} “{}”: {rate}.", part.name)));
                }
            }
            if comparison.length_controlled.is_some_and(|rate| !rate.is_above(0.5))
                && comparison.conclusion.finding == Shown::Better
            {
                let rate = comparison
                    .length_controlled
                    .map(|rate| Unit::Share.with_interval(&rate))
                    .unwrap_or_default();
                found.push(look(format!(
                    "{name} beats {other}, but at equal length that is not shown: {rate}. Part of the win may be length."
                )));
            }
        }
        if let Some(regression) = &evaluation.regression {
            regressed(regression, &mut found);
        }
    }
    data.changes.iter().for_each(|change| found.extend(changed(change)));
    reward(data, &mut found);
    for (stage, watch) in watches(data) {
        if watch.stopped {
            found.push(look(format!(
                "Training of {stage} was stopped because the held-out score had fallen; step {} is kept.",
                count(watch.kept_step)
            )));
        }
    }
    found.extend(data.drift_alarms.iter().map(|alarm| bad(format!("Over the rounds: {alarm}."))));
    found.sort_by_key(|finding| finding.tone);
    found
}

fn bad(words: String) -> Finding {
    Finding::new(Tone::Bad, "worse", words)
}

fn look(words: String) -> Finding {
    Finding::new(Tone::Unclear, "look", words)
}

fn fine(words: String) -> Finding {
    Finding::new(Tone::Good, "as before", words)
}

/// A reward that rises while judges see nothing of it is what over-optimisation looks like (Gao et al. 2023).
fn preferred(policy: &PolicyRow, data: &ReportData, found: &mut Vec<Finding>) {
    let name = policy_name(&policy.policy);
    if let Some(rate) = policy.win_rate.filter(|rate| rate.is_below(0.5)) {
        found.push(bad(format!(
            "Judges prefer the baseline to {name}: {}.",
            Unit::Share.with_interval(&rate)
        )));
    }
    if let (Some(reward), Some(rate)) = (policy.reward_difference, policy.win_rate)
        && reward.is_above(0.0)
        && !rate.is_above(0.5)
    {
        let (reward, seen) = (Unit::Plain.with_interval(&reward), Unit::Share.with_interval(&rate));
        found.push(match rate.is_below(0.5) {
            true => bad(format!(
                "{name}’s reward rose by {reward}, and judges like it less: they preferred it {seen} of the time. That is how a \
                 reward model is gamed."
            )),
            false => look(format!(
                "{name}’s reward rose by {reward}, but judges are not shown to see it: they preferred it {seen} of the time. A \
                 reward model that is being gamed looks like that."
            )),
        });
    }
    if let Some(sentiment) = policy.sentiment_difference.filter(|it| it.is_below(0.0)) {
        let words = format!(
            "Answers of {name} got colder by the lexicon VADER: {}.",
            Unit::Difference.with_interval(&sentiment)
        );
        found.push(look(words));
    }
    // Where nothing in the evaluation speaks for the policy, the lack of alarms above says little.
    if data.changes.is_empty() && policy.length.is_none() {
        found.push(look(format!("Length and repetition of {name}’s answers were not measured.")));
    }
}

fn kl(policy: &PolicyRow, data: &ReportData, found: &mut Vec<Finding>) {
    let Some(kl) = policy.kl else { return };
    let name = policy_name(&policy.policy);
    let size = Unit::Plain.with_interval(&kl);
    match data.ppo.as_ref().and_then(|ppo| ppo.kl_budget).filter(|_| policy.policy == "ppo") {
        Some(budget) if kl.value > budget => found.push(bad(format!(
            "{name} is further from its reference than allowed: KL {size} nats a response, budget {}.",
            number(budget)
        ))),
        Some(budget) => {
            found.push(fine(format!(
                "KL of {name} is {size} nats a response, within its budget of {}.",
                number(budget)
            )));
        }
        None => {
            found.push(Finding::new(
                Tone::Plain,
                "KL",
                format!("KL of {name} is {size} nats a response; no budget was set."),
            ));
        }
    }
}

fn changed(change: &Change) -> Option<Finding> {
    let name = policy_name(&change.policy);
    let is = |below: bool| {
        change.difference.is_some_and(|it| if below { it.is_below(0.0) } else { it.is_above(0.0) })
    };
    let from_to = |say: fn(f64) -> String| format!("from {} to {}", say(change.before), say(change.after));
    Some(match change.measure {
        Measure::Length if change.after > LENGTH_ALARM * change.before && is(false) => bad(format!(
            "Answers of {name} are {} times as long: {} tokens.",
            number(change.after / change.before),
            from_to(number)
        )),
        Measure::Length if is(false) => {
            look(format!("Answers of {name} got longer: {} tokens.", from_to(number)))
        }
        Measure::Length if is(true) => {
            look(format!("Answers of {name} got shorter: {} tokens.", from_to(number)))
        }
        Measure::Length => {
            fine(format!("No change in length is shown for {name}: {} tokens.", from_to(number)))
        }
        Measure::Ended if is(true) => {
            bad(format!("Fewer answers of {name} end properly: {}.", from_to(percent)))
        }
        Measure::Ended => {
            fine(format!("Answers of {name} are not shown to end properly any less: {}.", from_to(percent)))
        }
        Measure::Repeated4 if is(false) => {
            bad(format!("Answers of {name} repeat themselves more: {} of 4-grams.", from_to(percent)))
        }
        Measure::Repeated4 => {
            fine(format!("No more repetition is shown for {name}: {} of 4-grams.", from_to(percent)))
        }
        Measure::Distinct2 if change.after < DISTINCT_ALARM * change.before => {
            bad(format!("Answers of {name} are less varied: distinct 2-grams {}.", from_to(percent)))
        }
        Measure::Distinct2 => return None,
    })
}

fn reward(data: &ReportData, found: &mut Vec<Finding>) {
    let Some(summary) = &data.reward else { return };
    match (summary.accuracy, summary.longer_wins) {
        (Some(accuracy), _) if !accuracy.is_above(0.5) => found.push(look(format!(
            "The reward model is not shown to be better than chance on held-out pairs: {}.",
            Unit::Share.with_interval(&accuracy)
        ))),
        (Some(accuracy), Some(longer)) if accuracy.value <= longer.value => found.push(look(format!(
            "The reward model is right on {} of held-out pairs; preferring the longer answer would be on {}.",
            percent(accuracy.value),
            percent(longer.value)
        ))),
        _ => {}
    }
    for trick in summary.resistance.iter().filter(|trick| trick.wins.is_above(TRICK_ALARM)) {
        found.push(bad(format!(
            "The reward model can be gamed: a response that answers nothing ({}) beats the preferred one on {} of prompts.",
            trick.response,
            Unit::Share.with_interval(&trick.wins)
        )));
    }
}

fn watches(data: &ReportData) -> Vec<(&'static str, &WatchSummary)> {
    let all = [
        ("sft", data.sft.as_ref().and_then(|it| it.watch.as_ref())),
        ("the reward model", data.reward.as_ref().and_then(|it| it.watch.as_ref())),
        ("DPO", data.dpo.as_ref().and_then(|it| it.watch.as_ref())),
    ];
    all.into_iter().filter_map(|(name, watch)| Some((name, watch?))).collect()
}

fn regressed(regression: &Regression, found: &mut Vec<Finding>) {
    for row in regression.policies.iter().filter(|row| row.policy != "baseline") {
        let name = policy_name(&row.policy);
        let losses = row.judged.map_or(0, |(_, _, losses)| losses);
        let worse = row.worse + losses;
        let words = format!(
            "{name} fails {} of the regression set that the baseline passed{}.",
            plural(worse, "check"),
            if row.over_limit { ", more than allowed" } else { "" }
        );
        found.push(match (row.over_limit, worse) {
            (true, _) => bad(words),
            (false, 0) => fine(words),
            (false, _) => look(words),
        });
    }
}

fn changes(data: &ReportData) -> Option<Table> {
    let head = ["Measure", "Policy", "Baseline", "Policy’s", "Change"];
    let mut table = Table::new("What changed on held-out prompts", &head, 2);
    table.rows = data
        .changes
        .iter()
        .map(|change| {
            let unit = match change.measure {
                Measure::Length => Unit::Plain,
                Measure::Ended | Measure::Repeated4 | Measure::Distinct2 => Unit::Share,
            };
            let mean = |value| Cell::of(unit.value(&Estimate::point(value)));
            let difference = match (change.difference, unit) {
                (Some(difference), Unit::Share) => Cell::estimate(Some(&difference), Unit::Points),
                (difference, _) => Cell::estimate(difference.as_ref(), Unit::Difference),
            };
            let tone = changed(change).map_or(Tone::Plain, |finding| finding.tone);
            vec![
                Cell::of(change.measure.name()),
                Cell::of(policy_name(&change.policy)),
                mean(change.before),
                mean(change.after),
                if tone == Tone::Bad { difference.toned(tone) } else { difference },
            ]
        })
        .collect();
    table.filled()
}

fn regressions(regression: &Regression, arguments: &str) -> Block {
    let head = [
        "Policy",
        "Rules passed",
        "Newly failed",
        "Newly passed",
        "Sign test p",
        "Judged: won / tied / lost",
        "No verdict",
    ];
    let mut table = Table::new("The regression set", &head, 1);
    table.rows = regression
        .policies
        .iter()
        .map(|row| {
            let worse = Cell::of(count(row.worse));
            vec![
                Cell::of(policy_name(&row.policy)),
                Cell::estimate(row.passed.as_ref(), Unit::Share),
                if row.over_limit { worse.toned(Tone::Bad) } else { worse },
                Cell::of(count(row.better)),
                Cell::of(row.p_value.map_or("–".into(), number)),
                Cell::of(
                    row.judged.map_or("–".into(), |(won, tied, lost)| format!("{won} / {tied} / {lost}")),
                ),
                Cell::of(count(row.missing)),
            ]
        })
        .collect();
    let mut worse = Table::new(
        "Checks that the baseline passed and a policy fails",
        &["Check", "Policy", "Prompt", "Baseline", "Now"],
        usize::MAX,
    );
    worse.rows = regression
        .worse
        .iter()
        .map(|it| {
            vec![
                Cell::with(&it.id, &it.check),
                Cell::of(policy_name(&it.policy)),
                Cell::of(&it.prompt),
                Cell::of(&it.baseline),
                Cell::of(&it.answer),
            ]
        })
        .collect();
    let allowed = regression
        .max_regressions
        .map_or(String::new(), |most| format!(" At most {} may get worse.", count(most)));
    Block {
        title: "Prompts that must not get worse".into(),
        notes: vec![format!(
            "{} in {}: {} decided by rules, {} by judges.{allowed}",
            plural(regression.rules + regression.judged, "check"),
            regression.file,
            count(regression.rules),
            count(regression.judged)
        )],
        tables: [table, worse].into_iter().filter_map(Table::filled).collect(),
        how: How::of("evaluate", arguments, "regression, evaluation.json"),
        ..Block::default()
    }
}
