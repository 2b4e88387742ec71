//! What the report needs to know of labels, people, and what changed for the worse; part of [`super::data::ReportData`].

use super::data::Estimate;
use serde::{Deserialize, Serialize};

/// Whose labels the run trains on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelSources {
    /// Preferences that are trained on, by who made them: `human`, or the judges' names.
    pub trained: Vec<Count>,
    /// Standing labels of each reviewer.
    pub reviewers: Vec<Count>,
    /// Where pairs went: `judges only`, `people only`, `judges and people`, `nobody yet`.
    pub routes: Vec<Count>,
    /// Pairs on which people's labels took the place of what judges had said.
    pub over_judges: u64,
    /// Of these, pairs on which both decided, and for different responses.
    pub turned: u64,
    /// How much a pair that people labelled counts in training (`review.weight`); others count 1.
    pub weight: f64,
}

/// How many there are of something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// Of what.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// Pairs on which the judges and most people chose differently.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disagreements {
    /// How many there are.
    pub total: u64,
    /// Of how many on which both have a choice.
    pub of: u64,
    /// The first of them: opposite choices before ties, then the surest judges first.
    pub pairs: Vec<Disagreement>,
}

/// Such a pair. Every text is untrusted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disagreement {
    /// The pair's id.
    pub pair_id: String,
    /// Tags of its prompt.
    pub tags: Vec<String>,
    /// What was asked.
    pub prompt: String,
    /// Response a.
    pub a: String,
    /// Response b.
    pub b: String,
    /// P(a beats b) by all judges together.
    pub p: f64,
    /// The same by each judge as if it were alone.
    pub judges: Vec<(String, f64)>,
    /// One judge's explanation.
    pub explanation: Option<String>,
    /// How many people chose a, b and a tie.
    pub votes: (u32, u32, u32),
    /// What each of them said.
    pub people: Vec<PersonSaid>,
}

/// What one person said of a pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PersonSaid {
    /// Who.
    pub reviewer: String,
    /// `a`, `b`, `tie` or `skip`.
    pub choice: String,
    /// In their own words.
    pub note: Option<String>,
}

/// What a measure of responses to held-out prompts was, and became. The interval is over prompts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// `ppo`, `dpo`.
    pub policy: String,
    /// What was measured.
    pub measure: Measure,
    /// The baseline's, over its prompts.
    pub before: f64,
    /// The policy's.
    pub after: f64,
    /// After less before on the same prompts; `None` where there is no interval.
    pub difference: Option<Estimate>,
}

/// Measures without a model, for which it is known which way is worse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Tokens of a response. Longer is not worse by itself; it is what judges fall for.
    #[default]
    Length,
    /// Share of responses that end their turn; fewer is worse.
    Ended,
    /// Share of a response's 4-grams that it had said before (Welleck et al. 2020); more is worse.
    Repeated4,
    /// Different pairs of neighbouring tokens over all of them, all responses together (Li et al. 2016); fewer is worse.
    Distinct2,
}

impl Measure {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Length => "Length, tokens",
            Self::Ended => "Ended properly",
            Self::Repeated4 => "Repeated 4-grams",
            Self::Distinct2 => "Distinct 2-grams",
        }
    }
}
