//! Known-bad responses against honest ones: what an audit tries judges with, and what goes among live traffic as tripwires.
//!
//! Both are judged as everything is, as sets of pairs of their own in the ledger, so that they are resumed and never paid for
//! twice; neither becomes a preference. Response a is the bad one, and every judge with an order sees both.

pub mod audit;

use crate::context::Context;
use crate::error::UserError;
use crate::judging::templates;
use crate::judging::{self, Assignment};
use crate::pipeline::{asking_recipe, judges_recipe};
use anyhow::Result;
use rlaif_core::audit::{Bound, Measurement, Outcome};
use rlaif_core::config::{JudgeConfig, LabelConfig};
use rlaif_core::records::{FinishReason, Order, Pair, Prompt, PromptText, Response};
use rlaif_core::stats::Interval;
use rlaif_judge::defence::attacks::{self, Probe};
use rlaif_judge::defence::{Finding, Tally};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The sets of all audits begin so.
pub const AUDIT_SETS: &str = "audit/";

/// The sets of an audit's pairs begin so.
pub const AUDIT: &str = "audit/robustness";

/// The sets of the tripwires' pairs begin so.
pub const TRIPWIRES: &str = "tripwires";

/// The name of a set of pairs that holds what these judges say when they are asked in this way: what others of the same name said
/// before does not count.
///
/// # Errors
/// If a local judge's model cannot be opened.
pub fn set_name(
    context: &Context,
    kind: &str,
    judges: &[JudgeConfig],
    label: &LabelConfig,
) -> Result<String> {
    let models = context.local_judge_fingerprints(judges)?;
    let templates = templates::fingerprints(context, judges)?;
    let asked = asking_recipe(label)?;
    let how = serde_json::to_string(&(judges_recipe(judges)?, models, templates, asked))?;
    Ok(format!("{kind}/{}", &blake3::hash(how.as_bytes()).to_hex()[..12]))
}

/// Pairs to be judged, with the family of each.
pub struct Trial<'a> {
    work: Assignment<'a>,
    family: HashMap<String, &'static str>,
}

/// How a trial is judged: both orders, no rules and no ties by margin. What is tried is the judge, not what shields it.
pub fn label_of(config: &LabelConfig) -> LabelConfig {
    LabelConfig {
        position_check_rate: 1.0,
        tie_margin: 0.0,
        keep_inconsistent: true,
        keep_ties: false,
        rules: false,
        ..config.clone()
    }
}

impl<'a> Trial<'a> {
    /// Puts the probes into the ledger as pairs of a set.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn new(
        context: &Context,
        stage: &'static str,
        set: &'a str,
        probes: &[Probe],
        judges: &'a [JudgeConfig],
        label: &'a LabelConfig,
    ) -> Result<Self> {
        let work = Assignment::empty(stage, set, judges, label);
        let mut trial = Self { work, family: HashMap::new() };
        for probe in probes {
            trial.add(probe);
        }
        trial.work.put_probes(context, "it is one of the program's known-bad probes")?;
        Ok(trial)
    }

    fn add(&mut self, probe: &Probe) {
        let set = self.work.set;
        let prompt_id = format!("known-bad/{}", probe.prompt_id);
        let hash = blake3::hash(format!("{}\n{}\n{}", probe.prompt, probe.good, probe.bad).as_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        let number = u32::from_le_bytes([a, b, c, d]);
        let good = format!("{set}/{}/good", probe.prompt_id);
        let bad = format!("{set}/{}/{}", probe.prompt_id, &hash.to_hex()[..16]);
        for (id, text, index) in [(&good, probe.good, 0), (&bad, probe.bad.as_str(), 1 + number as usize)] {
            self.work.responses.to_mut().entry(id.clone()).or_insert_with(|| Response {
                id: id.clone(),
                prompt_id: prompt_id.clone(),
                index,
                text: text.to_owned(),
                token_ids: Vec::new(), // written by people, not sampled
                logprobs: Vec::new(),
                finish_reason: FinishReason::Stop,
            });
        }
        let id = format!("{set}/{}/{}", probe.family, &hash.to_hex()[..16]);
        self.family.insert(id.clone(), probe.family);
        self.work.pairs.push(Pair { id, prompt_id: prompt_id.clone(), a: bad, b: good });
        self.work.prompts.to_mut().entry(prompt_id.clone()).or_insert_with(|| Prompt {
            id: prompt_id,
            prompt: PromptText::Text(probe.prompt.to_owned()),
            tags: Vec::new(),
            reference: None,
        });
    }

    /// Asks every judge about every probe that the ledger has no answer to.
    ///
    /// # Errors
    /// If a judge cannot go on; what it has said so far is kept.
    pub fn ask(&self, context: &mut Context) -> Result<()> {
        judging::ask(context, &self.work)
    }

    /// The outcomes of one judge by family, of the probes that were judged whole: pairs that a judge with an order has seen in
    /// one order only are not counted yet.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn tallies(&self, context: &Context, judge: &str) -> Result<BTreeMap<&'static str, Tally>> {
        let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
        let mut seen: HashMap<&str, BTreeSet<Order>> = HashMap::new();
        let verdicts = context.wait(context.store.verdicts(self.work.set))?;
        for row in verdicts.iter().filter(|row| row.judge == judge) {
            seen.entry(&row.pair_id).or_default().insert(row.order);
        }
        for opinion in judging::opinions(context, &self.work)?.iter().filter(|opinion| opinion.judge == judge)
        {
            let whole = if opinion.has_order { 2 } else { 1 };
            for (pair, preference) in self.work.pairs.iter().zip(&opinion.preferences) {
                if seen.get(pair.id.as_str()).is_some_and(|orders| orders.len() >= whole) {
                    tallies.entry(self.family[&pair.id]).or_default().add(preference.p);
                }
            }
        }
        Ok(tallies)
    }

    /// The outcomes of every judge by family, in the order of the families, held against what is allowed: by the one-sided bound of
    /// [`Tally::finding`], since a rate near 0 is at stake.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn measurements(&self, context: &Context, max_bad_win_rate: f64) -> Result<Vec<Measurement>> {
        let mut measurements = Vec::new();
        for judge in self.work.judges {
            let tallies = self.tallies(context, &judge.name)?;
            for family in attacks::families() {
                let Some(tally) = tallies.get(family) else { continue };
                let subject = format!("judge `{}`, family `{family}`", judge.name);
                let share = tally.win_rate();
                let interval = Interval { estimate: share.share, low: share.low, high: share.high };
                let Tally { wins, losses, ties, missing } = *tally;
                measurements.push(Measurement {
                    bound: Some(Bound { min: None, max: Some(max_bad_win_rate) }),
                    outcome: match tally.finding(max_bad_win_rate) {
                        Finding::Pass => Outcome::Pass,
                        Finding::Fail => Outcome::Fail,
                        Finding::TooFew => Outcome::Unclear,
                    },
                    note: Some(format!(
                        "{wins} won, {losses} lost, {ties} ties, {missing} without a verdict"
                    )),
                    ..Measurement::of(subject, "bad_win_rate", interval, tally.n() as u64)
                });
            }
        }
        Ok(measurements)
    }
}

/// Known-bad responses among live traffic: `label.tripwire_rate` of the pairs.
pub struct Tripwires<'a> {
    trial: Trial<'a>,
    /// How many pairs of the traffic come before each tripwire.
    places: Vec<usize>,
    max_win_rate: f64,
}

impl<'a> Tripwires<'a> {
    /// The tripwires for so many pairs; `None` for so few that they have none, or where they are turned off.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn new(
        context: &Context,
        set: &'a str,
        pairs: usize,
        judges: &'a [JudgeConfig],
        label: &'a LabelConfig,
    ) -> Result<Option<Self>> {
        let count = (label.tripwire_rate * pairs as f64).floor() as usize;
        let probes = attacks::tripwires(context.config.run.seed, count);
        if probes.is_empty() {
            return Ok(None);
        }
        let places = places(probes.len(), pairs);
        let trial = Trial::new(context, "label", set, &probes, judges, label)?;
        Ok(Some(Self { trial, places, max_win_rate: label.tripwire_max_win_rate }))
    }

    /// The pairs, as work for a judge.
    pub fn work(&self) -> &Assignment<'a> {
        &self.trial.work
    }

    /// The tripwires that stand before pair `index` of the traffic and after the one before.
    pub fn before(&self, index: usize) -> &[Pair] {
        let from = self.places.partition_point(|&place| place < index);
        let until = self.places.partition_point(|&place| place <= index);
        &self.trial.work.pairs[from..until]
    }

    /// The outcomes of one judge by family.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn tallies(&self, context: &Context, judge: &str) -> Result<BTreeMap<&'static str, Tally>> {
        self.trial.tallies(context, judge)
    }

    /// Stops the run if a family wins more than it should.
    ///
    /// # Errors
    /// A [`UserError`] that names the worst family.
    pub fn check(&self, context: &Context, judge: &str) -> Result<()> {
        let tallies = self.tallies(context, judge)?;
        let mut tripped: Vec<_> =
            tallies.iter().filter(|(_, tally)| tally.trips(self.max_win_rate)).collect();
        tripped.sort_by(|(_, one), (_, other)| other.win_rate().low.total_cmp(&one.win_rate().low));
        let Some((family, tally)) = tripped.first() else { return Ok(()) };
        let share = tally.win_rate();
        Err(UserError::new(format!(
            "judge `{judge}` falls for known-bad responses: those of the family `{family}` won {} of {} comparisons with an honest \
             answer (95 % {:.0} to {:.0} %, allowed {:.0} %)",
            tally.wins,
            tally.n(),
            100.0 * share.low,
            100.0 * share.high,
            100.0 * self.max_win_rate
        ))
        .hint(format!(
            "Take another judge or template, and try it with `rlaif audit CONFIG --robustness --family {family}`; if its labels \
             shall be used all the same, raise `label.tripwire_max_win_rate`; every answer that arrived is kept"
        ))
        .into())
    }
}

/// Where tripwires stand among pairs: the k-th of n after the share (k / n)² of them, so that a judge that is fooled is found
/// out before much is bought, and one that changes later still meets some.
fn places(count: usize, pairs: usize) -> Vec<usize> {
    (0..count).map(|k| (pairs as f64 * (k as f64 / count as f64).powi(2)).floor() as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tripwires_are_denser_early_and_there_until_late() {
        let places = places(50, 5000);
        assert_eq!((places.len(), places[0]), (50, 0));
        assert_eq!(places.iter().filter(|&&place| place < 500).count(), 16, "a third in the first tenth");
        assert!(*places.last().unwrap() > 4700);
        assert!(places.is_sorted());
    }
}
