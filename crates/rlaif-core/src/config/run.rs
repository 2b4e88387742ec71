//! `[run]` and `[prompts]`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One step of the pipeline, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Let the baseline criticise and revise its own answers.
    Revise,
    /// Fine-tune the baseline on demonstrations.
    Sft,
    /// Sample responses.
    Generate,
    /// Judge pairs.
    Label,
    /// Train the reward model.
    Reward,
    /// Tune the policy against the reward model.
    Ppo,
    /// Tune the policy on the preferences.
    Dpo,
    /// Compare tuned policies with the baseline.
    Evaluate,
    /// Write `report.html`.
    Report,
}

impl Stage {
    /// Those whose judges may cost money.
    pub const JUDGING: [Self; 5] = [Self::Sft, Self::Label, Self::Ppo, Self::Dpo, Self::Evaluate];

    /// Every stage, in order.
    pub const ALL: [Self; 9] = [
        Self::Revise,
        Self::Sft,
        Self::Generate,
        Self::Label,
        Self::Reward,
        Self::Ppo,
        Self::Dpo,
        Self::Evaluate,
        Self::Report,
    ];

    /// Its name in the config, on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Revise => "revise",
            Self::Sft => "sft",
            Self::Generate => "generate",
            Self::Label => "label",
            Self::Reward => "reward",
            Self::Ppo => "ppo",
            Self::Dpo => "dpo",
            Self::Evaluate => "evaluate",
            Self::Report => "report",
        }
    }
}

/// What a committed row of the ledger survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A power cut: every commit waits for the disk (`synchronous=FULL`).
    Power,
    /// The death of this process, such as kill -9 (`synchronous=NORMAL`). The last commits may be missing after a power cut, and what
    /// they held is then bought again.
    Process,
}

/// How exactly the CPU multiplies float32 matrices, in PyTorch's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatmulPrecision {
    /// Float32 factors.
    Highest,
    /// Factors rounded to bfloat16.
    Medium,
}

/// Dollars for the judges of one stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StageBudgets {
    /// For judges that choose the best policy of `sft`. Default none.
    pub sft: Option<f64>,
    /// For labelling. Default none.
    pub label: Option<f64>,
    /// For judges that score or watch the tuning. Default none.
    pub ppo: Option<f64>,
    /// For judges that choose the best policy of `dpo`. Default none.
    pub dpo: Option<f64>,
    /// For the evaluation. Default none.
    pub evaluate: Option<f64>,
}

impl StageBudgets {
    /// The limit of a stage.
    pub fn of(&self, stage: Stage) -> Option<f64> {
        match stage {
            Stage::Sft => self.sft,
            Stage::Label => self.label,
            Stage::Ppo => self.ppo,
            Stage::Dpo => self.dpo,
            Stage::Evaluate => self.evaluate,
            _ => None,
        }
    }
}

/// `[run]`: the run's name, folder, seed and stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Name of the run; its folder is `{dir}/{name}`. Default `quickstart`.
    pub name: String,
    /// Where run folders are, relative to the working folder. Default `runs`.
    pub dir: PathBuf,
    /// Seed from which every random stream is derived. Default 0.
    pub seed: u64,
    /// Stages to run. Default: all; `revise` where `revise.rounds` is above 0, `sft` there and where
    /// `sft.data` names files.
    pub stages: Vec<Stage>,
    /// Where tensors live: `auto`, `cpu`, or a GPU that this build has (`wgpu`, `vulkan`, `metal`, `rocm`, `cuda`). Default `cpu`,
    /// the only device on which a resumed run is equal bit for bit.
    pub device: String,
    /// Threads for tensor work; 0 means all cores. Default 0.
    pub threads: usize,
    /// How exactly the CPU multiplies weights with hidden states, in sampling, scoring and training: `highest` (float32), or `medium`
    /// (factors rounded to bfloat16, sums in float32: faster where the processor has AVX512-BF16, and as `highest` elsewhere; sampling then
    /// holds a second copy of the weights, of 2 bytes each). The weights, the optimizer and attention stay float32. Default `highest`.
    pub float32_matmul_precision: MatmulPrecision,
    /// What committed rows of the ledger survive: `power` (a power cut) or `process` (kill -9 only; faster on slow disks). Default
    /// `power`.
    pub durability: Durability,
    /// Stop before the judges of a stage have cost more than this many dollars: `{ label = 5.0, evaluate = 1.0 }`. `label.max_usd`
    /// limits all stages together. Default none.
    pub max_usd_per_stage: StageBudgets,
    /// Seconds that calls in flight have to end after Ctrl-C or SIGTERM; what has no reply then is possibly billed. Default 30.
    pub drain_seconds: f64,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            name: "quickstart".into(),
            dir: "runs".into(),
            seed: 0,
            stages: Stage::ALL.to_vec(),
            device: "cpu".into(),
            threads: 0,
            float32_matmul_precision: MatmulPrecision::Highest,
            durability: Durability::Power,
            max_usd_per_stage: StageBudgets::default(),
            drain_seconds: 30.0,
        }
    }
}

/// `[prompts]`: JSONL files with `prompt` (text or messages) and optionally `id`, `tags`, `reference`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PromptsConfig {
    /// Prompts to train on, relative to the config file. Default `prompts.jsonl`.
    pub train: PathBuf,
    /// Prompts to evaluate on. Default none: `eval_fraction` of the training file is held out instead.
    pub eval: Option<PathBuf>,
    /// Share of `train` held out for evaluation where `eval` is not given; the split depends on the seed only. Default 0.25.
    pub eval_fraction: f64,
    /// Seed of that split, where runs of different seeds shall hold out the same prompts. Default: `run.seed`.
    pub split_seed: Option<u64>,
    /// Use only the first n training prompts. Default: all.
    pub limit: Option<usize>,
    /// System prompt put before every conversation that has none. Default: what the model's own chat template does.
    pub system: Option<String>,
}

impl Default for PromptsConfig {
    fn default() -> Self {
        Self {
            train: "prompts.jsonl".into(),
            eval: None,
            eval_fraction: 0.25,
            split_seed: None,
            limit: None,
            system: None,
        }
    }
}
