//! `[label]` and `[[label.judges]]`.

use super::Criterion;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where an `openai` judge is asked unless its config says otherwise.
const OPENAI_URL: &str = "https://api.openai.com/v1";

/// Where an `anthropic` judge is asked unless its config says otherwise.
const ANTHROPIC_URL: &str = "https://api.anthropic.com/v1";

/// Hosts that are Azure's own end like this.
const AZURE_HOSTS: [&str; 3] =
    [".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"];

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
    /// Any OpenAI-compatible chat completions endpoint: OpenAI, vLLM, SGLang, llama.cpp, Ollama, OpenRouter.
    Openai,
    /// Anthropic's messages API.
    Anthropic,
    /// A deployment in Azure OpenAI.
    Azure,
}

impl JudgeKind {
    /// The word in configs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Azure => "azure",
        }
    }

    /// True if it is asked over the network, and may cost money.
    pub fn is_remote(self) -> bool {
        self != Self::Local
    }
}

/// How a judge's answers are held to the form that its template asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StructuredOutput {
    /// As the endpoint can: it is asked once with a small call for each form.
    Auto,
    /// Not at all.
    Off,
    /// One of a few words (vLLM).
    Choice,
    /// A JSON schema.
    JsonSchema,
    /// The arguments of a tool (Anthropic).
    Tool,
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
    /// Folders of other runs whose replies are taken, at no cost, where a request is the same to the byte. Relative to the config
    /// file. Default none.
    pub reuse_replies: Vec<std::path::PathBuf>,
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
            reuse_replies: Vec::new(),
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
    /// `local`, `openai`, `anthropic` or `azure`. Default `local`.
    pub kind: JudgeKind,
    /// `pairwise`, `rating` or `contrastive`. Default `contrastive` for local judges, `pairwise` for others.
    pub protocol: Protocol,
    /// The model: for `local` a folder, `.gguf`, `hf:owner/name`, or `policy` for the baseline itself; for the
    /// others the endpoint's name of it (`azure`: of the deployment). Default `policy`.
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
    /// Policies, as the ledger names them (`baseline`, `origin`, `ppo`, `dpo`), whose responses are of this judge's model or one of its
    /// family: `rlaif audit` measures whether it likes these better than others do. Changes no label. Default: for a local judge that is
    /// `policy`, the one that it is.
    pub own_policies: Vec<String>,

    /// Contrastive: system prompt of the principle.
    pub principle: Option<String>,
    /// Contrastive: system prompt of its opposite.
    pub opposite: Option<String>,
    /// Contrastive: p = σ(difference of per-token log-ratios / temperature). Rating: p = σ(difference of ratings, scaled to
    /// [−1, 1], / temperature), so that one point of ten is p = 0.9. Default 0.1.
    pub temperature: f64,

    /// remote: base URL up to and including `/v1`; for `azure` the resource's, such as `https://NAME.openai.azure.com`.
    /// Default OpenAI's or Anthropic's own.
    pub base_url: Option<String>,
    /// remote: environment variable with the key, or with `_FILE` behind it the path of a file with the key; none for endpoints
    /// without one. Default `OPENAI_API_KEY`, `ANTHROPIC_API_KEY` or `AZURE_OPENAI_API_KEY` with that provider's own hosts only.
    pub api_key_env: Option<String>,
    /// azure: the `api-version` of every request. Default `2024-10-21`.
    pub api_version: Option<String>,
    /// openai, anthropic: ask in batches, at half the price and answered within a day, instead of call by call. What is out when the run is
    /// stopped stays with the provider, and the same command fetches it. Default false.
    pub batch: bool,
    /// openai, anthropic: longest wait in seconds between two looks at open batches. Default 300.
    pub batch_poll_seconds: f64,
    /// remote: requests in flight. Default 8.
    pub max_concurrency: usize,
    /// remote: retries of one request after failures that are worth one. Default 5.
    pub max_retries: usize,
    /// remote: how often one request may be sent again after a call that was possibly billed; with 0 such a request is held as failed
    /// until this is raised. Default 2.
    pub max_resends: usize,
    /// remote: requests a minute that the endpoint allows. Default: what its headers say, else no limit.
    pub requests_per_minute: Option<u32>,
    /// remote: tokens a minute that the endpoint allows, prompts and `max_tokens` counted. Default: what its headers say, else no limit.
    pub tokens_per_minute: Option<u32>,
    /// remote: stop if another model answers than the one that was asked, instead of warning. Default false.
    pub strict_model: bool,
    /// remote: seconds until a request is given up. Default 120.
    pub timeout_seconds: f64,
    /// remote: tokens for explanation and verdict. Default 512.
    pub max_tokens: usize,
    /// remote: judge's sampling temperature; none for reasoning models that refuse one. Default 0.
    pub sampling_temperature: Option<f64>,
    /// openai, azure: ask for the probabilities of a verdict in words too, so that its label is soft. Templates that end in one
    /// token always do. Some endpoints refuse it. Default false.
    pub logprobs: bool,
    /// remote: no soft label where less than this probability fell on the names of the two responses, or on the ratings. Default 0.5.
    pub min_mass: f64,
    /// remote: `auto`, `off`, `choice`, `json_schema` or `tool`: how answers are held to the form that a template asks for with
    /// `answer = "json"` or `answer = "token"`. `auto` asks the endpoint once for each form that could be of use, with a small call,
    /// remembers what it found, and takes the best form; a form by its name is used without asking. Default `auto`.
    pub structured_output: StructuredOutput,
    /// openai, azure: `minimal`, `low`, `medium` or `high` for reasoning models, passed on as it is. Default none.
    pub reasoning_effort: Option<String>,
    /// anthropic: mark the system prompt to be kept in the provider's cache, which it does from about a thousand tokens on.
    /// Default true.
    pub prompt_cache: bool,
    /// remote: more fields of the request's body, passed on as they are, such as `extra = { service_tier = "flex" }`. Default none.
    pub extra: Map<String, Value>,
    /// remote: dollars per million prompt tokens. Default: what `[prices]` or this program's table says; without a price it
    /// does not start, unless `allow_unknown_price`.
    pub usd_per_million_input: Option<f64>,
    /// remote: dollars per million completion tokens. Default as above.
    pub usd_per_million_output: Option<f64>,
    /// remote: dollars per million cached prompt tokens. Default: the input price.
    pub usd_per_million_cached_input: Option<f64>,
    /// remote: run although the price is unknown; the bill then says so instead of a sum. Default false.
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
            own_policies: Vec::new(),
            principle: None,
            opposite: None,
            temperature: 0.1,
            base_url: None,
            api_key_env: None,
            api_version: None,
            batch: false,
            batch_poll_seconds: 300.0,
            max_concurrency: 8,
            max_retries: 5,
            max_resends: 2,
            requests_per_minute: None,
            tokens_per_minute: None,
            strict_model: false,
            timeout_seconds: 120.0,
            max_tokens: 512,
            sampling_temperature: Some(0.0),
            logprobs: false,
            min_mass: 0.5,
            structured_output: StructuredOutput::Auto,
            reasoning_effort: None,
            prompt_cache: true,
            extra: Map::new(),
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
            (Protocol::Pairwise, _) => vec!["explain"],
        }
    }

    /// remote: the base URL, given or default, without a slash at its end; empty for an `azure` judge that gives none.
    pub fn base_url(&self) -> &str {
        let default = match self.kind {
            JudgeKind::Anthropic => ANTHROPIC_URL,
            JudgeKind::Azure => "",
            JudgeKind::Openai | JudgeKind::Local => OPENAI_URL,
        };
        self.base_url.as_deref().unwrap_or(default).trim_end_matches('/')
    }

    /// remote: the variable that holds the key. A default one goes to hosts of its own provider only; for any other the config
    /// must name a variable, or there is none.
    pub fn api_key_env(&self) -> Option<&str> {
        let url = self.base_url();
        let default = match self.kind {
            JudgeKind::Anthropic => (url == ANTHROPIC_URL).then_some("ANTHROPIC_API_KEY"),
            JudgeKind::Azure => is_azure(url).then_some("AZURE_OPENAI_API_KEY"),
            JudgeKind::Openai | JudgeKind::Local => (url == OPENAI_URL).then_some("OPENAI_API_KEY"),
        };
        self.api_key_env.as_deref().or(default)
    }

    /// azure: the `api-version`, given or default.
    pub fn api_version(&self) -> &str {
        self.api_version.as_deref().unwrap_or("2024-10-21")
    }
}

/// True for `https://` and a host of Azure's, written plainly: what could be read in two ways is not Azure's.
fn is_azure(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://") else { return false };
    let host = rest.split('/').next().unwrap_or_default();
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    plain && AZURE_HOSTS.iter().any(|end| host.len() > end.len() && host.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_key_goes_to_the_hosts_of_its_provider_only() {
        let key = |kind, url: Option<&str>| {
            let judge = JudgeConfig { kind, base_url: url.map(String::from), ..JudgeConfig::default() };
            judge.api_key_env().map(String::from)
        };
        assert_eq!(key(JudgeKind::Openai, None).as_deref(), Some("OPENAI_API_KEY"));
        assert_eq!(key(JudgeKind::Anthropic, None).as_deref(), Some("ANTHROPIC_API_KEY"));
        assert_eq!(key(JudgeKind::Azure, None), None);
        let azure = Some("https://me.openai.azure.com/");
        assert_eq!(key(JudgeKind::Azure, azure).as_deref(), Some("AZURE_OPENAI_API_KEY"));
        for evil in [
            "https://evil.example/v1",
            "https://evil.example/.openai.azure.com",
            "https://evil.example\\.openai.azure.com",
            "https://evil.example?.openai.azure.com",
            "https://evil.example#.openai.azure.com",
            "https://evil.example:1@x.openai.azure.com",
            "https://.openai.azure.com",
            "http://me.openai.azure.com",
            "https://api.openai.com.evil.example/v1",
            "https://api.anthropic.com/v1/../evil",
        ] {
            for kind in [JudgeKind::Openai, JudgeKind::Anthropic, JudgeKind::Azure] {
                assert_eq!(key(kind, Some(evil)), None, "{kind:?} {evil}");
            }
        }
    }
}
