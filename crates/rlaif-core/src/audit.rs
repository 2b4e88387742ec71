//! What an audit measured, and whether it is within the bounds that the config sets.
//!
//! Every part of `rlaif audit` measures in the same form, so that one table, one file (`audit.json`) and one rule for the exit code
//! serve them all.

use crate::stats::Interval;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that was measured of a run, by part; a part that is measured again takes its old place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Audit {
    /// By the name of the part: `judges`, `preferences`, `bias`, `repeat`, `robustness`.
    pub parts: BTreeMap<String, AuditPart>,
}

/// One part of an audit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditPart {
    /// The command that measures it again.
    pub command: String,
    /// When, in milliseconds since 1970.
    pub made_ms: u64,
    /// What was measured.
    pub measurements: Vec<Measurement>,
}

/// One number of an audit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measurement {
    /// Of whom or what: ``judge `strict` ``, ``template `plain` ``, `all judges together`, `reward model`, `preferences`.
    pub subject: String,
    /// The name under which `audit.bounds` knows it, such as `cohen_kappa`; see [`MEASURES`].
    pub measure: String,
    /// `None` where it could not be measured; `note` then says why.
    pub value: Option<f64>,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// How many observations it rests on.
    pub n: u64,
    /// What the config allows.
    pub bound: Option<Bound>,
    /// What that shows.
    pub outcome: Outcome,
    /// What a reader has to know to read the number rightly.
    pub note: Option<String>,
    /// The worst few of what was counted, by their ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

/// What a measure may be; either end may be open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bound {
    /// It may not be below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// It may not be above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// What a measurement shows of its bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// There is no bound.
    #[default]
    Told,
    /// The whole interval is within the bound.
    Pass,
    /// The interval reaches over the bound: more data would tell.
    Unclear,
    /// The whole interval is beyond the bound.
    Fail,
    /// There is a bound, and nothing to hold against it.
    NotMeasured,
}

impl Outcome {
    /// Whether an audit fails by it. A bound that nothing could be held against is not kept: unknown is not good. `strict` asks for
    /// every bound to be shown.
    pub fn fails(self, strict: bool) -> bool {
        matches!(self, Self::Fail | Self::NotMeasured) || (strict && self == Self::Unclear)
    }

    /// As it stands in a table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Told => "",
            Self::Pass => "pass",
            Self::Unclear => "n too small",
            Self::Fail => "FAIL",
            Self::NotMeasured => "NOT MEASURED",
        }
    }
}

impl Bound {
    /// What a number with its interval shows; one without an interval is taken as exact.
    pub fn outcome(self, value: f64, low: f64, high: f64) -> Outcome {
        let (low, high) = (low.min(value), high.max(value));
        let below = self.min.map(|min| (high < min, low >= min));
        let above = self.max.map(|max| (low > max, high <= max));
        let ends = [below, above];
        match () {
            () if ends.iter().flatten().any(|(beyond, _)| *beyond) => Outcome::Fail,
            () if ends.iter().flatten().all(|(_, within)| *within) => Outcome::Pass,
            () => Outcome::Unclear,
        }
    }
}

impl Measurement {
    /// A number with its interval.
    pub fn of(subject: impl Into<String>, measure: &str, interval: Interval, n: u64) -> Self {
        Self {
            subject: subject.into(),
            measure: measure.into(),
            value: Some(interval.estimate),
            low: Some(interval.low),
            high: Some(interval.high),
            n,
            ..Self::default()
        }
    }

    /// A count or another number that has no interval.
    pub fn exact(subject: impl Into<String>, measure: &str, value: f64, n: u64) -> Self {
        Self { subject: subject.into(), measure: measure.into(), value: Some(value), n, ..Self::default() }
    }

    /// Nothing, and why.
    pub fn missing(subject: impl Into<String>, measure: &str, why: impl Into<String>) -> Self {
        Self { subject: subject.into(), measure: measure.into(), note: Some(why.into()), ..Self::default() }
    }

    /// An interval where there is one, else nothing, and why.
    pub fn maybe(
        subject: impl Into<String>,
        measure: &str,
        interval: Option<Interval>,
        n: u64,
        why: &str,
    ) -> Self {
        match interval {
            Some(interval) => Self::of(subject, measure, interval, n),
            None => Self { n, ..Self::missing(subject, measure, why) },
        }
    }

    /// The same with what a reader has to know.
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// The same with the worst few of what was counted.
    pub fn examples(self, examples: Vec<String>) -> Self {
        Self { examples, ..self }
    }

    /// The same, held against the bounds; what was held against one of its own stays as it is.
    pub fn judged(mut self, bounds: &BTreeMap<String, Bound>) -> Self {
        if self.bound.is_some() {
            return self;
        }
        self.bound = bounds.get(&self.measure).copied();
        self.outcome = match (self.bound, self.value) {
            (None, _) => Outcome::Told,
            (Some(_), None) => Outcome::NotMeasured,
            (Some(bound), Some(value)) => {
                bound.outcome(value, self.low.unwrap_or(value), self.high.unwrap_or(value))
            }
        };
        self
    }
}

/// How a measure's numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// In [0, 1], or a difference of two such; written in percent.
    Share,
    /// A coefficient or a mean.
    Number,
    /// A whole number.
    Count,
}

/// A measure's name, which `audit.bounds` uses, what it is in words, and how it is written.
pub type Measure = (&'static str, &'static str, Unit);

/// Everything that audits measure.
pub const MEASURES: &[Measure] = &[
    ("bad_win_rate", "a known-bad response beats an honest one", Unit::Share),
    ("bias_judge_text", "same text about another group, p", Unit::Share),
    ("bias_judge_decision", "decision about another group, p", Unit::Share),
    ("bias_judge_stereotype", "stereotype over its opposite, p − ½", Unit::Share),
    ("bias_reward_text", "same text about another group, sd", Unit::Number),
    ("bias_reward_decision", "decision about another group, sd", Unit::Number),
    ("bias_reward_stereotype", "stereotype over its opposite, sd", Unit::Number),
    ("bias_policy_text", "same text about another group, nats a token", Unit::Number),
    ("bias_policy_decision", "decision about another group, nats a token", Unit::Number),
    ("bias_policy_stereotype", "stereotype over its opposite, nats a token", Unit::Number),
    ("bias_policy_sentiment", "sentiment of answers about another group", Unit::Number),
    ("bias_policy_length", "length of answers about another group", Unit::Share),
    ("bias_policy_refusal", "refusals to write about another group", Unit::Share),
    ("pairs", "preferences", Unit::Count),
    ("duplicate_pairs", "repeat an earlier pair", Unit::Count),
    ("duplicate_pairs_share", "repeat an earlier pair", Unit::Share),
    ("near_duplicate_pairs", "nearly repeat an earlier pair", Unit::Count),
    ("near_duplicate_pairs_share", "nearly repeat an earlier pair", Unit::Share),
    ("duplicate_prompts", "prompts under a second id", Unit::Count),
    ("near_duplicate_prompts", "prompts nearly the same as an earlier one", Unit::Count),
    ("duplicate_responses", "responses that answer several prompts", Unit::Count),
    ("near_duplicate_responses", "responses nearly the same as an earlier one", Unit::Count),
    ("near_equal_sides", "pairs of nearly the same two responses", Unit::Count),
    ("near_equal_sides_share", "pairs of nearly the same two responses", Unit::Share),
    ("contradictions", "two responses preferred both ways", Unit::Count),
    ("contradictions_within_source", "of these, by one and the same source", Unit::Count),
    ("contradictions_share", "of those labelled twice, preferred both ways", Unit::Share),
    ("cyclic_triads", "triads A over B over C over A", Unit::Count),
    ("cyclic_triads_share", "of all triads, cyclic", Unit::Share),
    ("cyclic_prompts", "prompts with a cycle", Unit::Count),
    ("cyclic_prompts_share", "of prompts that could have one, with a cycle", Unit::Share),
    ("chosen_longer", "the chosen response is the longer one", Unit::Share),
    ("chosen_length_gap", "characters chosen less rejected, mean", Unit::Number),
    ("chosen_is_a", "the chosen response is the one called a", Unit::Share),
    ("label_margin", "how sure labels are, mean of |2p - 1|", Unit::Number),
    ("largest_source", "pairs of the largest source", Unit::Share),
    ("largest_tag", "pairs of the most frequent tag", Unit::Share),
    ("largest_prompt", "pairs of the most frequent prompt", Unit::Share),
    ("leaked_prompts", "evaluation prompts that are trained on", Unit::Count),
    ("near_leaked_prompts", "evaluation prompts nearly trained on", Unit::Count),
    ("leaked_prompts_share", "evaluation prompts trained on, or nearly", Unit::Share),
    ("leaked_references", "trained responses with an evaluation's answer", Unit::Count),
    ("personal_email", "rows with an e-mail address", Unit::Count),
    ("personal_phone", "rows with a telephone number", Unit::Count),
    ("personal_iban", "rows with an account number (IBAN)", Unit::Count),
    ("personal_card", "rows with a payment card's number", Unit::Count),
    ("personal_ip", "rows with a public IP address", Unit::Count),
    ("secrets", "rows with a key or token", Unit::Count),
    ("personal_share", "rows with any of these", Unit::Share),
    // Of judges.
    ("accuracy", "agrees with people, random audit", Unit::Share),
    ("cohen_kappa", "Cohen's kappa with people, random audit", Unit::Number),
    ("accuracy_all", "agrees with people, all their labels", Unit::Share),
    ("cohen_kappa_all", "Cohen's kappa with people, all their labels", Unit::Number),
    ("label_accuracy", "its labels are right, as people would say", Unit::Share),
    ("same_position", "chooses the same place in both orders", Unit::Share),
    ("first_rate", "chooses the first place", Unit::Share),
    ("mcnemar_p", "p of one place as good as the other (McNemar)", Unit::Number),
    ("longer_wins", "the longer response wins", Unit::Share),
    ("longer_wins_corrected", "the longer one wins, as people would say", Unit::Share),
    ("longer_wins_excess", "the longer one wins more often than with people", Unit::Share),
    ("length_coefficient", "weight of length (AlpacaEval's model)", Unit::Number),
    ("markdown_wins", "the one with more markdown wins", Unit::Share),
    ("markdown_wins_corrected", "more markdown wins, as people would say", Unit::Share),
    ("markdown_wins_excess", "more markdown wins more often than with people", Unit::Share),
    ("self_preference", "its own wins more often than others say", Unit::Share),
    ("self_preference_bias", "its errors favour its own", Unit::Share),
    ("missing", "pairs without a verdict", Unit::Share),
    ("refused", "verdicts refused", Unit::Share),
    ("filtered", "verdicts withheld by a content filter", Unit::Share),
    ("unreadable", "replies that cannot be read", Unit::Share),
    ("steered", "replies that gave the secret word away", Unit::Share),
    ("failed", "requests that failed for good", Unit::Share),
    ("missing_long", "without a verdict: pairs with a long response, more", Unit::Share),
    ("missing_from_longer", "without a verdict: the longer one caused it", Unit::Share),
    ("missing_policy", "without a verdict: pairs with its response, more", Unit::Share),
    ("win_rate", "win rate, says the judge", Unit::Share),
    ("win_rate_equal_length", "win rate at equal length, says the judge", Unit::Share),
    ("win_rate_corrected", "win rate, as people would say", Unit::Share),
    ("judges_cohen_kappa", "Cohen's kappa", Unit::Number),
    ("judges_agreement", "two judges say the same", Unit::Share),
    ("judges_fleiss_kappa", "Fleiss' kappa", Unit::Number),
    ("judges_alpha", "Krippendorff's alpha (ordinal)", Unit::Number),
    ("judges_ac1", "Gwet's AC1", Unit::Number),
    ("people_agreement", "two people say the same", Unit::Share),
    ("people_fleiss_kappa", "Fleiss' kappa", Unit::Number),
    ("people_alpha", "Krippendorff's alpha (ordinal)", Unit::Number),
    ("people_ac1", "Gwet's AC1", Unit::Number),
    ("people_longer_wins", "the longer response wins", Unit::Share),
    ("people_markdown_wins", "the one with more markdown wins", Unit::Share),
    ("repeat_same", "says the same when asked again", Unit::Share),
    ("repeat_kappa", "the same beyond chance (Fleiss' kappa)", Unit::Number),
];

/// The measure of a name.
pub fn measure(name: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|(known, ..)| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_kept_only_by_a_whole_interval() {
        let at_least = Bound { min: Some(0.4), max: None };
        assert_eq!(at_least.outcome(0.6, 0.45, 0.7), Outcome::Pass);
        assert_eq!(at_least.outcome(0.6, 0.4, 0.7), Outcome::Pass, "the bound itself is allowed");
        assert_eq!(at_least.outcome(0.6, 0.3, 0.7), Outcome::Unclear);
        assert_eq!(at_least.outcome(0.35, 0.3, 0.45), Outcome::Unclear);
        assert_eq!(at_least.outcome(0.2, 0.1, 0.39), Outcome::Fail);
        let within = Bound { min: Some(-0.1), max: Some(0.1) };
        assert_eq!(within.outcome(0.0, -0.05, 0.05), Outcome::Pass);
        assert_eq!(within.outcome(0.2, 0.11, 0.3), Outcome::Fail);
        assert_eq!(within.outcome(0.05, -0.2, 0.3), Outcome::Unclear);
    }

    #[test]
    fn a_bound_without_a_number_is_not_kept() {
        let bounds = BTreeMap::from([("bad_win_rate".to_string(), Bound { min: None, max: Some(0.01) })]);
        let missing = Measurement::missing("judge `a`", "bad_win_rate", "nothing was asked").judged(&bounds);
        assert_eq!(missing.outcome, Outcome::NotMeasured);
        assert!(missing.outcome.fails(false));
        let told = Measurement::exact("judge `a`", "other", 3.0, 3).judged(&bounds);
        assert_eq!((told.outcome, told.bound), (Outcome::Told, None));
        assert!(!Outcome::Unclear.fails(false) && Outcome::Unclear.fails(true));
    }
}
