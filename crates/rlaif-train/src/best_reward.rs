//! The best reward model: every so many steps it ranks held-out pairs, and agreement decides, not the loss.

use std::collections::BTreeMap;

use rlaif_core::config::RewardWatchConfig;
use rlaif_core::metrics;

use crate::best::{Best, Looks, WatchReport};
use crate::checkpoint::{Checkpoint, Snapshot};
use crate::data::{PreferenceExample, accuracy};
use crate::error::{Result, TrainError};
use crate::hooks::Hooks;
use crate::learner::Learner;
use crate::reward_trainer::RewardTrainer;

/// [`Best`] of a reward model; without a watch it only counts the steps.
pub(crate) struct BestReward<'a> {
    total: u64,
    watched: Option<(Best, Vec<&'a PreferenceExample>)>,
}

impl<'a> BestReward<'a> {
    /// Nothing looked at yet.
    ///
    /// # Errors
    /// If no held-out pair is to be looked at.
    pub fn new(
        config: Option<&RewardWatchConfig>,
        holdout: &[&'a PreferenceExample],
        (total, steps_per_epoch): (u64, u64),
    ) -> Result<Self> {
        let Some(config) = config else { return Ok(Self { total, watched: None }) };
        let wanted = |pair: &&&PreferenceExample| match &config.source {
            Some(source) => pair.source == *source || pair.source.split('+').any(|one| one == source),
            None => true,
        };
        let pairs: Vec<&PreferenceExample> = holdout.iter().filter(wanted).copied().collect();
        if pairs.is_empty() {
            let (what, next_step) = match &config.source {
                Some(source) => (
                    format!("held-out pair that {source:?} labelled"),
                    "see `reward.watch.source`, or raise `reward.holdout_fraction`".to_string(),
                ),
                None => ("held-out pair".to_string(), "raise `reward.holdout_fraction`".to_string()),
            };
            return Err(TrainError::NothingHeldOut { trainer: "reward", what, next_step });
        }
        let best = Best::new(Looks::of_reward(config, total, steps_per_epoch));
        Ok(Self { total, watched: Some((best, pairs)) })
    }

    /// Whether training goes on after step `done`; looks at the model where a look is due. A look has one score a prompt: the share of its
    /// pairs that are ranked as labelled.
    ///
    /// # Errors
    /// If a pair cannot go through the model.
    pub fn goes_on(&mut self, trainer: &RewardTrainer, done: u64, hooks: &mut dyn Hooks) -> Result<bool> {
        let mut over = false;
        if let Some((best, pairs)) = &mut self.watched
            && best.looks.is_due(done)
        {
            hooks.progress(done, self.total, "held-out pairs");
            let (ranked, _) = trainer.evaluate(pairs)?;
            hooks.metrics(&best.looks.row(done).with(metrics::EVAL_WATCH_ACCURACY, accuracy(&ranked)));
            let mut of_prompt: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
            for pair in &ranked {
                of_prompt.entry(&pair.prompt_id).or_default().push(f64::from(pair.is_right()));
            }
            let mean = |right: &Vec<f64>| right.iter().sum::<f64>() / right.len() as f64;
            over = best.take(done, of_prompt.values().map(mean).collect(), &trainer.learner, hooks);
        }
        Ok(done < self.total && !over)
    }

    /// Whether there is a look after step `done`, before which there is to be a checkpoint.
    pub fn is_due(&self, done: u64) -> bool {
        self.watched.as_ref().is_some_and(|(best, _)| best.looks.is_due(done))
    }

    /// Makes the learner what was best; none without a watch.
    ///
    /// # Errors
    /// As [`Best::put_back`].
    pub fn put_back(
        self,
        done: u64,
        learner: &mut Learner,
        hooks: &mut dyn Hooks,
    ) -> Result<Option<WatchReport>> {
        match self.watched {
            Some((best, _)) => best.put_back(done, learner, hooks),
            None => Ok(None),
        }
    }

    pub fn write_to<'s>(&'s self, snapshot: &mut Snapshot<'s>) {
        if let Some((best, _)) = &self.watched {
            best.write_to(snapshot);
        }
    }

    /// Takes over what [`write_to`](Self::write_to) wrote.
    ///
    /// # Errors
    /// If something is missing.
    pub fn read_from(&mut self, checkpoint: &mut Checkpoint) -> Result<()> {
        match &mut self.watched {
            Some((best, _)) => best.read_from(checkpoint),
            None => Ok(()),
        }
    }
}
