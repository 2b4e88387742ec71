//! What `evaluate` found when it compared policies with each other; part of `evaluation.json`.
//!
//! Shares are in [0, 1]; intervals are 95 % and over prompts. `None` and empty lists are what could not be said, never 0.

use super::data::Estimate;
use serde::{Deserialize, Serialize};

/// Two policies on the same prompts with the same seeds, seen from `policy`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Comparison {
    /// Whose wins are counted: `ppo`, `dpo`, or the name of one of `evaluate.models`.
    pub policy: String,
    /// Whom it met: `baseline`; with `evaluate.against = "all"` any policy before it in [`super::data::Evaluation::policies`]; or
    /// `origin`, which is not among these.
    pub other: String,
    /// Share of the comparisons it won, ties half, by all judges together.
    pub win_rate: Option<Estimate>,
    /// Wins, ties and losses.
    pub outcomes: Option<(u64, u64, u64)>,
    /// Exact two-sided sign test over prompts: did more of them come out above ½ than below?
    pub p_value: Option<f64>,
    /// Comparisons without a verdict; they are in no rate.
    pub missing: u64,
    /// What the win rate comes to, in words that claim no more than it shows.
    pub conclusion: Conclusion,
    /// The win rate if all responses were equally long (AlpacaEval 2); `None` below five prompts, and where length and policy cannot be
    /// told apart.
    pub length_controlled: Option<Estimate>,
    /// P(the longer response wins), a tie as half, where the two differ in length: ½ for judges that do not care.
    pub longer_wins: Option<Estimate>,
    /// Win rates on the prompts of one tag, by its name: tags with at least [`ENOUGH_OF_A_TAG`] comparisons.
    pub by_tag: Vec<Named>,
    /// Tags with fewer comparisons, and how many they have.
    pub tags_too_few: Vec<(String, u64)>,
    /// By criterion, where verdicts hold scores for each: the share of comparisons in which `policy` has the higher mean score.
    pub by_criterion: Vec<Named>,
    /// What each judge says alone.
    pub by_judge: Vec<JudgeRate>,
    /// What people would say of all comparisons, from their verdicts on some; `None` where they have judged none.
    pub people: Option<PeopleRate>,
}

/// Comparisons that a tag must have before it gets a rate.
pub const ENOUGH_OF_A_TAG: u64 = 20;

/// A share of something that has a name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The share, ties half.
    pub win_rate: Estimate,
}

/// One judge's own win rate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeRate {
    /// Its name in `evaluate.judges`.
    pub judge: String,
    /// Training used it: it made labels, gave rewards, or chose a checkpoint.
    pub used_in_training: bool,
    /// The win rate by its verdicts alone. A judge with `only_if_unsure_below` was asked about hard comparisons only.
    pub win_rate: Option<Estimate>,
    /// P(the longer response wins) by its verdicts alone.
    pub longer_wins: Option<Estimate>,
}

/// The win rate corrected by people's verdicts: prediction-powered inference.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeopleRate {
    /// Prompts of which people have judged a comparison; those of one prompt count as one.
    pub labels: u64,
    /// The win rate that people would see, with its interval; `n` is `labels`. `None` where there are fewer than [`ENOUGH_LABELS`].
    pub win_rate: Option<Estimate>,
    /// Prompts with labels that are still missing for a corrected rate.
    pub more_needed: u64,
    /// λ of PPI++: how far the judges were listened to, 0 not at all.
    pub lambda: Option<f64>,
    /// Share of the labelled comparisons on which people and judges chose the same, ties as a choice of their own.
    pub agreement: Option<Estimate>,
}

/// Prompts with labels below which no corrected rate is given: with 30 labels such intervals held the truth in 90 % of simulated studies,
/// with 100 in 94 % (`rlaif_core::stats::ppi`).
pub const ENOUGH_LABELS: u64 = 30;

/// What a win rate shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Nothing was compared.
    #[default]
    Nothing,
    /// The interval lies above ½.
    Better,
    /// The interval lies below ½.
    Worse,
    /// It lies within `margin` of ½, by two one-sided tests at 5 %.
    Same,
    /// Neither a difference nor its absence is shown: not enough prompts to tell.
    Open,
}

/// A finding and the sentence for it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Conclusion {
    /// What is shown.
    pub finding: Finding,
    /// `evaluate.margin`: the difference from ½ below which nothing would matter.
    pub margin: f64,
    /// The sentence, with its full stop.
    pub sentence: String,
}

/// Where a policy stands among all of them: Bradley-Terry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RankedPolicy {
    /// Its name; the list goes from best to worst.
    pub policy: String,
    /// θ, mean 0 over all policies: P(i beats j) = σ(θᵢ − θⱼ).
    pub strength: Estimate,
    /// Its place, 1 for the best, with the places it takes on 95 % of bootstrap draws.
    pub rank: Estimate,
    /// P(it beats another of them, taken at random).
    pub win_rate: Estimate,
}

/// What so many prompts can show; made before anything is sampled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleSize {
    /// Held-out prompts.
    pub prompts: u64,
    /// The smallest difference of a win rate from ½ that they show with 80 % power; `None` where they show none.
    pub visible: Option<f64>,
    /// `evaluate.margin`.
    pub margin: f64,
    /// Prompts needed to see a difference of `margin`; `None` where ties leave no room for one.
    pub needed: Option<u64>,
    /// Share of prompts that are taken to come to ½: ties, and verdicts that change with the order.
    pub ties: f64,
    /// Where `ties` comes from: `the training pairs` or `assumption`.
    pub ties_from: String,
    /// All of that in one sentence.
    pub sentence: String,
}

/// `evaluate.regression`: prompts that must not get worse.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Regression {
    /// The file as the user wrote it.
    pub file: String,
    /// Checks in it that a rule decides.
    pub rules: u64,
    /// Checks in it that judges decide, by comparing with the baseline's answer.
    pub judged: u64,
    /// `evaluate.max_regressions`.
    pub max_regressions: Option<u64>,
    /// `baseline` first, then the others.
    pub policies: Vec<RegressionRow>,
    /// What got worse, by policy and in the order of the file.
    pub worse: Vec<Worse>,
}

/// One policy on the regression set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegressionRow {
    /// `baseline`, `ppo`, …
    pub policy: String,
    /// Share of the rules' checks passed, with a Wilson interval; `None` without such checks.
    pub passed: Option<Estimate>,
    /// Rules that the baseline passed and this policy fails; 0 for the baseline.
    pub worse: u64,
    /// Rules that the baseline failed and this policy passes.
    pub better: u64,
    /// Exact McNemar test of the two; `None` for the baseline.
    pub p_value: Option<f64>,
    /// Wins, ties and losses against the baseline's answer by the judges; `None` without such checks.
    pub judged: Option<(u64, u64, u64)>,
    /// Judged checks without a verdict: neither passed nor failed.
    pub missing: u64,
    /// `worse` and losses together are more than `evaluate.max_regressions`.
    pub over_limit: bool,
}

/// A check that the baseline passed and a policy fails.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worse {
    /// The policy.
    pub policy: String,
    /// The row's `id`, or its line.
    pub id: String,
    /// The prompt, as `rlaif_core::records::PromptText::display` has it.
    pub prompt: String,
    /// The check in words, such as `contains "Paris"`.
    pub check: String,
    /// The baseline's answer; untrusted text.
    pub baseline: String,
    /// The policy's answer; untrusted text.
    pub answer: String,
}
