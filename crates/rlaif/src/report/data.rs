//! What the report needs to know, and nothing it could compute wrongly: every interval is made where the number is made.
//!
//! A missing stage is `None` or an empty list; the page then says that it did not run. [`Evaluation`] is the schema of
//! `evaluation.json`; [`LabelNumbers`], [`RewardSummary`], [`PpoSummary`] and [`DpoSummary`] are what the stages `label`, `reward`,
//! `ppo` and `dpo` leave in `manifest.json` as their `numbers`.

use super::comparison::{Comparison, RankedPolicy, Regression, SampleSize};
use super::evidence::{Change, Disagreements, LabelSources};
use crate::review::agreement::Agreement;
use rlaif_core::audit::Audit;
use rlaif_core::metrics::MetricRow;
use rlaif_core::stats::Interval;
use rlaif_core::stats::calibration::Bin;
use rlaif_core::stats::position::PositionReport;
use rlaif_judge::{FittedVoter, VoterReport};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A number with its 95 % interval, where one can be given, and the count it rests on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Estimate {
    /// The point estimate; shares are in [0, 1].
    #[serde(alias = "estimate")]
    pub value: f64,
    /// Lower end of the 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end of the 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// How many observations it rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
}

impl Estimate {
    /// A number with its interval.
    pub fn new(value: f64, low: f64, high: f64, n: u64) -> Self {
        Self { value, low: Some(low), high: Some(high), n: Some(n) }
    }

    /// A number without an interval.
    pub fn point(value: f64) -> Self {
        Self { value, ..Self::default() }
    }

    /// An interval of `rlaif_core::stats` and the count it rests on.
    pub fn of(interval: Interval, n: usize) -> Self {
        Self::new(interval.estimate, interval.low, interval.high, n as u64)
    }

    /// Both ends of the interval, where there is one.
    pub fn interval(&self) -> Option<(f64, f64)> {
        self.low.zip(self.high)
    }

    /// The same with the opposite sign: a difference seen from the other side.
    pub fn negated(&self) -> Self {
        Self { value: -self.value, low: self.high.map(|v| -v), high: self.low.map(|v| -v), n: self.n }
    }

    /// The whole interval lies above `reference`.
    pub fn is_above(&self, reference: f64) -> bool {
        self.low.is_some_and(|low| low > reference)
    }

    /// The whole interval lies below `reference`.
    pub fn is_below(&self, reference: f64) -> bool {
        self.high.is_some_and(|high| high < reference)
    }
}

/// Everything on the page.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportData {
    /// The run and its stages, from `manifest.json`.
    pub run: RunInfo,
    /// Money and calls, from the store.
    pub cost: Cost,
    /// Prompts, responses and pairs, from the store; `None` before `generate` ran.
    pub generate: Option<GenerateSummary>,
    /// The judges of `[label]`, with validity, fates and position bias.
    pub judges: Vec<JudgeSummary>,
    /// What became of the pairs as they are trained on, people's labels over judges': one count a `rlaif_core::records::Fate`.
    pub fates: Vec<FateCount>,
    /// Whose labels are trained on; `None` before there are any.
    pub labels: Option<LabelSources>,
    /// How far people agree with each other and with judges; `None` where no person has said anything.
    pub agreement: Option<Agreement>,
    /// Pairs on which judges and people chose differently; likewise.
    pub disagreements: Option<Disagreements>,
    /// `audit.json`; `None` before `rlaif audit` measured anything.
    pub audit: Option<Audit>,
    /// Curves by stage (`sft`, `reward`, `ppo`, `dpo`): the rows of `metrics/{stage}.jsonl` in order of step.
    pub metrics: BTreeMap<String, Vec<MetricRow>>,
    /// Fine-tuning on held-out rows; `None` before `sft` ran.
    pub sft: Option<SftSummary>,
    /// The reward model on held-out pairs; `None` before `reward` ran.
    pub reward: Option<RewardSummary>,
    /// PPO's budget and end; `None` before `ppo` ran.
    pub ppo: Option<PpoSummary>,
    /// DPO on held-out pairs; `None` before `dpo` ran.
    pub dpo: Option<DpoSummary>,
    /// `evaluation.json`; `None` before `evaluate` ran.
    pub evaluation: Option<Evaluation>,
    /// What became of length, ends and repetition, by policy.
    pub changes: Vec<Change>,
    /// What `rlaif iterate` warned of.
    pub drift_alarms: Vec<String>,
    /// Tags of the held-out prompts that have some, by prompt id.
    pub tags: BTreeMap<String, Vec<String>>,
}

/// Which run this is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInfo {
    /// `run.name`.
    pub name: String,
    /// The run folder as the user wrote it, such as `runs/quickstart`.
    pub folder: String,
    /// What stands behind a command about this run: its config file and what overrides it, as a shell reads them.
    pub config_path: String,
    /// The config as resolved, with origins: `rlaif.toml` of the run folder.
    pub config_toml: String,
    /// The baseline as the user wrote it (`policy.model`).
    pub model: String,
    /// `run.seed`.
    pub seed: u64,
    /// Device the tensors were on.
    pub device: String,
    /// Version of this program.
    pub version: String,
    /// Git commit of the working folder, where there was one.
    pub git_commit: Option<String>,
    /// When the last stage ended, as text.
    pub finished_at: Option<String>,
    /// Every stage that has run, in order.
    pub stages: Vec<StageRow>,
}

/// One stage in the manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StageRow {
    /// `generate`, `label`, …
    pub name: String,
    /// `done`, `interrupted`, `not run`.
    pub state: String,
    /// Wall time over all sittings, in seconds.
    pub seconds: f64,
    /// What its judges cost in micro-dollars; `None` if any of it is unknown, never 0 for unknown.
    pub micro_usd: Option<i64>,
    /// The stage's one-line summary as printed.
    pub summary: Option<String>,
    /// Its fingerprint.
    pub fingerprint: Option<String>,
}

/// What judges cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Sum of all known costs in micro-dollars.
    pub known_micro_usd: i64,
    /// Replies whose price is unknown; they are not in the sum.
    pub unknown_calls: u64,
    /// Requests that were sent and never answered: possibly billed.
    pub possibly_billed: u64,
    /// Requests to endpoints (0 with local judges only).
    pub requests: u64,
    /// Replies that were taken from other runs.
    pub reused: u64,
    /// Prompt tokens the endpoints counted.
    pub prompt_tokens: u64,
    /// Completion tokens the endpoints counted.
    pub completion_tokens: u64,
}

/// What `generate` made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerateSummary {
    /// Prompts trained on.
    pub train_prompts: u64,
    /// Prompts held out for evaluation.
    pub eval_prompts: u64,
    /// Rows or prompts kept aside as bad or too long.
    pub rejected_prompts: u64,
    /// Responses sampled from the baseline on training prompts.
    pub responses: u64,
    /// Those of them that ended their turn.
    pub ended: u64,
    /// Pairs that went to the judges.
    pub pairs: u64,
    /// Candidate pairs dropped because both responses are the same or nearer than `min_distance`.
    pub dropped_near_duplicates: u64,
    /// `generate.min_distance`.
    pub min_distance: f64,
}

/// One judge of `[label]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JudgeSummary {
    /// `label.judges[].name`.
    pub name: String,
    /// `local` or `openai`.
    pub kind: String,
    /// `pairwise` or `contrastive`.
    pub protocol: String,
    /// Its model.
    pub model: String,
    /// What it judges by: the criteria, or the principle and its opposite.
    pub rubric: String,
    /// Accuracy on the probe set (ties count half), with a Wilson interval; `None` without `label.probe`.
    pub probe: Option<Estimate>,
    /// What came of the known-bad responses among its pairs; `None` where it saw none.
    pub tripwires: Option<rlaif_judge::defence::Tally>,
    /// What became of the pairs by this judge's verdicts alone.
    pub fates: Vec<FateCount>,
    /// How its choices depend on the order; `None` for judges that see one response at a time.
    pub position: Option<PositionReport>,
    /// What it said through each of its templates, by place.
    pub voters: Vec<VoterReport>,
    /// What was learnt of it through each of its templates, where `label.aggregation` is fitted.
    pub fitted: Vec<FittedVoter>,
    /// What it cost in micro-dollars; `None` if any of it is unknown.
    pub micro_usd: Option<i64>,
}

/// Pairs with one fate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FateCount {
    /// `kept`, `inconsistent`, `tie`, `no_verdict`, `failed`, `set_aside`.
    pub fate: String,
    /// How many pairs.
    pub count: u64,
}

/// What the stage `label` leaves in the manifest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelNumbers {
    /// Accuracy of each judge, by name, on the probe set; empty without one.
    pub probes: BTreeMap<String, Estimate>,
    /// What known-bad responses among the traffic came to, by judge; empty where there were none.
    pub tripwires: BTreeMap<String, rlaif_judge::defence::Tally>,
    /// What each judge said through each template, by place.
    pub voters: Vec<VoterReport>,
    /// What was learnt of each judge and template, where `label.aggregation` is fitted.
    pub fitted: Vec<FittedVoter>,
    /// How many pairs each later judge of a cascade was asked about, by name.
    pub asked: BTreeMap<String, u64>,
    /// Which pairs go to people; `None` where `[route]` sends none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routing: Option<RoutingNumbers>,
}

/// Which pairs go to people, and how far they got with them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoutingNumbers {
    /// Pairs by where they go: `judges`, `both`, `people`.
    pub routes: BTreeMap<String, u64>,
    /// Pairs by the rule that sent them there.
    pub rules: BTreeMap<String, RuleNumbers>,
    /// Pairs that wait for people.
    pub waiting: u64,
    /// Those of them that are not trained on before.
    pub not_trained_on: u64,
    /// The share of all pairs that people are shown at random, as it is by now.
    pub random_share: f64,
    /// How far people agree with the judges on the pairs of the random sample that both decide.
    pub agreement: Option<Estimate>,
    /// How far judges agree with what people said elsewhere.
    pub imported_agreement: Option<Estimate>,
}

/// The pairs of a rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleNumbers {
    /// How many.
    pub pairs: u64,
    /// Those that people have labelled.
    pub labelled: u64,
    /// Those that wait for people.
    pub waiting: u64,
}

/// Fine-tuning on rows that it did not see.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SftSummary {
    /// Rows trained on.
    pub train_rows: u64,
    /// Rows held out.
    pub held_out_rows: u64,
    /// Mean loss of a held-out prompt before training, nats a token.
    pub loss_before: Option<f64>,
    /// The same after training.
    pub loss: Option<f64>,
    /// After less before; the interval is over prompts.
    pub change: Option<Estimate>,
    /// How the best checkpoint was chosen, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchSummary>,
}

/// The reward model on held-out pairs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardSummary {
    /// Pairs trained on.
    pub train_pairs: u64,
    /// Share of held-out pairs in which the preferred response scores higher.
    pub accuracy: Option<Estimate>,
    /// Mean of r(chosen) − r(rejected) on held-out pairs.
    pub margin: Option<Estimate>,
    /// Expected calibration error.
    pub ece: Option<f64>,
    /// Brier score.
    pub brier: Option<f64>,
    /// Reliability diagram.
    pub bins: Vec<Bin>,
    /// Pairs of a chosen response and its own beginning that were trained on too.
    pub truncated_pairs: u64,
    /// T of σ(margin / T) that fits the held-out labels best; above 1 the model is too sure of itself.
    pub temperature: Option<f64>,
    /// Expected calibration error where each half of the prompts is divided by the T of the other half.
    pub ece_calibrated: Option<f64>,
    /// Share of the same pairs in which the longer response is the preferred one, ties half: what a model must beat.
    pub longer_wins: Option<Estimate>,
    /// Accuracy on parts of the held-out pairs.
    pub parts: Vec<Part>,
    /// How often responses that answer nothing beat the preferred one.
    pub resistance: Vec<Resistance>,
    /// How the best checkpoint was chosen, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchSummary>,
}

/// Accuracy on a part of the held-out pairs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// What the pairs are told apart by: `label`, `margin`, `length`, `source`, `disagreement`, `member`.
    pub by: String,
    /// Which they are, such as `chosen longer`.
    pub name: String,
    /// Share ranked as labelled.
    pub accuracy: Estimate,
}

/// How often a response that answers nothing beats the preferred one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resistance {
    /// `constant`, `repeated` or `empty`.
    pub response: String,
    /// Share of held-out prompts in which it scores higher, with a Wilson interval.
    pub wins: Estimate,
}

/// How PPO ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PpoSummary {
    /// `ppo.kl_budget`.
    pub kl_budget: Option<f64>,
    /// It stopped because the budget was reached.
    pub stopped_at_budget: bool,
    /// Iterations done.
    pub steps: u64,
}

/// DPO on held-out pairs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DpoSummary {
    /// Pairs trained on.
    pub train_pairs: u64,
    /// Share of held-out pairs in which the preferred response has the higher implicit reward.
    pub accuracy: Option<Estimate>,
    /// Mean of the implicit rewards' difference on held-out pairs.
    pub margin: Option<Estimate>,
    /// Single responses trained on, where it learnt from these and not from pairs. Accuracy is then the share of held-out responses on
    /// their side of the reference point, and the margin how far they are on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_responses: Option<u64>,
    /// How the best checkpoint was chosen, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchSummary>,
}

/// Which checkpoint is the best one, by a score that training does not see.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WatchSummary {
    /// Step after which what is kept was made; 0 is before the first.
    pub kept_step: u64,
    /// Looks taken.
    pub looks: u64,
    /// Training ended early because the score had fallen.
    pub stopped: bool,
    /// Mean score of what is kept: the highest of so many looks, and so a flattering one.
    pub score: f64,
    /// Mean score before training.
    pub first_score: f64,
    /// Mean score after the last step.
    pub last_score: f64,
    /// Score of what is kept less that before training; the interval is over prompts.
    pub over_first: Option<Estimate>,
    /// Score of what is kept less that after the last step; likewise.
    pub over_last: Option<Estimate>,
}

/// `evaluation.json`: every policy on prompts that no stage trained on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// Held-out prompts.
    pub prompts: u64,
    /// Responses a prompt and policy.
    pub samples_per_prompt: u64,
    /// Names of the judges of the comparison.
    pub judges: Vec<String>,
    /// These judges also made the training labels.
    pub judges_made_labels: bool,
    /// Those of `judges` that training never used: not for labels, not for rewards, not to choose a checkpoint.
    pub judges_unseen: Vec<String>,
    /// `baseline` first, then those tuned policies that ran (`ppo`, `dpo`), then `evaluate.models`.
    pub policies: Vec<PolicyRow>,
    /// What so many prompts can show, said before anything was sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_size: Option<SampleSize>,
    /// Every two policies that were compared; those with the baseline first, in the order of `policies`, and those with `origin`, where
    /// there is one, last.
    pub comparisons: Vec<Comparison>,
    /// From best to worst; empty below three policies, and where the comparisons do not tell.
    pub ranking: Vec<RankedPolicy>,
    /// `evaluate.regression`, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regression: Option<Regression>,
    /// Side by side, in the order of the prompt file; the page shows the first of them.
    pub samples: Vec<Sample>,
}

impl Evaluation {
    /// How a policy did against the baseline; `None` for the baseline itself.
    pub fn over_baseline(&self, policy: &str) -> Option<&Comparison> {
        self.comparisons.iter().find(|it| it.policy == policy && it.other == "baseline")
    }
}

/// One policy on the held-out prompts. Intervals are over prompts (cluster bootstrap), since samples of one prompt are alike.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyRow {
    /// `baseline`, `ppo`, `dpo`, or the name of one of `evaluate.models`.
    pub policy: String,
    /// Share of comparisons with the baseline it won, ties half; `None` for the baseline.
    pub win_rate: Option<Estimate>,
    /// The same against `policy.origin`, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub win_rate_origin: Option<Estimate>,
    /// Wins, ties and losses of the comparisons with the baseline.
    pub outcomes: Option<(u64, u64, u64)>,
    /// Mean reward by the reward model.
    pub reward: Option<Estimate>,
    /// Mean paired difference of reward to the baseline.
    pub reward_difference: Option<Estimate>,
    /// KL to the reference, nats a response; `None` for `evaluate.models`, whose tokens may be others.
    pub kl: Option<Estimate>,
    /// KL to `policy.origin`, where there is one, nats a response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_origin: Option<Estimate>,
    /// Length in the policy's own tokens.
    pub length: Option<Estimate>,
    /// Share of responses that end their turn.
    pub ended: Option<Estimate>,
    /// Mean VADER compound score in [-1, 1].
    pub sentiment: Option<Estimate>,
    /// Mean paired difference of it to the baseline.
    pub sentiment_difference: Option<Estimate>,
}

/// One held-out prompt and what each policy said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// The prompt's id.
    pub prompt_id: String,
    /// The prompt, as `rlaif_core::records::PromptText::display` has it.
    pub prompt: String,
    /// Same sample index of every policy, the baseline first.
    pub responses: Vec<SampleResponse>,
}

/// What one policy said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleResponse {
    /// `baseline`, `ppo`, `dpo`.
    pub policy: String,
    /// Untrusted text.
    pub text: String,
    /// It ended its turn; otherwise it was cut off.
    pub ended: bool,
    /// By the reward model.
    pub reward: Option<f64>,
    /// VADER's compound score.
    pub sentiment: Option<f64>,
    /// P(this response beats the baseline's) by the judges.
    pub p_beats_baseline: Option<f64>,
}
