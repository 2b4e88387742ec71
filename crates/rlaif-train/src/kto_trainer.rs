//! KTO, Ethayarajh et al. 2024 (<https://arxiv.org/abs/2402.01306>), on single responses that are desirable or not, and its relative
//! without a reference point ([`loss::kto`](mod@crate::loss::kto)).
//!
//! Differs from the paper and from TRL's `KTOTrainer` in:
//! * a response may be desirable with a probability p: its loss is p times that of a desirable one plus 1 − p times that of an
//!   undesirable one, so that a pair is two responses with p and 1 − p;
//! * a response counts by its weight: the loss is Σ w · loss / Σ w over the batch. Metrics and the reference point do not read it;
//! * the reference point is that of the whole batch, whatever the micro-batches; TRL's is of one micro-batch;
//! * it pairs a prompt with the response before it in the batch that is to another prompt; TRL takes the one before it whatever its
//!   prompt;
//! * batches are shuffled anew each epoch; TRL must go through the rows in their order;
//! * log-probs of the reference are computed once and kept in the checkpoints, but for those of the reference point, which hang on the
//!   batch.

use std::path::Path;

use rlaif_core::config::DpoConfig;
use rlaif_core::{metrics, metrics::MetricRow, seed};
use rlaif_model::Decoder;

use crate::checkpoint::{Checkpoints, Fingerprint, Snapshot};
use crate::data::{HoldoutPair, ResponseExample, accuracy, batch_of_step, check_responses, split_by};
use crate::dpo_trainer::{DpoReport, TrainedPolicy};
use crate::error::{Result, TrainError, finite};
use crate::hooks::{Hooks, Outcome};
use crate::learner::{Learner, to_f64};
use crate::loss::{Objective, ResponseLogps};
use crate::packing::{Item, Packed, split_by_length};
use crate::reward_trainer::{label, mean_margin};
use crate::schedule::learning_rate;
use crate::score::sequence_logps;

/// Tokens of a forward pass without gradients.
const EVAL_TOKENS: usize = 2048;

/// Weight of all desirable responses by that of all undesirable ones, between which the paper advises to keep it (section 4.2; TRL).
const BALANCE: std::ops::RangeInclusive<f64> = 1.0..=4.0 / 3.0;

/// A response with its log-prob under the reference.
#[derive(Debug, Clone, Copy)]
pub struct ReferencedResponse<'a> {
    /// The response.
    pub example: &'a ResponseExample,
    /// log p_ref(response | prompt).
    pub reference: f64,
}

/// Metrics of one optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KtoStep {
    /// The loss, a mean over responses by their weights.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Those that are rather desirable; none if the batch has none.
    pub desirable: Option<Side>,
    /// Those that are rather not.
    pub undesirable: Option<Side>,
    /// The reference point, nats; none for a loss without one.
    pub kl: Option<f64>,
    /// Tokens that gradients came from.
    pub tokens: usize,
}

/// Means over the responses of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Side {
    /// Implicit reward, β (lp − lr).
    pub reward: f64,
    /// Summed log-prob.
    pub logps: f64,
}

/// One policy in training: [`train_kto`] without data order, files and hooks.
#[derive(Debug)]
pub struct KtoTrainer {
    /// The policy and its optimizer.
    pub learner: Learner,
    config: DpoConfig,
    objective: Objective,
    /// Where the loss has a reference point.
    reference: Option<Decoder>,
}

impl KtoTrainer {
    /// Makes the policy trainable as the config says; the reference is `policy` as it comes.
    ///
    /// # Errors
    /// If the loss needs pairs, or a LoRA target does not exist.
    pub fn new(policy: Decoder, config: &DpoConfig, run_seed: u64) -> Result<Self> {
        if !config.loss.takes_responses() {
            return Err(TrainError::NoData {
                trainer: "dpo",
                what: "pairs",
                next_step: format!("the loss `{}` cannot learn from single responses", config.loss.name()),
            });
        }
        let objective = Objective::of(config);
        let lora_seed = seed::derive(run_seed, "dpo/lora", 0);
        let learner = Learner::new(policy, None, &config.optim, config.lora.as_ref(), lora_seed)?;
        let reference = objective.needs_reference_point().then(|| learner.decoder.without_adapter());
        Ok(Self { learner, config: config.clone(), objective, reference })
    }

    /// One optimizer step on `rows`, in micro-batches. `step` counts from 1.
    ///
    /// `elsewhere` is a response to another prompt, for a batch that has one prompt only.
    ///
    /// # Errors
    /// If the loss or the gradient is not finite; the weights are then unchanged.
    pub fn update(
        &mut self,
        rows: &[ReferencedResponse<'_>],
        elsewhere: Option<&ResponseExample>,
        learning_rate: f64,
        step: u64,
    ) -> Result<KtoStep> {
        let total: f64 = rows.iter().map(|row| row.example.weight).sum();
        let micro_batch_size = self.config.micro_batch_size.max(1);
        let kl = self.reference_point(rows, elsewhere)?;
        let (mut loss, mut tokens) = (0.0, 0);
        let mut seen = Vec::with_capacity(rows.len());
        for micro in rows.chunks(micro_batch_size) {
            let packed = Packed::new(&items_of(micro));
            let lengths = packed.lengths();
            let reads = packed.token_reads();
            let hidden = self.learner.hidden(&packed.batch, &reads.indices); // [N, H]
            let logprobs = self.learner.decoder.logprobs(&hidden, &reads, 1.0); // [R]
            let logps: Vec<f64> = split_by_length(&to_f64(&logprobs), &lengths)
                .iter()
                .map(|tokens| tokens.iter().sum())
                .collect();
            let mut response_gradient = vec![0.0; lengths.len()];
            for (row, &place) in micro.iter().zip(&packed.of_item) {
                let at = self.at(row, logps[place]);
                let (of_row, slope) = self.objective.loss_of_response(&at, kl.unwrap_or(0.0));
                loss += of_row * row.example.weight / total;
                response_gradient[place] += slope * row.example.weight / total;
                seen.push(at);
            }
            finite("the loss", loss, step)?;
            // A response's log-prob is the sum over its tokens: each token has the response's gradient.
            let gradient: Vec<f64> = response_gradient
                .iter()
                .zip(&lengths)
                .flat_map(|(&g, &n)| std::iter::repeat_n(g, n))
                .collect();
            self.learner.backward(&logprobs, &gradient);
            tokens += packed.batch.num_tokens();
        }
        let grad_norm = self.learner.step(learning_rate, step)?;
        let [desirable, undesirable] = self.sides(&seen);
        Ok(KtoStep { loss, grad_norm, desirable, undesirable, kl, tokens })
    }

    /// Log-probs of responses, without learning from them.
    ///
    /// # Errors
    /// If one cannot go through the model.
    pub fn logps(&self, rows: &[ReferencedResponse<'_>]) -> Result<Vec<ResponseLogps>> {
        let logps = sequence_logps(&self.learner.decoder, &items_of(rows), EVAL_TOKENS)?;
        Ok(rows.iter().zip(logps).map(|(row, policy)| self.at(row, policy)).collect())
    }

    /// z = max(0, mean[log p(y' | x) − log p_ref(y' | x)]) over the prompts x of a batch with responses y' of it to other prompts,
    /// Ethayarajh et al. 2024, section 4.1; none for a loss without one.
    ///
    /// # Errors
    /// If there is no response to another prompt.
    pub fn reference_point(
        &self,
        rows: &[ReferencedResponse<'_>],
        elsewhere: Option<&ResponseExample>,
    ) -> Result<Option<f64>> {
        let Some(reference) = &self.reference else { return Ok(None) };
        let context = self.learner.decoder.config().max_position_embeddings;
        let items = mismatched(rows, elsewhere, context)?;
        let policy = sequence_logps(&self.learner.decoder, &items, EVAL_TOKENS)?;
        let reference = sequence_logps(reference, &items, EVAL_TOKENS)?;
        let sum: f64 = policy.iter().zip(&reference).map(|(policy, reference)| policy - reference).sum();
        Ok(Some((sum / items.len() as f64).max(0.0)))
    }

    fn at(&self, row: &ReferencedResponse<'_>, policy: f64) -> ResponseLogps {
        let p = label(row.example.p, self.config.soft_labels);
        ResponseLogps { policy, reference: row.reference, p }
    }

    /// Means over the desirable responses, and over the others.
    fn sides(&self, rows: &[ResponseLogps]) -> [Option<Side>; 2] {
        [true, false].map(|desirable| {
            let of_side: Vec<_> = rows.iter().filter(|row| (row.p >= 0.5) == desirable).collect();
            let mean = |value: &dyn Fn(&ResponseLogps) -> f64| {
                of_side.iter().map(|row| value(row)).sum::<f64>() / of_side.len() as f64
            };
            (!of_side.is_empty()).then(|| Side {
                reward: mean(&|row| self.objective.beta * (row.policy - row.reference)),
                logps: mean(&|row| row.policy),
            })
        })
    }
}

/// Tunes `policy` on single responses; the reference is `policy` as it comes. Checkpoints go to `dir/checkpoints`.
///
/// Called again after it was stopped or killed, it goes on from the newest checkpoint and comes to the same weights. The margin of a
/// held-out response is that of its implicit reward over the reference point, to the side where its label has it.
///
/// # Errors
/// If there are no responses, one does not fit the model, the loss needs pairs or is not finite, or the disk fails.
pub fn train_kto(
    policy: Decoder,
    data: &[ResponseExample],
    config: &DpoConfig,
    run_seed: u64,
    dir: &Path,
    hooks: &mut dyn Hooks,
) -> Result<Outcome<TrainedPolicy>> {
    check_responses("dpo", data, &policy)?;
    let (train, holdout) = split_by(data, |row| &row.prompt_id, config.holdout_fraction, run_seed);
    let balance = balance(&train, config);
    if !BALANCE.contains(&balance) {
        hooks.warning(&format!(
            "desirable responses weigh {balance:.2} times as much as undesirable ones; the paper advises 1 to 1.33: see \
             `dpo.desirable_weight` and `dpo.undesirable_weight`"
        ));
    }
    let fingerprint = Fingerprint::new("kto", config, run_seed).responses(data).weights(&policy).finish();
    let checkpoints = Checkpoints::open(dir, fingerprint)?;
    let mut trainer = KtoTrainer::new(policy, config, run_seed)?;
    let reference = trainer.learner.decoder.without_adapter();

    let batch_size = config.batch_size.max(1);
    let steps_per_epoch = train.len().div_ceil(batch_size) as u64;
    let total = steps_per_epoch * config.epochs as u64;
    let (mut done, mut tokens) = (0, 0.0);
    let everything: Vec<&ResponseExample> = train.iter().chain(&holdout).copied().collect();
    let ref_logps;
    if let Some(mut checkpoint) = checkpoints.newest(&mut |w| hooks.warning(w))? {
        trainer.learner.read_from("policy", &mut checkpoint)?;
        (done, tokens) = (checkpoint.step, checkpoint.number("num_tokens")?);
        ref_logps = checkpoint.numbers("ref_logps")?.to_vec();
        hooks.resumed(done);
    } else {
        hooks.progress(0, total, "reference log-probs");
        let items: Vec<Item<'_>> = everything.iter().map(|row| row.item()).collect();
        ref_logps = sequence_logps(&reference, &items, EVAL_TOKENS)?;
        save(&checkpoints, 0, &trainer, tokens, &ref_logps)?;
    }
    drop(reference);
    let referenced: Vec<ReferencedResponse<'_>> = everything
        .iter()
        .zip(&ref_logps)
        .map(|(&example, &reference)| ReferencedResponse { example, reference })
        .collect();
    let (train, holdout) = referenced.split_at(train.len());

    let prompts: Vec<&str> = train.iter().map(|row| row.example.prompt_id.as_str()).collect();
    let elsewhere =
        |prompt: &str| train.iter().map(|row| row.example).find(|row| row.prompt_id.as_str() != prompt);
    let mut evaluation = None;
    let mut loss = f64::NAN;
    while done < total {
        hooks.progress(done, total, "");
        let batch = batch_of_step(&prompts, batch_size, done, run_seed, "dpo/order");
        let rows: Vec<ReferencedResponse<'_>> = batch.iter().map(|&i| train[i]).collect();
        let rate = learning_rate(&config.optim, done, total);
        let named = |error: TrainError| error.on_rows(rows.iter().map(|row| row.example.prompt_id.as_str()));
        let elsewhere = elsewhere(prompts[batch[0]]);
        let step = trainer.update(&rows, elsewhere, rate, done + 1).map_err(named)?;
        done += 1;
        loss = step.loss;
        tokens += step.tokens as f64;

        let mut row = MetricRow::new("dpo", done, done as f64 / steps_per_epoch as f64)
            .with(metrics::LOSS, step.loss)
            .with(metrics::GRAD_NORM, step.grad_norm)
            .with(metrics::LEARNING_RATE, rate)
            .with(metrics::NUM_TOKENS, tokens);
        if let Some(side) = step.desirable {
            row.set(metrics::REWARDS_CHOSEN, side.reward);
            row.set(metrics::LOGPS_CHOSEN, side.logps);
        }
        if let Some(side) = step.undesirable {
            row.set(metrics::REWARDS_REJECTED, side.reward);
            row.set(metrics::LOGPS_REJECTED, side.logps);
        }
        if let (Some(desirable), Some(undesirable)) = (step.desirable, step.undesirable) {
            row.set(metrics::REWARDS_MARGINS, desirable.reward - undesirable.reward);
        }
        if let Some(kl) = step.kl {
            row.set(metrics::KL, kl);
        }
        evaluation = None;
        if done.is_multiple_of(steps_per_epoch) && !holdout.is_empty() {
            hooks.progress(done, total, "held-out responses");
            evaluation = Some(evaluate(&trainer, holdout, train, &mut row)?);
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
        Some(rows) => rows,
        None if holdout.is_empty() => Vec::new(),
        None => {
            let mut row = MetricRow::new("dpo", total, config.epochs as f64);
            evaluate(&trainer, holdout, train, &mut row)?
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
        watch: None,
    };
    let adapter = trainer.learner.adapter();
    Ok(Outcome::Finished(TrainedPolicy { policy: trainer.learner.into_model().0, adapter, report }))
}

/// Each prompt with the response before it in the batch, round it, that is to another prompt, or else `elsewhere`; cut to the room
/// that the prompt leaves in the context.
fn mismatched<'a>(
    rows: &[ReferencedResponse<'a>],
    elsewhere: Option<&'a ResponseExample>,
    context: usize,
) -> Result<Vec<Item<'a>>> {
    let count = rows.len();
    (0..count)
        .map(|i| {
            let example = rows[i].example;
            let others = (1..count).map(|back| rows[(i + count - back) % count].example);
            let other = others.chain(elsewhere).find(|other| other.prompt_id != example.prompt_id);
            let other = other.ok_or_else(|| TrainError::NoData {
                trainer: "dpo",
                what: "second prompt",
                next_step:
                    "give responses to more prompts: the loss `kto` compares with responses to other prompts"
                        .into(),
            })?;
            let room = context.saturating_sub(example.prompt_ids.len()).min(other.response_ids.len());
            Ok((example.prompt_ids.as_slice(), &other.response_ids[..room]))
        })
        .collect()
}

/// What the desirable responses weigh by what the others do.
fn balance(rows: &[&ResponseExample], config: &DpoConfig) -> f64 {
    let desirable: f64 = rows.iter().map(|row| row.weight * label(row.p, config.soft_labels)).sum();
    let undesirable = rows.iter().map(|row| row.weight).sum::<f64>() - desirable;
    config.desirable_weight * desirable / (config.undesirable_weight * undesirable)
}

fn items_of<'a>(rows: &[ReferencedResponse<'a>]) -> Vec<Item<'a>> {
    rows.iter().map(|row| row.example.item()).collect()
}

/// Held-out responses and their row of metrics; to the reference point they are one batch.
fn evaluate(
    trainer: &KtoTrainer,
    holdout: &[ReferencedResponse<'_>],
    train: &[ReferencedResponse<'_>],
    row: &mut MetricRow,
) -> Result<Vec<HoldoutPair>> {
    let at = trainer.logps(holdout)?;
    let known = |other: &&ReferencedResponse<'_>| other.example.prompt_id != holdout[0].example.prompt_id;
    let kl = trainer.reference_point(holdout, train.iter().find(known).map(|row| row.example))?;
    let kl = kl.unwrap_or(0.0);
    let anchor = trainer.objective.anchor(kl);
    let rows: Vec<HoldoutPair> = holdout
        .iter()
        .zip(&at)
        .map(|(row, at)| {
            let side = if at.p >= 0.5 { 1.0 } else { -1.0 };
            HoldoutPair {
                prompt_id: row.example.prompt_id.clone(),
                p: at.p.max(1.0 - at.p),
                margin: side * trainer.objective.beta * (at.policy - at.reference - anchor),
                source: row.example.source.clone(),
                ..HoldoutPair::default()
            }
        })
        .collect();
    let loss: f64 = at.iter().map(|at| trainer.objective.loss_of_response(at, kl).0).sum();
    row.set(metrics::EVAL_LOSS, loss / at.len() as f64);
    row.set(metrics::EVAL_REWARDS_ACCURACIES, accuracy(&rows));
    let [desirable, undesirable] = trainer.sides(&at);
    if let Some(side) = desirable {
        row.set(metrics::EVAL_REWARDS_CHOSEN, side.reward);
        row.set(metrics::EVAL_LOGPS_CHOSEN, side.logps);
    }
    if let Some(side) = undesirable {
        row.set(metrics::EVAL_REWARDS_REJECTED, side.reward);
        row.set(metrics::EVAL_LOGPS_REJECTED, side.logps);
    }
    if let (Some(desirable), Some(undesirable)) = (desirable, undesirable) {
        row.set(metrics::EVAL_REWARDS_MARGINS, desirable.reward - undesirable.reward);
    }
    Ok(rows)
}

fn save(
    checkpoints: &Checkpoints,
    step: u64,
    trainer: &KtoTrainer,
    tokens: f64,
    ref_logps: &[f64],
) -> Result<()> {
    let mut snapshot = Snapshot::default();
    trainer.learner.write_to("policy", &mut snapshot);
    snapshot.numbers("num_tokens".into(), vec![tokens]);
    snapshot.numbers("ref_logps".into(), ref_logps.to_vec());
    checkpoints.save(step, &snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(prompt: &str, token: u32) -> ResponseExample {
        ResponseExample {
            prompt_id: prompt.into(),
            prompt_ids: vec![1, 2],
            response_ids: vec![token; 3],
            p: 1.0,
            weight: 1.0,
            source: String::new(),
        }
    }

    #[test]
    fn a_prompt_meets_the_response_before_it_that_is_to_another() {
        let rows = [response("a", 10), response("a", 11), response("b", 12), response("c", 13)];
        let referenced: Vec<_> =
            rows.iter().map(|example| ReferencedResponse { example, reference: 0.0 }).collect();
        let met = |rows: &[ReferencedResponse<'_>], elsewhere, context| -> Vec<Vec<u32>> {
            let items = mismatched(rows, elsewhere, context).unwrap();
            items.into_iter().map(|(_, response)| response.to_vec()).collect()
        };
        assert_eq!(met(&referenced, None, 9), [[13; 3], [13; 3], [11; 3], [12; 3]]);
        assert_eq!(met(&referenced[..2], Some(&rows[2]), 4), [[12; 2], [12; 2]], "and is cut to the room");
        let error = mismatched(&referenced[..2], Some(&rows[1]), 9).unwrap_err();
        assert!(error.to_string().contains("no second prompt"), "{error}");
    }

    #[test]
    fn the_balance_is_that_of_weights_times_numbers() {
        let mut rows = [response("a", 1), response("b", 1), response("c", 1)];
        (rows[1].p, rows[2].p) = (0.0, 0.25);
        let config = DpoConfig { desirable_weight: 2.0, ..DpoConfig::default() };
        let of = |config: &DpoConfig| balance(&rows.iter().collect::<Vec<_>>(), config);
        assert_eq!(of(&config), 2.0 * 1.25 / 1.75);
        assert_eq!(of(&DpoConfig { soft_labels: false, ..config }), 2.0 * 1.0 / 2.0);
        rows[0].weight = 3.0;
        let of = |config: &DpoConfig| balance(&rows.iter().collect::<Vec<_>>(), config);
        assert_eq!(of(&DpoConfig::default()), 3.25 / 1.75);
    }
}
