//! What is compared; `rlaif report --compare … --json` prints it.

use crate::report::data::{Cost, Estimate, ReportData};
use serde::{Deserialize, Serialize};

/// Runs side by side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SideBySide {
    /// The runs; the first is what the others are held against.
    pub runs: Vec<RunColumn>,
    /// Config keys that do not have the same value in every run.
    pub config: Vec<ConfigDifference>,
    /// The numbers, a row each.
    pub measures: Vec<MeasureRow>,
    /// Each run against the first.
    pub contrasts: Vec<Contrast>,
    /// Why numbers may differ without either run being better.
    pub warnings: Vec<String>,
}

/// A run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunColumn {
    /// `run.name`.
    pub name: String,
    /// Its folder.
    pub folder: String,
    /// What stands behind a command about it.
    pub arguments: String,
    /// `policy.model`.
    pub model: String,
    /// When its last stage ended.
    pub finished_at: Option<String>,
    /// What its judges cost.
    pub cost: Cost,
    /// Seconds of all its stages.
    pub wall_seconds: f64,
    /// Preferences it trained on; `None` before it labelled any.
    pub preferences: Option<u64>,
    /// Of these, those that people made.
    pub preferences_of_people: u64,
    /// Names of the judges of its evaluation.
    pub judges: Vec<String>,
    /// These judges also made its labels.
    pub judges_made_labels: bool,
    /// Held-out prompts of its evaluation.
    pub prompts: Option<u64>,
}

/// A config key and its value in every run; `None` where it is not set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigDifference {
    /// `ppo.kl_coef`; judges and other lists by their place, such as `label.judges.1.model`.
    pub key: String,
    /// As JSON, in the order of the runs.
    pub values: Vec<Option<String>>,
}

/// One number of every run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeasureRow {
    /// What it is.
    pub measure: String,
    /// Of which policy; empty where it is of none.
    pub policy: String,
    /// How it is written.
    pub unit: MeasureUnit,
    /// In the order of the runs.
    pub values: Vec<Option<Estimate>>,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasureUnit {
    /// In [0, 1].
    #[default]
    Share,
    /// A plain number.
    Number,
}

/// One number of a run against the first run's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contrast {
    /// What it is.
    pub measure: String,
    /// Of which policy; empty where it is of none.
    pub policy: String,
    /// How the difference is written.
    pub unit: MeasureUnit,
    /// Place of the run.
    pub run: usize,
    /// This run's less the first run's; without an interval where one of them has none.
    pub difference: Estimate,
    /// What that shows.
    pub shown: Shown,
}

/// What a difference of two runs shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// The interval of the difference includes 0, or there is none.
    #[default]
    No,
    /// This run's is higher.
    Higher,
    /// This run's is lower.
    Lower,
}

impl RunColumn {
    /// What stands at the head of a run's column.
    pub fn of(data: &ReportData) -> Self {
        let evaluation = data.evaluation.as_ref();
        let labels = data.labels.as_ref();
        let trained = |of: &dyn Fn(&str) -> bool| -> Option<u64> {
            Some(labels?.trained.iter().filter(|it| of(&it.name)).map(|it| it.count).sum())
        };
        Self {
            name: data.run.name.clone(),
            folder: data.run.folder.clone(),
            arguments: data.run.config_path.clone(),
            model: data.run.model.clone(),
            finished_at: data.run.finished_at.clone(),
            cost: data.cost.clone(),
            wall_seconds: data.run.stages.iter().map(|stage| stage.seconds).sum(),
            preferences: trained(&|_| true),
            preferences_of_people: trained(&|name| name == rlaif_core::people::HUMAN).unwrap_or(0),
            judges: evaluation.map(|it| it.judges.clone()).unwrap_or_default(),
            judges_made_labels: evaluation.is_some_and(|it| it.judges_made_labels),
            prompts: evaluation.map(|it| it.prompts),
        }
    }
}
