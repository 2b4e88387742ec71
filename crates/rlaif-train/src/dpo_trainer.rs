//! Direct preference optimisation, Rafailov et al. 2023 (<https://arxiv.org/abs/2305.18290>).
//!
//! Differs from the paper and from TRL's `DPOTrainer` in:
//! * labels are soft by default: −(p log σ(βΔ) + (1 − p) log σ(−βΔ)), which is the paper's loss at p = 1;
//! * reference log-probs are computed once, before training, and kept in the checkpoints; the reference then takes no memory;
//! * chosen and rejected share their prompt in the packed batch, and the pairs of a prompt stand together in an epoch, so that a
//!   response that meets several others is computed once;
//! * the learning rate does not start at 0 (see [`schedule`](crate::schedule)).

use std::path::Path;

use rlaif_core::config::DpoConfig;
use rlaif_core::{metrics, metrics::MetricRow, seed};
use rlaif_model::Decoder;

use crate::checkpoint::{Checkpoints, Fingerprint, Snapshot};
use crate::data::{
    HoldoutPair, PreferenceExample, accuracy, batch_of_step, check_preferences, split_by_prompt,
};
use crate::error::{Result, finite};
use crate::hooks::{Hooks, Outcome};
use crate::learner::{Learner, to_f64};
use crate::loss::{DpoLoss, PairLogps, dpo_loss};
use crate::packing::{Packed, split_by_length};
use crate::reward_trainer::{items_of, label, margins, mean_margin};
use crate::schedule::learning_rate;
use crate::score::sequence_logps;

/// Tokens of a forward pass without gradients.
const EVAL_TOKENS: usize = 2048;

/// A tuned policy.
#[derive(Debug)]
pub struct TrainedPolicy {
    /// The policy, adapters merged.
    pub policy: Decoder,
    /// What training came to.
    pub report: DpoReport,
}

/// What DPO came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DpoReport {
    /// Optimizer steps.
    pub steps: u64,
    /// Pairs trained on.
    pub train_pairs: usize,
    /// Loss of the last step of this process; NaN if it only loaded a finished checkpoint.
    pub loss: f64,
    /// Every held-out pair with the margin of implicit rewards, for intervals.
    pub holdout: Vec<HoldoutPair>,
    /// Share of held-out pairs that the implicit rewards rank as labelled; NaN if none are held out.
    pub accuracy: f64,
    /// Mean margin of implicit rewards on held-out pairs.
    pub margin: f64,
}

/// A preference with its log-probs under the reference.
#[derive(Debug, Clone, Copy)]
pub struct ReferencedPair<'a> {
    /// The preference.
    pub example: &'a PreferenceExample,
    /// log p_ref(chosen | prompt).
    pub ref_chosen: f64,
    /// log p_ref(rejected | prompt).
    pub ref_rejected: f64,
}

/// Metrics of one optimizer step, averaged over its pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DpoStep {
    /// The loss.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Implicit reward of chosen responses.
    pub chosen_reward: f64,
    /// Implicit reward of rejected responses.
    pub rejected_reward: f64,
    /// Share of pairs whose chosen response has the higher implicit reward.
    pub accuracy: f64,
    /// Summed log-prob of chosen responses.
    pub chosen_logps: f64,
    /// Summed log-prob of rejected responses.
    pub rejected_logps: f64,
    /// Tokens that went through the model.
    pub tokens: usize,
}

/// One policy in training: [`train_dpo`] without data order, files and hooks.
#[derive(Debug)]
pub struct DpoTrainer {
    /// The policy and its optimizer.
    pub learner: Learner,
    config: DpoConfig,
}

impl DpoTrainer {
    /// Makes the policy trainable as the config says.
    ///
    /// # Errors
    /// If a LoRA target does not exist.
    pub fn new(policy: Decoder, config: &DpoConfig, run_seed: u64) -> Result<Self> {
        let lora_seed = seed::derive(run_seed, "dpo/lora", 0);
        let learner = Learner::new(policy, None, &config.optim, config.lora.as_ref(), lora_seed)?;
        Ok(Self { learner, config: config.clone() })
    }

    /// One optimizer step on `pairs`, in micro-batches. `step` counts from 1.
    ///
    /// # Errors
    /// If the loss or the gradient is not finite; the weights are then unchanged.
    pub fn update(&mut self, pairs: &[ReferencedPair<'_>], learning_rate: f64, step: u64) -> Result<DpoStep> {
        let (count, beta) = (pairs.len() as f64, self.config.beta);
        let mut metrics = DpoStep::default();
        for micro in pairs.chunks(self.config.micro_batch_size.max(1)) {
            let examples: Vec<&PreferenceExample> = micro.iter().map(|pair| pair.example).collect();
            let packed = Packed::new(&items_of(&examples));
            let lengths = packed.lengths();
            let hidden = self.learner.decoder.hidden(&packed.batch); // [N, H]
            let logprobs = self.learner.decoder.logprobs(&hidden, &packed.token_reads(), 1.0); // [R]
            let logps: Vec<f64> = split_by_length(&to_f64(&logprobs), &lengths)
                .iter()
                .map(|tokens| tokens.iter().sum())
                .collect();

            let mut response_gradient = vec![0.0; lengths.len()];
            for (pair, places) in micro.iter().zip(packed.of_item.chunks(2)) {
                let (chosen, rejected) = (places[0], places[1]);
                let at = PairLogps {
                    chosen: logps[chosen],
                    rejected: logps[rejected],
                    ref_chosen: pair.ref_chosen,
                    ref_rejected: pair.ref_rejected,
                    chosen_len: lengths[chosen],
                    rejected_len: lengths[rejected],
                };
                let p = label(pair.example.p, self.config.soft_labels);
                let loss = dpo_loss(DpoLoss::Soft, &at, beta, p);
                response_gradient[chosen] += loss.chosen / count;
                response_gradient[rejected] += loss.rejected / count;
                let (chosen_reward, rejected_reward) = (at.chosen_reward(beta), at.rejected_reward(beta));
                metrics.loss += loss.loss / count;
                metrics.chosen_reward += chosen_reward / count;
                metrics.rejected_reward += rejected_reward / count;
                metrics.accuracy += f64::from(chosen_reward > rejected_reward) / count;
                metrics.chosen_logps += at.chosen / count;
                metrics.rejected_logps += at.rejected / count;
            }
            finite("the loss", metrics.loss, step)?;
            // A response's log-prob is the sum over its tokens: each token has the response's gradient.
            let gradient: Vec<f64> = response_gradient
                .iter()
                .zip(&lengths)
                .flat_map(|(&g, &n)| std::iter::repeat_n(g, n))
                .collect();
            self.learner.backward(&logprobs, &gradient);
            metrics.tokens += packed.batch.num_tokens();
        }
        metrics.grad_norm = self.learner.step(learning_rate, step)?;
        Ok(metrics)
    }

    /// Implicit rewards of chosen and rejected responses, in turns, and the summed log-probs they come from.
    ///
    /// # Errors
    /// If a pair cannot go through the model.
    pub fn implicit_rewards(&self, pairs: &[ReferencedPair<'_>]) -> Result<(Vec<f64>, Vec<f64>)> {
        let examples: Vec<&PreferenceExample> = pairs.iter().map(|pair| pair.example).collect();
        let logps = sequence_logps(&self.learner.decoder, &items_of(&examples), EVAL_TOKENS)?;
        let reference = pairs.iter().flat_map(|pair| [pair.ref_chosen, pair.ref_rejected]);
        let rewards =
            logps.iter().zip(reference).map(|(logp, reference)| self.config.beta * (logp - reference));
        Ok((rewards.collect(), logps))
    }
}

/// Tunes `policy` on preferences; the reference is `policy` as it comes. Checkpoints go to `dir/checkpoints`.
///
/// Called again after it was stopped or killed, it goes on from the newest checkpoint and comes to the same weights.
///
/// # Errors
/// If there are no preferences, one does not fit the model, the loss is not finite, or the disk fails.
pub fn train_dpo(
    policy: Decoder,
    data: &[PreferenceExample],
    config: &DpoConfig,
    run_seed: u64,
    dir: &Path,
    hooks: &mut dyn Hooks,
) -> Result<Outcome<TrainedPolicy>> {
    check_preferences("dpo", data, &policy)?;
    let (train, holdout) = split_by_prompt(data, config.holdout_fraction, run_seed);
    let fingerprint = Fingerprint::new("dpo", config, run_seed).preferences(data).weights(&policy).finish();
    let checkpoints = Checkpoints::open(dir, fingerprint)?;
    let reference = policy.frozen();
    let mut trainer = DpoTrainer::new(policy, config, run_seed)?;

    let batch_size = config.batch_size.max(1);
    let steps_per_epoch = train.len().div_ceil(batch_size) as u64;
    let total = steps_per_epoch * config.epochs as u64;
    let (mut done, mut tokens) = (0, 0.0);
    let ref_logps; // of train, then holdout; chosen and rejected in turns
    match checkpoints.newest(&mut |w| hooks.warning(w))? {
        Some(mut checkpoint) => {
            trainer.learner.read_from("policy", &mut checkpoint)?;
            (done, tokens) = (checkpoint.step, checkpoint.number("num_tokens")?);
            ref_logps = checkpoint.numbers("ref_logps")?.to_vec();
            hooks.resumed(done);
        }
        None => {
            hooks.progress(0, total, "reference log-probs");
            let everything: Vec<&PreferenceExample> = train.iter().chain(&holdout).copied().collect();
            ref_logps = sequence_logps(&reference, &items_of(&everything), EVAL_TOKENS)?;
            save(&checkpoints, 0, &trainer, tokens, &ref_logps)?;
        }
    }
    drop(reference);
    let referenced = |examples: &[&'_ PreferenceExample], first: usize| -> Vec<(f64, f64)> {
        (first..first + examples.len()).map(|i| (ref_logps[2 * i], ref_logps[2 * i + 1])).collect()
    };
    let pair = |example, (ref_chosen, ref_rejected)| ReferencedPair { example, ref_chosen, ref_rejected };
    let train: Vec<ReferencedPair<'_>> =
        train.iter().zip(referenced(&train, 0)).map(|(e, logps)| pair(*e, logps)).collect();
    let holdout: Vec<ReferencedPair<'_>> =
        holdout.iter().zip(referenced(&holdout, train.len())).map(|(e, logps)| pair(*e, logps)).collect();

    let prompts: Vec<&str> = train.iter().map(|pair| pair.example.prompt_id.as_str()).collect();
    let mut evaluation = None;
    let mut loss = f64::NAN;
    while done < total {
        hooks.progress(done, total, "");
        let batch = batch_of_step(&prompts, batch_size, done, run_seed, "dpo/order");
        let pairs: Vec<ReferencedPair<'_>> = batch.iter().map(|&i| train[i]).collect();
        let rate = learning_rate(&config.optim, done, total);
        let step = trainer.update(&pairs, rate, done + 1)?;
        done += 1;
        loss = step.loss;
        tokens += step.tokens as f64;

        let mut row = MetricRow::new("dpo", done, done as f64 / steps_per_epoch as f64)
            .with(metrics::LOSS, step.loss)
            .with(metrics::GRAD_NORM, step.grad_norm)
            .with(metrics::LEARNING_RATE, rate)
            .with(metrics::REWARDS_CHOSEN, step.chosen_reward)
            .with(metrics::REWARDS_REJECTED, step.rejected_reward)
            .with(metrics::REWARDS_ACCURACIES, step.accuracy)
            .with(metrics::REWARDS_MARGINS, step.chosen_reward - step.rejected_reward)
            .with(metrics::LOGPS_CHOSEN, step.chosen_logps)
            .with(metrics::LOGPS_REJECTED, step.rejected_logps)
            .with(metrics::NUM_TOKENS, tokens);
        evaluation = None;
        if done.is_multiple_of(steps_per_epoch) && !holdout.is_empty() {
            hooks.progress(done, total, "held-out pairs");
            evaluation = Some(evaluate(&trainer, &holdout, config, &mut row)?);
        }
        hooks.metrics(&row);

        let stopping = hooks.should_stop();
        if stopping || done == total || done.is_multiple_of(config.save_steps.max(1) as u64) {
            save(&checkpoints, done, &trainer, tokens, &ref_logps)?;
        }
        if stopping && done < total {
            return Ok(Outcome::Interrupted { step: done, total });
        }
    }

    let holdout = match evaluation {
        Some(pairs) => pairs,
        None if holdout.is_empty() => Vec::new(),
        None => {
            evaluate(&trainer, &holdout, config, &mut MetricRow::new("dpo", total, config.epochs as f64))?
        }
    };
    hooks.progress(total, total, "");
    let report = DpoReport {
        steps: total,
        train_pairs: train.len(),
        loss,
        accuracy: accuracy(&holdout),
        margin: mean_margin(&holdout),
        holdout,
    };
    Ok(Outcome::Finished(TrainedPolicy { policy: trainer.learner.into_model().0, report }))
}

/// Held-out pairs and their row of metrics.
fn evaluate(
    trainer: &DpoTrainer,
    holdout: &[ReferencedPair<'_>],
    config: &DpoConfig,
    row: &mut MetricRow,
) -> Result<Vec<HoldoutPair>> {
    let (rewards, logps) = trainer.implicit_rewards(holdout)?;
    let examples: Vec<&PreferenceExample> = holdout.iter().map(|pair| pair.example).collect();
    let pairs = margins(&examples, &rewards);
    let mean =
        |values: &[f64], side: usize| values.iter().skip(side).step_by(2).sum::<f64>() / holdout.len() as f64;
    let loss = holdout.iter().zip(logps.chunks(2)).map(|(pair, logps)| {
        let at = PairLogps {
            chosen: logps[0],
            rejected: logps[1],
            ref_chosen: pair.ref_chosen,
            ref_rejected: pair.ref_rejected,
            chosen_len: pair.example.chosen_ids.len(),
            rejected_len: pair.example.rejected_ids.len(),
        };
        dpo_loss(DpoLoss::Soft, &at, config.beta, label(pair.example.p, config.soft_labels)).loss
    });
    row.set(metrics::EVAL_LOSS, loss.sum::<f64>() / holdout.len() as f64);
    row.set(metrics::EVAL_REWARDS_ACCURACIES, accuracy(&pairs));
    row.set(metrics::EVAL_REWARDS_MARGINS, mean_margin(&pairs));
    row.set(metrics::EVAL_REWARDS_CHOSEN, mean(&rewards, 0));
    row.set(metrics::EVAL_REWARDS_REJECTED, mean(&rewards, 1));
    row.set(metrics::EVAL_LOGPS_CHOSEN, mean(&logps, 0));
    row.set(metrics::EVAL_LOGPS_REJECTED, mean(&logps, 1));
    Ok(pairs)
}

fn save(
    checkpoints: &Checkpoints,
    step: u64,
    trainer: &DpoTrainer,
    tokens: f64,
    ref_logps: &[f64],
) -> Result<()> {
    let mut snapshot = Snapshot::default();
    trainer.learner.write_to("policy", &mut snapshot);
    snapshot.numbers("num_tokens".into(), vec![tokens]);
    snapshot.numbers("ref_logps".into(), ref_logps.to_vec());
    checkpoints.save(step, &snapshot)
}
