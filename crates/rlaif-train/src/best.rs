//! The best checkpoint: what is trained is kept where a held-out score was highest, and put back at the end.
//!
//! ```text
//! step ─▶ checkpoint ─▶ look, every `eval_steps` ─▶ highest so far? keep ─┐
//!   ▲                     └─ fallen by more than `max_drop`? end          │
//!   └─────────────────────── until the steps are done, then put back ◀────┘
//! ```
//! A look comes after the checkpoint of its step, so that a judge that cannot go on costs no training; a resumed run looks again and
//! sees the same.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rlaif_core::config::{PolicyWatchConfig, RewardWatchConfig, WatchConfig};
use rlaif_core::metrics::MetricRow;

use crate::checkpoint::{Checkpoint, Snapshot};
use crate::error::{Result, TrainError};
use crate::hooks::Hooks;
use crate::learner::Learner;
use crate::watch::{Watch, Watched};

/// When to look, and when to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looks {
    /// The trainer.
    pub stage: &'static str,
    pub eval_steps: usize,
    pub window: usize,
    pub max_drop: Option<f64>,
    /// Steps of the whole training.
    pub total: u64,
    pub steps_per_epoch: u64,
}

impl Looks {
    pub fn of_policy(
        stage: &'static str,
        config: &PolicyWatchConfig,
        total: u64,
        steps_per_epoch: u64,
    ) -> Self {
        let &PolicyWatchConfig { eval_steps, window, max_drop, .. } = config;
        Self { stage, eval_steps, window, max_drop, total, steps_per_epoch }
    }

    pub fn of_reward(config: &RewardWatchConfig, total: u64, steps_per_epoch: u64) -> Self {
        let &RewardWatchConfig { eval_steps, window, max_drop, .. } = config;
        Self { stage: "reward", eval_steps, window, max_drop, total, steps_per_epoch }
    }

    /// Whether there is a look after step `done`.
    pub fn is_due(&self, done: u64) -> bool {
        done == self.total || done.is_multiple_of(self.eval_steps.max(1) as u64)
    }

    /// An empty row of metrics for it.
    pub fn row(&self, done: u64) -> MetricRow {
        MetricRow::new(self.stage, done, done as f64 / self.steps_per_epoch as f64)
    }

    fn watch_config(&self) -> WatchConfig {
        WatchConfig { judges: None, window: self.window, max_drop: self.max_drop.unwrap_or(f64::INFINITY) }
    }
}

/// What the looks came to. Scores are one a prompt, in one order; NaN where there is none.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct WatchReport {
    /// Step after which the model that is kept was made; 0 is before the first.
    pub kept_step: u64,
    /// Looks taken.
    pub looks: u64,
    /// Whether training ended early because the score had fallen.
    pub stopped: bool,
    /// Scores of what is kept.
    pub kept: Vec<f64>,
    /// Scores of the first look, before the first step.
    pub first: Vec<f64>,
    /// Scores after the last one.
    pub last: Vec<f64>,
}

/// What has been seen so far, and what is to be put back.
#[derive(Debug)]
pub(crate) struct Best {
    pub looks: Looks,
    watch: Watch,
    taken: u64,
    stopped: bool,
    first: Vec<f64>,
    last: Vec<f64>,
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Kept {
    step: u64,
    scores: Vec<f64>,
    parameters: BTreeMap<String, Vec<f32>>,
}

/// Names of a checkpoint.
const NAME: &str = "best";

impl Best {
    pub fn new(looks: Looks) -> Self {
        let watch = Watch::new(&looks.watch_config());
        Self { looks, watch, taken: 0, stopped: false, first: Vec::new(), last: Vec::new(), kept: None }
    }

    /// Takes in what a look at the model after step `done` showed, one score a prompt, NaN where there is none; whether training is over.
    pub fn take(&mut self, done: u64, scores: Vec<f64>, learner: &Learner, hooks: &mut dyn Hooks) -> bool {
        let known: Vec<f64> = scores.iter().copied().filter(|score| !score.is_nan()).collect();
        if known.is_empty() {
            hooks.warning(&format!(
                "nothing that was looked at after step {done} has a score; the look does not count"
            ));
            return false;
        }
        if self.taken == 0 {
            self.first.clone_from(&scores);
        }
        self.taken += 1;
        let watched = self.watch.observe(&known);
        if watched == Watched::Peak {
            let parameters = learner.export_parameters();
            self.kept = Some(Kept { step: done, scores: scores.clone(), parameters });
        }
        self.last = scores;
        self.stopped = self.looks.max_drop.is_some() && watched == Watched::Fallen;
        self.stopped
    }

    /// Makes the learner what was best, and says how training ended; none if no look counted.
    ///
    /// # Errors
    /// If what was kept does not fit the learner.
    pub fn put_back(
        self,
        done: u64,
        learner: &mut Learner,
        hooks: &mut dyn Hooks,
    ) -> Result<Option<WatchReport>> {
        let Some(kept) = self.kept else { return Ok(None) };
        if self.stopped {
            hooks.warning(&format!(
                "the held-out score has fallen from its peak of {:.3} by step {done}; the model of step {} is kept",
                self.watch.peak().unwrap_or(f64::NAN),
                kept.step
            ));
        }
        if kept.step != done {
            learner.import_parameters(&kept.parameters)?;
        }
        Ok(Some(WatchReport {
            kept_step: kept.step,
            looks: self.taken,
            stopped: self.stopped,
            kept: kept.scores,
            first: self.first,
            last: self.last,
        }))
    }

    pub fn write_to<'a>(&'a self, snapshot: &mut Snapshot<'a>) {
        snapshot.numbers(format!("{NAME}/watch"), self.watch.to_numbers());
        snapshot.numbers(format!("{NAME}/looks"), vec![self.taken as f64]);
        snapshot.numbers(format!("{NAME}/first"), self.first.clone());
        snapshot.numbers(format!("{NAME}/last"), self.last.clone());
        let Some(kept) = &self.kept else { return };
        snapshot.numbers(format!("{NAME}/step"), vec![kept.step as f64]);
        snapshot.numbers(format!("{NAME}/scores"), kept.scores.clone());
        for (parameter, values) in &kept.parameters {
            snapshot.tensor(format!("{NAME}/parameter/{parameter}"), Cow::Borrowed(values));
        }
    }

    /// Takes over what [`write_to`](Self::write_to) wrote.
    ///
    /// # Errors
    /// If something is missing.
    pub fn read_from(&mut self, checkpoint: &mut Checkpoint) -> Result<()> {
        let parameters = checkpoint.take_tensors(&format!("{NAME}/parameter/"));
        let numbers = |name: &str| checkpoint.numbers(&format!("{NAME}/{name}")).map(<[f64]>::to_vec);
        self.watch =
            Watch::from_numbers(&self.looks.watch_config(), &numbers("watch")?).ok_or_else(|| {
                TrainError::Checkpoint {
                    path: checkpoint.path.clone(),
                    reason: format!("`{NAME}/watch` is not what was written"),
                }
            })?;
        self.taken = checkpoint.number(&format!("{NAME}/looks"))? as u64;
        (self.first, self.last) = (numbers("first")?, numbers("last")?);
        if !parameters.is_empty() {
            let step = checkpoint.number(&format!("{NAME}/step"))? as u64;
            self.kept = Some(Kept { step, scores: numbers("scores")?, parameters });
        }
        Ok(())
    }
}
