//! Which numbers of a run can be held against another's. The reward model's scores cannot: every run has another.

use super::data::{Contrast, MeasureRow, MeasureUnit, Shown};
use crate::agreement::TOGETHER;
use crate::report::data::{Estimate, Evaluation, PolicyRow, ReportData};
use crate::report::evidence::Measure;
use rlaif_core::stats::{Interval, two_shares};

type OfRun = fn(&ReportData) -> Option<Estimate>;

/// Of the run itself.
const OF_RUN: [(&str, MeasureUnit, OfRun); 3] = [
    ("Judges and people choose the same", MeasureUnit::Share, with_people),
    ("Judge right on the probe set", MeasureUnit::Share, |data| data.judges.first()?.probe),
    ("Reward model right on held-out pairs", MeasureUnit::Share, |data| data.reward.as_ref()?.accuracy),
];

type OfPolicy = fn(&PolicyRow, &Evaluation) -> Option<Estimate>;

/// Of each policy.
const OF_POLICY: [(&str, MeasureUnit, OfPolicy); 5] = [
    ("Win rate against baseline", MeasureUnit::Share, |row, _| row.win_rate),
    ("Win rate at equal length", MeasureUnit::Share, |row, evaluation| {
        evaluation.over_baseline(&row.policy)?.length_controlled
    }),
    ("KL to reference, nats a response", MeasureUnit::Number, |row, _| row.kl),
    ("Length, tokens", MeasureUnit::Number, |row, _| row.length),
    ("Ended properly", MeasureUnit::Share, |row, _| row.ended),
];

/// On the random audit; on other pairs the share hangs on how hard they are.
fn with_people(data: &ReportData) -> Option<Estimate> {
    let row = data.agreement.as_ref()?.audit.iter().find(|row| row.who == TOGETHER)?;
    Some(Estimate::of(row.agreement?, row.decisive))
}

/// Every number that at least one run has.
pub fn rows(read: &[ReportData]) -> Vec<MeasureRow> {
    let mut rows: Vec<MeasureRow> = OF_RUN
        .iter()
        .map(|(measure, unit, of)| MeasureRow {
            measure: (*measure).into(),
            policy: String::new(),
            unit: *unit,
            values: read.iter().map(of).collect(),
        })
        .collect();
    for policy in policies(read) {
        for (measure, unit, of) in OF_POLICY {
            let value = |data: &ReportData| {
                let evaluation = data.evaluation.as_ref()?;
                of(evaluation.policies.iter().find(|row| row.policy == policy)?, evaluation)
            };
            rows.push(MeasureRow {
                measure: measure.into(),
                policy: policy.clone(),
                unit,
                values: read.iter().map(value).collect(),
            });
        }
        let repeated = |data: &ReportData| {
            let of =
                data.changes.iter().find(|it| it.policy == policy && it.measure == Measure::Repeated4)?;
            Some(Estimate::point(of.after))
        };
        rows.push(MeasureRow {
            measure: Measure::Repeated4.name().into(),
            policy: policy.clone(),
            unit: MeasureUnit::Share,
            values: read.iter().map(repeated).collect(),
        });
    }
    rows.retain(|row| row.values.iter().any(Option::is_some));
    rows
}

/// Tuned policies of any of the runs, in the order in which they come.
fn policies(read: &[ReportData]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for row in read.iter().filter_map(|data| data.evaluation.as_ref()).flat_map(|it| &it.policies) {
        if row.policy != "baseline" && !names.contains(&row.policy) {
            names.push(row.policy.clone());
        }
    }
    names
}

/// Each number of each run against the first run's.
pub fn contrasts(read: &[ReportData]) -> Vec<Contrast> {
    let mut contrasts = Vec::new();
    for row in rows(read) {
        let Some((Some(first), others)) = row.values.split_first() else { continue };
        for (place, other) in others.iter().enumerate() {
            let Some(other) = other else { continue };
            let difference = difference(other, first);
            let shown = match (difference.is_above(0.0), difference.is_below(0.0)) {
                (true, _) => Shown::Higher,
                (_, true) => Shown::Lower,
                (false, false) => Shown::No,
            };
            contrasts.push(Contrast {
                measure: row.measure.clone(),
                policy: row.policy.clone(),
                unit: row.unit,
                run: place + 1,
                difference,
                shown,
            });
        }
    }
    contrasts
}

/// This less that, as if the two runs had nothing in common.
fn difference(this: &Estimate, that: &Estimate) -> Estimate {
    let interval = |it: &Estimate| {
        let (low, high) = it.interval()?;
        Some(Interval { estimate: it.value, low, high })
    };
    match interval(this).zip(interval(that)) {
        Some((this, that)) => {
            let interval = two_shares::of_intervals(this, that);
            Estimate { n: None, ..Estimate::of(interval, 0) }
        }
        None => Estimate::point(this.value - that.value),
    }
}
