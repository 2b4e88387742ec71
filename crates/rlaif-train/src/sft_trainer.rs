//! Supervised fine-tuning: next-token prediction on demonstrations, Ouyang et al. 2022, section 3.5
//! (<https://arxiv.org/abs/2203.02155>); with NEFTune's noise where it is wanted, Jain et al. 2023
//! (<https://arxiv.org/abs/2310.05914>).
//!
//! Differs from TRL's `SFTTrainer` in:
//! * of a conversation the assistant's turns are learnt, and nothing else, by default;
//! * the rows of a packed stream never see each other, and an optimizer step is always on `batch_size` rows, packed or not;
//! * NEFTune's L is the row's own length, as in the paper, and not that of the longest row of its batch;
//! * the end of a long row is not cut off without a word;
//! * the learning rate does not start at 0 (see [`schedule`](crate::schedule)).

use std::path::Path;

use rand::RngExt;
use rlaif_core::config::SftConfig;
use rlaif_core::{metrics, metrics::MetricRow, seed};
use rlaif_model::{Adapter, Decoder, PackedBatch, Reads};

use crate::best::WatchReport;
use crate::best_policy::{BestPolicy, HeldOut};
use crate::checkpoint::{Checkpoints, Fingerprint, Snapshot};
use crate::data::{epoch_order, part_of_epoch, split_by};
use crate::demonstration::SftExample;
use crate::error::{Result, TrainError, finite};
use crate::hooks::{Hooks, Outcome};
use crate::learner::{Learner, to_f64};
use crate::loss::nll;
use crate::schedule::learning_rate;

/// Tokens of a forward pass without gradients.
const EVAL_TOKENS: usize = 2048;

/// A fine-tuned policy.
#[derive(Debug)]
pub struct TrainedSft {
    /// The policy, adapters merged.
    pub policy: Decoder,
    /// The adapters by themselves, if it trained any.
    pub adapter: Option<Adapter>,
    /// What training came to.
    pub report: SftReport,
}

/// What fine-tuning came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SftReport {
    /// Optimizer steps.
    pub steps: u64,
    /// Rows trained on.
    pub train_rows: usize,
    /// Loss of the last step of this process; NaN if it only loaded a finished checkpoint.
    pub loss: f64,
    /// Every held-out row, for intervals.
    pub holdout: Vec<HoldoutRow>,
    /// How the best policy was chosen, where `sft.watch` did.
    pub watch: Option<WatchReport>,
}

/// What a model says about one held-out row before and after training.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct HoldoutRow {
    /// The prompt's id: intervals resample prompts.
    pub prompt_id: String,
    /// Tokens that would be learnt.
    pub tokens: usize,
    /// Mean negative log-likelihood of a token before training; nats.
    pub before: f64,
    /// The same after it.
    pub after: f64,
}

/// Metrics of one optimizer step: means over the learnt tokens of its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SftStep {
    /// Negative log-likelihood; nats.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Share of tokens that the model held for the likeliest.
    pub mean_token_accuracy: f64,
    /// Entropy of the next-token distribution; nats.
    pub entropy: f64,
    /// Tokens of the rows, learnt or not.
    pub tokens: usize,
}

/// One policy in training: [`train_sft`] without data order, files and hooks.
#[derive(Debug)]
pub struct SftTrainer {
    /// The policy and its optimizer.
    pub learner: Learner,
    config: SftConfig,
    run_seed: u64,
}

impl SftTrainer {
    /// Makes the policy trainable as the config says.
    ///
    /// # Errors
    /// If a LoRA target does not exist.
    pub fn new(policy: Decoder, config: &SftConfig, run_seed: u64) -> Result<Self> {
        let lora_seed = seed::derive(run_seed, "sft/lora", 0);
        let learner = Learner::new(policy, None, &config.optim, config.lora.as_ref(), lora_seed)?;
        Ok(Self { learner, config: config.clone(), run_seed })
    }

    /// One optimizer step on `rows`, in micro-batches. `step` counts from 1.
    ///
    /// # Errors
    /// If the loss or the gradient is not finite; the weights are then unchanged.
    pub fn update(&mut self, rows: &[&SftExample], learning_rate: f64, step: u64) -> Result<SftStep> {
        let learnt: usize = rows.iter().map(|row| row.learnt()).sum();
        let rows_a_pass = if self.config.packing { self.config.micro_batch_size.max(1) } else { 1 };
        let mut metrics = SftStep::default();
        for (number, micro) in rows.chunks(rows_a_pass).enumerate() {
            let (batch, reads) = packed(micro);
            let noise = self.config.neftune_noise_alpha.map(|alpha| {
                let first = (step - 1) * self.config.batch_size as u64 + (number * rows_a_pass) as u64;
                self.noise(micro, alpha, first)
            });
            let hidden = self.learner.hidden_with_noise(&batch, &reads.indices, noise); // [N, H]
            let said = self.learner.decoder.token_statistics(&hidden, &reads, 1.0); // [R] each
            let (loss, gradient) = nll(&to_f64(&said.logprobs), learnt);
            metrics.loss += loss;
            metrics.entropy += to_f64(&said.entropy).iter().sum::<f64>() / learnt as f64;
            metrics.mean_token_accuracy += to_f64(&said.top).iter().sum::<f64>() / learnt as f64;
            finite("the loss", metrics.loss, step)?;
            self.learner.backward(&said.logprobs, &gradient);
            metrics.tokens += batch.num_tokens();
        }
        metrics.grad_norm = self.learner.step(learning_rate, step)?;
        Ok(metrics)
    }

    /// NEFTune: uniform noise in ±α/√(L·d) on each of a row's L embeddings of width d. Row i of these is number `first` + i of all
    /// rows of the run, so that its noise hangs on no micro-batch.
    ///
    /// Shapes: returns `[N, H]`, row-major.
    fn noise(&self, rows: &[&SftExample], alpha: f64, first: u64) -> Vec<f32> {
        let width = self.learner.decoder.config().hidden_size;
        let mut noise = Vec::new();
        for (number, row) in (first..).zip(rows) {
            let size = row.ids.len() * width;
            let most = (alpha / (size as f64).sqrt()) as f32;
            let mut stream = seed::stream(self.run_seed, "sft/neftune", number);
            noise.extend((0..size).map(|_| most * (2.0 * stream.random::<f32>() - 1.0)));
        }
        noise
    }

    /// Log-likelihood and correct guesses of each row, without learning from them and without noise.
    pub fn evaluate(&self, rows: &[&SftExample]) -> Vec<(f64, f64)> {
        let decoder = self.learner.decoder.frozen();
        let mut found = Vec::with_capacity(rows.len());
        let mut rest = rows;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = rest.iter().take_while(|row| {
                tokens += row.ids.len();
                tokens <= EVAL_TOKENS
            });
            let (group, later) = rest.split_at(fits.count().max(1));
            let (batch, reads) = packed(group);
            let said = decoder.token_statistics(&decoder.hidden_at(&batch, &reads.indices), &reads, 1.0);
            let (logprobs, top) = (to_f64(&said.logprobs), to_f64(&said.top));
            let mut start = 0;
            for row in group {
                let of_row = start..start + row.learnt();
                start = of_row.end;
                found.push((logprobs[of_row.clone()].iter().sum(), top[of_row].iter().sum()));
            }
            rest = later;
        }
        found
    }
}

/// Rows side by side in one stream, none attending to another, and the reads of what is learnt.
fn packed(rows: &[&SftExample]) -> (PackedBatch, Reads) {
    let (mut batch, mut reads) = (PackedBatch::new(), Reads::new());
    for row in rows {
        let segment = batch.push_sequence(&row.ids);
        let all = batch.sequence_reads(segment);
        for ((index, target), _) in
            all.indices.into_iter().zip(all.targets).zip(&row.mask[1..]).filter(|(_, learnt)| **learnt)
        {
            reads.indices.push(index);
            reads.targets.push(target);
        }
    }
    (batch, reads)
}

/// Fine-tunes `policy` on demonstrations. Checkpoints go to `dir/checkpoints`.
///
/// Called again after it was stopped or killed, it goes on from the newest checkpoint and comes to the same weights.
///
/// # Errors
/// If there are no rows, one does not fit the model, the loss is not finite, or the disk fails.
pub fn train_sft(
    policy: Decoder,
    data: &[SftExample],
    config: &SftConfig,
    run_seed: u64,
    dir: &Path,
    hooks: &mut dyn Hooks,
) -> Result<Outcome<TrainedSft>> {
    train_sft_watched(policy, data, None, config, run_seed, dir, hooks)
}

/// [`train_sft`], whose policy is the best one by what `held_out` says, as `sft.watch` has it.
///
/// # Errors
/// As [`train_sft`], or if a look fails.
pub fn train_sft_watched(
    policy: Decoder,
    data: &[SftExample],
    held_out: Option<HeldOut<'_>>,
    config: &SftConfig,
    run_seed: u64,
    dir: &Path,
    hooks: &mut dyn Hooks,
) -> Result<Outcome<TrainedSft>> {
    check_rows(data, &policy)?;
    let (train, holdout) = split_rows(data, config.holdout_fraction, run_seed);
    let mut fingerprint = Fingerprint::new("sft", config, run_seed);
    for row in data {
        let mask: Vec<u8> = row.mask.iter().map(|learnt| u8::from(*learnt)).collect();
        fingerprint.bytes(row.prompt_id.as_bytes()).ids(&row.ids).bytes(&mask);
    }
    BestPolicy::fingerprint(held_out.as_ref(), &mut fingerprint);
    let checkpoints = Checkpoints::open(dir, fingerprint.weights(&policy).finish())?;

    let batch_size = config.batch_size.max(1);
    let steps_per_epoch = train.len().div_ceil(batch_size) as u64;
    let total = steps_per_epoch * config.epochs as u64;
    let steps = (total, steps_per_epoch);
    let mut best = BestPolicy::new("sft", config.watch.as_ref(), held_out, &policy, steps, run_seed)?;
    let mut trainer = SftTrainer::new(policy, config, run_seed)?;
    let (mut done, mut tokens) = (0, 0.0);
    let before: Vec<f64>;
    if let Some(mut checkpoint) = checkpoints.newest(&mut |w| hooks.warning(w))? {
        trainer.learner.read_from("policy", &mut checkpoint)?;
        (done, tokens) = (checkpoint.step, checkpoint.number("num_tokens")?);
        before = checkpoint.numbers("holdout_before")?.to_vec();
        best.read_from(&mut checkpoint)?;
        hooks.resumed(done);
    } else {
        let mut row = MetricRow::new("sft", 0, 0.0);
        hooks.progress(0, total, "held-out rows");
        before = evaluate(&trainer, &holdout, &mut row);
        if !holdout.is_empty() {
            hooks.metrics(&row);
        }
    }

    let mut after = None;
    let mut loss = f64::NAN;
    while best.goes_on(&trainer.learner, done, hooks)? {
        hooks.progress(done, total, "");
        let order = |epoch| epoch_order(train.len(), epoch, run_seed, "sft/order");
        let batch = part_of_epoch(train.len(), batch_size, done, order);
        let rows: Vec<&SftExample> = batch.iter().map(|&place| train[place]).collect();
        let rate = learning_rate(&config.optim, done, total);
        let named = |error: TrainError| error.on_rows(rows.iter().map(|row| row.id.as_str()));
        let step = trainer.update(&rows, rate, done + 1).map_err(named)?;
        done += 1;
        loss = step.loss;
        tokens += step.tokens as f64;

        let mut row = MetricRow::new("sft", done, done as f64 / steps_per_epoch as f64)
            .with(metrics::LOSS, step.loss)
            .with(metrics::GRAD_NORM, step.grad_norm)
            .with(metrics::LEARNING_RATE, rate)
            .with(metrics::MEAN_TOKEN_ACCURACY, step.mean_token_accuracy)
            .with(metrics::ENTROPY, step.entropy)
            .with(metrics::NUM_TOKENS, tokens);
        after = None;
        if done.is_multiple_of(steps_per_epoch) && !holdout.is_empty() {
            hooks.progress(done, total, "held-out rows");
            after = Some(evaluate(&trainer, &holdout, &mut row));
        }
        hooks.metrics(&row);

        let stopping = hooks.should_stop();
        let saves = done == total || done.is_multiple_of(config.save_steps.max(1) as u64);
        if stopping || saves || best.is_due(done) {
            let mut snapshot = Snapshot::default();
            trainer.learner.write_to("policy", &mut snapshot);
            snapshot.numbers("num_tokens".into(), vec![tokens]);
            snapshot.numbers("holdout_before".into(), before.clone());
            best.write_to(&mut snapshot);
            checkpoints.save(done, &snapshot)?;
        }
        if stopping && done < total {
            return Ok(Outcome::Interrupted { step: done, total });
        }
    }

    let watch = best.put_back(done, &mut trainer.learner, hooks)?;
    let after = match after.filter(|_| watch.as_ref().is_none_or(|watch| watch.kept_step == done)) {
        Some(after) => after,
        None => evaluate(&trainer, &holdout, &mut MetricRow::new("sft", total, config.epochs as f64)),
    };
    hooks.progress(total, total, "");
    let holdout = holdout.iter().zip(before).zip(after).map(|((row, before), after)| HoldoutRow {
        prompt_id: row.prompt_id.clone(),
        tokens: row.learnt(),
        before,
        after,
    });
    let report = SftReport { steps: done, train_rows: train.len(), loss, holdout: holdout.collect(), watch };
    let adapter = trainer.learner.adapter();
    Ok(Outcome::Finished(TrainedSft { policy: trainer.learner.into_model().0, adapter, report }))
}

/// Rows that are trained on, and those that are held out: as [`split_by_prompt`](crate::split_by_prompt).
pub fn split_rows(data: &[SftExample], fraction: f64, run_seed: u64) -> (Vec<&SftExample>, Vec<&SftExample>) {
    split_by(data, |row| &row.prompt_id, fraction, run_seed)
}

/// Mean loss of a token of each held-out row, and the metrics of all of them: means over tokens, as in training.
fn evaluate(trainer: &SftTrainer, holdout: &[&SftExample], row: &mut MetricRow) -> Vec<f64> {
    let found = trainer.evaluate(holdout);
    let tokens: usize = holdout.iter().map(|row| row.learnt()).sum();
    let mean = |of: fn(&(f64, f64)) -> f64| found.iter().map(of).sum::<f64>() / tokens as f64;
    row.set(metrics::EVAL_LOSS, -mean(|found| found.0));
    row.set(metrics::EVAL_MEAN_TOKEN_ACCURACY, mean(|found| found.1));
    found.iter().zip(holdout).map(|(found, row)| -found.0 / row.learnt() as f64).collect()
}

/// Checks every row against the model before anything is computed.
fn check_rows(data: &[SftExample], decoder: &Decoder) -> Result<()> {
    if data.is_empty() {
        let next_step = "give rows in `sft.data`".to_string();
        return Err(TrainError::NoData { trainer: "sft", what: "row", next_step });
    }
    for row in data {
        let reason = match decoder.check_ids(&row.ids) {
            Err(error) => error.to_string(),
            Ok(()) if row.mask.len() != row.ids.len() || row.mask[0] || row.learnt() == 0 => {
                "it has no token that can be learnt".to_string()
            }
            Ok(()) => continue,
        };
        return Err(TrainError::BadRow { row: row.id.clone(), reason });
    }
    Ok(())
}
