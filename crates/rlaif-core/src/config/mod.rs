//! `rlaif.toml`: one struct a section, every field with its meaning and default.

mod audit;
mod criterion;
mod dpo_loss;
mod evaluate;
mod example;
mod generate;
mod label;
mod load;
mod optim;
mod policy;
mod ppo;
mod preference;
mod review;
mod revise;
mod route;
mod run;
mod sft;
mod toml_out;
mod validate;
mod watch;

pub use crate::prices::PriceConfig;
pub use audit::{AuditConfig, BiasMargin, LengthBy};
pub use criterion::Criterion;
pub use dpo_loss::DpoLossKind;
pub use evaluate::{Against, EvaluateConfig, EvaluatedModel};
pub use generate::GenerateConfig;
pub use label::{
    Aggregation, FewShot, JudgeConfig, JudgeKind, LabelConfig, PairChoice, Protocol, StructuredOutput,
    TooLong,
};
pub use load::{ConfigError, Origin, Resolved};
pub use optim::{Dtype, LoraConfig, OptimConfig, OptimizerKind, Schedule};
pub use policy::PolicyConfig;
pub use ppo::{
    Algorithm, CriticTrunk, EnsembleReward, KlController, KlEstimator, KlPlace, PpoConfig, RatioLevel,
    Reduction, RewardKind, RewardSource, ScaleRewards, ScorePlacement, WatchConfig,
};
pub use preference::{BatchBy, DpoConfig, RewardConfig};
pub use review::ReviewConfig;
pub use revise::{Principle, ReviseConfig};
pub use route::{Destination, RouteConfig, RouteRule};
pub use run::{Durability, MatmulPrecision, PromptsConfig, RunConfig, Stage, StageBudgets};
pub use sft::{LongRow, SftConfig};
pub use validate::Problem;
pub use watch::{PolicyWatchConfig, RewardWatchConfig};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The whole of `rlaif.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The run: its name, folder, seed and stages.
    pub run: RunConfig,
    /// The supervised baseline that is tuned.
    pub policy: PolicyConfig,
    /// The prompts.
    pub prompts: PromptsConfig,
    /// Self-critique and revision.
    pub revise: ReviseConfig,
    /// Supervised fine-tuning of the baseline.
    pub sft: SftConfig,
    /// Sampling of responses.
    pub generate: GenerateConfig,
    /// Labelling of pairs by judges.
    pub label: LabelConfig,
    /// Labelling of pairs by people.
    pub review: ReviewConfig,
    /// Which pairs people label, which judges.
    pub route: RouteConfig,
    /// The reward model.
    pub reward: RewardConfig,
    /// Proximal policy optimisation.
    pub ppo: PpoConfig,
    /// Direct preference optimisation.
    pub dpo: DpoConfig,
    /// Evaluation of tuned policies against the baseline.
    pub evaluate: EvaluateConfig,
    /// Trying of judges.
    pub audit: AuditConfig,
    /// What judges charge, by the endpoint's name of the model; comes before the table that ships with this program.
    pub prices: BTreeMap<String, PriceConfig>,
}

impl Config {
    /// The stages of this run: `run.stages`, without `revise` where it has no rounds, and without `sft` where there is nothing to train
    /// it on.
    pub fn stages(&self) -> Vec<Stage> {
        let revises = self.revise.rounds > 0 && self.run.stages.contains(&Stage::Revise);
        let runs = |stage: &Stage| match stage {
            Stage::Revise => revises,
            Stage::Sft => revises || !self.sft.data.is_empty(),
            _ => true,
        };
        self.run.stages.iter().copied().filter(runs).collect()
    }

    /// The judges of the evaluation: its own, or those that made the labels.
    pub fn evaluation_judges(&self) -> &[JudgeConfig] {
        self.evaluate.judges.as_ref().unwrap_or(&self.label.judges)
    }

    /// The judges that score what the policy says while it is tuned; none if none does.
    pub fn tuning_judges(&self) -> &[JudgeConfig] {
        match self.ppo.maximises(RewardKind::Judges) {
            true => self.ppo.judges.as_ref().unwrap_or(&self.label.judges),
            false => &[],
        }
    }

    /// What chooses the best policy of `sft` or `dpo`, where something does.
    pub fn policy_watch(&self, stage: Stage) -> Option<&PolicyWatchConfig> {
        match stage {
            Stage::Sft => self.sft.watch.as_ref(),
            Stage::Dpo => self.dpo.watch.as_ref(),
            _ => None,
        }
    }

    /// The judges that choose it; none if none does.
    pub fn choosing_judges(&self, stage: Stage) -> &[JudgeConfig] {
        match self.policy_watch(stage).filter(|watch| watch.asks_judges()) {
            Some(watch) => watch.judges.as_deref().unwrap_or(self.evaluation_judges()),
            None => &[],
        }
    }

    /// The judges that watch the tuning; none if none does.
    pub fn watching_judges(&self) -> &[JudgeConfig] {
        match &self.ppo.watch {
            Some(watch) => watch.judges.as_deref().unwrap_or(self.evaluation_judges()),
            None => &[],
        }
    }
}
