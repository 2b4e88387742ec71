//! What the rounds of `rlaif iterate` made of the policy: `drift.json`, its table, and alarms.
//!
//! Every number is of responses to the held-out prompts, which are the same in all rounds, or of a round's labels. A row compares with the
//! baseline of the first round where that can be done; what is said by a round's own reward model is comparable within the round only.

use crate::context::Context;
use crate::people;
use crate::report::data::{Estimate, Evaluation, PolicyRow};
use anyhow::{Context as _, Result};
use rlaif_core::MicroUsd;
use rlaif_core::records::{Fate, Preference, Response, Split};
use rlaif_core::stats::diversity::{distinct, repeated};
use rlaif_core::stats::interval::cluster_share;
use rlaif_store::store::{BASELINE, ORIGIN};
use serde::Serialize;
use std::collections::BTreeMap;

/// n of the repeated n-grams, as Welleck et al. 2020 report it.
const REPEATED: usize = 4;

/// Responses above this many times the baseline's length raise an alarm; our choice, of no source.
const LENGTH_ALARM: f64 = 1.5;

/// distinct-2 below this share of the baseline's raises an alarm; our choice, of no source.
const DISTINCT_ALARM: f64 = 2.0 / 3.0;

/// `drift.json`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Drift {
    /// `ppo` or `dpo`: the policy from which rounds go on.
    pub tuned: String,
    /// Held-out prompts.
    pub prompts: u64,
    /// Responses a prompt and policy.
    pub samples_per_prompt: u64,
    /// Judges of the comparisons.
    pub judges: Vec<String>,
    /// These judges also made the training labels, so that a win rate may be what was learnt of them.
    pub judges_made_labels: bool,
    /// The first round's baseline, then what each round tuned.
    pub rows: Vec<DriftRow>,
    /// What drifts, a line each.
    pub alarms: Vec<String>,
}

/// A policy on the held-out prompts. Intervals are over prompts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DriftRow {
    /// 0 for the baseline.
    pub round: usize,
    /// The round's run folder; the first round's for the baseline.
    pub folder: String,
    /// Share of comparisons with the first round's baseline that it won, ties half.
    pub win_rate: Option<Estimate>,
    /// The same if all responses were equally long.
    pub length_controlled: Option<Estimate>,
    /// The same as people would see it, where they have judged enough of these comparisons.
    pub win_rate_of_people: Option<Estimate>,
    /// Prompts of which people have judged such a comparison.
    pub labels_of_people: u64,
    /// Share of the regression set's rules that it passed, with a Wilson interval.
    pub regression: Option<Estimate>,
    /// Checks of that set on which it is worse than what the round started from.
    pub got_worse: u64,
    /// The same against what this round started from.
    pub win_rate_in_round: Option<Estimate>,
    /// Mean reward by this round's reward model; the baseline's is the first round's.
    pub reward: Option<Estimate>,
    /// The same less that of what this round started from.
    pub reward_difference: Option<Estimate>,
    /// KL to the first round's baseline, nats a response.
    pub kl: Option<Estimate>,
    /// KL to what this round started from, nats a response.
    pub kl_in_round: Option<Estimate>,
    /// Tokens of a response.
    pub length: Option<Estimate>,
    /// Share of responses that end their turn.
    pub ended: Option<Estimate>,
    /// Different tokens over all tokens of all responses.
    pub distinct_1: Option<f64>,
    /// Different pairs of neighbouring tokens over all of them.
    pub distinct_2: Option<f64>,
    /// Share of a response's 4-grams that it had said before.
    pub repeated_4: Option<Estimate>,
    /// The labels that the round learnt from; `None` for the baseline.
    pub labels: Option<LabelStatistics>,
    /// What the round's judges cost, known prices only.
    pub known_micro_usd: i64,
    /// Calls of the round whose price is unknown, and which are not in the sum.
    pub calls_of_unknown_price: u64,
}

/// How sure those were who labelled a round: people where they said something, else judges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LabelStatistics {
    /// Pairs that judges or people labelled.
    pub pairs: u64,
    /// Preferences that were learnt from.
    pub kept: u64,
    /// Pairs of which people said what is better.
    pub by_people: u64,
    /// Share of the pairs that were ties.
    pub ties: Option<Estimate>,
    /// Share of the pairs whose verdict changed with the order.
    pub inconsistent: Option<Estimate>,
    /// Mean |p − ½| over the pairs that have a p: ½ where judges are certain, 0 where they see no difference.
    pub decisiveness: Option<Estimate>,
}

impl Drift {
    /// Of no round yet.
    pub fn new(tuned: &str) -> Self {
        Self { tuned: tuned.into(), ..Self::default() }
    }

    /// Reads a finished round from its run folder and ledger; rounds come in order.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn add(&mut self, context: &Context, round: usize) -> Result<()> {
        let path = context.folder.evaluation();
        let reading = || format!("reading `{}`", path.display());
        let text = std::fs::read(&path).with_context(reading)?;
        let evaluation: Evaluation = serde_json::from_slice(&text).with_context(reading)?;
        let folder = context.folder.root().display().to_string();
        let row_of = |name: &str| {
            let row = evaluation.policies.iter().find(|row| row.policy == name);
            row.with_context(|| format!("`{}` has no policy `{name}`", path.display()))
        };
        if round == 1 {
            let spoken = DriftRow::of(context, BASELINE, row_of(BASELINE)?)?.with(&evaluation, BASELINE);
            self.rows.push(DriftRow { folder: folder.clone(), ..spoken });
        }
        let spend = context.wait(context.store.spend())?;
        self.rows.push(DriftRow {
            round,
            folder,
            labels: Some(label_statistics(context)?),
            known_micro_usd: spend.known.0,
            calls_of_unknown_price: spend.unknown_calls,
            ..DriftRow::of(context, &self.tuned, row_of(&self.tuned)?)?.with(&evaluation, &self.tuned)
        });
        self.prompts = evaluation.prompts;
        self.samples_per_prompt = evaluation.samples_per_prompt;
        self.judges = evaluation.judges;
        self.judges_made_labels = evaluation.judges_made_labels;
        self.alarms = alarms(&self.rows);
        Ok(())
    }

    /// For a terminal: a row a policy, then the alarms.
    pub fn table(&self) -> String {
        let head = [
            "round",
            "win %",
            "equal length %",
            "people %",
            "in round %",
            "regression %",
            "reward",
            "KL",
            "in round",
            "tokens",
            "ended %",
            "distinct-1",
            "distinct-2",
            "repeated-4",
            "ties %",
            "order %",
            "|p−½|",
            "cost",
        ];
        let mut lines = vec![head.map(String::from).to_vec()];
        lines.extend(self.rows.iter().map(DriftRow::cells));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut text = format!(
            "drift of `{}` on {} held-out prompts, {} responses each, judged by {}{}\n",
            self.tuned,
            self.prompts,
            self.samples_per_prompt,
            self.judges.join(", "),
            if self.judges_made_labels { ", who also made the labels" } else { "" }
        );
        for line in &lines {
            let cells: Vec<String> =
                line.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            text += &format!("{}\n", cells.join("  "));
        }
        text += "win % and KL: against the first baseline; in round: against what the round started from\n";
        self.alarms.iter().for_each(|alarm| text += &format!("alarm: {alarm}\n"));
        text
    }
}

impl DriftRow {
    /// What was measured on a policy's responses.
    fn of(context: &Context, policy: &str, row: &PolicyRow) -> Result<Self> {
        let responses = context.wait(context.store.responses(policy, Some(Split::Eval)))?;
        let tokens: Vec<&[u32]> = responses.iter().map(|response| response.token_ids.as_slice()).collect();
        Ok(Self {
            // The first round starts from the first baseline.
            win_rate: row.win_rate_origin.or(row.win_rate),
            win_rate_in_round: row.win_rate,
            reward: row.reward,
            reward_difference: row.reward_difference,
            kl: row.kl_origin.or(row.kl),
            kl_in_round: row.kl,
            length: row.length,
            ended: row.ended,
            distinct_1: distinct(&tokens, 1),
            distinct_2: distinct(&tokens, 2),
            repeated_4: mean_by_prompt(
                context,
                responses.iter().filter_map(|response: &Response| {
                    Some((response.prompt_id.as_str(), repeated(&response.token_ids, REPEATED)?))
                }),
            ),
            ..Self::default()
        })
    }

    /// Adds what an evaluation says of a policy beyond its own row. The first round starts from the first baseline, so it has no
    /// comparison with an origin.
    fn with(self, evaluation: &Evaluation, policy: &str) -> Self {
        let over_origin = evaluation.comparisons.iter().find(|it| it.policy == policy && it.other == ORIGIN);
        let over_first = over_origin.or_else(|| evaluation.over_baseline(policy));
        let people = over_first.and_then(|it| it.people.as_ref());
        let regression = evaluation.regression.as_ref();
        let checked = regression.and_then(|set| set.policies.iter().find(|row| row.policy == policy));
        Self {
            length_controlled: over_first.and_then(|it| it.length_controlled),
            win_rate_of_people: people.and_then(|people| people.win_rate),
            labels_of_people: people.map_or(0, |people| people.labels),
            regression: checked.and_then(|row| row.passed),
            got_worse: regression
                .map_or(0, |set| set.worse.iter().filter(|worse| worse.policy == policy).count() as u64),
            ..self
        }
    }

    fn cells(&self) -> Vec<String> {
        let none = || "–".to_string();
        let plain = |value: Option<f64>, digits: usize| match value {
            Some(value) => format!("{value:.digits$}"),
            None => none(),
        };
        let of = |estimate: &Option<Estimate>, scale: f64, digits: usize| {
            plain(estimate.map(|estimate| scale * estimate.value), digits)
        };
        let percent = |estimate: &Option<Estimate>| match estimate
            .and_then(|estimate| Some((estimate.value, estimate.interval()?)))
        {
            Some((value, (low, high))) => {
                format!("{:.0} [{:.0}, {:.0}]", 100.0 * value, 100.0 * low, 100.0 * high)
            }
            None => of(estimate, 100.0, 0),
        };
        let labels = self.labels.unwrap_or_default();
        let cost = match (self.labels, self.calls_of_unknown_price) {
            (None, _) => none(),
            (Some(_), 0) => MicroUsd(self.known_micro_usd).to_string(),
            (Some(_), calls) => format!("{} + {calls} calls", MicroUsd(self.known_micro_usd)),
        };
        vec![
            if self.round == 0 { "baseline".into() } else { self.round.to_string() },
            percent(&self.win_rate),
            percent(&self.length_controlled),
            percent(&self.win_rate_of_people),
            percent(&self.win_rate_in_round),
            of(&self.regression, 100.0, 0),
            of(&self.reward, 1.0, 3),
            of(&self.kl, 1.0, 2),
            of(&self.kl_in_round, 1.0, 2),
            of(&self.length, 1.0, 1),
            of(&self.ended, 100.0, 0),
            plain(self.distinct_1, 3),
            plain(self.distinct_2, 3),
            of(&self.repeated_4, 1.0, 3),
            of(&labels.ties, 100.0, 0),
            of(&labels.inconsistent, 100.0, 0),
            of(&labels.decisiveness, 1.0, 3),
            cost,
        ]
    }
}

fn label_statistics(context: &Context) -> Result<LabelStatistics> {
    let preferences = context.wait(people::standing(&context.store, &context.config))?;
    let share = |fate: Fate| {
        let is = |preference: &Preference| f64::from(u8::from(preference.fate == fate));
        mean_by_prompt(context, preferences.iter().map(|it| (it.prompt_id.as_str(), is(it))))
    };
    let certain = preferences.iter().filter_map(|it| Some((it.prompt_id.as_str(), (it.p? - 0.5).abs())));
    Ok(LabelStatistics {
        pairs: preferences.len() as u64,
        kept: preferences.iter().filter(|preference| preference.fate == Fate::Kept).count() as u64,
        by_people: context.wait(people::preferences(&context.store, &context.config))?.len() as u64,
        ties: share(Fate::Tie),
        inconsistent: share(Fate::Inconsistent),
        decisiveness: mean_by_prompt(context, certain),
    })
}

/// The mean of values within [0, 1] that each name their prompt, with an interval over prompts.
fn mean_by_prompt<K: Ord>(context: &Context, values: impl Iterator<Item = (K, f64)>) -> Option<Estimate> {
    let mut by_prompt: BTreeMap<K, Vec<f64>> = BTreeMap::new();
    values.for_each(|(prompt, value)| by_prompt.entry(prompt).or_default().push(value));
    let clusters: Vec<Vec<f64>> = by_prompt.into_values().collect();
    let n = clusters.iter().map(Vec::len).sum();
    cluster_share(&clusters, context.config.evaluate.bootstrap, context.config.run.seed)
        .map(|interval| Estimate::of(interval, n))
}

/// What drifts, in the order of rounds. The first row is the baseline.
fn alarms(rows: &[DriftRow]) -> Vec<String> {
    let Some((baseline, rounds)) = rows.split_first() else { return Vec::new() };
    let mut alarms = Vec::new();
    // The baseline wins half of the comparisons with itself, by definition.
    let mut best: (usize, Estimate) = (0, Estimate::new(0.5, 0.5, 0.5, 0));
    for row in rounds {
        let round = row.round;
        if let (Some(before), Some(now)) = (baseline.length, row.length)
            && now.value > LENGTH_ALARM * before.value
        {
            alarms.push(format!(
                "round {round}: responses are {:.1} times as long as the baseline's ({:.1} tokens, were {:.1})",
                now.value / before.value,
                now.value,
                before.value
            ));
        }
        if let (Some(before), Some(now)) = (baseline.distinct_2, row.distinct_2)
            && now < DISTINCT_ALARM * before
        {
            alarms.push(format!(
                "round {round}: distinct-2 fell from {before:.3} to {now:.3}: responses repeat themselves or each other"
            ));
        }
        if row.got_worse > 0 {
            alarms.push(format!(
                "round {round}: {} checks of the regression set got worse than where the round started",
                row.got_worse
            ));
        }
        let Some(rate) = row.win_rate else { continue };
        if let Some(controlled) = row.length_controlled
            && rate.is_above(0.5)
            && !controlled.is_above(0.5)
        {
            alarms.push(format!(
                "round {round}: wins {:.0} % against the first baseline, but at equal length {:.0} %, which half is not excluded from: \
                 the judges may like length",
                100.0 * rate.value,
                100.0 * controlled.value
            ));
        }
        if best.1.low.is_some_and(|low| rate.is_below(low)) {
            let (since, was) = match best.0 {
                0 => ("the baseline itself".to_string(), 0.5),
                round => (format!("round {round}"), best.1.value),
            };
            alarms.push(format!(
                "round {round}: wins {:.0} % against the first baseline, {since} {:.0} %; the intervals do not overlap",
                100.0 * rate.value,
                100.0 * was
            ));
        }
        if rate.value > best.1.value {
            best = (round, rate);
        }
    }
    alarms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(round: usize, win_rate: (f64, f64, f64), length: f64, distinct_2: f64) -> DriftRow {
        DriftRow {
            round,
            win_rate: (round > 0).then(|| Estimate::new(win_rate.0, win_rate.1, win_rate.2, 40)),
            length: Some(Estimate::point(length)),
            distinct_2: Some(distinct_2),
            ..DriftRow::default()
        }
    }

    #[test]
    fn alarms_are_raised_by_what_drifts_and_by_nothing_else() {
        let baseline = row(0, (0.0, 0.0, 0.0), 20.0, 0.6);
        let calm =
            [baseline.clone(), row(1, (0.7, 0.6, 0.8), 29.9, 0.41), row(2, (0.6, 0.45, 0.65), 30.0, 0.4001)];
        assert_eq!(alarms(&calm), [""; 0]);
        let wild =
            [baseline.clone(), row(1, (0.7, 0.6, 0.8), 20.0, 0.6), row(2, (0.5, 0.4, 0.59), 31.0, 0.39)];
        let raised = alarms(&wild);
        assert_eq!(raised.len(), 3, "{raised:?}");
        assert!(
            raised[0].contains("1.6 times as long") && raised[1].contains("from 0.600 to 0.390"),
            "{raised:?}"
        );
        assert!(raised[2].contains("wins 50 %") && raised[2].contains("round 1 70 %"), "{raised:?}");
        let worse = alarms(&[baseline, row(1, (0.3, 0.2, 0.4), 20.0, 0.6)]);
        assert!(worse.len() == 1 && worse[0].contains("the baseline itself 50 %"), "{worse:?}");
    }

    #[test]
    fn a_win_by_length_and_a_worse_check_raise_alarms() {
        let baseline = row(0, (0.0, 0.0, 0.0), 20.0, 0.6);
        let mut first = row(1, (0.7, 0.6, 0.8), 20.0, 0.6);
        first.length_controlled = Some(Estimate::new(0.7, 0.55, 0.8, 40));
        assert_eq!(alarms(&[baseline.clone(), first.clone()]), [""; 0]);
        first.length_controlled = Some(Estimate::new(0.52, 0.4, 0.64, 40));
        first.got_worse = 2;
        let raised = alarms(&[baseline, first]);
        assert_eq!(raised.len(), 2, "{raised:?}");
        assert!(raised[0].starts_with("round 1: 2 checks of the regression set got worse"), "{raised:?}");
        assert!(raised[1].contains("wins 70 %") && raised[1].contains("at equal length 52 %"), "{raised:?}");
    }

    #[test]
    fn the_table_has_a_row_a_policy_and_shows_what_is_missing_as_missing() {
        let drift = Drift {
            tuned: "dpo".into(),
            judges: vec!["tone".into()],
            rows: vec![row(0, (0.0, 0.0, 0.0), 20.0, 0.6), row(1, (0.7, 0.6, 0.8), 31.0, 0.6)],
            ..Drift::default()
        };
        let table = drift.table();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[2].trim_start().starts_with("baseline  "), "{table}");
        assert!(lines[3].contains("70 [60, 80]"), "{table}");
        assert!(lines[2].contains('–') && !lines[2].contains("0.000"), "{table}");
        let widths: Vec<usize> = lines[1..4].iter().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    }
}
