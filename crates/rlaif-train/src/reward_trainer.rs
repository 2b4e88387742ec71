//! Reward model: the policy's trunk with a scalar head, trained on preferences with Bradley-Terry.
//!
//! Differs from Ouyang et al. 2022 (<https://arxiv.org/abs/2203.02155>) and from TRL's `RewardTrainer` in:
//! * labels are soft by default: p is the judges' probability, not a vote;
//! * rewards are centered by default (coefficient 0.01, which TRL advises and leaves off);
//! * several heads may share the trunk, and several models make an [`ensemble`](crate::ensemble); TRL trains one head of one model;
//! * chosen and rejected share their prompt in the packed batch, and the pairs of a prompt stand together in an epoch, so that a
//!   response that meets several others is computed once;
//! * the learning rate does not start at 0 (see [`schedule`](crate::schedule)).

use std::collections::BTreeMap;
use std::path::Path;

use rlaif_core::config::{BatchBy, RewardConfig};
use rlaif_core::stats::calibration;
use rlaif_core::{metrics, metrics::MetricRow, seed};
use rlaif_model::{Adapter, Decoder, ScalarHead};

use crate::best::WatchReport;
use crate::best_reward::BestReward;
use crate::checkpoint::{Checkpoints, Fingerprint, Snapshot};
use crate::data::{
    HoldoutPair, PreferenceExample, accuracy, batch_of_step, check_preferences, distinct, learning_heads,
    prompts_of_step, split_by_prompt, truncated_negatives,
};
use crate::ensemble::{Seeds, held_out};
use crate::error::{Result, TrainError, finite};
use crate::hooks::{Hooks, Outcome};
use crate::learner::{Learner, to_f64};
use crate::loss::{bradley_terry, sigmoid, smoothed};
use crate::packing::{Item, Packed};
use crate::schedule::learning_rate;
use crate::score::{Scored, Scorer};

/// Bins of the calibration error; quickstart-sized held-out sets have a few pairs a bin.
const ECE_BINS: usize = 10;

/// Tokens of a forward pass without gradients.
const EVAL_TOKENS: usize = 2048;

/// A trained reward model.
#[derive(Debug)]
pub struct TrainedReward {
    /// The trunk, adapters merged.
    pub decoder: Decoder,
    /// The scalar head, or heads.
    pub head: ScalarHead,
    /// The adapters by themselves, if it trained any.
    pub adapter: Option<Adapter>,
    /// What training came to.
    pub report: RewardReport,
}

/// What training a reward model came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RewardReport {
    /// Optimizer steps.
    pub steps: u64,
    /// Pairs trained on, without those of truncated responses.
    pub train_pairs: usize,
    /// Pairs of a chosen response and its own beginning.
    pub truncated_pairs: usize,
    /// Loss of the last step of this process; NaN if it only loaded a finished checkpoint.
    pub loss: f64,
    /// Every held-out pair with the model's margin, for intervals and calibration.
    pub holdout: Vec<HoldoutPair>,
    /// Share of held-out pairs ranked as labelled; NaN if none are held out.
    pub accuracy: f64,
    /// Mean margin on held-out pairs.
    pub margin: f64,
    /// How the best model was chosen, where `reward.watch` did.
    pub watch: Option<WatchReport>,
}

/// Metrics of one optimizer step; all but the loss are plain means over its pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RewardStep {
    /// Bradley-Terry loss with centering, by weight.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Share of pairs with r_c > r_r.
    pub accuracy: f64,
    /// Mean of r_c − r_r.
    pub margin: f64,
    /// Smallest reward.
    pub min_reward: f64,
    /// Mean reward.
    pub mean_reward: f64,
    /// Largest reward.
    pub max_reward: f64,
    /// Tokens that went through the model.
    pub tokens: usize,
}

/// One reward model in training: [`train_reward`] without data order, files and hooks.
#[derive(Debug)]
pub struct RewardTrainer {
    /// The model and its optimizer.
    pub learner: Learner,
    config: RewardConfig,
    seed: u64,
}

impl RewardTrainer {
    /// Makes the model trainable as the config says.
    ///
    /// # Errors
    /// If a LoRA target does not exist.
    pub fn new(decoder: Decoder, head: ScalarHead, config: &RewardConfig, seed: u64) -> Result<Self> {
        let lora_seed = seed::derive(seed, "reward/lora", 0);
        let learner = Learner::new(decoder, Some(head), &config.optim, config.lora.as_ref(), lora_seed)?;
        Ok(Self { learner, config: config.clone(), seed })
    }

    /// One optimizer step on `pairs`, in micro-batches. `step` counts from 1.
    ///
    /// The loss of a pair is the mean over the heads that learn from it; metrics are of the mean over all heads.
    ///
    /// # Errors
    /// If the loss or the gradient is not finite; the weights are then unchanged.
    pub fn update(
        &mut self,
        pairs: &[&PreferenceExample],
        learning_rate: f64,
        step: u64,
    ) -> Result<RewardStep> {
        let (weights, total) = self.weights(pairs);
        let (count, heads) = (pairs.len() as f64, self.head().count());
        let (mut loss, mut right, mut margin, mut tokens) = (0.0, 0.0, 0.0, 0);
        let mut rewards = Vec::with_capacity(2 * pairs.len());
        let micro_batch_size = self.config.micro_batch_size.max(1);
        for (micro, weights) in pairs.chunks(micro_batch_size).zip(weights.chunks(micro_batch_size)) {
            let packed = Packed::new(&items_of(micro));
            let last = packed.last_indices();
            let hidden = self.learner.hidden(&packed.batch, &last); // [N, H]
            let scores = self.head().forward(&hidden, &last); // [R · K]
            let score = to_f64(&scores);
            let mut gradient = vec![0.0; score.len()];
            for ((pair, weight), places) in micro.iter().zip(weights).zip(packed.of_item.chunks(2)) {
                let (chosen, rejected) = (places[0] * heads, places[1] * heads);
                let p = smoothed(label(pair.p, self.config.soft_labels), self.config.label_smoothing);
                let learning = learning_heads(pair, heads, self.seed);
                for &head in &learning {
                    let at = bradley_terry(
                        score[chosen + head],
                        score[rejected + head],
                        p,
                        pair.margin,
                        self.config.center_rewards_coefficient,
                    );
                    let part = |x: f64| x * weight / total / learning.len() as f64;
                    loss += part(at.loss);
                    gradient[chosen + head] += part(at.chosen);
                    gradient[rejected + head] += part(at.rejected);
                }
                let [chosen, rejected] =
                    [chosen, rejected].map(|first| Scored::of(&score[first..first + heads]).reward);
                margin += (chosen - rejected) / count;
                right += f64::from(chosen > rejected) / count;
                rewards.extend([chosen, rejected]);
            }
            finite("the loss", loss, step)?;
            self.learner.backward(&scores, &gradient);
            tokens += packed.batch.num_tokens();
        }
        let grad_norm = self.learner.step(learning_rate, step)?;
        Ok(RewardStep {
            loss,
            grad_norm,
            accuracy: right,
            margin,
            min_reward: rewards.iter().copied().fold(f64::INFINITY, f64::min),
            mean_reward: rewards.iter().sum::<f64>() / rewards.len() as f64,
            max_reward: rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            tokens,
        })
    }

    /// The weight of each pair of a step, and their sum: Σ w · loss / Σ w over all pairs, or the mean of that over prompts.
    fn weights(&self, pairs: &[&PreferenceExample]) -> (Vec<f64>, f64) {
        let mut of_prompt: BTreeMap<&str, f64> = BTreeMap::new();
        for pair in pairs {
            *of_prompt.entry(&pair.prompt_id).or_default() += pair.weight;
        }
        match self.config.batch_by {
            BatchBy::Pairs => {
                (pairs.iter().map(|pair| pair.weight).collect(), pairs.iter().map(|pair| pair.weight).sum())
            }
            BatchBy::Prompts => {
                let share = |pair: &&PreferenceExample| pair.weight / of_prompt[pair.prompt_id.as_str()];
                (pairs.iter().map(share).collect(), of_prompt.len() as f64)
            }
        }
    }

    /// Margins and mean reward on pairs, without learning from them.
    ///
    /// # Errors
    /// If a pair cannot go through the model.
    pub fn evaluate(&self, pairs: &[&PreferenceExample]) -> Result<(Vec<HoldoutPair>, f64)> {
        let by_head =
            Scorer::new(&self.learner.decoder, self.head(), EVAL_TOKENS).by_member(&items_of(pairs))?;
        let sum: f64 = by_head.iter().map(|heads| Scored::of(heads).reward).sum();
        Ok((held_out(pairs, &by_head), sum / by_head.len() as f64))
    }

    fn head(&self) -> &ScalarHead {
        self.learner.head.as_ref().expect("a reward model has a head")
    }
}

/// The pairs of every step of a training.
pub(crate) struct DataOrder<'a> {
    /// The prompt of each pair.
    prompts: Vec<&'a str>,
    batch_by: BatchBy,
    batch_size: usize,
    seed: u64,
    pub(crate) steps_per_epoch: u64,
    /// Steps in all.
    pub(crate) total: u64,
}

impl<'a> DataOrder<'a> {
    pub(crate) fn new(
        pairs: impl IntoIterator<Item = &'a PreferenceExample>,
        config: &RewardConfig,
        seed: u64,
    ) -> Self {
        let prompts: Vec<&str> = pairs.into_iter().map(|pair| pair.prompt_id.as_str()).collect();
        let (batch_by, batch_size) = (config.batch_by, config.batch_size.max(1));
        let units = match batch_by {
            BatchBy::Pairs => prompts.len(),
            BatchBy::Prompts => distinct(&prompts),
        };
        let steps_per_epoch = units.div_ceil(batch_size) as u64;
        let total = steps_per_epoch * config.epochs as u64;
        Self { prompts, batch_by, batch_size, seed, steps_per_epoch, total }
    }

    /// Indices of the pairs of a step, which counts from 0.
    pub(crate) fn step(&self, step: u64) -> Vec<usize> {
        let of_step = match self.batch_by {
            BatchBy::Pairs => batch_of_step::<&str>,
            BatchBy::Prompts => prompts_of_step::<&str>,
        };
        of_step(&self.prompts, self.batch_size, step, self.seed, "reward/order")
    }
}

/// Trains a reward model on preferences, from `decoder` and `head`; checkpoints go to `dir/checkpoints`. `seeds` is the run's seed, or
/// those of a member of an ensemble.
///
/// Called again after it was stopped or killed, it goes on from the newest checkpoint and comes to the same weights.
///
/// # Errors
/// If there are no preferences, one does not fit the model, the loss is not finite, or the disk fails.
pub fn train_reward(
    decoder: Decoder,
    head: ScalarHead,
    data: &[PreferenceExample],
    config: &RewardConfig,
    seeds: impl Into<Seeds>,
    dir: &Path,
    hooks: &mut dyn Hooks,
) -> Result<Outcome<TrainedReward>> {
    let seeds = seeds.into();
    check_preferences("reward", data, &decoder)?;
    let (mut train, holdout) = split_by_prompt(data, config.holdout_fraction, seeds.holdout);
    let truncated = truncated_negatives(&train, config.truncated_negatives, seeds.training);
    let train_pairs = train.len();
    train.extend(&truncated);
    let fingerprint = Fingerprint::new("reward", config, seeds.training)
        .bytes(&seeds.holdout.to_le_bytes())
        .preferences(data)
        .weights(&decoder)
        .numbers(&head.values())
        .finish();
    let checkpoints = Checkpoints::open(dir, fingerprint)?;
    let mut trainer = RewardTrainer::new(decoder, head, config, seeds.training)?;

    let order = DataOrder::new(train.iter().copied(), config, seeds.training);
    let (steps_per_epoch, total) = (order.steps_per_epoch, order.total);
    let mut best = BestReward::new(config.watch.as_ref(), &holdout, (total, steps_per_epoch))?;
    let (mut done, mut tokens) = (0, 0.0);
    if let Some(mut checkpoint) = checkpoints.newest(&mut |w| hooks.warning(w))? {
        trainer.learner.read_from("reward", &mut checkpoint)?;
        (done, tokens) = (checkpoint.step, checkpoint.number("num_tokens")?);
        best.read_from(&mut checkpoint)?;
        hooks.resumed(done);
    }

    let mut evaluation = None;
    let mut loss = f64::NAN;
    while best.goes_on(&trainer, done, hooks)? {
        hooks.progress(done, total, "");
        let pairs: Vec<&PreferenceExample> = order.step(done).iter().map(|&i| train[i]).collect();
        let rate = learning_rate(&config.optim, done, total);
        let named = |error: TrainError| error.on_rows(pairs.iter().map(|pair| pair.prompt_id.as_str()));
        let step = trainer.update(&pairs, rate, done + 1).map_err(named)?;
        done += 1;
        loss = step.loss;
        tokens += step.tokens as f64;

        let mut row = MetricRow::new("reward", done, done as f64 / steps_per_epoch as f64)
            .with(metrics::LOSS, step.loss)
            .with(metrics::GRAD_NORM, step.grad_norm)
            .with(metrics::LEARNING_RATE, rate)
            .with(metrics::ACCURACY, step.accuracy)
            .with(metrics::MARGIN, step.margin)
            .with(metrics::MIN_REWARD, step.min_reward)
            .with(metrics::MEAN_REWARD, step.mean_reward)
            .with(metrics::MAX_REWARD, step.max_reward)
            .with(metrics::NUM_TOKENS, tokens);
        evaluation = None;
        if done.is_multiple_of(steps_per_epoch) && !holdout.is_empty() {
            hooks.progress(done, total, "held-out pairs");
            let (pairs, mean_reward) = trainer.evaluate(&holdout)?;
            row.set(metrics::EVAL_ACCURACY, accuracy(&pairs));
            row.set(metrics::EVAL_MARGIN, mean_margin(&pairs));
            row.set(metrics::EVAL_MEAN_REWARD, mean_reward);
            let loss = pairs.iter().map(|p| bradley_terry(p.margin, 0.0, p.p, 0.0, 0.0).loss).sum::<f64>();
            row.set(metrics::EVAL_LOSS, loss / pairs.len() as f64);
            let (predicted, labels) = predictions(&pairs);
            row.set(metrics::EVAL_BRIER, calibration::brier(&predicted, &labels).unwrap_or(f64::NAN));
            row.set(metrics::EVAL_ECE, calibration::ece(&predicted, &labels, ECE_BINS).unwrap_or(f64::NAN));
            evaluation = Some(pairs);
        }
        hooks.metrics(&row);

        let stopping = hooks.should_stop();
        let saves = done == total || done.is_multiple_of(config.save_steps.max(1) as u64);
        if stopping || saves || best.is_due(done) {
            let mut snapshot = Snapshot::default();
            trainer.learner.write_to("reward", &mut snapshot);
            snapshot.numbers("num_tokens".into(), vec![tokens]);
            best.write_to(&mut snapshot);
            checkpoints.save(done, &snapshot)?;
        }
        if stopping && done < total {
            return Ok(Outcome::Interrupted { step: done, total });
        }
    }

    let watch = best.put_back(done, &mut trainer.learner, hooks)?;
    let holdout = match evaluation.filter(|_| watch.as_ref().is_none_or(|watch| watch.kept_step == done)) {
        Some(pairs) => pairs,
        None if holdout.is_empty() => Vec::new(),
        None => trainer.evaluate(&holdout)?.0,
    };
    hooks.progress(total, total, "");
    let report = RewardReport {
        steps: done,
        train_pairs,
        truncated_pairs: truncated.len(),
        loss,
        accuracy: accuracy(&holdout),
        margin: mean_margin(&holdout),
        holdout,
        watch,
    };
    let adapter = trainer.learner.adapter();
    let (decoder, head) = trainer.learner.into_model();
    let head = head.expect("a reward model has a head");
    Ok(Outcome::Finished(TrainedReward { decoder, head, adapter, report }))
}

/// The label that a loss sees: p, or p rounded to the likelier side.
pub(crate) fn label(p: f64, soft: bool) -> f64 {
    if soft { p } else { p.round() }
}

/// Chosen and rejected of each pair, in turns.
pub(crate) fn items_of<'a>(pairs: &[&'a PreferenceExample]) -> Vec<Item<'a>> {
    pairs
        .iter()
        .flat_map(|pair| {
            let prompt = pair.prompt_ids.as_slice();
            [(prompt, pair.chosen_ids.as_slice()), (prompt, pair.rejected_ids.as_slice())]
        })
        .collect()
}

/// Held-out pairs from rewards of [`items_of`] them.
pub(crate) fn margins(pairs: &[&PreferenceExample], rewards: &[f64]) -> Vec<HoldoutPair> {
    pairs
        .iter()
        .zip(rewards.chunks(2))
        .map(|(pair, rewards)| HoldoutPair {
            prompt_id: pair.prompt_id.clone(),
            p: pair.p,
            margin: rewards[0] - rewards[1],
            label_margin: pair.margin,
            uncertainty: None,
            chosen_tokens: pair.chosen_ids.len(),
            rejected_tokens: pair.rejected_ids.len(),
            source: pair.source.clone(),
        })
        .collect()
}

pub(crate) fn mean_margin(pairs: &[HoldoutPair]) -> f64 {
    pairs.iter().map(|p| p.margin).sum::<f64>() / pairs.len() as f64
}

/// P(chosen wins) and its label, once from either side: "chosen" is always the better one, and would hide miscalibration.
fn predictions(pairs: &[HoldoutPair]) -> (Vec<f64>, Vec<f64>) {
    let (predicted, labels): (Vec<f64>, Vec<f64>) = pairs.iter().map(|p| (sigmoid(p.margin), p.p)).unzip();
    calibration::symmetric(&predicted, &labels)
}
