//! `[label]` and `[[label.judges]]`.

use super::Criterion;
use crate::money::Price;
use serde::{Deserialize, Serialize};

/// Where an `openai` judge is asked unless its config says otherwise.
const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";

/// How a judge is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Two responses in one request, asked through templates.
    Pairwise,
    /// One response a request, from 1 to 10, asked through templates; pairs compare by their ratings.
    Rating,
    /// log p(y | x, principle) − log p(y | x, opposite) per token; local judges only.
    Contrastive,
}

/// What a judge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgeKind {
    /// A model that this program loads itself; no network.
    Local,
    /// Any OpenAI-compatible chat completions endpoint.
    Openai,
}

/// What becomes of a pair with a response above `label.max_response_chars`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// No judge is asked; the pair is `set_aside`.
    SetAside,
    /// Pairwise judges see both responses up to that length, with a line that says so where one was cut.
    CutBoth,
}

/// How the verdicts of several judges come to one p.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// The mean of the judges' p by their weights.
    Mean,
    /// The share of judges, by their weights, that prefer a.
    Majority,
    /// Each judge's error rates by place are fitted (Dawid & Skene 1979), and p is what is probable under them.
    DawidSkene,
    /// Each judge's strength and position bias are fitted in a logistic Bradley-Terry model, and p is what is probable under it.
    BradleyTerry,
}

impl Aggregation {
    /// Whether something is fitted to verdicts first.
    pub fn is_fitted(self) -> bool {
        matches!(self, Self::DawidSkene | Self::BradleyTerry)
    }
}

/// Which pairs are judged where there are more than are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairChoice {
    /// Any.
    Random,
    /// Those whose responses differ most: by edit distance, or by the scores of the first judge where that is contrastive.
    MostDifferent,
    /// Those of which the first judge is least sure.
    LeastSure,
}

/// An example shown to a pairwise judge before the pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShot {
    /// What was asked.
    pub prompt: String,
    /// The response shown first.
    pub first: String,
    /// The response shown second.
    pub second: String,
    /// Why one is better.
    pub explanation: Option<String>,
    /// `first`, `second` or `tie`.
    pub verdict: crate::records::Choice,
}

/// `[label]`: which pairs are judged, how, and what becomes of the verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelConfig {
    /// Unique random pairs a prompt, at most n·(n−1)/2. Default 4.
    pub pairs_per_prompt: usize,
    /// What a better response is better at, for judges that are asked: names, or tables `{name, description, levels}`. Default
    /// accuracy, clarity, helpfulness, safety.
    pub criteria: Vec<Criterion>,
    /// Show each pair the criteria in an order of its own, the same in both orders of the pair. Default false: judges weigh what
    /// comes first, but a system prompt that never changes is cheaper.
    pub shuffle_criteria: bool,
    /// Principles for templates that show one, drawn for each pair. Default none.
    pub principles: Vec<String>,
    /// `random`, `most_different` or `least_sure`: which pairs are judged where there are more than `pairs_per_prompt` or
    /// `max_pairs` let in. With `least_sure` the first judge judges every pair that `pairs_per_prompt` lets in, and the `max_pairs` of
    /// them whose p is nearest ½ (first those on which it contradicts itself or says nothing) go on; the others are no
    /// pairs of the run. With `most_different` and a contrastive first judge, it scores all responses first. Default `random`.
    pub pair_choice: PairChoice,
    /// Pairs of all prompts together, at most. Default none.
    pub max_pairs: Option<usize>,
    /// Examples shown before the pair. Default none (Lee et al. 2023, table 2: they mostly hurt).
    pub few_shot: Vec<FewShot>,
    /// How many examples are drawn, the same for all calls, with verdicts that lean to no place. Default all.
    pub few_shot_n: Option<usize>,
    /// Folder of your own templates, for `templates` of the judges. Relative to the config file. Default none.
    pub templates_dir: Option<std::path::PathBuf>,
    /// Share of pairs judged in both orders. Default 1.0: all. Pairs outside the share get one random order.
    pub position_check_rate: f64,
    /// |p − ½| below this is a tie. Default 0.02.
    pub tie_margin: f64,
    /// Train on pairs whose verdict changed with the order, with their averaged p. Default false.
    pub keep_inconsistent: bool,
    /// Train on ties, with p = ½. Default false.
    pub keep_ties: bool,
    /// Decide by rule, before a judge is paid, what needs none: equal texts are a tie, and a response that is empty, only
    /// punctuation, an opening without an answer or the request again loses. Default true.
    pub rules: bool,
    /// Longest response in characters, the same for both sides of a pair. Default 20000, about 5000 tokens.
    pub max_response_chars: usize,
    /// `set_aside` or `cut_both`: what becomes of a pair with a longer response. Default `set_aside`.
    pub too_long: TooLong,
    /// Known-bad responses among what `openai` judges see, as a share of the pairs; they never become preferences. More come
    /// early than late. Fewer than 1 / rate pairs have none. Default 0.01; 0 turns them off.
    pub tripwire_rate: f64,
    /// A family of known-bad responses stops the run once the 95 % interval of its win rate lies above this. Default 0.05.
    pub tripwire_max_win_rate: f64,
    /// `mean`, `majority`, `dawid_skene` or `bradley_terry`: how the verdicts of several judges come to one p. The last two are fitted
    /// to `calibration`, or without it to the pairs themselves, and put what they learnt in the place of `weight`. Default `mean`.
    pub aggregation: Aggregation,
    /// Labelled pairs (`prompt`, `better`, `worse`) to which `dawid_skene` and `bradley_terry` are fitted. Without them it takes three
    /// judges, which can only be measured against each other: judges that share a mistake then look right. Relative to the config file. Default none.
    pub calibration: Option<std::path::PathBuf>,
    /// c: v votes of k that one judge gives for the first place come to p = (v + c)/(k + 2c), where no log-probabilities come with
    /// them and more than one was asked for. Default 0.5: Jeffreys' prior.
    pub vote_smoothing: f64,
    /// The judges, in the order in which they are asked. Default: one local contrastive judge of tone, see the quickstart.
    pub judges: Vec<JudgeConfig>,
    /// Stop before the judges of this run have cost more than this many dollars. Default none.
    pub max_usd: Option<f64>,
    /// Labelled pairs (`prompt`, `better`, `worse`) on which each judge's validity is shown before its labels are used.
    /// Relative to the config file. Default none.
    pub probe: Option<std::path::PathBuf>,
}

impl Default for LabelConfig {
    fn default() -> Self {
        Self {
            pairs_per_prompt: 4,
            criteria: ["accuracy", "clarity", "helpfulness", "safety"].map(Criterion::named).to_vec(),
            shuffle_criteria: false,
            principles: Vec::new(),
            pair_choice: PairChoice::Random,
            max_pairs: None,
            few_shot: Vec::new(),
            few_shot_n: None,
            templates_dir: None,
            position_check_rate: 1.0,
            tie_margin: 0.02,
            keep_inconsistent: false,
            keep_ties: false,
            rules: true,
            max_response_chars: 20_000,
            too_long: TooLong::SetAside,
            tripwire_rate: 0.01,
            tripwire_max_win_rate: 0.05,
            aggregation: Aggregation::Mean,
            calibration: None,
            vote_smoothing: 0.5,
            judges: vec![JudgeConfig::tone()],
            max_usd: None,
            probe: None,
        }
    }
}

/// `[[label.judges]]`: one judge. Fields that a kind does not use are refused by `validate()`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JudgeConfig {
    /// Name in labels and reports. Default `judge`.
    pub name: String,
    /// `local` or `openai`. Default `local`.
    pub kind: JudgeKind,
    /// `pairwise`, `rating` or `contrastive`. Default `contrastive` for local judges, `pairwise` for others.
    pub protocol: Protocol,
    /// The model: for `local` a folder, `.gguf`, `hf:owner/name`, or `policy` for the baseline itself; for `openai` the
    /// endpoint's name of it. Default `policy`.
    pub model: String,
    /// Weight of this judge in the mean of p. Default 1.
    pub weight: f64,
    /// Templates that it is asked through, each of them: built-in names, names in `label.templates_dir`, or paths that end in
    /// `.j2`. Default `explain`; for local judges `verdict_only`; `rating` for ratings.
    pub templates: Vec<String>,
    /// openai: how often each question is asked; more than once only with `sampling_temperature` above 0. Default 1.
    pub votes: usize,
    /// openai: name the responses by two random words in each call where the template allows it, and plant a secret word that a
    /// steered judge gives away. Default false.
    pub verdict_codes: bool,
    /// A cascade: ask this judge only about pairs on which |p − ½| of the judges before it (their mean) is below this, or which they
    /// left without a vote. Its verdicts add up with theirs. Default none: ask about every pair.
    pub only_if_unsure_below: Option<f64>,

    /// Contrastive: system prompt of the principle.
    pub principle: Option<String>,
    /// Contrastive: system prompt of its opposite.
    pub opposite: Option<String>,
    /// Contrastive: p = σ(difference of per-token log-ratios / temperature). Rating: p = σ(difference of ratings, scaled to
    /// [−1, 1], / temperature), so that one point of ten is p = 0.9. Default 0.1.
    pub temperature: f64,

    /// openai: base URL up to and including `/v1`. Default `https://api.openai.com/v1`.
    pub base_url: Option<String>,
    /// openai: environment variable with the key; none for endpoints without one. Default `OPENAI_API_KEY` with the default URL.
    pub api_key_env: Option<String>,
    /// openai: requests in flight. Default 8.
    pub max_concurrency: usize,
    /// openai: retries of one request after failures that are worth one. Default 5.
    pub max_retries: usize,
    /// openai: seconds until a request is given up. Default 120.
    pub timeout_seconds: f64,
    /// openai: tokens for explanation and verdict. Default 512.
    pub max_tokens: usize,
    /// openai: judge's sampling temperature; none for reasoning models that refuse one. Default 0.
    pub sampling_temperature: Option<f64>,
    /// openai: dollars per million prompt tokens. Required unless `allow_unknown_price`.
    pub usd_per_million_input: Option<f64>,
    /// openai: dollars per million completion tokens. Required unless `allow_unknown_price`.
    pub usd_per_million_output: Option<f64>,
    /// openai: dollars per million cached prompt tokens. Default: the input price.
    pub usd_per_million_cached_input: Option<f64>,
    /// openai: run although the price is unknown; the bill then says so instead of a sum. Default false.
    pub allow_unknown_price: bool,
}

impl Default for JudgeConfig {
    fn default() -> Self {
        Self {
            name: "judge".into(),
            kind: JudgeKind::Local,
            protocol: Protocol::Contrastive,
            model: "policy".into(),
            weight: 1.0,
            templates: Vec::new(),
            votes: 1,
            verdict_codes: false,
            only_if_unsure_below: None,
            principle: None,
            opposite: None,
            temperature: 0.1,
            base_url: None,
            api_key_env: None,
            max_concurrency: 8,
            max_retries: 5,
            timeout_seconds: 120.0,
            max_tokens: 512,
            sampling_temperature: Some(0.0),
            usd_per_million_input: None,
            usd_per_million_output: None,
            usd_per_million_cached_input: None,
            allow_unknown_price: false,
        }
    }
}

impl JudgeConfig {
    /// The default judge: a small model can tell a warm answer from a rude one, and little else.
    pub fn tone() -> Self {
        Self {
            name: "tone".into(),
            principle: Some("You are a warm, cheerful and polite assistant.".into()),
            opposite: Some("You are a rude, bitter and impolite assistant.".into()),
            ..Self::default()
        }
    }

    /// The templates that it is asked through, given or default; none for a contrastive judge, which is not asked.
    pub fn templates(&self) -> Vec<&str> {
        match (self.protocol, self.kind) {
            (Protocol::Contrastive, _) => Vec::new(),
            _ if !self.templates.is_empty() => self.templates.iter().map(String::as_str).collect(),
            (Protocol::Rating, _) => vec!["rating"],
            (Protocol::Pairwise, JudgeKind::Local) => vec!["verdict_only"],
            (Protocol::Pairwise, JudgeKind::Openai) => vec!["explain"],
        }
    }

    /// openai: the base URL, given or default, without a slash at its end.
    pub fn base_url(&self) -> &str {
        self.base_url.as_deref().unwrap_or(DEFAULT_BASE_URL).trim_end_matches('/')
    }

    /// openai: the variable that holds the key; `OPENAI_API_KEY` for the default URL, none for another unless given.
    pub fn api_key_env(&self) -> Option<&str> {
        let default = (self.base_url() == DEFAULT_BASE_URL).then_some("OPENAI_API_KEY");
        self.api_key_env.as_deref().or(default)
    }

    /// openai: what it charges, or `None` where that is unknown.
    pub fn price(&self) -> Option<Price> {
        let (input, output) = (self.usd_per_million_input?, self.usd_per_million_output?);
        Price::from_dollars(input, output, self.usd_per_million_cached_input).ok()
    }
}
